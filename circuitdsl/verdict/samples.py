"""Measured prompts, the figure that a test computes from them, and the region that it claims for this figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdsl.circuit.criteria import AboveChance, Beyond, Matters, Moves, Negligible, Signed, Stronger, Test, Within
from circuitdsl.verdict.estimates import Array, Estimate, Times, share
from circuitdsl.verdict.means import UNKNOWN, Mean, Pair, Range, Shared, mean, pair, strata_of
from circuitdsl.verdict.ratios import Ratio

Unit = Literal["percent", "points", "plain"]
#: fewer strata say too little about how templates differ
FEWEST_STRATA = 15
_MEASURED = ("d", "g", "value", "other")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What was measured on each prompt, in the order in which prompts were drawn.

    Attributes:
        strata: the stratum of each prompt.
        d: the change of the metric: patched - clean, or patched - corrupt for denoising.
        g: the gap: clean - corrupt.
        value: a figure that is measured as it is.
        other: the `d` of another patch, where two patches are compared.
        name: what the reason calls `value`.
        unit: the unit of `value`, and of `d` where it is not a share of the gap.
        hits: `value` is right or wrong (1 or 0) on each prompt, or a share of several such hits.
        falls: the metric is better when lower (`kl`), so that its gap is negative.
        label: the member of an `each` claim.
        called: the name of an effect that has its own, such as faithfulness.
        range: what a score cannot leave, such as 0 to 1 for attention. `value` is a score; `d`, `g` and `other` are
            differences of two. Intervals are shown within it. Where both ends are finite, tests use it.
        shared: which score of `g` is the base of `d`: the first (clean) or the second (corrupt).
        size: the gap of the scores where there is no `g`.
        rows: what there would have to be more of, where these do not decide.
        most: how many of these there can be, and `limit` why there are no more; None where there is no end.
    """

    strata: NDArray[np.generic]
    d: ArrayLike | None = None
    g: ArrayLike | None = None
    value: ArrayLike | None = None
    other: ArrayLike | None = None
    name: str = "value"
    unit: Unit = "plain"
    hits: bool = False
    falls: bool = False
    label: str = ""
    called: str = ""
    range: Range = UNKNOWN
    shared: Shared = ""
    size: float | None = None
    rows: str = "prompts"
    most: int | None = None
    limit: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strata", np.asarray(self.strata))
        for name in _MEASURED:
            if (y := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(y, float))
                if np.shape(y) != (self.n,):
                    raise ValueError(f"{name} has shape {np.shape(y)} for {self.n} prompts")
                if name != "value" and np.any(np.abs(y) > self.span * (1 + 1e-6)):
                    raise ValueError(f"{name} changes by more than the {self.span:g} that a score can")

    @property
    def n(self) -> int:
        return len(self.strata)

    def can_have(self, n: int) -> bool:
        """Whether there can be so many rows."""
        return self.most is None or n <= self.most

    @property
    def sign(self) -> int:
        """The sign the gap must have."""
        return -1 if self.falls else 1

    @property
    def span(self) -> float:
        """By how much a score can change at most."""
        return self.range[1] - self.range[0]

    def array(self, name: str) -> NDArray[np.float64]:
        """`d`, `g`, `value` or `other` [n]; raises `ValueError` where it was not measured."""
        y = getattr(self, name)
        if y is None:
            raise ValueError(f"this test needs {name!r}, which was not measured")
        return np.asarray(y)

    def take(self, index: slice | NDArray[np.bool_]) -> Sample:
        """The sample on some of its prompts."""
        return self.changed(self.strata[index], lambda y: y[index])

    def first(self, n: int) -> Sample:
        """The sample on its first prompts."""
        return self if n >= self.n else self.changed(self.strata[:n], lambda y: y[:n])

    def changed(self, strata: NDArray[np.generic], change: Callable[[Array], Array]) -> Sample:
        """The sample with other strata, and with all measured numbers changed in the same way."""
        measured = [(name, y) for name in _MEASURED if (y := getattr(self, name)) is not None]
        changed: dict[str, Any] = {name: change(np.asarray(y, float)) for name, y in measured}
        return replace(self, strata=strata, **changed)

    def trouble(self) -> str:
        """Why the sample cannot be used at all, in a sentence; empty where it can."""
        if self.n == 0:
            return "there is no prompt"
        changes = (("d", "patched − clean"), ("g", "clean − corrupt"), ("other", "the other patch's change"))
        for field, name in (*changes, ("value", self.name)):
            y = getattr(self, field)
            if y is not None and (bad := int(np.count_nonzero(~np.isfinite(y)))):
                return f"{name} is not a number on {bad} of {self.n} prompts"
        return ""


def by_stratum(sample: Sample) -> Sample:
    """The sample with one row for each stratum, its mean over prompts, as if strata had been drawn.

    For verdicts about prompts from *other templates* of the same kind (`--generalise templates`). All prompts of a
    template share it, so k templates are k draws, however many prompts there are. Figures are means over strata, each
    with the same weight, and their spread is the one between strata (Cameron and Miller 2015, J. Human Resources 50,
    on clustered errors and on why a few clusters are not enough).
    """
    _, codes, counts = strata_of(sample.strata)
    means = sample.changed(np.zeros(len(counts)), lambda y: np.bincount(codes, y) / counts)
    return replace(means, rows="templates", most=None)


def quantity_of(test: Test) -> str:
    """What a test is about: an effect, which needs a gap; a difference; or a value that was measured as it is."""
    if isinstance(test, Within | Beyond):
        return test.quantity
    return "delta" if isinstance(test, Stronger | Moves | AboveChance) else "effect"


def effect_of(sample: Sample) -> Ratio:
    """The effect on the prompts of a sample."""
    return Ratio(_pair(sample, "g", sample.shared), sample.sign)


def figure_of(test: Test, sample: Sample) -> Estimate:
    """The figure that a test is about, on the prompts of a sample."""
    if isinstance(test, Stronger):
        both = _pair(sample, "other", "second")
        return Versus(**vars(both.combine(1.0, 0.0)), both=both)
    quantity = quantity_of(test)
    if quantity != "value":
        return effect_of(sample) if quantity == "effect" else _pair(sample, "d", "").combine(1.0, 0.0)
    value = sample.array("value")
    if sample.hits:  # a prompt may have several, and is then a share of them
        return share(value) if set(value) <= {0.0, 1.0} else mean(value, ends=(0.0, 1.0))
    return mean(value, sample.strata, sample.range, sample.size)


def _pair(sample: Sample, other: str, shared: Shared) -> Pair:
    """`d` and another quantity, measured on the same prompts."""
    size = sample.size if sample.g is None else float(np.mean(sample.array("g")))
    return pair(sample.array("d"), sample.array(other), sample.strata, sample.range, shared, size)


@dataclass(frozen=True, slots=True)
class Region:
    """Where a figure must lie: inside [low, high] or outside it; the bounds themselves belong to the interval."""

    low: float = -math.inf
    high: float = math.inf
    inside: bool = True

    @property
    def bounds(self) -> tuple[float, ...]:
        return tuple(b for b in (self.low, self.high) if math.isfinite(b))

    def contains(self, figure: Estimate) -> bool:
        return (self.low <= float(figure.value) <= self.high) == self.inside

    def room(self, figure: Estimate) -> float:
        """How far inside the region a figure lies (below 0: how far outside), in the figure's unit."""
        value = float(figure.value)
        between = min(value - self.low, self.high - value)
        return between if self.inside else -between

    def p_values(self, figure: Estimate) -> dict[str, float]:
        """One-sided p-values against every bound: `in_low` for "above low", `out_low` for "below low", and so on."""
        below, above = figure.sides(self.bounds).tolist()
        least, most = figure.ends  # the bounds belong to [low, high]: no figure misses one at the end of what can be
        p: dict[str, float] = {}
        if math.isfinite(self.low):
            p |= {"in_low": 0.0 if self.low <= least else above[0], "out_low": below[0]}
        if math.isfinite(self.high):
            p |= {"in_high": 0.0 if self.high >= most else below[-1], "out_high": above[-1]}
        return p

    def combine(self, p: dict[str, float]) -> tuple[float, float]:
        """Two-sided p-values for "in the region" and "out of it" from one-sided ones against each bound."""
        between = max((v for k, v in p.items() if k.startswith("in_")), default=0.0)
        beyond = min((v for k, v in p.items() if k.startswith("out_")), default=1.0)
        pair = (min(1.0, 2 * between), min(1.0, 2 * beyond))
        return pair if self.inside else pair[::-1]


@dataclass(frozen=True, eq=False)
class Versus(Mean):
    """The mean of one change of the metric, which is claimed to be larger in size than another on the same prompts.

    `both` has the two changes, a and b; the test is on `a - b` and `a + b`.
    """

    both: Pair

    @property
    def other(self) -> Mean:
        return self.both.combine(0.0, 1.0)

    def repeated(self, times: Times) -> Versus:
        return replace(self, times=self.times * times, both=self.both.repeated(times))


@dataclass(frozen=True, slots=True)
class Larger:
    """The region |a| > t |b| of two means, whatever their signs; below, b is the second of them t times.

    |a| > |b| is (a - b)(a + b) > 0: both factors above 0, or both below. Each of the two is an intersection-union test
    (the larger of two p-values). Where |a| <= |b|, some factor of each pair has the wrong sign or is 0 (if b >= 0 then
    a - b <= 0 <= a + b, and the other way round), so that each pair is rejected at level p with probability p at the
    most; one of the two pairs is rejected with twice that (Bonferroni), which is reached where b is 0 on every prompt.
    |a| < |b| is the same with a and b exchanged: `a - b` changes its sign.
    """

    times: float = 1.0
    bounds: tuple[float, ...] = ()

    def contains(self, figure: Estimate) -> bool:
        assert isinstance(figure, Versus)
        return self.room(figure) > 0

    def room(self, figure: Estimate) -> float:
        """By how much |a| is larger than t |b|, in the unit of both."""
        assert isinstance(figure, Versus)
        return abs(float(figure.value)) - self.times * abs(float(figure.other.value))

    def p_values(self, figure: Estimate) -> dict[str, float]:
        """One-sided p-values for each sign of `a - b` and `a + b`."""
        assert isinstance(figure, Versus)
        p = {}
        for name, sign in (("less", -1.0), ("more", 1.0)):
            p[f"{name}_below"], p[f"{name}_above"] = figure.both.combine(1.0, sign * self.times).sides(0.0).tolist()
        return p

    def combine(self, p: dict[str, float]) -> tuple[float, float]:
        """Two-sided p-values for |a| > |b| and for |a| < |b|."""
        alike = min(max(p["less_above"], p["more_above"]), max(p["less_below"], p["more_below"]))
        unlike = min(max(p["less_above"], p["more_below"]), max(p["less_below"], p["more_above"]))
        return min(1.0, 4 * alike), min(1.0, 4 * unlike)


def region_of(test: Test, margin: float, sign: int = 1) -> Region | Larger:
    """The region a test claims; of effects for `Matters`, `Negligible`, `Signed`. `sign` is that of the gap.

    What lies strictly below or above a bound is outside of all the rest, to which the bound belongs. `lowers` is
    `delta < -margin * |gap|`, hence an effect below -margin, or above +margin where the gap is negative.
    """
    match test:
        case Within(low=low, high=None, strict=True) if low is not None:
            return Region(high=low, inside=False)
        case Within(low=None, high=high, strict=True) if high is not None:
            return Region(low=high, inside=False)
        case Within(low=low, high=high):
            return Region(-math.inf if low is None else low, math.inf if high is None else high)
        case Beyond(bound=bound):
            return Region(-bound, bound, inside=False)
        case Negligible():
            return Region(-margin, margin)
        case Matters():
            return Region(-margin, margin, inside=False)
        case Stronger(times=times):
            return Larger(times)
        case Moves(direction=direction, by=by) if by:
            return Region(low=by) if direction == "rises" else Region(high=-by)
        case Moves(direction="falls"):
            return Region(low=0.0, inside=False)
        case Moves() | AboveChance():
            return Region(high=0.0, inside=False)
        case Signed(direction=direction):
            below = (direction == "lowers") == (sign > 0)
            return Region(low=-margin, inside=False) if below else Region(high=margin, inside=False)
    raise TypeError(f"no such test: {test!r}")
