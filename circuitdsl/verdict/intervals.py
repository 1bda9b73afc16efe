"""Intervals and p-values about means, ratios of means and shares of prompts.

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

#: strata with fewer prompts share one estimate of variance
SMALL = 8
#: a spread under this share of the measured size is floating-point noise: the figure has no variance
RESOLUTION = 1e-6


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

    def interval(self, alpha: float = 0.05) -> tuple[Array, Array]:
        """Limits of the two-sided interval of level `1 - alpha`; NaN where there is none."""
        ...


class Centre(Estimate, Protocol):
    """A mean: an estimate with a standard error."""

    @property
    def se(self) -> Array: ...


class Joint(Protocol):
    """Quantities measured on the same prompts, of which any linear combination has a mean."""

    @property
    def n(self) -> int: ...
    @property
    def mean(self) -> Array: ...
    def combine(self, *weights: Number) -> Centre:
        """The mean of `sum_a weights[a] * y[a]`."""
        ...


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

    def interval(self, alpha: float = 0.05) -> tuple[Array, Array]:
        t = -special.stdtrit(self.df, alpha / 2)
        low = self.value - self.se * np.maximum(t, _untransform(t, self.skew))
        high = self.value - self.se * np.minimum(-t, _untransform(-t, self.skew))
        return np.where(self.degenerate, np.nan, low), np.where(self.degenerate, np.nan, high)


# --- strata -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """Prompts that share one estimate of spread: a stratum, or all small strata about their own means."""

    index: NDArray[np.intp]
    stratum: NDArray[np.intp]  # 0 … k-1 for each prompt of the cell
    sizes: Array

    @property
    def df(self) -> float:
        """Degrees of freedom of the cell's variance, were its strata equally spread."""
        return float(len(self.index) ** 2 / np.sum(self.sizes**2 / (self.sizes - 1)))


def cells(strata: ArrayLike) -> tuple[Cell, ...]:
    """Divide prompts by stratum; strata under `SMALL` prompts are pooled into one cell.

    A stratum with a single prompt says nothing about spread within it: all single ones form one stratum together, and
    an only single one joins the smallest other stratum.
    """
    _, codes, counts = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
    codes = codes.ravel()
    single = np.flatnonzero(counts == 1)
    if len(single) and len(counts) > 1:
        rest = np.where(counts == 1, np.iinfo(np.intp).max, counts)
        home = single[0] if len(single) > 1 else int(np.argmin(rest))
        codes = np.where(np.isin(codes, single), home, codes)
        _, codes, counts = np.unique(codes, return_inverse=True, return_counts=True)
    small = np.flatnonzero(counts < SMALL)
    groups = [[int(k)] for k in np.flatnonzero(counts >= SMALL)] + ([small.tolist()] if len(small) else [])
    return tuple(_cell(np.flatnonzero(np.isin(codes, group)), codes) for group in groups)


def _cell(index: NDArray[np.intp], codes: NDArray[np.intp]) -> Cell:
    _, stratum, sizes = np.unique(codes[index], return_inverse=True, return_counts=True)
    return Cell(index, stratum.ravel(), sizes.astype(float))


# --- several quantities measured on the same prompts ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moments:
    """Joint moments of quantities measured on the same prompts: enough to test any linear combination of them.

    Shapes, with `...` a batch, c cells, p quantities: `mean` [..., p], `size` (root mean square) [..., p], `within`
    (covariances about stratum means) [..., c, p, p], `third` (third cumulants) [..., c, p, p, p].
    """

    n: int
    mean: Array
    size: Array
    within: Array
    third: Array
    share: Array  # n_c / n
    df: Array  # per cell

    def combine(self, *weights: Number) -> Mean:
        """The mean of `sum_a weights[a] * y[a]`; weights broadcast against the batch."""
        w = np.stack(np.broadcast_arrays(*(np.asarray(v, float) for v in weights)), -1)
        value = np.einsum("...a,...a->...", self.mean, w)
        within = np.einsum("...cab,...a,...b->...c", self.within, w, w)
        third = np.einsum("...cabd,...a,...b,...d->...c", self.third, w, w, w)
        part = np.maximum(within, 0) * self.share / self.n
        variance = part.sum(-1)
        noise = (RESOLUTION * np.linalg.norm(self.size, axis=-1)) ** 2
        flat = (variance * self.n <= noise) | (self.n < 2)
        safe = np.where(flat, 1.0, variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(flat, 1.0, safe**2 / (part**2 / self.df).sum(-1))
        skew = (third * self.share).sum(-1) / self.n**2 / safe**1.5
        return Mean(self.n, value, np.where(flat, 0.0, np.sqrt(safe)), df, np.where(flat, 0.0, skew), np.sqrt(noise))


def moments(*quantities: ArrayLike, strata: ArrayLike | None = None) -> Moments:
    """Moments of quantities of shape [n] or [..., n], the last axis being prompts in the order of `strata`."""
    y = np.stack(np.broadcast_arrays(*(np.asarray(q, float) for q in quantities)), -2)
    n = y.shape[-1]
    parts = cells(np.zeros(n) if strata is None else strata)
    spread = [_spread(y[..., cell.index], cell) for cell in parts]
    within = np.stack([covariances for covariances, _ in spread], -3)
    third = np.stack([cumulants for _, cumulants in spread], -4)
    share = np.array([len(cell.index) / n for cell in parts])
    with np.errstate(divide="ignore"):
        df = np.array([cell.df if np.all(cell.sizes > 1) else 1.0 for cell in parts])
    return Moments(n, y.mean(-1), np.sqrt(np.mean(y * y, -1)), within, third, share, df)


def _spread(y: Array, cell: Cell) -> tuple[Array, Array]:
    """Unbiased covariances about the stratum means of a cell, and unbiased third cumulants.

    Third cumulants are taken about the mean of the cell, as two prompts a stratum say nothing about skewness; they are
    right where strata differ in their means symmetrically, and left at zero under `SMALL` prompts.
    """
    *batch, p, k = y.shape
    third = np.zeros((*batch, p, p, p))
    if k < 2:
        return np.zeros((*batch, p, p)), third
    about = y - y.mean(-1, keepdims=True)
    if k >= SMALL:
        third = np.einsum("...ai,...bi,...di->...abd", about, about, about) * (k / ((k - 1) * (k - 2)))
    if len(cell.sizes) == 1:
        return np.einsum("...ai,...bi->...ab", about, about) / (k - 1), third
    members = np.eye(len(cell.sizes))[cell.stratum]  # [k, strata]
    own = y - (y @ members / cell.sizes) @ members.T
    weight = (cell.sizes / (cell.sizes - 1))[cell.stratum] / k
    return np.einsum("...ai,...bi,i->...ab", own, own, weight), third


def mean(y: ArrayLike, strata: ArrayLike | None = None) -> Mean:
    """The mean of y [n] (or of m quantities, [m, n]) over prompts."""
    return moments(y, strata=strata).combine(1.0)


# --- ratio of means ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of means d / g, tested without dividing: against b on the paired `d - b g` (Fieller 1954).

    `sign` is the sign that the denominator must have for the ratio to mean anything (-1 for `kl`).
    """

    pair: Joint
    sign: int = 1

    @property
    def n(self) -> int:
        return self.pair.n

    @property
    def value(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.pair.mean[..., 0] / self.pair.mean[..., 1]

    @property
    def numerator(self) -> Centre:
        return self.pair.combine(1.0, 0.0)

    @property
    def denominator(self) -> Centre:
        return self.pair.combine(0.0, 1.0)

    @property
    def degenerate(self) -> NDArray[np.bool_]:
        """The same ratio on every prompt: `d - value * g` has no variance."""
        return self.at(np.where(np.isfinite(self.value), self.value, 0.0)).degenerate

    def at(self, bound: Number) -> Centre:
        """The mean of `sign * (d - bound * g)`: below 0 exactly when the ratio is below `bound`."""
        return self.pair.combine(self.sign, -self.sign * np.asarray(bound, float))

    def below(self, bound: Number, closed: bool = False) -> Array:
        return self.at(bound).below(0.0, closed)

    def above(self, bound: Number, closed: bool = False) -> Array:
        return self.at(bound).above(0.0, closed)

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        """Bounds that the paired test does not reject; NaN where the denominator's own interval includes 0."""
        none = self.degenerate | ~(self.sign * self.pair.mean[..., 1] > 0)
        none = none | ~(self.pair.combine(0.0, self.sign).above(0.0) <= alpha / 2)
        high = _limit(self, alpha, up=True, skip=none)
        low = _limit(self, alpha, up=False, skip=none)
        return low, high


def _limit(ratio: Ratio, alpha: Number, up: bool, skip: NDArray[np.bool_]) -> Array:
    """Where the one-sided p-value of a ratio falls to alpha / 2: bracketed, then found by the Illinois method.

    The root is sought on the normal scale, where p-values are nearly straight in the bound.
    """
    target = special.ndtri(alpha / 2)

    def height(bound: Array) -> Array:
        """Above 0 where `bound` is not rejected."""
        p = ratio.below(bound) if up else ratio.above(bound)
        return np.where(skip, 0.0, np.clip(special.ndtri(p), -40.0, 4.0) - target)

    near = np.where(skip, 0.0, ratio.value)
    gap = np.where(skip, 1.0, np.abs(ratio.pair.mean[..., 1]))
    step = (1.0 if up else -1.0) * np.abs(target) * ratio.at(near).se / gap
    far = near + step
    at_near, at_far = height(near), height(far)
    for _ in range(60):
        out = at_far <= 0
        if np.all(out):
            break
        near, at_near, step = np.where(out, near, far), np.where(out, at_near, at_far), np.where(out, step, 2 * step)
        far = far + np.where(out, 0.0, step)
        at_far = np.where(out, at_far, height(far))
    found, side, middle = at_far <= 0, np.zeros_like(far), far
    for _ in range(40):
        wide = at_near - at_far
        middle = far + at_far * np.divide(far - near, wide, out=np.zeros_like(far), where=wide > 0)
        at_middle = height(middle)
        if np.all((np.abs(at_middle) < 1e-10) | ~found):
            break
        out = at_middle <= 0
        near, at_near = np.where(out, near, middle), np.where(out, at_near * np.where(side > 0, 0.5, 1.0), at_middle)
        far, at_far = np.where(out, middle, far), np.where(out, at_middle, at_far * np.where(side < 0, 0.5, 1.0))
        side = np.where(out, 1.0, -1.0)
    return np.where(skip | ~found, np.nan, middle)


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

    def interval(self, alpha: float = 0.05) -> tuple[Array, Array]:
        k, n = np.asarray(self.k, float), float(self.n)
        low = np.where(k > 0, special.betaincinv(np.maximum(k, 1), n - k + 1, alpha / 2), 0.0)
        high = np.where(k < n, special.betainccinv(k + 1, np.maximum(n - k, 1), alpha / 2), 1.0)
        return low, high


def share(hits: ArrayLike) -> Share:
    """The share of prompts for which `hits` [n] or [m, n] is true."""
    hits = np.asarray(hits)
    return Share(np.asarray(np.count_nonzero(hits, axis=-1), float), hits.shape[-1])
