"""Looking at the numbers before the last prompt, without paying for it in false verdicts.

A design looks at fixed numbers of prompts (N/8, N/4, N/2, N) and may stop at each. Its boundary is O'Brien and
Fleming's (1979, Biometrics 35): at information fraction t it takes `z >= c / sqrt(t)`, which asks much of early looks
and almost nothing extra of the last. Under the null `z sqrt(t)` is Brownian motion seen at the looks, so that the
level of a boundary is `P(max_k B(t_k) >= c)`, found by the recursion of Armitage, McPherson and Rowe (1969, J. R.
Statist. Soc. A 132). The *sequential p-value* (Jennison and Turnbull 2000, §8.4; Liu and Anderson 2008, Biometrika
95) is the smallest level at which the design would have stopped at some look so far; it is valid whenever and for
whatever reason one stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import interpolate, optimize, special

from circuitdsl.verdict.intervals import Array

#: no look has fewer prompts
FIRST_LOOK = 32
#: a design looks early at N / 8, N / 4 and N / 2
DIVISORS = (8, 4, 2)
#: Stopping when a figure is extreme shifts it: an ordinary 95 % interval then covers as little as 93.3 % (Brownian
#: motion, worst case over drifts and boundaries). At this multiple of alpha it covers at least 94.6 %.
AFTER_LOOKING = 0.8


@dataclass(frozen=True, slots=True)
class Looks:
    """The numbers of prompts at which a design looks, the last one being all of them."""

    sizes: tuple[int, ...]

    @property
    def fractions(self) -> tuple[float, ...]:
        return tuple(size / self.sizes[-1] for size in self.sizes)

    def reached(self, n: int) -> tuple[int, ...]:
        """Looks that n prompts allow."""
        return tuple(size for size in self.sizes if size <= n)

    def p_value(self, p: ArrayLike) -> Array:
        """Sequential one-sided p-value from fixed-sample ones [..., looks so far]."""
        p = np.asarray(p, float)
        if len(self.sizes) == 1:
            return p[..., 0]
        root = np.sqrt(self.fractions[: p.shape[-1]])
        return crossing(np.max(-special.ndtri(p) * root, axis=-1), self.fractions)

    def nominal(self, alpha: float, look: int) -> float:
        """The two-sided fixed-sample level that the boundary of level alpha uses at a look (counted from 0)."""
        if len(self.sizes) == 1:
            return alpha
        z = critical(alpha, self.fractions) / np.sqrt(self.fractions[look])
        return float(2 * special.ndtr(-z))

    def display(self, alpha: float) -> float:
        """The level for a plain interval that is shown after looking."""
        return alpha if len(self.sizes) == 1 else alpha * AFTER_LOOKING


def plan_looks(prompts: int, early_stop: bool = True) -> Looks:
    """Looks at N/8, N/4, N/2 and N prompts, none under `FIRST_LOOK` but the last; one look without early stopping."""
    if prompts < 1:
        raise ValueError("a sample needs at least one prompt")
    early = [prompts // part for part in DIVISORS] if early_stop else []
    return Looks((*dict.fromkeys(n for n in early if FIRST_LOOK <= n < prompts), prompts))


# --- the boundary -----------------------------------------------------------------------------------

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(240)
_LARGEST = 37.0  # beyond it a normal tail is 0 in double precision


def _crossing(c: float, fractions: tuple[float, ...]) -> float:
    """P(max_k B(t_k) >= c): add up what leaves at each look, carry on the density of what stays."""
    low = -8.0
    x = (_NODES + 1) / 2 * (c - low) + low
    w = _WEIGHTS * (c - low) / 2
    out = special.ndtr(-c / np.sqrt(fractions[0]))
    stay = np.exp(-x * x / (2 * fractions[0])) / np.sqrt(2 * np.pi * fractions[0])
    for step in np.diff(fractions):
        out += np.sum(w * stay * special.ndtr((x - c) / np.sqrt(step)))
        kernel = np.exp(-((x[:, None] - x[None, :]) ** 2) / (2 * step)) / np.sqrt(2 * np.pi * step)
        stay = kernel @ (w * stay)
    return float(out)


@lru_cache(maxsize=64)
def _log_crossing(fractions: tuple[float, ...]) -> interpolate.CubicSpline:
    """log of `_crossing(c) / P(B(1) >= c)`, a smooth function between 0 and log 2 (reflection principle)."""
    c = np.concatenate([np.arange(0, 6, 0.1), np.linspace(6, _LARGEST, 32)])
    ratio = [np.log(_crossing(float(v), fractions)) - special.log_ndtr(-v) for v in c]
    return interpolate.CubicSpline(c, ratio)


def crossing(c: ArrayLike, fractions: tuple[float, ...]) -> Array:
    """P(max_k B(t_k) >= c) for c >= 0; below 0, where it exceeds one half, it is given as 1."""
    c = np.asarray(c, float)
    inside = np.clip(c, 0, _LARGEST)
    p = np.exp(_log_crossing(fractions)(inside) + special.log_ndtr(-inside))
    return np.where(c < 0, 1.0, np.where(c > _LARGEST, 0.0, np.minimum(p, 1.0)))


@lru_cache(maxsize=1024)
def critical(alpha: float, fractions: tuple[float, ...]) -> float:
    """The constant c of the boundary whose two-sided level is alpha (each side alpha / 2)."""

    def excess(c: float) -> float:
        return float(np.log(crossing(c, fractions)) - np.log(alpha / 2))

    return float(optimize.brentq(excess, 0.0, _LARGEST)) if excess(0.0) > 0 else 0.0
