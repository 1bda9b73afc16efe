"""Intervals and p-values about means of values that have a largest and a smallest possible one.

Whether a prompt is answered rightly changes by -1, 0 or 1. Where few prompts change, a standard error says little, and
where none does there is none. The bound of Gaffke (2005, Three test statistics for a nonparametric one-sided hypothesis
on the mean of a nonnegative variable) needs no standard error: the p-value for "the mean is below b" is the
probability that the n values and the largest possible one, under random weights (uniform on all weights that sum to
1), average b or more.

* For two possible values it is the binomial test, and its interval the one of Clopper and Pearson.
* For n equal values it asks whether a share `1 - p^(1/n)` of prompts at the far end would carry the mean to b.
* For many different values it is close to Student's t.

That it never errs more often than it says is proved for two values; for others it is a conjecture without a known
exception (Learned-Miller and Thomas 2019, arXiv:1905.06208), and is checked here for the values -1, 0 and 1
(`tests/verdict/test_bounded.py`, `benchmarks/coverage.py`). Strata are left out of account, which is cautious.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from circuitdsl.verdict.intervals import Array, Number

# Nodes t = w sinh(u) along the contour, for the trapezoidal rule in u: at this step and length binomial tails come out
# to 1e-10 of their size, for 8 to 1000 prompts and down to 1e-200.
_STEP = 0.03
_U = np.arange(0, 16, _STEP)
_SINH = np.sinh(_U)
_WEIGHTS = np.cosh(_U) * _STEP / np.pi * np.where(_U > 0, 1.0, 0.5)


def tail(values: ArrayLike, shapes: ArrayLike) -> float:
    """P(sum_j values[j] G[j] >= 0) for independent gamma variables G[j], exact also where it is tiny.

    The inverse Laplace transform of `prod_j (1 - s values[j])^-shapes[j] / s`, integrated along the vertical line
    through its saddle point, where it falls off fastest and does not oscillate.
    """
    v, k = np.asarray(values, float), np.asarray(shapes, float)
    v, k = v[(v != 0) & (k > 0)], k[(v != 0) & (k > 0)]
    if not len(v) or np.all(v > 0):
        return 1.0
    if np.all(v < 0):
        return 0.0
    if v @ k > 0:  # the contour converges well for the smaller of the two tails
        return 1 - tail(-v, k)
    v = v / v.max()
    room = 1 / (4 * k.sum() + 8)
    saddle = float(optimize.brentq(lambda s: float(np.sum(k * v / (1 - s * v))) - 1 / s, room, 1 - room))
    width = 1 / np.sqrt(np.sum(k * (v / (1 - saddle * v)) ** 2) + saddle**-2)
    s = saddle + 1j * width * _SINH
    height = np.exp(-k @ np.log(1 - np.outer(v, s)) - np.log(s))
    return float(np.clip(width * np.sum(_WEIGHTS * height.real), 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Bounded:
    """The mean of values that lie in [low, high]: the distinct ones, and on how many prompts each was seen."""

    values: Array
    counts: Array
    low: float
    high: float

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def value(self) -> Array:
        return np.asarray(self.values @ self.counts / self.n)

    @property
    def se(self) -> Array:
        """A rough standard error, above 0 also where all values are the same; no interval is made of it."""
        spread = (self.values - self.value) ** 2 @ self.counts / self.n
        return np.asarray(np.sqrt(spread / self.n) + (self.high - self.low) / self.n)

    @property
    def degenerate(self) -> NDArray[np.bool_]:
        return np.asarray(False)

    def _mirrored(self) -> Bounded:
        return Bounded(-self.values, self.counts, -self.high, -self.low)

    def below(self, bound: Number, closed: bool = False) -> Array:
        end = self.high - float(bound)
        if closed and end <= 0:
            return np.asarray(0.0)
        return np.asarray(tail(np.r_[self.values - float(bound), end], np.r_[self.counts, 1.0]))

    def above(self, bound: Number, closed: bool = False) -> Array:
        return self._mirrored().below(-float(bound), closed)

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        p = float(alpha) / 2
        return -self._mirrored()._upper(p), self._upper(p)

    def _upper(self, p: float) -> Array:
        """The bound at which the one-sided p-value falls to p; sought on the normal scale."""
        target = special.ndtri(p)

        def height(bound: float) -> float:
            return max(float(special.ndtri(self.below(bound))), -40.0) - target if bound < self.high else -40.0

        start = float(self.values[self.counts > 0].min())  # at which p is 1
        return np.asarray(
            self.high
            if start >= self.high
            else optimize.brentq(lambda bound: min(height(bound), 40.0), start, self.high, xtol=1e-12)
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """Two quantities between -step and step measured on the same prompts: the distinct pairs, and how often each came.

    It stands in for `Moments`: any linear combination has a mean that can be tested.
    """

    pairs: Array  # [k, 2]
    counts: Array  # [k]
    step: float

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> Array:
        return np.asarray(self.counts @ self.pairs / self.n)

    def combine(self, *weights: Number) -> Bounded:
        """The mean of `sum_a weights[a] * y[a]`."""
        w = np.array([float(v) for v in weights])
        reach = self.step * float(np.abs(w).sum())
        return Bounded(self.pairs @ w, self.counts, -reach, reach)

    def below(self, *weights: Number) -> Array:
        """One-sided p-values for "the mean of `sum_a weights[a] * y[a]` is below 0", one by one."""
        rows = np.broadcast_arrays(*weights)
        found = [self.combine(*w).below(0.0) for w in zip(*(row.flat for row in rows), strict=True)]
        return np.reshape(np.asarray(found, float), rows[0].shape)


def changes(d: ArrayLike, g: ArrayLike, step: float) -> Changes:
    """Count the pairs (d, g) over prompts."""
    pairs, counts = np.unique(np.stack([np.asarray(d, float), np.asarray(g, float)], -1), axis=0, return_counts=True)
    return Changes(pairs, counts.astype(float), step)
