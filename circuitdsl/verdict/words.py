"""Numbers as the reasons of verdicts write them: `−43 % [−47, −39]`, `3.6 [3.4, 3.8]`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from circuitdsl.verdict.estimates import Limits

Unit = Literal["percent", "points", "plain"]
_SUFFIX: Mapping[Unit, str] = {"percent": " %", "points": " points", "plain": ""}


def written(unit: Unit, value: float, limits: Limits | None = None, bounds: Sequence[float] = ()) -> str:
    """A figure with its interval.

    The width of the interval says how many decimals are shown; there are more where rounding would move a number onto
    a bound.
    """
    factor = _factor(unit)
    shown = [factor * x for x in (value, *(limits or ())) if math.isfinite(x)]
    width = factor * (limits[1] - limits[0]) if limits else abs(shown[0]) / 10 if shown else 1.0
    decimals = 0 if not 0 < width < math.inf else min(max(math.ceil(0.5 - math.log10(width)), 0), 4)
    apart = [(x, factor * bound) for x in shown for bound in bounds if x != factor * bound]
    while decimals < 4 and any(round(x, decimals) == round(bound, decimals) for x, bound in apart):
        decimals += 1

    def number(x: float) -> str:
        return f"{round(x * factor, decimals) + 0.0:.{decimals}f}".replace("-", "−").replace("inf", "∞")

    interval = f" [{number(limits[0])}, {number(limits[1])}]" if limits else ""
    return number(value) + _SUFFIX[unit] + interval


def confidence(level: float) -> str:
    """`99.8 %` for an interval of level 0.2 %, which is given to two digits."""
    return f"{100 - float(f'{100 * level:.2g}'):g} %"


def exact(unit: Unit, x: float) -> str:
    """A bound or a margin as it was written: 0.2 is `20 %`."""
    return f"{round(x * _factor(unit), 6):g}".replace("-", "−") + _SUFFIX[unit]


def _factor(unit: Unit) -> int:
    return 1 if unit == "plain" else 100
