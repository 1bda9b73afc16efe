"""Metrics against their definitions, computed by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from circuitdsl.circuit.vocabulary import CHANCE, Metric
from circuitdsl.engine.metrics import scorer
from circuitdsl.errors import UserError
from circuitdsl.tasks.dataset import PromptPair

#: a vocabulary of six tokens; the first prompt has two answers, the second one answer and two distractors
PAIRS = (
    PromptPair((0,), (1,), (0, 1), (2,), {"END": (0,)}, "s", corrupt_answers=(3,)),
    PromptPair((0,), (1,), (4,), (5, 0), {"END": (0,)}, "s", corrupt_answers=(1,)),
)
LOGITS = torch.tensor([[1.0, 3.0, 2.5, -1.0, 0.0, 0.5], [2.0, 0.0, 4.0, 1.0, 1.5, -1.0]])


def score(metric: Metric, clean: torch.Tensor | None = None) -> list[float]:
    found = scorer(metric, PAIRS, clean)
    prompts = torch.arange(2)
    logits = LOGITS if found.ids is None else LOGITS.gather(1, found.ids)
    return found.score(logits, prompts).tolist()


def softmax(row: int) -> list[float]:
    weights = [math.exp(v) for v in LOGITS[row].tolist()]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric("logit_diff"), [2.0 - 2.5, 1.5 - 0.5]),
        (Metric("logit_diff", (("against", "max"),)), [2.0 - 2.5, 1.5 - 2.0]),
        (Metric("logit_diff", (("against", "corrupt"),)), [2.0 - -1.0, 1.5 - 0.0]),
        (Metric("accuracy"), [1.0, 0.0]),
        (Metric("accuracy", (("argmax", ""),)), [1.0, 0.0]),
        (Metric(CHANCE + "accuracy"), [2 / 3, 1 / 3]),
        (Metric(CHANCE + "accuracy", (("argmax", ""),)), [2 / 6, 1 / 6]),
    ],
)
def test_logit_metrics(metric: Metric, expected: list[float]) -> None:
    assert score(metric) == pytest.approx(expected)


def test_probability_metrics() -> None:
    p, q = softmax(0), softmax(1)
    assert score(Metric("prob_diff")) == pytest.approx([p[0] + p[1] - p[2], q[4] - q[5] - q[0]])
    assert score(Metric("logprob")) == pytest.approx([math.log(p[0] + p[1]), math.log(q[4])])


def test_kl_is_from_the_clean_run_and_zero_on_it() -> None:
    assert score(Metric("kl"), LOGITS) == pytest.approx([0.0, 0.0], abs=1e-6)
    uniform = torch.zeros(2, 6)
    expected = [sum(1 / 6 * (math.log(1 / 6) - math.log(p)) for p in softmax(row)) for row in (0, 1)]
    assert score(Metric("kl"), uniform) == pytest.approx(expected)


def test_rows_may_come_in_any_order_and_repeat() -> None:
    found = scorer(Metric("logit_diff"), PAIRS)
    prompts = torch.tensor([1, 0, 1])
    assert found.ids is not None
    rows = LOGITS[prompts].gather(1, found.ids[prompts])
    assert found.score(rows, prompts).tolist() == pytest.approx([1.0, -0.5, 1.0])


def test_a_nan_logit_is_never_a_right_answer() -> None:
    found = scorer(Metric("accuracy"), PAIRS)
    assert found.ids is not None
    rows = torch.full((2, found.ids.shape[1]), math.nan)
    assert all(math.isnan(v) for v in found.score(rows, torch.arange(2)).tolist())


@pytest.mark.parametrize("options", [(), (("argmax", ""),)])
def test_a_tie_with_another_token_is_no_hit(options: tuple[tuple[str, str], ...]) -> None:
    """Logits in half precision are often equal; in a model that says nothing they all are. The first answer is id 0."""
    found, level = scorer(Metric("accuracy", options), PAIRS), torch.zeros(2, 6)
    rows = level if found.ids is None else level.gather(1, found.ids)
    assert found.score(rows, torch.arange(2)).tolist() == [0.0, 0.0]


def test_equal_answers_do_not_stand_in_each_others_way() -> None:
    logits = torch.tensor([[3.0, 3.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    assert scorer(Metric("accuracy", (("argmax", ""),)), PAIRS).score(logits, torch.arange(2)).tolist() == [1.0, 1.0]


def test_against_corrupt_needs_a_corrupt_answer() -> None:
    silent = tuple(PromptPair(p.clean_tokens, p.corrupt_tokens, p.answers, p.distractors, {}, "s") for p in PAIRS)
    with pytest.raises(UserError, match="corrupt prompts that ask for something else"):
        scorer(Metric("logit_diff", (("against", "corrupt"),)), silent)


def test_prob_logit_and_rank() -> None:
    """The best answers are 3.0, before 2.5 and 1.0, and 1.5, behind 4.0 and 2.0."""
    p, q = softmax(0), softmax(1)
    assert score(Metric("prob")) == pytest.approx([p[0] + p[1], q[4]])
    assert score(Metric("logit")) == pytest.approx([2.0, 1.5])
    assert score(Metric("rank")) == [1.0, 3.0]
    assert [score(Metric("accuracy", (("top", str(k)),))) for k in (1, 2, 3, 5)] == [[1, 0], [1, 0], [1, 1], [1, 1]]
    assert score(Metric("accuracy", (("top", "1"),))) == score(Metric("accuracy", (("argmax", ""),)))


def test_a_tie_counts_against_a_rank_and_other_answers_do_not() -> None:
    rows = torch.tensor([[2.0, 2.0, 2.0, 1.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    found = scorer(Metric("rank"), PAIRS).score(rows, torch.arange(2))
    assert found.tolist() == [3.0, 6.0]
    hits = scorer(Metric("accuracy", (("top", "5"),)), PAIRS).score(rows, torch.arange(2))
    assert hits.tolist() == [1.0, 0.0]


def test_a_rank_ends_at_a_hundred() -> None:
    rows = torch.zeros(2, 500)
    rows[:, 400:] = 1.0
    rows[0, 0] = 2.0
    assert scorer(Metric("rank"), PAIRS).score(rows, torch.arange(2)).tolist() == [1.0, 100.0]


@pytest.mark.parametrize("name", ["rank", "prob", "logit"])
def test_nan_stays_nan(name: str) -> None:
    found = scorer(Metric(name), PAIRS)
    rows = torch.full((2, 6), math.nan)
    assert all(math.isnan(v) for v in found.score(rows, torch.arange(2)).tolist())


@pytest.mark.parametrize("top", [1, 2, 3, 5, 6])
def test_chance_of_being_among_the_first(top: int) -> None:
    """Every set of that many tokens is as likely: counted one by one."""
    drawn = list(itertools.combinations(range(6), top))
    expected = [sum(bool(set(some) & set(pair.answers)) for some in drawn) / len(drawn) for pair in PAIRS]
    assert score(Metric(CHANCE + "accuracy", (("top", str(top)),))) == pytest.approx(expected)


def test_more_than_all_tokens_are_refused() -> None:
    """Every answer is among all tokens, so that the claim would say nothing."""
    with pytest.raises(UserError, match="the model has 6 tokens"):
        score(Metric("accuracy", (("top", "6"),)))
