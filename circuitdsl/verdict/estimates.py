"""What every figure offers: a value, one-sided p-values against bounds, and an interval.

p-values and intervals are one thing seen twice: a limit of the two-sided `1 - alpha` interval excludes a bound exactly
when the one-sided p-value against that bound is at most `alpha / 2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Number = float | Array
Limits = tuple[float, float]


class Estimate(Protocol):
    """A figure that can be tested against bounds and has an interval."""

    @property
    def n(self) -> int: ...
    @property
    def value(self) -> Array: ...
    @property
    def ends(self) -> tuple[float, float]:
        """The range that the true figure cannot leave, as far as it is known."""
        ...

    def sides(self, bounds: ArrayLike) -> Array:
        """One-sided p-values [2, ...]: for "the true figure is below a bound" (against: at or above it), and above."""
        ...

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        """Limits of the two-sided interval of level `1 - alpha` (of several, for an array); NaN where there is none."""
        ...

    def repeated(self, times: int) -> Estimate:
        """The same figure, had every prompt been seen so many times: what more prompts like these would show."""
        ...


def limits_of(figure: Estimate, alpha: float) -> Limits | None:
    """The interval of a single figure; None where there is none."""
    low, high = (float(v) for v in figure.interval(alpha))
    return None if np.isnan(low) or np.isnan(high) else (low, high)


@dataclass(frozen=True, slots=True)
class Share:
    """k of n prompts: exact binomial tests and the interval of Clopper and Pearson (1934, Biometrika 26).

    Strata are left out of account, which is cautious: stratifying can only lower the variance.
    """

    k: Array
    n: int

    @property
    def value(self) -> Array:
        return self.k / self.n

    @property
    def ends(self) -> tuple[float, float]:
        return 0.0, 1.0

    def sides(self, bounds: ArrayLike) -> Array:
        given = np.asarray(bounds, float)
        b = np.clip(given, 0, 1)
        above = np.where(self.k > 0, special.bdtrc(np.maximum(self.k - 1, 0), self.n, b), 1.0)
        below = np.where(given > 1, 0.0, special.bdtr(self.k, self.n, b))
        return np.stack([below, np.where(given < 0, 0.0, above)])

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        k, n = np.asarray(self.k, float), float(self.n)
        low = np.where(k > 0, special.betaincinv(np.maximum(k, 1), n - k + 1, alpha / 2), 0.0)
        high = np.where(k < n, special.betainccinv(k + 1, np.maximum(n - k, 1), alpha / 2), 1.0)
        return low, high

    def repeated(self, times: int) -> Share:
        return Share(self.k * times, self.n * times)


def share(hits: ArrayLike) -> Share:
    """The share of prompts for which `hits` [n] or [m, n] is true."""
    hits = np.asarray(hits)
    return Share(np.asarray(np.count_nonzero(hits, axis=-1), float), hits.shape[-1])
