"""Unpatched runs scored by a metric: residual streams at END, logits, one number per prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine import runs as engine
from circuitdsl.engine.experiment import Readout
from circuitdsl.engine.memory import VOCAB_ROWS, run_at_once, vocabulary_rows
from circuitdsl.engine.metrics import Scorer, scorer
from circuitdsl.engine.prompts import Array, Ends, Prompts, readout, scored
from circuitdsl.errors import UserError
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair

SIDES = ("clean", "corrupt")


def behaviour(prompts: Prompts, metric: Metric, side: str = "clean") -> Array:
    """Any metric of the clean or the corrupt run, on every prompt."""
    if metric == prompts.metric:
        return prompts.clean if side == "clean" else prompts.corrupt

    def compute() -> Array:
        return score_ends(prompts, prompts.ends()[SIDES.index(side)], scorer(metric, prompts.pairs))

    known = prompts.cache
    return prompts.once((metric, side), lambda: known.scores(side, metric, compute) if known else compute())


def gap(prompts: Prompts, metric: Metric) -> float:
    """How far the corrupt prompts are from the clean ones by a metric, on average."""
    return abs(float(np.mean(behaviour(prompts, metric) - behaviour(prompts, metric, "corrupt"))))


def score_ends(prompts: Prompts, ends: Float[Tensor, "n d"], score: Scorer | None = None) -> Array:
    """A metric (by default the task's) of residual streams at END, one for each of the prompts."""
    return score_of(prompts.model, ends, score or prompts.scorer, vocabulary_rows(prompts.model, prompts.max_memory))


def score_of(model: Transformer, ends: Float[Tensor, "n d"], score: Scorer, at_once: int) -> Array:
    """A metric of residual streams at END, one for each prompt of the scorer."""
    everything = torch.arange(len(ends))
    found = read_ends(model, ends, readout(score, everything, model.device, at_once))
    return scored(score, found[None], everything)[0]


@torch.inference_mode()
def read_ends(model: Transformer, ends: Float[Tensor, "n d"], readout: Readout) -> Float[Tensor, "n k"]:
    """What a readout gives on residual streams at END."""
    parts = torch.arange(len(ends), device=ends.device).split(VOCAB_ROWS)
    return torch.cat([engine.read(model, ends[here][:, None], here, readout)[:, 0].cpu() for here in parts])


def tokens_of(pairs: Sequence[PromptPair], side: str) -> Int[Tensor, "n T"]:
    """The tokens of prompts of one length; `side` is `clean_tokens` or `corrupt_tokens`."""
    return torch.tensor([getattr(pair, side) for pair in pairs])


def ends_of(model: Transformer, pairs: Sequence[PromptPair], max_memory: int | None) -> Ends:
    """The residual streams at END of all clean and all corrupt prompts.

    Raises:
        UserError: some are not finite.
    """
    ends = torch.empty(2, len(pairs), model.d_model, dtype=model.dtype, device=model.device)

    def run(places: Tensor, tokens: Tensor) -> None:
        runs = engine.run(model, tokens, tokens_of([pairs[i] for i in places], "corrupt_tokens"))
        ends[0, places], ends[1, places] = runs.clean.end, runs.corrupt.end

    for group in engine.by_length(
        [pair.clean_tokens for pair in pairs], partial(run_at_once, model, max_memory=max_memory)
    ):
        run(*group)  # in a function, so that the runs of a group are freed before the next group is run
    for side, end in zip(SIDES, ends, strict=True):
        broken = (~end.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if broken:
            raise UserError(
                f"the model gives NaN or infinity on {len(broken)} of {len(pairs)} {side} prompts, the first of them "
                f"prompt {broken[0] + 1} ({getattr(pairs[broken[0]], side)!r})",
                hint="float16 overflows easily: try bfloat16 or float32" if model.dtype == torch.float16 else None,
            )
    return ends[0], ends[1]
