"""Means, variances and third cumulants of quantities that were measured on the same prompts, stratum by stratum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdsl.verdict.intervals import Array, Mean, Number

#: strata with fewer prompts share one estimate of variance
SMALL = 8
#: a spread under this share of the measured size is floating-point noise: the figure has no variance
RESOLUTION = 1e-6

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


@dataclass(frozen=True, slots=True)
class Division:
    """How n prompts are divided into k strata and c cells, and what that makes each weigh in the moments of a mean.

    Third cumulants are taken about the mean of the cell, as two prompts a stratum say nothing about skewness; they are
    right where strata differ in their means symmetrically, and left at zero under `SMALL` prompts.

    Attributes:
        stratum, cell: of each prompt [n].
        by_stratum, by_cell: weights that make means of prompts [n, k] and [n, c].
        second: weights of squares about the stratum's mean in what each cell adds to the mean's variance [n, c].
        third: weights of cubes about the cell's mean in the mean's third cumulant [n].
        df: degrees of freedom of each cell's variance [c].
    """

    stratum: NDArray[np.intp]
    cell: NDArray[np.intp]
    by_stratum: Array
    by_cell: Array
    second: Array
    third: Array
    df: Array


def divide(strata: ArrayLike) -> Division:
    """The division of prompts by stratum; the latest ones are kept, as many quantities are measured on each."""
    return _divide(np.unique(np.asarray(strata), return_inverse=True)[1].ravel().tobytes())


@lru_cache(maxsize=64)
def _divide(codes: bytes) -> Division:
    parts = cells(np.frombuffer(codes, np.intp))
    n, starts = sum(len(part.index) for part in parts), np.cumsum([0, *(len(part.sizes) for part in parts)])
    stratum, cell, third, second = np.zeros(n, np.intp), np.zeros(n, np.intp), np.zeros(n), np.zeros((n, len(parts)))
    for i, part in enumerate(parts):
        k = len(part.index)
        stratum[part.index], cell[part.index] = starts[i] + part.stratum, i
        if k > 1:
            second[part.index, i] = (part.sizes / (part.sizes - 1))[part.stratum] / n**2
        if k >= SMALL:
            third[part.index] = k**2 / ((k - 1) * (k - 2)) / n**3
    df = np.array([part.df if np.all(part.sizes > 1) else 1.0 for part in parts])
    return Division(stratum, cell, _averaging(stratum), _averaging(cell), second, third, df)


def _averaging(group: NDArray[np.intp]) -> Array:
    """Weights [n, groups] that make the mean of each group."""
    return np.eye(group.max() + 1)[group] / np.bincount(group)


# --- several quantities at once ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moments:
    """Joint moments of the means of quantities measured on the same prompts: enough to test any linear combination.

    Shapes, with `...` a batch, c cells, p quantities: `mean` [..., p]; `noise` [...], the spread over prompts that
    rounding alone may cause, and `floor` [...], the variance that it may give a mean; `within` [..., c, p * p], what
    each cell adds to the covariances of the means; `third` [..., p * p * p], the third cumulants of the means; `df` [c]
    or [..., c], of each cell's spread. `n` is the fewest prompts where a batch is of different ones.
    """

    n: int
    mean: Array
    noise: Array
    floor: Array
    within: Array
    third: Array
    df: Array

    def combine(self, *weights: Number) -> Mean:
        """The mean of `sum_a weights[a] * y[a]`; weights broadcast against the batch."""
        w = np.stack(np.broadcast_arrays(*weights), -1)
        pairs = _products(w, w)
        part = np.maximum((self.within @ pairs[..., None])[..., 0], 0)
        variance = part.sum(-1)
        flat = variance <= self.floor
        safe = np.where(flat, 1.0, variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(flat, 1.0, safe**2 / (part**2 / self.df).sum(-1))
        skew = np.where(flat, 0.0, (self.third * _products(pairs, w)).sum(-1) / safe**1.5)
        return Mean(self.n, (self.mean * w).sum(-1), np.where(flat, 0.0, np.sqrt(safe)), df, skew, self.noise)

    def below(self, *weights: Number) -> Array:
        """One-sided p-values for "the mean of `sum_a weights[a] * y[a]` is below 0"."""
        return self.combine(*weights).below(0.0)


def _products(a: Array, b: Array) -> Array:
    """All products of an element of a [..., p] and one of b [..., q], as [..., p * q]."""
    return (a[..., :, None] * b[..., None, :]).reshape(*a.shape[:-1], -1)


def moments(*quantities: ArrayLike, strata: ArrayLike | None = None) -> Moments:
    """Moments of quantities of shape [n] or [..., n], the last axis being prompts in the order of `strata`."""
    y = np.stack(np.broadcast_arrays(*(np.asarray(q, float) for q in quantities)), -2)
    n = y.shape[-1]
    division = divide(np.zeros(n) if strata is None else strata)
    own = y - (y @ division.by_stratum)[..., division.stratum]
    about = y - (y @ division.by_cell)[..., division.cell]
    within = np.swapaxes(_pairs(own) @ division.second, -1, -2)
    third = _pairs(about) @ np.swapaxes(about * division.third, -1, -2)
    noise = RESOLUTION * np.sqrt(np.mean(y * y, -1).sum(-1))
    floor = noise**2 / n if n > 1 else np.full_like(noise, np.inf)
    return Moments(n, y.mean(-1), noise, floor, within, third.reshape(*third.shape[:-2], -1), division.df)


def _pairs(y: Array) -> Array:
    """All products of two quantities of y [..., p, n], as [..., p * p, n]."""
    return (y[..., :, None, :] * y[..., None, :, :]).reshape(*y.shape[:-2], -1, y.shape[-1])


def joined(several: Sequence[Moments]) -> Moments:
    """Single moments as a batch, whatever prompts they are of; cells that some lack add nothing."""
    cells, squares = max(len(one.df) for one in several), several[0].within.shape[-1]
    within, df = np.zeros((len(several), cells, squares)), np.ones((len(several), cells))
    for i, one in enumerate(several):
        within[i, : len(one.df)], df[i, : len(one.df)] = one.within, one.df
    each = ((one.mean, one.noise, one.floor, one.third) for one in several)
    mean, noise, floor, third = map(np.stack, zip(*each, strict=True))
    return Moments(min(one.n for one in several), mean, noise, floor, within, third, df)


def mean(y: ArrayLike, strata: ArrayLike | None = None) -> Mean:
    """The mean of y [n] (or of m quantities, [m, n]) over prompts."""
    return moments(y, strata=strata).combine(1.0)
