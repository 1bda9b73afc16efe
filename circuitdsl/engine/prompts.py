"""A task's prompts on a model, as readers of numbers see them, and scores of their unpatched runs at END."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.vocabulary import METRICS, Metric
from circuitdsl.engine import runs as engine
from circuitdsl.engine.count import Tally
from circuitdsl.engine.experiment import Positions, Readout
from circuitdsl.engine.memory import VOCAB_ROWS, kept_bytes, prompt_bytes, run_at_once, vocabulary_rows
from circuitdsl.engine.metrics import Scorer, scorer
from circuitdsl.engine.positions import token_indices
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import Request
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair

Array = np.ndarray
SIDES = ("clean", "corrupt")
T = TypeVar("T")
Ends = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]


class Known(Protocol):
    """A cache of numbers: those that it lacks are computed and kept."""

    def scores(self, side: str, metric: Metric, compute: Callable[[], Array]) -> Array:
        """A metric of the unpatched runs of all prompts."""

    def of_prompts(self, request: Request, compute: Callable[[], Array]) -> Array:
        """A request's numbers on all prompts."""


@dataclass(frozen=True)
class Prompts:
    """A task's prompts on a model, with their clean and corrupt scores.

    Attributes:
        clean: the metric on each clean prompt [n].
        corrupt: the metric on each corrupt prompt, scored with the clean one's answers [n].
        ends: gives the residual streams at END of all clean and of all corrupt prompts, before the final norm.
        others: a few prompts under each other corruption of the task, for advice.
        more: makes the prompts over which mean ablation takes its means (these among them); by default these alone.
        max_memory: bytes that measuring may take beside the model; by default what `engine.memory` finds right.
        cache: numbers that are known from earlier.
        kept: runs that were made for the scores, with the places of their prompts.
    """

    model: Transformer
    data: Dataset
    metric: Metric
    scorer: Scorer
    clean: Array
    corrupt: Array
    ends: Callable[[], Ends]
    others: Mapping[str, tuple[PromptPair, ...]] = field(default_factory=dict)
    more: Callable[[], Sequence[PromptPair]] | None = None
    max_memory: int | None = None
    tally: Tally = field(default_factory=Tally)
    cache: Known | None = None
    kept: list[tuple[list[int], engine.Runs]] = field(default_factory=list, repr=False)
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        return self.data.pairs

    @cached_property
    def reference(self) -> Sequence[PromptPair]:
        """The prompts that mean ablation averages over."""
        return self.more() if self.more else self.pairs

    @cached_property
    def strata(self) -> Array:
        return np.asarray([pair.stratum for pair in self.pairs])

    @property
    def falls(self) -> bool:
        """Whether the metric is better when lower."""
        return METRICS[self.metric.name].falls

    def once(self, what: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, which is called once for each `what`."""
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]

    def scorer_of(self, metric: Metric) -> Scorer:
        """What scores these prompts by a metric."""
        return self.scorer if metric == self.metric else scorer(metric, self.pairs)

    def readout(self, score: Scorer, part: Array) -> Readout:
        """What a scorer reads of some prompts."""
        return readout(score, torch.as_tensor(part), self.model.device, vocabulary_rows(self.model, self.max_memory))


@dataclass(frozen=True)
class Batch:
    """Runs of prompts of one length, to be read.

    Attributes:
        part: which of the prompts these are.
    """

    prompts: Prompts
    runs: engine.Runs
    part: Array

    @property
    def model(self) -> Transformer:
        return self.prompts.model

    @property
    def pairs(self) -> list[PromptPair]:
        return [self.prompts.pairs[i] for i in self.part]

    def places(self, requests: Sequence[Request]) -> Positions:
        """Token indices of all positions that some requests need."""
        wanted = dict.fromkeys(position for request in requests for position in request.positions)
        return {position: token_indices(self.pairs, [position]) for position in wanted}

    @property
    def limits(self) -> Mapping[str, Any]:
        """Memory and tally, as the engine takes them."""
        return {"max_memory": self.prompts.max_memory, "tally": self.prompts.tally}


@dataclass(frozen=True)
class Numbers:
    """What a reader found: a number for each prompt, and on which of them the patch changed anything."""

    values: Array
    changed: Array | bool | None = None


def readout(score: Scorer, places: Int[Tensor, " m"], device: torch.device, at_once: int) -> Readout:
    """What a scorer reads of the prompts at `places`; whole-vocabulary metrics are reduced to their score at once."""
    if score.ids is not None:
        return Readout(score.ids[places].to(device))
    there = places.to(device)
    return Readout(reduce=lambda rows, prompts: score.score(rows, there[prompts])[:, None], at_once=at_once)


def scored(score: Scorer, found: Float[Tensor, "e n k"], places: Int[Tensor, " n"]) -> Array:
    """One number for each run and prompt [e, n]."""
    if score.ids is None:
        return found[..., 0].double().cpu().numpy()
    e, n, k = found.shape
    rows = score.score(found.reshape(e * n, k).cpu(), places.repeat(e))
    return rows.view(e, n).double().numpy()


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


def ends_of(
    model: Transformer,
    pairs: Sequence[PromptPair],
    max_memory: int | None,
    kept: list[tuple[list[int], engine.Runs]] | None = None,
) -> Ends:
    """The residual streams at END of all clean and all corrupt prompts.

    Args:
        kept: takes the first runs with the places of their prompts, as many as `kept_bytes` allows.

    Raises:
        UserError: some are not finite.
    """
    ends = torch.empty(2, len(pairs), model.d_model, dtype=model.dtype, device=model.device)

    def run(places: Tensor, tokens: Tensor) -> None:
        runs = engine.run(model, tokens, tokens_of([pairs[i] for i in places], "corrupt_tokens"))
        ends[0, places], ends[1, places] = runs.clean.end, runs.corrupt.end
        held = sum(other.n * prompt_bytes(model, other.length) for _, other in (*(kept or ()), (places, runs)))
        if kept is not None and held <= kept_bytes(model.device, max_memory):
            kept.append((places.tolist(), runs))

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
