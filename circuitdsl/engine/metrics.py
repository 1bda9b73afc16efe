"""Metrics of a run at END, one number per prompt (semantics: measurements; Wang et al. 2022, section 2).

Patched and corrupt runs are scored with the clean prompt's answers and distractors. Answers count by their first token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.measurements import Metric
from circuitdsl.errors import UserError
from circuitdsl.tasks.dataset import PromptPair

#: the accuracy of guesses, in place of a run's: of `accuracy` with the same options
CHANCE = "chance"
#: metrics that are right or wrong, 1 or 0, on each prompt
HITS = frozenset({"accuracy"})
#: metrics whose differences are said in percentage points
SHARES = HITS | {"prob_diff"}
#: what metrics cannot leave, where that is not the whole line
RANGES = {
    "accuracy": (0.0, 1.0),
    "chance": (0.0, 1.0),
    "prob_diff": (-1.0, 1.0),
    "logprob": (float("-inf"), 0.0),
    "kl": (0.0, float("inf")),
}
#: metrics whose clean value lies below the corrupt one
FALLING = frozenset({"kl"})

#: takes logits (those of the scorer's tokens, or all) and the prompt of each row; gives a number a row
Score = Callable[[Float[Tensor, "m k"], Int[Tensor, " m"]], Float[Tensor, " m"]]


@dataclass(frozen=True)
class Scorer:
    """What a metric reads of a set of prompts at END, and how it scores it.

    `ids` are the tokens whose logits it reads, a row for each prompt; `None` asks for the whole vocabulary.
    """

    ids: Int[Tensor, "n k"] | None
    score: Score


def range_of(metric: Metric) -> tuple[float, float]:
    """What a metric cannot leave; infinite where nothing is known."""
    return RANGES.get(metric.name, (float("-inf"), float("inf")))


def unit(metric: Metric) -> str:
    """How a metric is written: `share` (a percentage), `nats` or `logits`."""
    return "share" if metric.name in SHARES else {"kl": "nats", "logprob": "nats"}.get(metric.name, "logits")


class Side(NamedTuple):
    """The answers of some prompts, or their distractors, padded to as many in each.

    `values` are their logits, or log-probabilities where the whole vocabulary is read; `mask` says which are there.
    """

    values: Float[Tensor, "m k"]
    mask: Bool[Tensor, "m k"]
    ids: Int[Tensor, "m k"]

    def mean(self) -> Float[Tensor, " m"]:
        return (self.values * self.mask).sum(-1) / self.mask.sum(-1)

    def best(self) -> Float[Tensor, " m"]:
        return self.values.masked_fill(~self.mask, -torch.inf).amax(-1)

    def probability(self) -> Float[Tensor, " m"]:
        return (self.values.exp() * self.mask).sum(-1)


def _best_answer_wins(a: Side, d: Side, _: Tensor) -> Float[Tensor, " m"]:
    best, rival = a.best(), d.best()
    return torch.where(torch.isnan(best - rival), torch.nan, (best > rival).float())


def _argmax_is_answer(a: Side, _: Side, logp: Float[Tensor, "m vocab"]) -> Float[Tensor, " m"]:
    hit = ((logp.argmax(-1)[..., None] == a.ids) & a.mask).any(-1)
    return torch.where(torch.isnan(logp).any(-1), torch.nan, hit.float())


#: metrics by name and option: whether they read the whole vocabulary, and how they score a row of answers, one of
#: distractors and all that is read
_SCORES: dict[tuple[str, str], tuple[bool, Callable[[Side, Side, Tensor], Float[Tensor, " m"]]]] = {
    ("logit_diff", ""): (False, lambda a, d, _: a.mean() - d.mean()),
    ("logit_diff", "max"): (False, lambda a, d, _: a.mean() - d.best()),
    ("accuracy", ""): (False, _best_answer_wins),
    ("accuracy", "argmax"): (True, _argmax_is_answer),
    # how often a guess is right: one of equally likely answers and distractors, or of the whole vocabulary
    (CHANCE, ""): (False, lambda a, d, _: a.mask.sum(-1) / (a.mask.sum(-1) + d.mask.sum(-1))),
    (CHANCE, "argmax"): (True, lambda a, _, logp: a.mask.sum(-1) / logp.shape[-1]),
    ("prob_diff", ""): (True, lambda a, d, _: a.probability() - d.probability()),
    ("logprob", ""): (True, lambda a, _, __: a.values.masked_fill(~a.mask, -torch.inf).logsumexp(-1)),
}


def scorer(metric: Metric, pairs: Sequence[PromptPair], clean: Float[Tensor, "n vocab"] | None = None) -> Scorer:
    """The scorer of a metric on these prompts; `kl` also needs the clean runs' logits.

    Raises:
        UserError: `logit_diff(against = corrupt)` on a task whose corrupt prompts have no answer.
    """
    options = dict(metric.options)
    if metric.name == "kl":
        assert clean is not None, "kl is measured against the clean run"
        return Scorer(None, _kl(_on_device(clean)))
    against_corrupt = metric.name == "logit_diff" and options.get("against") == "corrupt"
    if against_corrupt and not all(p.corrupt_answers and not set(p.corrupt_answers) & set(p.answers) for p in pairs):
        raise UserError("logit_diff(against = corrupt) needs corrupt prompts that ask for something else")
    option = "max" if options.get("against") == "max" else "argmax" if "argmax" in options else ""
    if (metric.name, option) not in _SCORES:
        raise UserError(f"unknown metric '{metric.name}'")
    whole, score = _SCORES[metric.name, option]
    answers, a_mask = _rows([p.answers for p in pairs])
    distractors, d_mask = _rows([p.corrupt_answers if against_corrupt else p.distractors for p in pairs])
    table = _on_device(answers, a_mask, distractors, d_mask)

    def apply(logits: Float[Tensor, "m _"], prompts: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        a_ids, a_mask, d_ids, d_mask = table(logits.device, prompts)
        if whole:
            logp = logits.float().log_softmax(-1)
            a, d, read = logp.gather(-1, a_ids), logp.gather(-1, d_ids), logp
        else:
            a, d, read = logits[:, : a_ids.shape[1]], logits[:, a_ids.shape[1] :], logits
        return score(Side(a, a_mask, a_ids), Side(d, d_mask, d_ids), read)

    return Scorer(None if whole else torch.cat([answers, distractors], dim=1), apply)


def _kl(table: Callable[[torch.device, Tensor], tuple[Tensor, ...]]) -> Score:
    """KL divergence of a run from the clean run, in nats."""

    def score(logits: Float[Tensor, "m vocab"], prompts: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        p, q = table(logits.device, prompts)[0].log_softmax(-1), logits.float().log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)

    return score


def _on_device(*tables: Tensor) -> Callable[[torch.device, Tensor], tuple[Tensor, ...]]:
    """The rows of some prompts in tables, which are brought to a device once."""
    known = cache(lambda device: tuple(table.to(device) for table in tables))
    return lambda device, prompts: tuple(table[prompts.to(device)] for table in known(device))


def _rows(rows: Sequence[tuple[int, ...]]) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """Token ids padded with 0 to the same number for each prompt, and which of them are not padding."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)
    return ids, torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
