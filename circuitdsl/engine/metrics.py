"""Metrics of a run at END, one number per prompt (semantics: measurements; Wang et al. 2022, section 2).

Patched and corrupt runs are scored with the clean prompt's answers and distractors. Answers count by their first token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.metric import Metric
from circuitdsl.circuit.vocabulary import CHANCE, METRICS
from circuitdsl.engine.named import function_of
from circuitdsl.errors import UserError
from circuitdsl.tasks.dataset import PromptPair

#: takes logits (those of the scorer's tokens, or all) and the prompt of each row; gives a number a row
Score = Callable[[Float[Tensor, "m k"], Int[Tensor, " m"]], Float[Tensor, " m"]]


@dataclass(frozen=True)
class Scorer:
    """What a metric reads of a set of prompts at END, and how it scores it.

    `ids` are the tokens whose logits it reads, a row for each prompt; `None` asks for the whole vocabulary.
    """

    ids: Int[Tensor, "n k"] | None
    score: Score


def scorer(metric: Metric, pairs: Sequence[PromptPair], clean: Float[Tensor, "n vocab"] | None = None) -> Scorer:
    """The scorer of a metric on these prompts, made by the function that its shape names.

    That function takes the metric's options, the prompts, and the clean runs' logits (which a metric that compares two
    runs needs, and others do not get).

    Raises:
        UserError: the metric cannot be taken on these prompts.
    """
    guesses = metric.name.startswith(CHANCE)
    shape = METRICS[metric.name.removeprefix(CHANCE)]
    made: Scorer = function_of(shape.chance if guesses else shape.scorer)(dict(metric.options), pairs, clean)
    return made


Options = Mapping[str, str]
Clean = Float[Tensor, "n vocab"] | None


def logit_diff(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Mean logit of the answers minus the mean (or the largest) of the distractors, or of the corrupt answers."""
    sides = _sides(pairs)
    if options.get("against") == "corrupt":
        if not all(p.corrupt_answers and not set(p.corrupt_answers) & set(p.answers) for p in pairs):
            raise UserError("logit_diff(against = corrupt) needs corrupt prompts that ask for something else")
        sides["distractor"] = [p.corrupt_answers for p in pairs]
    return _on_tokens(sides, _max_difference if options.get("against") == "max" else _mean_difference)


def accuracy(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Whether the best answer beats every distractor, or (`argmax`) every token."""
    if "argmax" in options:
        return _on_vocabulary(_sides(pairs), _argmax_is_answer)
    return _on_tokens(_sides(pairs), _best_answer_wins)


def chance(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """The accuracy of guesses among answers and distractors, or (`argmax`) among all tokens."""
    if "argmax" in options:
        return _on_vocabulary(_sides(pairs), _one_of_the_vocabulary)
    return _on_tokens(_sides(pairs), _one_of_the_candidates)


def prob_diff(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Probability of the answers minus that of the distractors."""
    return _on_vocabulary(_sides(pairs), _probability_difference)


def logprob(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """Log probability of the answers together, in nats."""
    return _on_vocabulary(_sides(pairs), _log_probability)


def kl(options: Options, pairs: Sequence[PromptPair], clean: Clean) -> Scorer:
    """KL divergence from the clean run, in nats."""
    assert clean is not None, "kl is measured against the clean run"
    table = _tables(clean)
    return Scorer(None, lambda logits, prompts: _kl(table(logits.device)[0], logits, prompts.to(logits.device)))


def _sides(pairs: Sequence[PromptPair]) -> Sides:
    return {"answer": [p.answers for p in pairs], "distractor": [p.distractors for p in pairs]}


# --- on the answers' and distractors' logits alone -------------------------------------------------

Sides = dict[str, list[tuple[int, ...]]]


def _on_tokens(sides: Sides, score: Callable[..., Tensor]) -> Scorer:
    (answers, a_mask), (distractors, d_mask) = _rows(sides["answer"]), _rows(sides["distractor"])
    split = answers.shape[1]
    table = _tables(a_mask, d_mask)

    def apply(logits: Tensor, prompts: Tensor) -> Tensor:
        masks = [mask[prompts.to(logits.device)] for mask in table(logits.device)]
        return score(logits[:, :split], masks[0], logits[:, split:], masks[1])

    return Scorer(torch.cat([answers, distractors], dim=1), apply)


def _tables(*tables: Tensor) -> Callable[[torch.device], tuple[Tensor, ...]]:
    """Tables on a device, brought there once."""
    return cache(lambda device: tuple(table.to(device) for table in tables))


def _rows(rows: list[tuple[int, ...]]) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"]]:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1) / mask.sum(-1)


def _max(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, -torch.inf).amax(-1)


def _mean_difference(a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor) -> Tensor:
    return _mean(a, a_mask) - _mean(d, d_mask)


def _max_difference(a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor) -> Tensor:
    return _mean(a, a_mask) - _max(d, d_mask)


def _best_answer_wins(a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor) -> Tensor:
    best, rival = _max(a, a_mask), _max(d, d_mask)
    return torch.where(torch.isnan(best - rival), torch.nan, (best > rival).to(a.dtype))


def _one_of_the_candidates(a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor) -> Tensor:
    """How often the best of equally likely answers and distractors is an answer."""
    right, wrong = a_mask.sum(-1), d_mask.sum(-1)
    return (right / (right + wrong)).to(a.dtype)


# --- on the whole vocabulary -----------------------------------------------------------------------


def _on_vocabulary(sides: Sides, score: Callable[..., Tensor]) -> Scorer:
    table = _tables(*_rows(sides["answer"]), *_rows(sides["distractor"]))

    def apply(logits: Tensor, prompts: Tensor) -> Tensor:
        logp = logits.float().log_softmax(-1)
        rows = [rows[prompts.to(logits.device)] for rows in table(logits.device)]
        return score(logp, logp.gather(-1, rows[0]), rows[1], logp.gather(-1, rows[2]), rows[3], rows[0])

    return Scorer(None, apply)


def _probability_difference(
    logp: Tensor, a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor, answers: Tensor
) -> Tensor:
    return (a.exp() * a_mask).sum(-1) - (d.exp() * d_mask).sum(-1)


def _log_probability(logp: Tensor, a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor, answers: Tensor) -> Tensor:
    return a.masked_fill(~a_mask, -torch.inf).logsumexp(-1)


def _argmax_is_answer(logp: Tensor, a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor, answers: Tensor) -> Tensor:
    hit = ((logp.argmax(-1)[..., None] == answers) & a_mask).any(-1)
    return torch.where(torch.isnan(logp).any(-1), torch.nan, hit.to(logp.dtype))


def _one_of_the_vocabulary(
    logp: Tensor, a: Tensor, a_mask: Tensor, d: Tensor, d_mask: Tensor, answers: Tensor
) -> Tensor:
    """How often a token drawn from the whole vocabulary is an answer."""
    return (a_mask.sum(-1) / logp.shape[-1]).to(logp.dtype)


def _kl(clean: Tensor, logits: Tensor, prompts: Tensor) -> Tensor:
    """KL divergence of the run from the clean run, in nats."""
    p, q = clean[prompts].log_softmax(-1), logits.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
