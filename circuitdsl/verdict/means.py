"""Means over prompts, tested without normality (Gaffke 2005; Learned-Miller and Thomas 2019, arXiv:1905.06208).

One prompt in fifty may carry a whole effect. A sample that lacks it has hardly any spread, and a test based on the
spread is then sure of something false. Gaffke's test does not use the spread. It adds one value to those that were
seen, at the far end of what is possible. The p-value for "the mean is below b" is the probability that the n + 1
values, under random weights (uniform on all weights that sum to 1), average b or more.

* For two possible values it is the binomial test, and its interval the one of Clopper and Pearson.
* For n equal values it asks whether a share `1 - p^(1/n)` of prompts at the far end would carry the mean to b. This is
  the rule of three: `3.7 r / n` at 2.5 %, for a range r.
* For many different values it is close to Student's t.

**Known ends.** Accuracy, probabilities, attention and shares cannot leave a range, nor can differences of them. The far
end is then the end of that range. Strata are not used, which is cautious. The test errs no more often than it says:
this is proved for two values, and for others it is a conjecture without a known exception.

**Assumed ends.** A difference of logits has no end. One is assumed: as far beyond the bound as the farthest prompt seen
lies from the mean, and at least a fifth of the gap (`OPEN`). Scores with an end on one side, such as
log-probabilities, crowd there and have a long tail on the other side: for them it is twice as far as the farthest, and
at least one gap (`ONE_SIDED`). The error rates hold only as far as this assumption does: a prompt too rare for the
sample to show may change the metric by so much, and not by much more. Values are centred in their strata first.

`benchmarks/rates.py` checks both on the effects that patching has; docs/verdicts.md gives the results.

**Strata.** Prompts of one template differ by chance; the differences between templates are fixed. The population is the
prompts that the task's own templates (strata) make, in the sample's mix: the mean is `sum_s (n_s / n) mu_s` and only
the spread *within* strata is sampling error (Cochran 1977, *Sampling Techniques*, ch. 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import scipy  # `scipy.special` is imported when it is first used
from numpy.typing import ArrayLike, NDArray

from circuitdsl.verdict.estimates import Array, Estimate, Number, Times, falls_to

#: how far beyond a bound an unseen prompt may lie where no range is known: a multiple of the distance of the farthest
#: seen prompt from the mean, and at least a multiple of the gap; `ONE_SIDED` where one end of the range is known
OPEN, ONE_SIDED = (1.0, 0.2), (2.0, 1.0)
UNKNOWN = (-np.inf, np.inf)
#: the most steps of Newton's method, and the relative size of a step that ends it
_STEPS, _NEAR = 60, 1e-8
#: for smaller `w` (probabilities near one half) the second-order terms are imprecise, and not needed
_NEAR_HALF = 0.2
#: the approximation may be too small by up to 3 %; with this factor it is not
_SAFE = 1.03
#: strata of fewer prompts are pooled, and not tested alone
SMALL = 8

Range = tuple[float, float]
#: a difference of two scores is compared with another difference: which score of that one it has too, if any
Shared = Literal["", "first", "second"]


@dataclass(frozen=True, eq=False)
class Mean(Estimate):
    """The mean of values y [..., n], the last axis being prompts.

    Attributes:
        low, high: the ends of the range that the values cannot leave [...]; infinite where none is known.
        reach: how far beyond a bound an unseen prompt may lie, where no end is known [...].
        times: how many prompts there are for each value [...].
    """

    y: Array
    low: Number
    high: Number
    reach: Number
    times: Times = field(default=1, kw_only=True)

    @property
    def n(self) -> int:
        return int(self.y.shape[-1] * self.times)

    @property
    def value(self) -> Array:
        return self.y.mean(-1)

    @property
    def ends(self) -> Range:
        return float(np.max(self.low)), float(np.min(self.high))

    def p_value(self, side: Number, bound: Number) -> Array:
        side, b = np.broadcast_arrays(side, np.asarray(bound, float))
        y = side[..., None] * (self.y - b[..., None])
        end = np.broadcast_to(self._end(side, b), y.shape[:-1])
        counts = np.ones((*y.shape[:-1], y.shape[-1] + 1))
        counts[..., :-1] *= np.asarray(self.times)[..., None]
        return np.where(np.isnan(end), 1.0, tails(np.concatenate([y, end[..., None]], -1), counts))

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        p = np.asarray(alpha, float) / 2
        side = np.array([-1.0, 1.0]).reshape(2, *[1] * np.broadcast(p, self.value).ndim)
        step = side * first_step(self.y, self._end(side, self.value), p)
        if self.n < 2:  # one prompt says nothing of how prompts differ
            return np.full(step.shape[1:], np.nan), np.full(step.shape[1:], np.nan)
        low, high = falls_to(lambda bound: self.p_value(side, bound), p, self.value, step)
        return np.maximum(low, self.low), np.minimum(high, self.high)

    def repeated(self, times: Times) -> Mean:
        return replace(self, times=self.times * times)

    def _end(self, side: Number, bound: Number) -> Array:
        """How far beyond a bound an unseen prompt may lie; NaN where that is not known."""
        known = np.where(np.asarray(side) > 0, self.high - np.asarray(bound), bound - np.asarray(self.low))
        return np.where(np.isfinite(known), known, np.where(np.asarray(self.reach) > 0, self.reach, np.nan))


def first_step(y: Array, end: Number, p: Number) -> Array:
    """A guess of how far from the mean the p-value falls to p, from the spread and from the value that is added."""
    n = y.shape[-1]
    return -scipy.special.ndtri(p) * y.std(-1) / np.sqrt(n) - np.log(p) * np.abs(end) / (n + 1) / 2


def mean(y: ArrayLike, strata: ArrayLike | None = None, ends: Range = UNKNOWN, size: Number | None = None) -> Mean:
    """The mean of y [..., n] over prompts.

    Args:
        strata: of each prompt [n].
        ends: the range that a value cannot leave; one end, or both, may be infinite.
        size: the gap of such scores; the values' root mean square by default.
    """
    y = np.asarray(y, float)
    if not np.all(np.isfinite(ends)):
        y = centred(y, strata)
    size = np.sqrt(np.mean(y * y, -1)) if size is None else np.abs(size)
    return Mean(y, *ends, _reach(y, size, ends))


def _reach(y: Array, size: Number, ends: Range) -> Array:
    times, least = ONE_SIDED if np.any(np.isfinite(ends)) else OPEN
    return np.maximum(times * np.abs(y - y.mean(-1, keepdims=True)).max(-1), least * size)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two quantities measured on the same prompts, [..., n]: every linear combination has a mean that can be tested.

    `d` is the change of a score from its base. `other` is the gap (clean - corrupt), or the change of another score
    from the same base.

    Attributes:
        ends: the range that a score cannot leave; one end, or both, may be infinite.
        shared: which score of `other` is the base of `d`: the first (clean, where a clean run is patched), the second
            (corrupt, or the base of both changes), or none.
        size: the gap of such scores [...].
        times: how many prompts there are for each of these values [...].
    """

    d: Array
    other: Array
    ends: Range
    shared: Shared
    size: Number
    times: Times = 1

    @property
    def mean(self) -> Array:
        return np.stack([self.d.mean(-1), self.other.mean(-1)], -1)

    def combine(self, *weights: Number) -> Mean:
        """The mean of `weights[0] * d + weights[1] * other`; weights broadcast against the batch."""
        a, b = (np.asarray(w, float) for w in weights)
        y = a[..., None] * self.d + b[..., None] * self.other
        if np.all(np.isfinite(self.ends)):
            end = self._end(a, b)
            return Mean(y, -end, end, end, times=self.times)
        return Mean(y, *UNKNOWN, _reach(y, self.size, self.ends), times=self.times)

    def repeated(self, times: Times) -> Pair:
        return replace(self, times=self.times * times)

    def _end(self, a: Array, b: Array) -> Array:
        """How far from 0 a combination can be on one prompt.

        It is a sum of scores whose weights w add up to 0. It is largest where the scores of positive weight are at the
        upper end of their range and the others at the lower one: the width of the range times `sum |w| / 2`.
        """
        base = {"": np.abs(a) + np.abs(b), "first": np.abs(b - a), "second": np.abs(a + b)}[self.shared]
        return (self.ends[1] - self.ends[0]) * (np.abs(a) + np.abs(b) + base) / 2


def pair(
    d: ArrayLike,
    other: ArrayLike,
    strata: ArrayLike | None = None,
    ends: Range = UNKNOWN,
    shared: Shared = "",
    size: Number | None = None,
) -> Pair:
    """Two quantities [..., n] on the same prompts; `size` is the mean of `other` (the gap) by default."""
    d, other = np.broadcast_arrays(np.asarray(d, float), np.asarray(other, float))
    size = np.abs(other.mean(-1)) if size is None else np.abs(size)
    if not np.all(np.isfinite(ends)):
        d, other = centred(d, strata), centred(other, strata)
    return Pair(d, other, ends, shared, size)


def centred(y: Array, strata: ArrayLike | None) -> Array:
    """Values [..., n] moved so that all strata (None: one) have the mean of all: only the spread within them is left.

    Deviations from the mean of k prompts are too small by `sqrt((k - 1) / k)`; they are made larger by as much.
    """
    codes = np.zeros(y.shape[-1], np.intp) if strata is None else strata_of(strata)[1]
    stratum, means, larger = _divided(codes.tobytes())
    return (y - (y @ means)[..., stratum]) * larger + y.mean(-1, keepdims=True)


def strata_of(strata: ArrayLike) -> tuple[NDArray[np.generic], NDArray[np.intp], NDArray[np.intp]]:
    """The names of strata in order, the place of each prompt's among them [n], and how many prompts each has."""
    of = np.asarray(strata)
    return _strata_of(of.tobytes(), of.dtype)


@lru_cache(maxsize=64)
def _strata_of(strata: bytes, kind: np.dtype[Any]) -> tuple[NDArray[np.generic], NDArray[np.intp], NDArray[np.intp]]:
    """Most claims are measured on the same prompts."""
    names, codes, counts = np.unique(np.frombuffer(strata, kind), return_inverse=True, return_counts=True)
    return names, codes.ravel(), counts


@lru_cache(maxsize=64)
def _divided(codes: bytes) -> tuple[NDArray[np.intp], Array, Array]:
    """The stratum of each prompt, weights [n, strata] that make their means, and the factor of deviations [n]."""
    stratum = pooled(np.frombuffer(codes, np.intp))
    sizes = np.bincount(stratum)
    means = np.eye(len(sizes))[stratum] / sizes
    return stratum, means, np.sqrt(sizes / np.maximum(sizes - 1, 1))[stratum]


def pooled(stratum: NDArray[np.intp]) -> NDArray[np.intp]:
    """The stratum of each prompt, from 0 on, with small ones pooled: they say too little about the spread within them.

    If they are few even together, they join the smallest of the others.
    """
    sizes = np.bincount(stratum)
    small = sizes < SMALL
    if sizes[small].sum() < SMALL and not small.all():
        small[np.argmin(np.where(small, len(stratum), sizes))] |= small.any()
    if not small.any():
        return stratum
    return np.unique(np.where(small[stratum], small.argmax(), stratum), return_inverse=True)[1].ravel()


def parts(strata: ArrayLike) -> list[NDArray[np.intp]]:
    """The places of the prompts of each stratum, small ones pooled."""
    codes = pooled(strata_of(strata)[1])
    return [(codes == code).nonzero()[0] for code in range(codes.max(initial=-1) + 1)]


def tails(values: ArrayLike, counts: ArrayLike = 1.0) -> Array:
    """The p-value of Gaffke's test: P(sum_j values[..., j] E[j] >= 0) for independent standard exponential E[j].

    `counts` [..., j] says how often each value is there.

    Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable".
    Random weights that are uniform on the simplex are such variables over their sum. Where the values add up to 0 or
    more, the probability is about one half or more, decides nothing, and is given as 1.
    """
    v = np.asarray(values, float)
    rows = v.reshape(-1, v.shape[-1])
    c = np.broadcast_to(np.asarray(counts, float), v.shape).reshape(rows.shape)
    below = np.vecdot(c, rows) < 0
    found = np.where(below, 0.0, 1.0)
    (here,) = np.nonzero(below & (rows.max(-1) > 0))
    if len(here):
        found[here] = _tails(rows[here], c[here])
    return found.reshape(v.shape[:-1])


def _tails(v: Array, c: Array) -> Array:
    """The tails of rows of values of both signs, each there c times, whose sums are below 0.

    The saddlepoint approximation of Lugannani and Rice (1980, Adv. Appl. Prob. 12) with its second-order term (Daniels
    1987, Int. Stat. Rev. 55), within 3 % of the probability, however small that is (`tests/verdict/test_gaffke.py`),
    and made larger by as much.
    """
    v = v / v.max(-1, keepdims=True)
    s = _saddles(v, c)
    q = v / (1 - s * v)
    squares = q * q
    counted = c * squares
    spread = counted.sum(-1)
    k3, k4 = 2 * np.vecdot(counted, q) / spread**1.5, 6 * np.vecdot(counted, squares) / spread**2
    w = np.sqrt(np.maximum(2 * np.vecdot(c, np.log1p(-s * v)), 1e-24))
    u = np.maximum(s[:, 0] * np.sqrt(spread), 1e-12)
    second = (k4 / 8 - 5 * k3**2 / 24) / u - u**-3.0 - k3 / (2 * u * u) + w**-3.0
    ends = 1 / u - 1 / w + np.where(w > _NEAR_HALF, second, 0.0)
    return np.clip(_SAFE * (scipy.special.ndtr(-w) + np.exp(-w * w / 2) / np.sqrt(2 * np.pi) * ends), 0.0, 1.0)


def _saddles(v: Array, c: Array) -> Array:
    """Where `sum_j c[j] v[j] / (1 - s v[j])` is 0 in (0, 1), one for each row [m, 1]; the largest v of each is 1.

    Newton's method is used on that sum times `1 - s`; where it leaves the bracket of the root, the bracket is halved.
    """
    low, high = np.zeros((len(v), 1)), np.ones((len(v), 1))
    s = np.minimum(-np.vecdot(c, v) / np.vecdot(c * v, v), 0.9)[:, None]
    for _ in range(_STEPS):
        q = v / (1 - s * v)
        counted = c * q
        slope, spread = counted.sum(-1, keepdims=True), np.vecdot(counted, q)[:, None]
        low, high = np.where(slope < 0, s, low), np.where(slope < 0, high, s)
        step = s - (1 - s) * slope / ((1 - s) * spread - slope)
        step = np.where((low <= step) & (step <= high), step, (low + high) / 2)
        near = np.abs(step - s) <= _NEAR * np.minimum(s, 1 - s)
        s = step
        if np.all(near):
            break
    return s
