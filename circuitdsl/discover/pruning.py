"""Pruning: which parts a circuit needs that is to do the whole behaviour, with fewer and fewer of them.

Gradients propose, exact runs of whole circuits decide. The search begins with every part. At each step it leaves out
the parts whose gradients, taken together, foretell the least change, and tends to a circuit that does the behaviour as
the model does (faithfulness 1). Gradients are taken at the circuit that is left: of two parts that cover for each
other, one is not missed, and the other is from then on. They are taken where every kept part carries `WITHIN` of its
change, since the gradient at its end foretells too much of a part that multiplies with others. Parts inside are
exchanged for parts that went before, as long as the exact faithfulness gains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from circuitdsl.engine.partial_runs import PartialRuns

Array = np.ndarray
Kept = Bool[Array, " parts"]
#: how much of its change a part carries where gradients are taken
WITHIN = 0.85
#: the share of the parts that is left after a step
LEFT = 0.75
#: how much more than the whole behaviour the smallest circuit may do: what works against it is looked for elsewhere
OVER = 0.4
#: exchanges that are tried at each size; the share of the parts that the first may exchange; what is near enough to 1
TRIES, EXCHANGED, NEAR = 4, 0.15, 0.01

#: called with the parts that are left and their faithfulness; returns whether to go on
Progress = Callable[[int, float], bool]


@dataclass(eq=False)
class Point:
    """A circuit, and how much of the behaviour it does."""

    kept: Kept
    value: float
    runs: PartialRuns[Any]

    @cached_property
    def gains(self) -> Float[Array, " parts"]:
        """What each part adds to the behaviour by its gradient."""
        found: Array = self.runs.gradient(self.kept, WITHIN) / self.runs.gap
        return found


@dataclass(eq=False)
class Pruning:
    """The search.

    Attributes:
        progress: is told of every circuit that is run, and may stop the search.
        goal: how much of the behaviour a circuit is to do.
        complete: whether it was not stopped.
    """

    runs: PartialRuns[Any]
    progress: Progress = lambda *_: True
    goal: float = 1.0
    complete: bool = True

    def point(self, kept: Kept) -> Point:
        """A circuit, run."""
        value = self.runs.faithfulness(kept)
        self.complete &= self.progress(int(kept.sum()), value)
        return Point(kept, value, self.runs)

    def smallest(self, within: float) -> Point:
        """The smallest circuit that is found to do so little less than the goal, or not much more.

        The goal is no higher than what all parts do. A step that leads to none is tried again with half as many parts.
        """

        def near(point: Point) -> bool:
            return -within <= point.value - self.goal <= max(within, OVER)

        point, share = self.point(np.ones(self.runs.many, bool)), 1 - LEFT
        self.goal = min(self.goal, point.value)
        while self.complete and (now := int(point.kept.sum())) > 1:
            many, kept = max(1, int(share * now)), point.kept.copy()
            kept[superfluous(point, many, self.goal)] = False
            fewer = self.point(kept)
            if not near(fewer):
                fewer = self.exchanged(fewer, point.kept)
            if near(fewer):
                point = fewer
            elif many == 1:
                break
            else:
                share = many / (2 * now)
        return point

    def exchanged(self, point: Point, outer: Kept) -> Point:
        """A circuit of the same size in an outer one, no farther from faithful."""
        most = max(1, int(EXCHANGED * point.kept.sum()))
        for _ in range(TRIES):
            missing = self.goal - point.value
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
            if abs(self.goal - other.value) < abs(missing):
                point = other
            elif not (most := many // 3):
                break
        return point


def superfluous(point: Point, many: int, goal: float = 1.0) -> Int[Array, " many"]:
    """So many edges to leave out: those with the smallest gains, but so that the circuit comes back to faithful.

    Where it does too little, as few as needed of them are the edges that lower the behaviour most. Where it does too
    much, all of them lie a little above 0.
    """
    inside = point.kept.nonzero()[0]
    gains, missing = point.gains[inside], goal - point.value
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
