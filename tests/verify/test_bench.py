"""Measuring many prompts at once against measuring each alone, and what counts as a change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, Request
from circuitdsl.tasks.dataset import Dataset, sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.measure import measure, present
from circuitdsl.verify.prompts import scored_prompts

END, S2, PLACE = Position("END"), Position("S2"), Position("PLACE")
H06, H25 = Node("head", 0, 6), Node("head", 2, 5)
REQUESTS: tuple[Request, ...] = (
    EdgeRequest((Edge(H06, Input(H25, "q"), END),)),
    EdgeRequest((Edge(H06, Input(LOGITS, "in"), END),), via_mlps=True),
    EdgeRequest((Edge(EMBED, Input(H06, "v"), S2), Edge(H06, Input(Node("mlp", 1), "in"), END)), direction="denoise"),
    EdgeRequest((Edge(EMBED, Input(H06, "k"), PLACE),)),
    NodeRequest((Site(H06, END), Site(Node("mlp", 0), S2))),
    NodeRequest((Site(H06, EVERYWHERE),), "zero"),
    NodeRequest((Site(H06, END),), "mean"),
    Attention((H06, H25), (END,), (S2, Position("S1", 1))),
    Behaviour(Metric("accuracy")),
)


@pytest.fixture(scope="module")
def data(pocket_tokens):
    return sample(TASKS["ioi"], pocket_tokens, 48, seed=2)


def test_runs_made_for_scores_are_measured_as_well(pocket, data, monkeypatch) -> None:
    """The same numbers, without a second run of a pair; nothing that reads the runs changes them."""
    prompts, first = scored_prompts(pocket, data, Metric()), np.arange(16)
    twice = [r for r in REQUESTS if any(patch.direction == "denoise" for patch in r.patches)]  # they swap the sides
    once = [request for request in REQUESTS if request not in twice]
    with monkeypatch.context() as patch:
        patch.setattr("circuitdsl.engine.runs.run", None)
        kept = [measure(prompts, once, first) for _ in range(2)]
    prompts.kept.clear()
    anew = measure(prompts, once, first)
    for request, series in anew.items():
        for found in kept:
            np.testing.assert_allclose(found[request].values, series.values, atol=1e-5)
            assert (found[request].changed == series.changed).all()


@pytest.mark.parametrize("name", ["logit_diff", "prob_diff", "logprob", "accuracy", "kl"])
def test_prompts_do_not_depend_on_their_company(pocket, data, name: str) -> None:
    """Prompts of many lengths, in any order, give what each gives alone; means are over the whole dataset."""
    metric = Metric(name)
    whole = scored_prompts(pocket, data, metric)
    order = np.random.default_rng(0).permutation(len(data.pairs))[:12]
    together = measure(whole, REQUESTS, order)
    for place, index in enumerate(order):
        alone = measure(whole, REQUESTS, np.asarray([index]))
        for request in REQUESTS:
            assert together[request].present[place] == alone[request].present[0]
            assert together[request].changed[place] == alone[request].changed[0]
            if alone[request].present[0]:
                assert together[request].values[place] == pytest.approx(alone[request].values[0], abs=2e-4)


def test_a_patch_changes_a_prompt_where_any_of_its_terms_differs(pocket, pocket_tokens) -> None:
    """Under `flip` nothing differs before S2."""
    whole = scored_prompts(pocket, sample(TASKS["ioi"], pocket_tokens, 4, corrupt="flip"), Metric())
    before, after = Site(H06, Position("IO")), Site(H06, END)
    sites = [(before,), (after,), (before, after)]
    found = measure(whole, [NodeRequest(each) for each in sites], np.arange(4)).values()
    assert [series.changed.tolist() for series in found] == [[False] * 4, [True] * 4, [True] * 4]


def test_means_are_taken_anew_for_neurons_that_come_later(pocket, data) -> None:
    neuron = NodeRequest((Site(Node("mlp", 1, index=3), END),), "mean")
    first, other = scored_prompts(pocket, data, Metric()), scored_prompts(pocket, data, Metric())
    measure(first, [NodeRequest((Site(H06, END),), "mean")], np.arange(8))
    ours, alone = (measure(each, [neuron], np.arange(8))[neuron] for each in (first, other))
    assert ours.values == pytest.approx(alone.values, abs=1e-6) and ours.changed.all()


def test_the_corrupt_embedding_everywhere_is_the_corrupt_run(pocket, data) -> None:
    whole = scored_prompts(pocket, data, Metric())
    (series,) = measure(whole, [NodeRequest((Site(EMBED, EVERYWHERE),))], np.arange(48)).values()
    assert series.values == pytest.approx(whole.corrupt, abs=1e-4)
    (back,) = measure(whole, [NodeRequest((Site(EMBED, EVERYWHERE),), direction="denoise")], np.arange(48)).values()
    assert back.values == pytest.approx(whole.clean, abs=1e-4)


def test_a_prompt_on_which_the_model_gives_no_number_is_named(pocket, data) -> None:
    """A token whose embedding is not finite breaks the prompts that hold it; the first of them is named."""
    spoilt = data.pairs[5].clean_tokens[-3]
    first = next(i for i, pair in enumerate(data.pairs) if spoilt in pair.clean_tokens)
    embedding = pocket.W_E.clone()
    embedding[spoilt] = float("nan")
    with pytest.raises(UserError, match=rf"NaN or infinity on .* clean prompts, the first of them prompt {first + 1} "):
        scored_prompts(replace(pocket, W_E=embedding), data, Metric())


def test_a_prompt_that_is_its_own_partner_is_named(pocket, data) -> None:
    pairs = list(data.pairs)
    pairs[3] = replace(pairs[3], corrupt_tokens=pairs[3].clean_tokens)
    with pytest.raises(UserError, match=r"prompt 4 .* is the same as its corrupt partner"):
        scored_prompts(pocket, replace(data, pairs=tuple(pairs)), Metric())


def test_prompts_without_a_position_are_marked(pocket, data) -> None:
    whole = scored_prompts(pocket, data, Metric())
    request = EdgeRequest((Edge(EMBED, Input(H06, "v"), PLACE),))
    expected = np.asarray(["PLACE" in pair.positions for pair in data.pairs])
    assert not expected.all()
    assert (present(whole, request, np.arange(48)) == expected).all()
    beyond = EdgeRequest((Edge(EMBED, Input(H06, "v"), Position("END", 1)),))
    assert not present(whole, beyond, np.arange(48)).any()


@pytest.mark.parametrize(
    ("request_", "changes"),
    [
        (NodeRequest((Site(EMBED, END),)), False),  # every prompt ends in the same word as its partner
        (NodeRequest((Site(EMBED, END),), "mean"), False),  # and a template's prompts all end in it
        (NodeRequest((Site(EMBED, END),), "zero"), True),
        (NodeRequest((Site(EMBED, S2),)), True),
        (NodeRequest((Site(EMBED, S2),), "mean"), True),
        (EdgeRequest((Edge(H06, Input(LOGITS, "in"), END),)), True),
    ],
)
def test_a_patch_that_puts_in_what_stood_there_changes_nothing(pocket, data, request_, changes: bool) -> None:
    (series,) = measure(scored_prompts(pocket, data, Metric()), [request_], np.arange(48)).values()
    assert series.changed.any() == changes
    if not changes:
        assert series.values == pytest.approx(scored_prompts(pocket, data, Metric()).clean, abs=1e-4)


def test_attention_is_summed_over_targets_and_averaged_over_heads(pocket, data) -> None:
    whole = scored_prompts(pocket, data, Metric())
    everything = Attention((H06, H25), (END,), (EVERYWHERE,))
    parts = [Attention((head,), (END,), (S2,)) for head in (H06, H25)]
    both = Attention((H06, H25), (END,), (S2,))
    found = measure(whole, [everything, both, *parts], np.arange(48))
    assert found[everything].values == pytest.approx(np.ones(48), abs=1e-5)
    assert found[both].values == pytest.approx((found[parts[0]].values + found[parts[1]].values) / 2, abs=1e-6)


def test_equal_requests_are_measured_once(pocket, data) -> None:
    once: Prompts = scored_prompts(pocket, data, Metric())
    twice: Prompts = scored_prompts(pocket, data, Metric())
    measure(once, REQUESTS[:1], np.arange(16))
    measure(twice, [REQUESTS[0], REQUESTS[0]], np.arange(16))
    assert once.tally.block_positions == twice.tally.block_positions > 0


def test_a_dataset_of_one_length_or_many_is_scored_alike(pocket, data) -> None:
    whole = scored_prompts(pocket, data, Metric())
    for i, pair in enumerate(data.pairs[:8]):
        one = scored_prompts(pocket, Dataset("ioi", "abc", 2, False, (pair,)), Metric())
        assert one.clean[0] == pytest.approx(whole.clean[i], abs=1e-4)
        assert one.corrupt[0] == pytest.approx(whole.corrupt[i], abs=1e-4)
