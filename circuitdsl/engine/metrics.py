"""Metrics of a run at END, one number per prompt (semantics: measurements; Wang et al. 2022, section 2).

Patched and corrupt runs are scored with the clean prompt's answers and distractors. Answers count by their first token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.vocabulary import CHANCE, LAST_RANK, METRICS, Metric
from circuitdsl.engine.named import function_of
from circuitdsl.errors import UserError
from circuitdsl.tasks.dataset import PromptPair

#: takes logits (those of the scorer's tokens, or all) and the prompt of each row; gives a number a row
Score = Callable[[Float[Tensor, "m k"], Int[Tensor, " m"]], Float[Tensor, " m"]]
Options = Mapping[str, str]
Clean = Float[Tensor, "n vocab"] | None


@dataclass(frozen=True)
class Scorer:
    """What a metric reads of a set of prompts at END, and how it scores it.

    `ids` are the tokens whose logits it reads, a row for each prompt; `None` asks for the whole vocabulary.
    """

    ids: Int[Tensor, "n k"] | None
    score: Score


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


def scorer(metric: Metric, pairs: Sequence[PromptPair], clean: Clean = None) -> Scorer:
    """The scorer of a metric on these prompts, made by the function that its shape names.

    That function takes the metric's options, the prompts, and the clean runs' logits, which only a metric that compares
    two runs gets.

    Raises:
        UserError: the metric cannot be taken on these prompts.
    """
    shape = METRICS[metric.name.removeprefix(CHANCE)]
    made: Scorer = function_of(shape.chance if metric.name.startswith(CHANCE) else shape.scorer)(
        dict(metric.options), pairs, clean
    )
    return made


def logit_diff(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Mean logit of the answers minus the mean (or the largest) of the distractors, or of the corrupt answers."""
    against_corrupt = options.get("against") == "corrupt"
    if against_corrupt and not all(p.corrupt_answers and not set(p.corrupt_answers) & set(p.answers) for p in pairs):
        raise UserError("logit_diff(against = corrupt) needs corrupt prompts that ask for something else")
    best = options.get("against") == "max"
    others = [p.corrupt_answers if against_corrupt else p.distractors for p in pairs]
    return on_sides(pairs, others, False, lambda a, d, _: a.mean() - (d.best() if best else d.mean()))


def accuracy(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Whether the best answer beats every distractor, or (`argmax`) every other token, or all but a few (`top`).

    A tie is no hit.
    """
    top = _top(options)
    if top is None:
        return on_sides(pairs, None, False, _best_answer_wins)
    return on_sides(pairs, None, True, lambda a, _, logp: _or_nan(a, _rank(a, logp) <= _below(top, logp.shape[-1])))


def chance(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """How often a guess is right: one of equally likely answers and distractors, or `top` different ones of all tokens.

    With `argmax` it is one of all tokens.
    """
    if (top := _top(options)) is not None:
        return on_sides(pairs, None, True, lambda a, _, logp: _guessed(a, logp.shape[-1], top))
    return on_sides(pairs, None, False, lambda a, d, _: a.mask.sum(-1) / (a.mask.sum(-1) + d.mask.sum(-1)))


def prob_diff(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Probability of the answers minus that of the distractors."""
    return on_sides(pairs, None, True, lambda a, d, _: a.probability() - d.probability())


def prob(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Probability of the answers together."""
    return on_sides(pairs, None, True, lambda a, _, __: a.probability())


def logit(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Mean logit of the answers."""
    return on_sides(pairs, None, False, lambda a, _, __: a.mean())


def rank(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """The rank of the best answer among all tokens, 1 for the most likely, `LAST_RANK` at the most.

    Other answers are not counted, and a tie counts against the answer, as for `accuracy`.
    """
    return on_sides(pairs, None, True, lambda a, _, logp: _or_nan(a, _rank(a, logp).clamp(max=LAST_RANK)))


def logprob(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Log-probability of the answers together, in nats."""
    return on_sides(pairs, None, True, lambda a, _, __: a.values.masked_fill(~a.mask, -torch.inf).logsumexp(-1))


def kl(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """KL divergence of a run from the clean run, in nats."""
    assert clean is not None, "kl is measured against the clean run"
    table = _on_device(clean)

    def score(logits: Float[Tensor, "m vocab"], prompts: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        p, q = table(logits.device, prompts)[0].log_softmax(-1), logits.float().log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)

    return Scorer(None, score)


def _best_answer_wins(a: Side, d: Side, _: Tensor) -> Float[Tensor, " m"]:
    return _beats(a.best(), d.best())


def _top(options: Options) -> int | None:
    """How many of the first tokens an answer may be among; None where it is compared with the distractors alone."""
    return 1 if "argmax" in options else int(options["top"]) if "top" in options else None


def _below(top: int, vocabulary: int) -> int:
    """The number, where an answer can miss it; raises `UserError` where every token is among so many."""
    if top >= vocabulary:
        message = (
            f"accuracy(top = {top}) is 100 %: the model has {vocabulary} tokens, and all are among the first {top}"
        )
        raise UserError(message, hint="take fewer")
    return top


def _rank(a: Side, logp: Float[Tensor, "m vocab"]) -> Int[Tensor, " m"]:
    """1 and how many tokens, answers apart, are no less likely than the best answer."""
    answers = torch.where(a.mask, a.ids, a.ids[:, :1])  # padding is no token
    others = logp.scatter(-1, answers, -torch.inf)
    return 1 + (others >= a.best()[:, None]).sum(-1)


def _or_nan(a: Side, found: Tensor) -> Float[Tensor, " m"]:
    """NaN where the model gives no number for the answers."""
    return torch.where(torch.isnan(a.best()), torch.nan, found.float())


def _guessed(a: Side, vocabulary: int, top: int) -> Float[Tensor, " m"]:
    """How often some answer is among so many different tokens that are drawn at random."""
    count, missed = a.mask.sum(-1).double(), torch.ones(len(a.mask), dtype=torch.float64, device=a.mask.device)
    for i in range(a.mask.shape[1]):  # each answer is none of those drawn
        left = (vocabulary - top - i) / (vocabulary - i) if vocabulary > i else 0.0
        missed = torch.where(count > i, missed * max(left, 0.0), missed)
    return (1 - missed).float()


def _beats(best: Float[Tensor, " m"], rival: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    return torch.where(torch.isnan(best - rival), torch.nan, (best > rival).float())


def on_sides(
    pairs: Sequence[PromptPair],
    others: Sequence[tuple[int, ...]] | None,
    whole: bool,
    score: Callable[[Side, Side, Tensor], Float[Tensor, " m"]],
) -> Scorer:
    """A scorer of the answers, of the other tokens (by default the distractors), and of all that is read.

    Args:
        whole: whether log-probabilities over the whole vocabulary are read, and not the logits of these tokens alone.
    """
    answers, a_mask = padded([p.answers for p in pairs])
    distractors, d_mask = padded(others if others is not None else [p.distractors for p in pairs])
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


def _on_device(*tables: Tensor) -> Callable[[torch.device, Tensor], tuple[Tensor, ...]]:
    """The rows of some prompts in tables, which are brought to a device once."""
    known = cache(lambda device: tuple(table.to(device) for table in tables))
    return lambda device, prompts: tuple(table[prompts.to(device)] for table in known(device))


def padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """Token ids padded with 0 to the same number for each prompt, and which of them are not padding."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(list(row), dtype=torch.long) for row in rows], batch_first=True)
    return ids, torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
