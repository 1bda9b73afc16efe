"""Scores of all edges by pruning: which edges a circuit needs that is to do the whole behaviour with fewer and fewer.

Gradients propose, exact runs of whole circuits decide. The search begins with every edge. At each step it leaves out
the edges whose gradients, taken together, foretell the least change, and tends to a circuit that does the behaviour as
the model does (faithfulness 1). Gradients are taken at the circuit that is left: of two edges that cover for each
other, one is not missed, and the other is from then on. They are taken where every kept edge carries `WITHIN` of its
change, since the gradient at its end foretells too much of an edge that multiplies with others. At each size of MIB's
curve, edges inside are exchanged for edges that went before it, as long as the exact faithfulness gains.

Where an edge goes decides its rank; a score is one over the rank. At last edges that lower the behaviour get a score
below 0: those whose gradients do, as many as make the curve of signed ranks (CPR) the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.engine.whole_runs import WholeRuns

Array = np.ndarray
Kept = Bool[Array, " edges"]
#: shares of all edges at which circuits are compared (MIB, `evaluation.py`)
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
#: how much of its change an edge carries where gradients are taken
WITHIN = 0.85
#: the share of edges that is left after a step
LEFT = 0.75
#: with more edges than these, so many are left after a step, and so many prompts are searched on
LARGE, FEWER, FEW = 10_000, 0.5, 64
#: exchanges that are tried at each size; the share of the edges that the first may exchange; what is near enough to 1
TRIES, EXCHANGED, NEAR = 4, 0.15, 0.01
#: shares of the edges that lower the behaviour which may get a score below 0; of a large model the last is tried
BELOW = (0.25, 1.0, 0.5)

#: called with the edges that are left and their faithfulness; returns whether to go on
Progress = Callable[[int, float], bool]


@dataclass(eq=False)
class Point:
    """A circuit, how much of the behaviour it does, and what each edge adds to that by its gradient."""

    kept: Kept
    value: float
    gains: Float[Array, " edges"]


@dataclass(eq=False)
class Pruning:
    """The search.

    Attributes:
        progress: is told of every circuit that is run, and may stop the search.
        chain: circuits of falling sizes, each a part of the one before.
        complete: whether it went on to a single edge.
    """

    runs: WholeRuns
    progress: Progress = lambda *_: True
    chain: list[Point] = field(default_factory=list)
    complete: bool = True

    def __post_init__(self) -> None:
        self.left = LEFT
        if len(self.graph) > LARGE:
            self.left, self.runs = FEWER, WholeRuns(self.runs.prompts, self.runs.indices[:FEW])

    @property
    def graph(self) -> WholeGraph:
        return self.runs.graph

    def point(self, kept: Kept) -> Point:
        """A circuit, run."""
        value = 1.0 if kept.all() else self.runs.faithfulness(kept)
        self.complete &= self.progress(int(kept.sum()), value)
        return Point(kept, value, self.runs.gradient(kept, WITHIN) / self.runs.gap)

    def search(self) -> Float[Array, " edges"]:
        """The scores of all edges."""
        many = len(self.graph)
        point = self.point(np.ones(many, bool))
        self.chain.append(point)
        for size in [int(share * many) for share in reversed(SHARES[:-1])]:
            outer = point.kept
            while self.complete and (now := int(point.kept.sum())) > max(1, size):
                fewer = max(1, size, int(now * self.left))
                kept = point.kept.copy()
                kept[_superfluous(point, now - fewer)] = False
                point = self.point(kept)
            point = self._exchanged(point, outer)
            if not self.complete:
                break
            self.chain.append(point)
        return self._signed(self._ranks())

    def _exchanged(self, point: Point, outer: Kept) -> Point:
        """A circuit of the same size in an outer one, no farther from faithful."""
        most = max(1, int(EXCHANGED * point.kept.sum()))
        for _ in range(TRIES):
            missing = 1 - point.value
            if not self.complete or abs(missing) < NEAR:
                break
            gains = point.gains * np.sign(missing)
            inside, outside = (here.nonzero()[0] for here in (point.kept, outer & ~point.kept))
            out, into = inside[np.argsort(gains[inside])], outside[np.argsort(-gains[outside])]
            many = min(len(out), len(into), most)
            worth = gains[into[:many]] - gains[out[:many]]
            many = int((worth > 0).sum())
            enough = np.cumsum(worth[:many]) >= abs(missing)
            many = int(enough.argmax()) + 1 if enough.any() else many
            if not many:
                break
            kept = point.kept.copy()
            kept[out[:many]], kept[into[:many]] = False, True
            other = self.point(kept)
            if abs(1 - other.value) < abs(missing):
                point = other
            elif not (most := many // 3):
                break
        return point

    def _ranks(self) -> Int[Array, " edges"]:
        """The rank of each edge, from 1: by the smallest circuit that has it, and by its gain there or one before."""
        level = np.sum([point.kept for point in self.chain], axis=0)
        gains = np.zeros(len(self.graph))
        for point in self.chain:
            gains[point.kept] = np.abs(point.gains[point.kept])
        order = np.lexsort((-gains, -level))
        ranks = np.empty(len(order), int)
        ranks[order] = np.arange(1, len(order) + 1)
        return ranks

    def _signed(self, ranks: Int[Array, " edges"]) -> Float[Array, " edges"]:
        """Scores, some of them below 0."""
        scores, gains = 1 / ranks, np.zeros(len(ranks))
        for point in self.chain[:4]:  # in smaller circuits no gradient is of a whole behaviour
            gains[point.kept] = point.gains[point.kept]
        lowering = gains.argsort(kind="stable")[: int((gains < 0).sum())]
        if not self.complete:
            return scores
        found = [(_area([point.value for point in reversed(self.chain)]), scores)]
        for share in BELOW[-1:] if len(ranks) > LARGE else BELOW:
            signed = scores.copy()
            signed[lowering[: int(share * len(lowering))]] *= -1
            found.append((self._area(signed), signed))
        return max(found, key=lambda one: one[0])[1]

    def _area(self, scores: Float[Array, " edges"]) -> float:
        """CPR on the prompts of the search."""
        circuits = (self.graph.connected(self.graph.highest(scores, int(share * len(scores)))) for share in SHARES[:-1])
        return _area([*map(self.runs.faithfulness, circuits), 1.0])


def _area(values: Sequence[float]) -> float:
    """The area under a curve at `SHARES`."""
    return float(np.trapezoid(values, SHARES))


def _superfluous(point: Point, many: int) -> Int[Array, " many"]:
    """So many edges to leave out: those with the smallest gains, but so that the circuit comes back to faithful.

    Where it does too little, as few as needed of them are the edges that lower the behaviour most. Where it does too
    much, all of them lie a little above 0.
    """
    inside = point.kept.nonzero()[0]
    gains, missing = point.gains[inside], 1 - point.value
    small = np.argsort(np.abs(gains), kind="stable")[:many]
    if missing + gains[small].sum() > 0:
        ways = _with_harmful(gains, many)
    else:
        levels = np.linspace(0, np.abs(gains[small]).max(), 33)
        ways = (np.argsort(np.abs(gains - level), kind="stable")[:many] for level in levels)
    found: Array = inside[min(ways, key=lambda way: abs(missing + gains[way].sum()))]
    return found


def _with_harmful(gains: Float[Array, " m"], many: int) -> Iterator[Int[Array, " many"]]:
    """Those with the smallest gains, more and more of them exchanged for the lowest ones."""
    small, low = np.argsort(np.abs(gains), kind="stable"), np.argsort(gains, kind="stable")
    for harmful in np.unique(np.linspace(0, many, 33).astype(int)):
        first = low[:harmful]
        yield np.concatenate([first, small[~np.isin(small, first)][: many - harmful]])
