"""Numbers as the reasons of verdicts write them: `−43 % [−47, −39]`, `3.6 [3.4, 3.8]`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from circuitdsl.verdict.estimates import Limits

Unit = Literal["percent", "points", "plain"]
_SUFFIX: Mapping[Unit, str] = {"percent": " %", "points": " points", "plain": ""}


@dataclass(frozen=True, slots=True)
class Scale:
    """How one quantity is written: its unit, and how many decimals its interval deserves."""

    unit: Unit
    decimals: int

    def number(self, x: float) -> str:
        shown = round(x * (1 if self.unit == "plain" else 100), self.decimals) + 0.0
        return f"{shown:.{self.decimals}f}".replace("-", "−").replace("inf", "∞")

    def amount(self, x: float) -> str:
        return self.number(x) + _SUFFIX[self.unit]

    def estimate(self, value: float, limits: Limits | None) -> str:
        inside = f" [{self.number(limits[0])}, {self.number(limits[1])}]" if limits else ""
        return self.amount(value) + inside


def scale(unit: Unit, value: float, limits: Limits | None, bounds: Sequence[float] = ()) -> Scale:
    """The scale for an interval: decimals by its width, and more where rounding would move a number onto a bound."""
    factor = 1 if unit == "plain" else 100
    shown = [factor * x for x in (value, *(limits or ())) if math.isfinite(x)]
    width = factor * (limits[1] - limits[0]) if limits else abs(shown[0]) / 10 if shown else 1.0
    decimals = 0 if not 0 < width < math.inf else min(max(math.ceil(0.5 - math.log10(width)), 0), 4)
    apart = [(x, factor * bound) for x in shown for bound in bounds if x != factor * bound]
    while decimals < 4 and any(round(x, decimals) == round(bound, decimals) for x, bound in apart):
        decimals += 1
    return Scale(unit, decimals)


def confidence(level: float) -> str:
    """`99.8 %` for an interval of level 0.2 %, which is given to two digits."""
    return f"{100 - float(f'{100 * level:.2g}'):g} %"


def exact(unit: Unit, x: float) -> str:
    """A bound or a margin as it was written: 0.2 is `20 %`."""
    text = f"{round(x * (1 if unit == 'plain' else 100), 6):g}".replace("-", "−")
    return text + _SUFFIX[unit]
