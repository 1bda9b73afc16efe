"""A task's prompts on a model, as readers of numbers see them.

Nothing here imports torch: where all numbers are known from earlier, none is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from circuitdsl.circuit.vocabulary import CHANCE, METRICS, Metric
from circuitdsl.engine.away import Recipe, ask
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.tally import Tally
from circuitdsl.measurements.requests import Request
from circuitdsl.models.model import Model
from circuitdsl.tasks.dataset import Corrupt, Dataset, PromptPair

if TYPE_CHECKING:
    from circuitdsl.engine.ends import Ends
    from circuitdsl.engine.experiment import Positions, Readout
    from circuitdsl.engine.metrics import Scorer
    from circuitdsl.engine.runs import Runs
    from circuitdsl.models.parts import Transformer

Array = np.ndarray
SIDES = ("clean", "corrupt")
T = TypeVar("T")
R = TypeVar("R", bound=Callable[..., Any])
#: what means are taken over: the corrupt prompts of these
Means = Sequence[PromptPair | Corrupt]


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
        source: the model, which is loaded when something is computed.
        clean: the metric on each clean prompt [n].
        corrupt: the metric on each corrupt prompt, scored with the clean one's answers [n].
        ends: gives the residual streams at END of all clean and of all corrupt prompts, before the final norm.
        others: makes a few prompts under each other corruption of the task, for advice.
        more: makes the prompts over which mean ablation takes its means (these among them); by default these alone.
        max_memory: bytes that measuring may take beside the model; by default what `engine.memory` finds right.
        cache: numbers that are known from earlier.
        kept: runs that were made for the scores, with the places of their prompts.
        recipe: how the same prompts are made where the model is, if that is another process.
    """

    source: Model
    data: Dataset
    metric: Metric
    clean: Array
    corrupt: Array
    ends: Callable[[], Ends]
    others: Mapping[str, Callable[[], tuple[PromptPair, ...]]] = field(default_factory=dict)
    more: Callable[[], Means] | None = None
    max_memory: int | None = None
    tally: Tally = field(default_factory=Tally)
    cache: Known | None = None
    kept: list[tuple[list[int], Runs]] = field(default_factory=list, repr=False)
    recipe: Recipe | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def model(self) -> Transformer:
        """The parts of the model, which are read now if they were not."""
        return self.source.parts

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        return self.data.pairs

    @cached_property
    def reference(self) -> Means:
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

    def ask(self, function: str, *given: Any) -> Any:
        """What a function, "module:name", gives for these prompts and more: here, or where the model is."""
        return ask(self.source, self.recipe, function, self, *given)

    def scorer_of(self, metric: Metric) -> Scorer:
        """What scores these prompts by a metric; raises `UserError` where it cannot be taken on them."""
        from circuitdsl.engine.ends import clean_logits
        from circuitdsl.engine.metrics import scorer

        alone = METRICS[metric.name.removeprefix(CHANCE)].behaviour
        made = partial(scorer, metric, self.pairs)
        return self.once(("scorer", metric), lambda: made() if alone else made(clean_logits(self)))

    def readout(self, score: Scorer, part: Array) -> Readout:
        """What a scorer reads of some prompts."""
        from circuitdsl.engine.ends import readout

        return readout(self.model, score, part, self.max_memory)


@dataclass(frozen=True)
class Batch:
    """Runs of prompts of one length, to be read.

    Attributes:
        part: which of the prompts these are.
        tally: counts the work done on them; batches may be read on several threads.
    """

    prompts: Prompts
    runs: Runs
    part: Array
    tally: Tally = field(default_factory=Tally)

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
        return {"max_memory": self.prompts.max_memory, "tally": self.tally}


def reads_several(read: R) -> R:
    """Mark a reader that takes several batches at once and gives a mapping for each of them. Others take one."""
    read.reads_several = True  # type: ignore[attr-defined]
    return read


@dataclass(frozen=True)
class Numbers:
    """What a reader found: a number for each prompt, and on which of them the patch changed anything."""

    values: Array
    changed: Array | bool | None = None


def behaviour(prompts: Prompts, metric: Metric, side: str = "clean") -> Array:
    """Any metric of the clean or the corrupt run, on every prompt."""
    if metric == prompts.metric:
        return prompts.clean if side == "clean" else prompts.corrupt
    return prompts.once((metric, side), lambda: scores_of(prompts, metric, side))


def scores_of(prompts: Prompts, metric: Metric, side: str) -> Array:
    """A metric of the clean or the corrupt run, known or computed; a field of the prompts need not have it yet."""

    def compute() -> Array:
        found: Array = prompts.ask("circuitdsl.engine.ends:score_side", metric, side)
        return found

    known = prompts.cache
    return known.scores(side, metric, compute) if known else compute()


def gap(prompts: Prompts, metric: Metric, chosen: Array | None = None) -> float:
    """How far the corrupt prompts (or those chosen) are from the clean ones by a metric, on average."""
    each = behaviour(prompts, metric) - behaviour(prompts, metric, "corrupt")
    return abs(float(np.mean(each if chosen is None else each[chosen])))
