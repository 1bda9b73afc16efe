"""How many prompts would decide a claim that those at hand leave undecided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.sampling import EARLY

if TYPE_CHECKING:
    from circuitdsl.verdict.weighing import Part

#: samples are repeated at most so many times, and made no larger than this
MOST_TIMES, MOST_PROMPTS = 64, 50_000


def prompts_to_decide(part: Part, level: float) -> int | None:
    """The fewest prompts at which the last figure, were further prompts like those seen, is decided at a level.

    Samples are repeated as a whole, so that it is an estimate; rounded up to two digits. None where even
    `MOST_TIMES` as many would not do.
    """
    n = part.figures[-1].n

    def decided(times: int) -> bool:
        return _p_value(part, times) <= level * (1 - EARLY)

    most = min(MOST_TIMES, MOST_PROMPTS // n)
    low, high = 1, 2
    while high <= most and not decided(high):
        low, high = high, 2 * high
    if high > most:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return _rounded_up(n * high)


def _p_value(part: Part, times: int) -> float:
    """The two-sided p-value of whatever the figure of a repeated sample would show."""
    figure = part.figures[-1].repeated(times)
    shown = min(part.region.combine(part.region.p_values(figure)))
    return max(shown, 2 * float(figure.unclear)) if isinstance(figure, Ratio) else shown


def _rounded_up(n: int) -> int:
    step = 10 ** max(0, int(math.log10(n)) - 1)
    return -(-n // step) * step
