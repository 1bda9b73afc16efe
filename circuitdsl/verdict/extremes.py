"""Claims about the largest, or the smallest of several largest, of many figures: incompleteness and minimality.

Each leaf is one figure (an effect, or a difference); only its *size* counts. With sets of leaves, the claim is about

    E = min over sets of (max over the leaves of a set of |figure|),

with one set for incompleteness (all K), and one set a member for minimality (its K). For one leaf E is |figure|. A
bound on E is a bound on leaves, joined by "all" and "some":

    E <= b   some set has all of its leaves within +/- b
    E >= a   every set has some leaf beyond +/- a

The p-values of "all" and of "some" are those of `families.py`. Both are valid under any dependence between the
leaves, which are measured on the same prompts, and so are combinations of them. No statement about E depends on which
leaf happened to look largest.

Its interval combines the leaves' limits in the same way. With k leaves, max |figure| is at least every leaf's lower
limit at alpha / k. It is at most the largest of the upper limits at alpha each, since it is itself one of the leaves'.
The minimum over m sets is at least the smallest of the sets' lower limits, and at most every set's upper limit, each at
alpha / m.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from circuitdsl.circuit.criteria import Beyond, Within
from circuitdsl.verdict.estimates import Array, Limits
from circuitdsl.verdict.families import all_of, any_of
from circuitdsl.verdict.ratios import intervals

if TYPE_CHECKING:
    from circuitdsl.verdict.weighing import Part

Sets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Extreme:
    """What is claimed of E, and the parts of the evidence that test it, by their places.

    Attributes:
        name: what E is called.
        test: the claimed bounds on E.
        within, beyond: for each set, the parts that test its leaves for being within the upper bound, and beyond the
            lower one; empty where that bound is not claimed.
        leaves: for each set, one part for each of its leaves.
    """

    name: str
    test: Within
    within: Sets
    beyond: Sets
    leaves: Sets

    def p_holds(self, p: Sequence[float]) -> float:
        """p-value for "E is as claimed" from those for "this part holds"."""
        upper = any_of([all_of([p[i] for i in one]) for one in self.within]) if self.within else 0.0
        lower = all_of([any_of([p[i] for i in one]) for one in self.beyond]) if self.beyond else 0.0
        return max(upper, lower)

    def p_fails(self, p: Sequence[float]) -> float:
        """p-value for "E is not as claimed" from those for "this part fails"."""
        over = [all_of([any_of([p[i] for i in one]) for one in self.within])] if self.within else []
        under = [any_of([all_of([p[i] for i in one]) for one in self.beyond])] if self.beyond else []
        return any_of([*over, *under]) if over or under else 1.0


def leaf_tests(test: Within) -> tuple[Within | None, Beyond | None]:
    """The tests of one leaf that a bound on E asks for: within the upper bound, beyond the lower one.

    E is a size: `>= 0` asks for nothing, `> 0` for a figure that is clearly not 0.
    """
    within = None if test.high is None else Within(test.quantity, -test.high, test.high, test.text)
    asked = test.low if test.low or test.strict else None
    beyond = None if asked is None else Beyond(test.quantity, asked, test.text)
    return within, beyond


def found(extreme: Extreme, parts: Sequence[Part], level: Callable[[Part], float]) -> tuple[float, Limits | None, int]:
    """E on the prompts of the last look, its limits at a level, and the place of the part whose figure it is.

    `level` gives the level of the interval by the looks of that part.
    """
    sizes = [np.abs([float(parts[i].figures[-1].value) for i in one]) for one in extreme.leaves]
    of_set = int(np.argmin([max(one) for one in sizes]))
    leaf = extreme.leaves[of_set][int(np.argmax(sizes[of_set]))]
    alpha = level(parts[leaf])
    every = [parts[i] for one in extreme.leaves for i in one]
    counts = np.array([len(one) for one in extreme.leaves])
    low = _limits(every, np.repeat(alpha / counts, counts))[0]
    high = _limits(every, np.full(len(every), alpha / len(counts)))[1]
    ends = np.cumsum(counts)[:-1]
    lowest, highest = (float(min(map(max, np.split(side, ends)))) for side in (low, high))
    return float(max(sizes[of_set])), None if np.isnan((lowest, highest)).any() else (lowest, highest), leaf


def _limits(parts: Sequence[Part], alpha: Array) -> tuple[Array, Array]:
    """Limits of the size of every leaf at its level."""
    found = intervals([(part.figures[-1], level) for part, level in zip(parts, alpha.tolist(), strict=True)])
    low, high = np.array([limits or (np.nan, np.nan) for limits in found]).T
    return np.maximum(0.0, np.maximum(low, -high)), np.maximum(np.abs(low), np.abs(high))
