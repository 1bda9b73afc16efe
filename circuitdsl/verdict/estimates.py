"""What every figure offers: a value, one-sided p-values against bounds, and an interval.

p-values and intervals agree: a limit of the two-sided `1 - alpha` interval excludes a bound exactly when the one-sided
p-value against that bound is at most `alpha / 2`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Number = float | Array
Limits = tuple[float, float]


class Estimate(ABC):
    """A figure that can be tested against bounds and has an interval; in a batch of figures these are arrays."""

    @property
    @abstractmethod
    def n(self) -> int:
        """The number of prompts."""

    @property
    @abstractmethod
    def value(self) -> Array:
        """The figure on the prompts that were seen."""

    @property
    def ends(self) -> Limits:
        """The range that the true figure cannot leave; an end that is not known is infinite."""
        return -np.inf, np.inf

    @abstractmethod
    def p_value(self, side: Number, bound: Number) -> Array:
        """One-sided p-values for "the true figure is below `bound`" (side 1), or above it (side -1)."""

    def below(self, bound: Number) -> Array:
        """One-sided p-values for "the true figure is below `bound`" (against: at or above it)."""
        return self.p_value(1.0, bound)

    def above(self, bound: Number) -> Array:
        """One-sided p-values for "the true figure is above `bound`" (against: at or below it)."""
        return self.p_value(-1.0, bound)

    def sides(self, bounds: ArrayLike) -> Array:
        """The p-values of `below` and of `above` in one array [2, ...]."""
        b = np.asarray(bounds, float)
        return self.p_value(np.array([1.0, -1.0]).reshape(2, *[1] * b.ndim), b)

    @abstractmethod
    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        """Limits of the two-sided interval of level `1 - alpha` (of several, for an array); NaN where there is none."""

    @abstractmethod
    def repeated(self, times: int) -> Estimate:
        """The figure as if every prompt had been seen so many times, which more prompts like these would show."""


def limits_of(figure: Estimate, alpha: float) -> Limits | None:
    """The interval of a single figure; None where there is none."""
    low, high = (float(v) for v in figure.interval(alpha))
    return None if np.isnan(low) or np.isnan(high) else (low, high)


@dataclass(frozen=True)
class Share(Estimate):
    """k of n prompts: exact binomial tests and the interval of Clopper and Pearson (1934, Biometrika 26).

    The test does not use strata. This is cautious: stratifying can only lower the variance.
    """

    k: Array
    prompts: int

    @property
    def n(self) -> int:
        return self.prompts

    @property
    def value(self) -> Array:
        return self.k / self.n

    @property
    def ends(self) -> Limits:
        return 0.0, 1.0

    def p_value(self, side: Number, bound: Number) -> Array:
        given = np.asarray(bound, float)
        b = np.clip(given, 0, 1)
        above = np.where(self.k > 0, special.bdtrc(np.maximum(self.k - 1, 0), self.n, b), 1.0)
        below = np.where(given > 1, 0.0, special.bdtr(self.k, self.n, b))
        return np.where(np.asarray(side) > 0, below, np.where(given < 0, 0.0, above))

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
