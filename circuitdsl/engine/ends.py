"""Residual streams at END of the unpatched runs of prompts, and how they are read and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import LOGITS
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine import runs as engine
from circuitdsl.engine.experiment import Readout
from circuitdsl.engine.memory import (
    VOCAB_ROWS,
    kept_bytes,
    prompt_bytes,
    ran_out,
    run_at_once,
    vocabulary_rows,
)
from circuitdsl.engine.metrics import Scorer, Side, on_sides
from circuitdsl.engine.prompts import SIDES, Array, Prompts
from circuitdsl.engine.workers import measuring
from circuitdsl.errors import UserError, out_of_memory
from circuitdsl.measurements.kept import Kept, everything
from circuitdsl.models.agreement import in_single_precision
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Corrupt, PromptPair

#: prompts that tell how much prompts differ
SPREAD = 64

Ends = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]
#: what is read of runs for their scores
ENDS = Kept(frozenset([LOGITS]), frozenset([LOGITS]))


def readout(model: Transformer, score: Scorer, part: Array, max_memory: int | None = None) -> Readout:
    """What a scorer reads of some of its prompts; whole-vocabulary metrics are reduced to their score at once."""
    places = torch.as_tensor(part)
    if score.ids is not None:
        return Readout(score.ids[places].to(model.device))
    there, at_once = places.to(model.device), vocabulary_rows(model, max_memory)
    return Readout(reduce=lambda rows, prompts: score.score(rows, there[prompts])[:, None], at_once=at_once)


def scored(score: Scorer, found: Float[Tensor, "e n k"], places: Int[Tensor, " n"]) -> Array:
    """One number for each run and prompt [e, n]."""
    if score.ids is None:
        return found[..., 0].double().cpu().numpy()
    e, n, k = found.shape
    rows = score.score(found.reshape(e * n, k).cpu(), places.repeat(e))
    return rows.view(e, n).double().numpy()


def whole_vocabulary(model: Transformer, max_memory: int | None = None) -> Readout:
    return Readout(reduce=lambda rows, _: rows, at_once=vocabulary_rows(model, max_memory))


def clean_logits(prompts: Prompts) -> Float[Tensor, "n vocab"]:
    """All logits of the clean runs at END."""
    return read_ends(prompts.model, prompts.ends()[0], whole_vocabulary(prompts.model, prompts.max_memory))


def score_ends(prompts: Prompts, ends: Float[Tensor, "n d"], metric: Metric | None = None) -> Array:
    """A metric (by default the task's) of residual streams at END, one for each of the prompts."""
    score, everything = prompts.scorer_of(metric or prompts.metric), np.arange(len(ends))
    found = read_ends(prompts.model, ends, prompts.readout(score, everything))
    return scored(score, found[None], torch.as_tensor(everything))[0]


def score_side(prompts: Prompts, metric: Metric, side: str) -> Array:
    """A metric of all clean or all corrupt prompts."""
    return score_ends(prompts, prompts.ends()[SIDES.index(side)], metric)


def more_probable(prompts: Prompts, places: Sequence[int], pairs: Sequence[PromptPair]) -> Array:
    """The logarithm of how many times as probable, after some clean prompts, the answers of pairs are as their
    distractors, each side together."""

    def ratio(answers: Side, others: Side, _: Tensor) -> Float[Tensor, " n"]:
        a, b = (side.values.masked_fill(~side.mask, -torch.inf).logsumexp(-1) for side in (answers, others))
        return a - b

    score, everything = on_sides(pairs, None, False, ratio), np.arange(len(pairs))
    found = read_ends(prompts.model, prompts.ends()[0][list(places)], prompts.readout(score, everything))
    return scored(score, found[None], torch.as_tensor(everything))[0]


@measuring()
def read_ends(model: Transformer, ends: Float[Tensor, "n d"], readout: Readout) -> Float[Tensor, "n k"]:
    """What a readout gives on residual streams at END."""
    parts = torch.arange(len(ends), device=ends.device).split(VOCAB_ROWS)
    return torch.cat([engine.read(model, ends[here][:, None], here, readout)[:, 0].cpu() for here in parts])


def tokens_of(pairs: Sequence[PromptPair | Corrupt], side: str) -> Int[Tensor, "n T"]:
    """The tokens of prompts of one length; `side` is `clean_tokens` or `corrupt_tokens`."""
    return torch.tensor([getattr(pair, side) for pair in pairs])


def ends_of(
    model: Transformer,
    pairs: Sequence[PromptPair],
    max_memory: int | None,
    kept: list[tuple[list[int], engine.Runs]] | None = None,
    reads: Callable[[], Kept] | None = None,
) -> Ends:
    """The residual streams at END of all clean and all corrupt prompts.

    Args:
        kept: takes the first runs with the places of their prompts, as many as `kept_bytes` allows.
        reads: says what will be read of them: that is kept where there is no room for everything.

    Raises:
        UserError: some are not finite.
    """
    ends = torch.empty(2, len(pairs), model.d_model, dtype=model.dtype, device=model.blocks[-1].device)
    room = 0 if kept is None else kept_bytes(model.device, max_memory)

    def run(places: Tensor, tokens: Tensor, wanted: Kept, size: int) -> None:
        runs = engine.run(model, tokens, tokens_of([pairs[i] for i in places], "corrupt_tokens"), kept=wanted | ENDS)
        ends[0, places], ends[1, places] = runs.clean.end, runs.corrupt.end
        if kept is not None and size:
            kept.append((places.tolist(), runs))

    for group in scoring_runs(model, pairs, max_memory, room, reads):
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


def scoring_runs(
    model: Transformer,
    pairs: Sequence[PromptPair],
    max_memory: int | None,
    room: int,
    reads: Callable[[], Kept] | None = None,
) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, "m T"], Kept, int]]:
    """The prompts that run together for their scores: places, clean tokens, what is kept of them, and its bytes.

    Args:
        room: bytes of what may be kept of all of them.
        reads: says what will be read of them: that is kept where there is no room for everything.
    """
    at_once = partial(run_at_once, model, max_memory=max_memory)
    for places, tokens in engine.by_length([pair.clean_tokens for pair in pairs], at_once):
        wanted, size = _what_fits(model, tokens.shape, room, reads)
        room -= size
        yield places, tokens, wanted, size


def _what_fits(model: Transformer, shape: torch.Size, room: int, reads: Callable[[], Kept] | None) -> tuple[Kept, int]:
    """What is kept of runs in so many bytes, and how many it takes: everything, what is read, or nothing."""
    n, length = shape
    makers: list[Callable[[], Kept]] = [lambda: everything(model.n_layers), *([reads] if reads else [])]
    for make in makers if room else []:
        wanted = make()
        size = n * prompt_bytes(model, length, wanted | ENDS)
        if size <= room:
            return wanted, size
    return Kept(), 0


# --- before anything is measured -------------------------------------------------------------------


def off_of_library(prompts: Prompts, groups: Sequence[Sequence[int]]) -> Array:
    """How far the engine's logits of prompts, or those of their partners, are from the model's own.

    It is 0 where rounding explains it (see `Original.off`).

    Args:
        groups: places of prompts of one length, each group to be run together.

    Raises:
        OutOfMemory: memory ran out on a single prompt.
    """
    original, all_of = prompts.source.original, whole_vocabulary(prompts.model, prompts.max_memory)

    def off_of(group: Sequence[int]) -> Array:
        ours = torch.cat([read_ends(prompts.model, ends[list(group)], all_of) for ends in prompts.ends()])
        pairs = [prompts.pairs[i] for i in group]
        tokens = torch.cat([tokens_of(pairs, f"{side}_tokens") for side in SIDES])
        try:
            exact = in_single_precision(prompts.model, tokens.to(prompts.model.device), last=1)
            found = original.off(ours[:, None], tokens, exact=exact)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise ran_out(f"running the prompt {pairs[0].clean!r}") from None
        return found.view(len(SIDES), -1).amax(0).double().cpu().numpy()

    return np.concatenate([off_of(group) for group in groups])


def check_rounding(prompts: Prompts) -> None:
    """In half precision, prompts must differ by more than one step of the number format at the size of the logits.

    Rounding averages out over prompts that differ. Where they do not, every prompt is rounded alike, and an effect may
    be off by a whole step on all of them, with no spread to show it.

    Raises:
        UserError: they do not.
    """
    model, few = prompts.model, range(min(len(prompts.pairs), SPREAD))
    rows = read_ends(model, prompts.ends()[0][: len(few)], whole_vocabulary(model, prompts.max_memory))
    answers = (rows - rows.mean(-1, keepdim=True))[few, [prompts.pairs[i].answers[0] for i in few]]
    largest = float(rows.abs().max())
    step = torch.finfo(model.dtype).eps * largest
    if len(few) > 1 and float(answers.std()) < step:
        raise UserError(
            f"logits at END are as large as {largest:.0f}, where {prompts.source.dtype} has steps of {step:.2g}, and "
            "these prompts differ by less: what is rounded alike on all of them does not average out",
            hint="use --dtype float32",
        )
