"""A ratio of means, tested without dividing, and its interval, which inverts the test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from circuitdsl.verdict.intervals import Array, Centre, Estimate, Number
from circuitdsl.verdict.moments import Moments, joined
from circuitdsl.verdict.words import Limits


class Joint(Protocol):
    """Quantities measured on the same prompts, of which any linear combination has a mean."""

    @property
    def n(self) -> int: ...
    @property
    def mean(self) -> Array: ...
    def combine(self, *weights: Number) -> Centre:
        """The mean of `sum_a weights[a] * y[a]`."""
        ...

    def below(self, *weights: Number) -> Array:
        """One-sided p-values for "the mean of `sum_a weights[a] * y[a]` is below 0", for any shape of weights."""
        ...


@dataclass(frozen=True)
class Ratio:
    """A ratio of means d / g, tested without dividing: against b on the paired `d - b g` (Fieller 1954).

    `sign` is the sign that the denominator must have for the ratio to mean anything (-1 for `kl`); an array for a batch
    of different ones.
    """

    pair: Joint
    sign: Number = 1

    @property
    def n(self) -> int:
        return self.pair.n

    @cached_property
    def value(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.pair.mean[..., 0] / self.pair.mean[..., 1]

    @cached_property
    def numerator(self) -> Centre:
        return self.pair.combine(1.0, 0.0)

    @cached_property
    def denominator(self) -> Centre:
        return self.pair.combine(0.0, 1.0)

    @cached_property
    def centre(self) -> Centre:
        """The mean of `sign * (d - value * g)`, which is 0."""
        return self.at(np.where(np.isfinite(self.value), self.value, 0.0))

    @cached_property
    def unclear(self) -> Array:
        """One-sided p-value for "the denominator has the sign that it must have"."""
        return self.pair.below(0.0, -self.sign)

    @property
    def degenerate(self) -> NDArray[np.bool_]:
        """The same ratio on every prompt: `d - value * g` has no variance."""
        return self.centre.degenerate

    def at(self, bound: Number) -> Centre:
        """The mean of `sign * (d - bound * g)`: below 0 exactly when the ratio is below `bound`."""
        return self.pair.combine(self.sign, -self.sign * bound)

    def below(self, bound: Number, closed: bool = False) -> Array:
        return self.at(bound).below(0.0, closed)

    def above(self, bound: Number, closed: bool = False) -> Array:
        return self.at(bound).above(0.0, closed)

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        """Bounds that the paired test does not reject; NaN where the denominator's own interval includes 0."""
        alpha = np.asarray(alpha, float)
        none = self.degenerate | ~(self.sign * self.pair.mean[..., 1] > 0) | ~(self.unclear <= alpha / 2)
        low, high = _limits(self, alpha, none)
        return low, high


def intervals(asked: Sequence[tuple[Estimate, float]]) -> list[Limits | None]:
    """The intervals of figures, each at its own level; None where there is none.

    Those of ratios are sought all at once, whatever prompts they are of: a round of that costs hardly more for a
    hundred than for one.
    """
    sought = {
        i: (figure.pair, figure.sign, level)
        for i, (figure, level) in enumerate(asked)
        if isinstance(figure, Ratio) and isinstance(figure.pair, Moments)
    }
    found = {i: figure.interval(level) for i, (figure, level) in enumerate(asked) if i not in sought}
    if sought:
        pairs, signs, levels = zip(*sought.values(), strict=True)
        sides = Ratio(joined(pairs), np.array(signs, float)).interval(np.array(levels))
        found |= dict(zip(sought, zip(*sides, strict=True), strict=True))
    return [_known(*found[i]) for i in range(len(asked))]


def _known(low: Array, high: Array) -> Limits | None:
    limits = float(low), float(high)
    return None if any(map(math.isnan, limits)) else limits


def _limits(ratio: Ratio, alpha: Array, none: NDArray[np.bool_]) -> Array:
    """Where one-sided p-values fall to alpha / 2, below and above the value of a ratio [2, ...]; NaN where `none`.

    All of them at once: bracketed, then found by the method of Anderson and Björck (1973, BIT 13) on the normal scale,
    where p-values are nearly straight in the bound.
    """
    side = np.array([-1.0, 1.0]).reshape(2, *[1] * none.ndim)
    turn, target = ratio.sign * side, special.ndtri(alpha / 2)

    def height(bound: Array) -> Array:
        """Above 0 where `bound` is not rejected."""
        p = ratio.pair.below(turn, -turn * bound)
        return np.where(none, 0.0, np.clip(special.ndtri(p), -40.0, 4.0) - target)

    gap = np.where(none, 1.0, np.abs(ratio.pair.mean[..., 1]))
    step = np.where(none, 0.0, side * np.abs(target) * ratio.centre.se / gap)
    near = np.where(none, 0.0, ratio.value) + np.zeros_like(step)
    far, at_near = near + step, np.abs(target) + np.zeros_like(step)  # at the value p is one half or a little more
    at_far, step = height(far), step / 4
    for _ in range(60):
        out = at_far <= 0
        if np.all(out):
            break
        near, at_near = np.where(out, near, far), np.where(out, at_near, at_far)
        far, step = far + np.where(out, 0.0, step), 2 * step
        at_far = np.where(out, at_far, height(far))
    found, last, middle = at_far <= 0, np.zeros_like(far), far
    for _ in range(40):
        wide = at_near - at_far
        middle = far + at_far * np.divide(far - near, wide, out=np.zeros_like(far), where=wide > 0)
        at_middle = height(middle)
        if np.all((np.abs(at_middle) < 1e-10) | ~found):
            break
        out = at_middle <= 0
        replaced = np.where(out, at_far, at_near)
        kept = 1 - np.divide(at_middle, replaced, out=np.ones_like(far), where=replaced != 0)
        kept = np.where(kept > 0, kept, 0.5)
        near, at_near = np.where(out, near, middle), np.where(out, at_near * np.where(last > 0, kept, 1.0), at_middle)
        far, at_far = np.where(out, middle, far), np.where(out, at_middle, at_far * np.where(last < 0, kept, 1.0))
        last = np.where(out, 1.0, -1.0)
    return np.where(none | ~found, np.nan, middle)
