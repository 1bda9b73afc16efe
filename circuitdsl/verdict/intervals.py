"""Intervals and p-values about means and shares of prompts.

The population is the prompts that the task's own templates (strata) make, in the sample's mix: the mean is
`sum_s (n_s / n) mu_s` and only the spread *within* strata is sampling error (Cochran 1977, *Sampling Techniques*,
ch. 5). Each limit of an interval is the more cautious of two studentised ones:

* Student's t with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics Bulletin 2);
* Hall's cubic transformation of t, which removes the first-order effect of skewness (Hall 1992, J. R. Statist.
  Soc. B 54, 221-228). It is monotone and has an inverse in closed form, so that tiny p-values keep their resolution.

Hall's alone covers too little for heavy tails (92 % where 95 % was meant, t3, 32 prompts), Student's alone for skewed
effects (88 %, lognormal); the wider side of the two reaches 93.5-96.5 % for both (`benchmarks/coverage.py`).

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


class Estimate(Protocol):
    """A figure that can be tested against bounds and has an interval."""

    @property
    def n(self) -> int: ...
    @property
    def value(self) -> Array: ...
    @property
    def degenerate(self) -> NDArray[np.bool_]: ...
    def below(self, bound: Number, closed: bool = False) -> Array:
        """One-sided p-value for "the true figure is below `bound`" (against: at or above it)."""
        ...

    def above(self, bound: Number, closed: bool = False) -> Array:
        """One-sided p-value for "the true figure is above `bound`" (against: at or below it)."""
        ...

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        """Limits of the two-sided interval of level `1 - alpha` (of several, for an array); NaN where there is none."""
        ...


class Centre(Estimate, Protocol):
    """A mean: an estimate with a standard error."""

    @property
    def se(self) -> Array: ...


# --- one mean ---------------------------------------------------------------------------------------


#: The expansion behind Hall's cubic is good for small s T. On its flat side, where it would go level and back up, the
#: correction stays as large as it is at s T = -BEND.
BEND = 2.0


def _cubic(t: Array, skew: Array) -> Array:
    return t + skew * (t * t / 3 + 1 / 6) + skew * skew * t**3 / 27


def _transform(t: Array, skew: Array) -> Array:
    """Hall's g(T) = T + s (T^2 / 3 + 1 / 6) + s^2 T^3 / 27, with s the skewness of the mean."""
    bend = -BEND / np.where(np.abs(skew) < 1e-7, 1e-7, skew)
    return np.where(skew * t < -BEND, _cubic(bend, skew) + t - bend, _cubic(t, skew))


def _untransform(x: Array, skew: Array) -> Array:
    """The inverse of `_transform` in T."""
    flat = np.abs(skew) < 1e-7
    s = np.where(flat, 1.0, skew)
    bend = -BEND / s
    corner = _cubic(bend, s)
    root = 3 / s * (np.cbrt(1 + s * (x - s / 6)) - 1)
    inverse = np.where(s * x < s * corner, bend + x - corner, root)
    return np.where(flat, x - skew * (x * x / 3 + 1 / 6), inverse)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its standard error, degrees of freedom and skewness (third cumulant / se^3); any batch shape.

    Where `degenerate` there is no variance, hence no interval: tests go by the value, where it is further from the
    bound than `tolerance`, and p is 0 or 1. Whether it may decide anything is up to the caller (see `decide.py`).
    """

    n: int
    value: Array
    se: Array
    df: Array
    skew: Array
    tolerance: Array

    @property
    def degenerate(self) -> NDArray[np.bool_]:
        return self.se <= 0

    def _t(self, bound: Number) -> Array:
        return (self.value - bound) / np.where(self.degenerate, 1.0, self.se)

    def below(self, bound: Number, closed: bool = False) -> Array:
        t = self._t(bound)
        p = special.stdtr(self.df, np.maximum(t, _transform(t, self.skew)))
        return np.where(self.degenerate, self._exact(self.value - bound, closed), p)

    def above(self, bound: Number, closed: bool = False) -> Array:
        t = self._t(bound)
        p = special.stdtr(self.df, -np.minimum(t, _transform(t, self.skew)))
        return np.where(self.degenerate, self._exact(bound - self.value, closed), p)

    def _exact(self, beyond: Array, closed: bool) -> Array:
        """The p-value without variance: 0 where `beyond` is below 0 by more than `tolerance`, or `closed` and 0.

        Closer to the bound the figure cannot be told from one on its other side: both sides have a p-value of 1.
        """
        inside = (beyond < -self.tolerance) | (closed & (beyond == 0))
        return np.where(inside, 0.0, 1.0)

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        t = -special.stdtrit(self.df, alpha / 2)
        low = self.value - self.se * np.maximum(t, _untransform(t, self.skew))
        high = self.value - self.se * np.minimum(-t, _untransform(-t, self.skew))
        return np.where(self.degenerate, np.nan, low), np.where(self.degenerate, np.nan, high)


# --- shares of prompts ------------------------------------------------------------------------------


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
    def degenerate(self) -> NDArray[np.bool_]:
        return np.zeros(np.shape(self.k), bool)

    def below(self, bound: Number, closed: bool = False) -> Array:
        b = np.clip(np.asarray(bound, float), 0, 1)
        sure = (np.asarray(bound) >= 1) if closed else (np.asarray(bound) > 1)
        return np.where(sure, 0.0, special.bdtr(self.k, self.n, b))

    def above(self, bound: Number, closed: bool = False) -> Array:
        b = np.clip(np.asarray(bound, float), 0, 1)
        inside = np.where(self.k > 0, special.bdtrc(np.maximum(self.k - 1, 0), self.n, b), 1.0)
        sure = (np.asarray(bound) <= 0) if closed else (np.asarray(bound) < 0)
        return np.where(sure, 0.0, inside)

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        k, n = np.asarray(self.k, float), float(self.n)
        low = np.where(k > 0, special.betaincinv(np.maximum(k, 1), n - k + 1, alpha / 2), 0.0)
        high = np.where(k < n, special.betainccinv(k + 1, np.maximum(n - k, 1), alpha / 2), 1.0)
        return low, high


def share(hits: ArrayLike) -> Share:
    """The share of prompts for which `hits` [n] or [m, n] is true."""
    hits = np.asarray(hits)
    return Share(np.asarray(np.count_nonzero(hits, axis=-1), float), hits.shape[-1])
