"""A ratio of means, tested without dividing, and its interval, which inverts the test."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from circuitdsl.verdict.estimates import Array, Estimate, Limits, Number, Times, falls_to, limits_of
from circuitdsl.verdict.means import Mean, Pair, Range, first_step

#: values that are looked at together, prompts times ratios
STACK = 2**19


@dataclass(frozen=True)
class Ratio(Estimate):
    """A ratio of means d / g, tested without dividing: against b on the paired `d - b g` (Fieller 1954).

    `sign` is the required sign of the denominator (-1 for `kl`): with the other sign the ratio has no meaning.
    """

    pair: Pair
    sign: int = 1

    @property
    def n(self) -> int:
        return int(self.pair.d.shape[-1] * self.pair.times)

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
        pair = self.pair
        return _unclear(pair.other.tobytes(), self.sign, pair.ends, float(pair.size), int(pair.times))

    def p_value(self, side: Number, bound: Number) -> Array:
        turn = self.sign * np.asarray(side)
        return self.pair.combine(turn, -turn * np.asarray(bound, float)).below(0.0)

    def only(self, some: NDArray[np.intp]) -> Ratio:
        """Some of a batch."""
        pair = self.pair
        return Ratio(replace(pair, d=pair.d[some], other=pair.other[some], size=np.asarray(pair.size)[some]), self.sign)

    def repeated(self, times: Times) -> Ratio:
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
def _unclear(gap: bytes, sign: int, ends: Range, size: float, times: int) -> Array:
    """The p-value of a gap; many effects share one."""
    other = np.frombuffer(gap)
    return Pair(np.zeros_like(other), other, ends, "", size, times).combine(0.0, -sign).below(0.0)


def in_stacks(ratios: Mapping[int, Ratio]) -> Iterator[tuple[list[int], Ratio]]:
    """Ratios over the same number of prompts in batches, with their keys: what is sought of all is sought together."""
    alike: dict[Hashable, list[int]] = {}
    for i, figure in ratios.items():
        alike.setdefault((figure.n, figure.sign, figure.pair.ends, figure.pair.shared), []).append(i)
    for members in alike.values():
        at_once = max(1, STACK // ratios[members[0]].n)
        for start in range(0, len(members), at_once):
            some = members[start : start + at_once]
            pairs, first = [ratios[i].pair for i in some], ratios[some[0]]
            d, other, size = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("d", "other", "size"))
            yield some, Ratio(replace(first.pair, d=d, other=other, size=size), first.sign)


def intervals(asked: Sequence[tuple[Estimate, float]]) -> list[Limits | None]:
    """The intervals of figures, each at its own level; None where there is none.

    Ratios are searched together: a round costs little more for ten than for one.
    """
    ratios = {i: figure for i, (figure, _) in enumerate(asked) if isinstance(figure, Ratio)}
    found = {i: limits_of(figure, level) for i, (figure, level) in enumerate(asked) if i not in ratios}
    for members, batch in in_stacks(ratios):
        low, high = batch.interval(np.array([asked[i][1] for i in members]))
        pairs = zip(low.tolist(), high.tolist(), strict=True)
        found |= {i: None if np.isnan(pair).any() else pair for i, pair in zip(members, pairs, strict=True)}
    return [found[i] for i in range(len(asked))]
