"""How many prompts would decide what those at hand do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitdsl.verdict.estimates import Array
from circuitdsl.verdict.ratios import Ratio, in_stacks
from circuitdsl.verdict.samples import Region
from circuitdsl.verdict.sampling import EARLY

if TYPE_CHECKING:
    from circuitdsl.verdict.weighing import Part

#: a sample is repeated at most so many times, and to at most so many prompts
MOST_TIMES, MOST_PROMPTS = 64, 50_000

Places = NDArray[np.intp]
#: the p-values of some parts, by their places, were their prompts seen so many times
Repeated = Callable[[Places, Places], Array]


def prompts_to_decide(asked: Sequence[tuple[Part, float]]) -> list[int | None]:
    """The fewest prompts at which the last figure of each part, were further prompts like those seen, is decided.

    Each is decided at the level that is given with it. These are estimates, as the sample is repeated as a whole;
    rounded up to two digits. None where `MOST_TIMES` as many prompts would not decide. Parts about ratios are searched
    together: a round costs little more for a hundred than for one.
    """
    levels = np.array([level * min(1 - EARLY, part.looks.shares[-1]) for part, level in asked])
    times = np.zeros(len(asked), int)
    ratios: dict[int, Ratio] = {}
    for i, (part, _) in enumerate(asked):
        figure = part.figures[-1]
        if isinstance(figure, Ratio) and isinstance(part.region, Region):
            ratios[i] = figure
        else:
            times[i] = _times(_of_one(part), levels[[i]], figure.n)[0]
    for members, batch in in_stacks(ratios):
        regions = [region for i in members if isinstance(region := asked[i][0].region, Region)]
        bounds = np.array([(region.low, region.high) for region in regions]).T
        times[members] = _times(_of_ratios(batch, bounds), levels[members], batch.n)
    counts = (part.figures[-1].n * many for (part, _), many in zip(asked, times.tolist(), strict=True))
    return [_rounded(count) if count else None for count in counts]


def _times(p_values: Repeated, levels: Array, n: int) -> Places:
    """How many times n prompts must be seen until each part is decided at its level; 0 where that is too often."""
    most, found, times = min(MOST_TIMES, MOST_PROMPTS // n), np.zeros(len(levels), int), 2
    while times <= most and len(still := np.flatnonzero(found == 0)):
        found[still[p_values(still, np.full(len(still), times)) <= levels[still]]] = times
        times *= 2
    low, high = found // 2 + 1, found
    while len(still := np.flatnonzero(low < high)):
        middle = (low + high)[still] // 2
        decided = p_values(still, middle) <= levels[still]
        high[still[decided]] = middle[decided]
        low[still[~decided]] = middle[~decided] + 1
    return high


def _of_one(part: Part) -> Repeated:
    """The p-values of a part, whatever its figure and region are: the smaller of those for and against its claim."""

    def p_values(_: Places, times: Places) -> Array:
        figure = part.figures[-1].repeated(int(times[0]))
        return np.array([min(part.region.combine(part.region.p_values(figure)))])

    return p_values


def _of_ratios(batch: Ratio, bounds: Array) -> Repeated:
    """The same of ratios and the ends of their regions [2, ratios]; they are not smaller than that of the gap."""

    def p_values(some: Places, times: Places) -> Array:
        inside, outside = np.zeros(len(some)), np.ones(len(some))
        for bound, within in ((bounds[0], 1), (bounds[1], 0)):  # above the lower end, below the upper one
            here = np.flatnonzero(np.isfinite(bound[some]))
            if len(here):
                sides = batch.only(some[here]).repeated(times[here]).sides(bound[some[here]])
                inside[here] = np.maximum(inside[here], sides[within])
                outside[here] = np.minimum(outside[here], sides[1 - within])
        return 2 * np.maximum(np.minimum(inside, outside), batch.only(some).repeated(times).unclear)

    return p_values


def _rounded(count: int) -> int:
    """A count rounded up to two digits."""
    step = 10 ** max(0, int(math.log10(count)) - 1)
    return -(-count // step) * step
