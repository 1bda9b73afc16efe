"""Scores of all edges by pruning: where an edge goes decides its rank, and a score is one over the rank.

Circuits are compared at each size of MIB's curve. At last edges that lower the behaviour get a score below 0: those
whose gradients do, as many as make the curve of signed ranks (CPR) the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.discover.pruning import LEFT, Point, Progress, Pruning, superfluous
from circuitdsl.engine.whole_runs import WholeRuns

Array = np.ndarray
#: shares of all edges at which circuits are compared (MIB, `evaluation.py`)
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
#: with more edges than these, so many are left after a step, and so many prompts are searched on
LARGE, FEWER, FEW = 10_000, 0.5, 64
#: shares of the edges that lower the behaviour which may get a score below 0; of a large model the last is tried
BELOW = (0.25, 1.0, 0.5)


@dataclass(eq=False)
class Ranking:
    """The search.

    Attributes:
        progress: is told of every circuit that is run, and may stop the search.
        chain: circuits of falling sizes, each a part of the one before.
    """

    runs: WholeRuns
    progress: Progress = lambda *_: True
    chain: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = LEFT
        if len(self.graph) > LARGE:
            self.left, self.runs = FEWER, WholeRuns(self.runs.prompts, self.runs.indices[:FEW])
        self.pruning = Pruning(self.runs, self.progress)

    @property
    def graph(self) -> WholeGraph:
        return self.runs.graph

    @property
    def complete(self) -> bool:
        """Whether it went on to a single edge."""
        return self.pruning.complete

    def search(self) -> Float[Array, " edges"]:
        """The scores of all edges."""
        many, pruning = len(self.graph), self.pruning
        every = np.ones(many, bool)
        pruning.complete &= self.progress(many, 1.0)
        point = Point(every, 1.0, self.runs)
        self.chain.append(point)
        for size in [int(share * many) for share in reversed(SHARES[:-1])]:
            outer = point.kept
            while self.complete and (now := int(point.kept.sum())) > max(1, size):
                fewer = max(1, size, int(now * self.left))
                kept = point.kept.copy()
                kept[superfluous(point, now - fewer)] = False
                point = pruning.point(kept)
            point = pruning.exchanged(point, outer)
            if not self.complete:
                break
            self.chain.append(point)
        return self._signed(self._ranks())

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
        circuits = (self.graph.highest(scores, int(share * len(scores))) for share in SHARES[:-1])
        return _area([*map(self.runs.faithfulness, circuits), 1.0])


def _area(values: Sequence[float]) -> float:
    """The area under a curve at `SHARES`."""
    return float(np.trapezoid(values, SHARES))
