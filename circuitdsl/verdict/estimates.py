"""What every figure offers: a value, one-sided p-values against bounds, and an interval.

p-values and intervals agree: a limit of the two-sided `1 - alpha` interval excludes a bound exactly when the one-sided
p-value against that bound is at most `alpha / 2`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # `scipy.special` is imported when it is first used
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Number = float | Array
Limits = tuple[float, float]
#: how often each prompt was seen, of one figure or of each in a batch
Times = int | NDArray[np.intp]
#: for `falls_to`: the most rounds that widen brackets and that narrow them, and the tolerance on the normal scale
_WIDEN, _NARROW, _NEAR = 60, 40, 1e-6
#: larger p-values are taken for this one, on the normal scale
_OPEN = 4.0


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
    def repeated(self, times: Times) -> Estimate:
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
        above = np.where(self.k > 0, scipy.special.bdtrc(np.maximum(self.k - 1, 0), self.n, b), 1.0)
        below = np.where(given > 1, 0.0, scipy.special.bdtr(self.k, self.n, b))
        return np.where(np.asarray(side) > 0, below, np.where(given < 0, 0.0, above))

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        k, n = np.asarray(self.k, float), float(self.n)
        low = np.where(k > 0, scipy.special.betaincinv(np.maximum(k, 1), n - k + 1, alpha / 2), 0.0)
        high = np.where(k < n, scipy.special.betainccinv(k + 1, np.maximum(n - k, 1), alpha / 2), 1.0)
        return low, high

    def repeated(self, times: Times) -> Share:
        return Share(self.k * times, self.n * int(times))


def share(hits: ArrayLike) -> Share:
    """The share of prompts for which `hits` [n] or [m, n] is true."""
    hits = np.asarray(hits)
    return Share(np.asarray(np.count_nonzero(hits, axis=-1), float), hits.shape[-1])


def falls_to(p_value: Callable[[Array], Array], p: Number, start: Number, step: Array) -> Array:
    """The bounds at which `p_value` falls to `p`, sought from `start` in the direction of `step`; NaN where it stays.

    All bounds are sought together: bracketed, then found by the method of Anderson and Björck (1973, BIT 13) on the
    normal scale, where p-values are nearly linear in the bound. Where the step is 0, the bound is `start`.
    """
    target = scipy.special.ndtri(p)

    def height(bound: Array) -> Array:
        """Above 0 where `bound` is not rejected."""
        return np.where(step == 0, 0.0, np.clip(scipy.special.ndtri(p_value(bound)), -40.0, _OPEN) - target)

    near, far, wider = start + np.zeros_like(step), start + step, step / 2
    at_near, at_far = np.abs(target) + np.zeros_like(step), height(far)
    for _ in range(_WIDEN):
        out = at_far <= 0
        if np.all(out):
            break
        near, at_near = np.where(out, near, far), np.where(out, at_near, np.minimum(at_far, np.abs(target)))
        far, wider = far + np.where(out, 0.0, wider), 2 * wider
        at_far = np.where(out, at_far, height(far))
    found, last, middle = at_far <= 0, np.zeros_like(far), far
    for _ in range(_NARROW):
        wide = at_near - at_far
        middle = far + at_far * np.divide(far - near, wide, out=np.zeros_like(far), where=wide > 0)
        at_middle = height(middle)
        if np.all((np.abs(at_middle) < _NEAR) | ~found):
            break
        out = at_middle <= 0
        replaced = np.where(out, at_far, at_near)
        kept = 1 - np.divide(at_middle, replaced, out=np.ones_like(far), where=replaced != 0)
        kept = np.where(kept > 0, kept, 0.5)
        near, at_near = np.where(out, near, middle), np.where(out, at_near * np.where(last > 0, kept, 1.0), at_middle)
        far, at_far = np.where(out, middle, far), np.where(out, at_middle, at_far * np.where(last < 0, kept, 1.0))
        last = np.where(out, 1.0, -1.0)
    return np.where(found, middle, np.nan)
