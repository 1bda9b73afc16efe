"""Prompts made ready to be measured: run once, scored, and compared with the model as its library runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from circuitdsl.circuit.metric import Metric
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.engine.memory import refuse_too_little, vocabulary_rows
from circuitdsl.engine.metrics import Scorer, scorer
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.readers.head_score import SEQUENCES, sequence
from circuitdsl.engine.scores import SIDES, ends_of, read_ends, score_of, vocabulary
from circuitdsl.errors import UserError
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.agreement import FEW, check_agreement, check_rounding
from circuitdsl.verify.cache import Memory, memory
from circuitdsl.verify.store import Store

Bench = Prompts


def bench(
    model: Transformer,
    data: Dataset,
    metric: Metric,
    others: Mapping[str, tuple[PromptPair, ...]] | None = None,
    more: Callable[[], Sequence[PromptPair]] | None = None,
    store: Store | None = None,
    max_memory: int | None = None,
    more_are: str = "",
) -> Prompts:
    """Run all prompts once and score them, unless a store knows their scores. Some are compared with the model's own.

    Args:
        more_are: what says which prompts `more` makes, where these are the first of them.

    Raises:
        UserError: the metric cannot be taken on this task, a prompt does not fit the model or is the same as its
            partner, the model gives no finite numbers on it, the memory allowed is too little for a single one, or the
            engine's logits are not those of the model as its library runs it, or too coarse to tell the prompts apart.
    """
    _check_pairs(data.pairs)
    refuse_too_little(model, max((len(pair.clean_tokens) for pair in data.pairs), default=1), max_memory)
    ends = cache(lambda: ends_of(model, data.pairs, max_memory))
    at_once = vocabulary_rows(model, max_memory)
    whole = vocabulary(model, at_once)
    logits = None if METRICS[metric.name].behaviour else read_ends(model, ends()[0], whole)
    score = scorer(metric, data.pairs, logits)
    reference = cache(more) if more else lambda: data.pairs
    known = memory(store, model, data.pairs, metric, reference, more_are) if store else None

    def logits_of(side: str, at: Sequence[int]) -> Tensor:
        return read_ends(model, ends()[SIDES.index(side)][at], whole)

    def scores(side: str) -> np.ndarray:
        def compute() -> np.ndarray:
            return score_of(model, ends()[SIDES.index(side)], score, at_once)

        return known.scores(side, metric, compute) if known else compute()

    check_agreement(model, data.pairs, logits_of, known)
    check_rounding(model, data.pairs, logits_of)
    clean, corrupt = map(scores, SIDES)
    return Prompts(model, data, metric, score, clean, corrupt, ends, others or {}, reference, max_memory, cache=known)


def _check_pairs(pairs: Sequence[PromptPair]) -> None:
    """Raises `UserError` where a prompt is its own partner."""
    for i, pair in enumerate(pairs):
        if pair.clean_tokens == pair.corrupt_tokens:
            raise UserError(
                f"prompt {i + 1} ({pair.clean!r}) is the same as its corrupt partner, so that no patch could change it"
            )


def random_bench(model: Transformer, max_memory: int | None = None, known: Memory | None = None) -> Prompts:
    """Repeated random tokens, for what needs no task: nothing is scored on them.

    Args:
        known: what a store knows of another task on the model.

    Raises:
        UserError: the memory allowed is too little for a single sequence, or the engine's logits are not those of the
            model as its library runs it.
    """
    bos = model.tokenizer is not None and Tokens(model.tokenizer, model.name).adds_bos
    rows = [tuple(sequence(model, 0, i, bos)) for i in range(SEQUENCES)]
    refuse_too_little(model, len(rows[0]), max_memory)
    data = Dataset("", "", 0, bos, tuple(PromptPair(row, row, (), (), {}, "") for row in rows))
    few = cache(lambda: ends_of(model, data.pairs[:FEW], max_memory)[0])
    whole = vocabulary(model, vocabulary_rows(model, max_memory))
    check_agreement(model, data.pairs[:FEW], lambda _, at: read_ends(model, few()[at], whole), known)
    nothing = np.zeros(SEQUENCES)
    ends = torch.empty(2, 0, model.d_model)
    score = Scorer(None, lambda logits, _: logits[:, 0])
    return Prompts(model, data, Metric(), score, nothing, nothing, lambda: (ends[0], ends[1]), max_memory=max_memory)


def smallest_mean(prompts: Prompts) -> int:
    """Prompts behind the mean of the smallest stratum of one length, among the lengths of these prompts."""
    lengths = {len(pair.corrupt_tokens) for pair in prompts.pairs}

    def counted() -> int:
        sizes = Counter((n, p.stratum) for p in prompts.reference if (n := len(p.corrupt_tokens)) in lengths)
        return min(sizes.values())

    what, known = f"smallest mean of {sorted(lengths)}", prompts.cache
    return prompts.once(what, lambda: int(known.of_means(what, counted)) if isinstance(known, Memory) else counted())
