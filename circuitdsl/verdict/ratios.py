"""A ratio of means, tested without dividing, and its interval, which inverts the test."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from circuitdsl.verdict.estimates import Array, Estimate, Limits, Number, falls_to, limits_of
from circuitdsl.verdict.means import Mean, Pair, Range, first_step


@dataclass(frozen=True)
class Ratio(Estimate):
    """A ratio of means d / g, tested without dividing: against b on the paired `d - b g` (Fieller 1954).

    `sign` is the required sign of the denominator (-1 for `kl`): with the other sign the ratio has no meaning.
    """

    pair: Pair
    sign: int = 1

    @property
    def n(self) -> int:
        return self.pair.d.shape[-1]

    @cached_property
    def value(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.pair.mean[..., 0] / self.pair.mean[..., 1]

    @cached_property
    def denominator(self) -> Mean:
        return self.pair.combine(0.0, 1.0)

    @cached_property
    def unclear(self) -> Array:
        """One-sided p-value for "the denominator has the required sign"."""
        if self.pair.other.ndim > 1:
            return self.pair.combine(0.0, -self.sign).below(0.0)
        return _unclear(self.pair.other.tobytes(), self.sign, self.pair.ends, float(self.pair.size))

    def p_value(self, side: Number, bound: Number) -> Array:
        turn = self.sign * np.asarray(side)
        return self.pair.combine(turn, -turn * np.asarray(bound, float)).below(0.0)

    def repeated(self, times: int) -> Ratio:
        return Ratio(self.pair.repeated(times), self.sign)

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        """Bounds that the paired test does not reject; NaN where the denominator's own interval includes 0."""
        p = np.asarray(alpha, float) / 2
        none = ~(self.sign * self.pair.mean[..., 1] > 0) | ~(self.unclear <= p)
        side = np.array([-1.0, 1.0]).reshape(2, *[1] * none.ndim)
        value, gap = np.where(none, 0.0, self.value), np.where(none, 1.0, np.abs(self.pair.mean[..., 1]))
        centre = self.pair.combine(1.0, -value)
        step = np.where(none, 0.0, side * first_step(centre.y, centre.reach, p) / gap)
        low, high = falls_to(lambda bound: self.p_value(side, bound), p, value, step)
        return np.where(none, np.nan, low), np.where(none, np.nan, high)


@lru_cache(maxsize=64)
def _unclear(gap: bytes, sign: int, ends: Range, size: float) -> Array:
    """The p-value of a gap; many effects share one."""
    other = np.frombuffer(gap)
    return Pair(np.zeros_like(other), other, ends, "", size).combine(0.0, -sign).below(0.0)


def intervals(asked: Sequence[tuple[Estimate, float]]) -> list[Limits | None]:
    """The intervals of figures, each at its own level; None where there is none.

    Ratios over the same number of prompts are searched together: a round costs little more for ten than for one.
    """
    found: dict[int, Limits | None] = {}
    alike: dict[Hashable, list[int]] = {}
    for i, (figure, level) in enumerate(asked):
        if isinstance(figure, Ratio):
            alike.setdefault((figure.n, figure.sign, figure.pair.ends, figure.pair.shared), []).append(i)
        else:
            found[i] = limits_of(figure, level)
    for members in alike.values():
        ratios = [figure for i in members if isinstance(figure := asked[i][0], Ratio)]
        names, first = ("d", "other", "size"), ratios[0]
        d, other, size = (np.stack([getattr(ratio.pair, name) for ratio in ratios]) for name in names)
        batch = Ratio(replace(first.pair, d=d, other=other, size=size), first.sign)
        low, high = batch.interval(np.array([asked[i][1] for i in members]))
        pairs = zip(low.tolist(), high.tolist(), strict=True)
        found |= {i: None if np.isnan(pair).any() else pair for i, pair in zip(members, pairs, strict=True)}
    return [found[i] for i in range(len(asked))]
