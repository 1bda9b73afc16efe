"""What a verdict is about: measured prompts, the figure made of them, and the region a test claims for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdsl.circuit.criteria import AboveChance, Beyond, Matters, Moves, Negligible, Signed, Stronger, Test, Within
from circuitdsl.verdict.estimates import Array, Estimate, Number, share
from circuitdsl.verdict.means import UNKNOWN, Mean, Pair, Range, Shared, mean, pair
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.words import Unit

#: the null must have this many members, 1 / (19 + 1) being 5 %
NULL_MEMBERS = 19
RARE = 0.05
#: effects that differ by less are tied
TIED = 1e-6
#: fewer strata say too little about how templates differ
FEWEST_STRATA = 15


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What was measured, prompt by prompt in the order drawn.

    Effects have `d` (patched - clean, or patched - corrupt for denoising) and `g` (clean - corrupt); figures that are
    measured as they are have `value`; `other` is the `d` of another patch, where the two are compared. `unit` is that
    of `delta` and of `value`; `hits` says that `value` is right or wrong (1 or 0) on each prompt, or a share of several
    such hits, its mean a share of all; `falls` that the metric is better when lower (`kl`), so that its gap is
    negative. `name` is what the reason calls `value`, `label` the member of an `each` claim.

    `called` is the name of an effect that has one of its own, such as faithfulness.

    `range` is what a score cannot leave, such as 0 to 1 for attention: `value` is one, and `d`, `g` and `other` are
    differences of two. Intervals are shown within it, and where both ends are finite, tests go by it. `shared` says
    which score of `g` is the base of `d`: the first (clean) or the second (corrupt). `size` is the gap of the scores
    where there is no `g`.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "strata", np.asarray(self.strata))
        for name in ("d", "g", "value", "other"):
            if (y := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(y, float))
                if np.shape(y) != (self.n,):
                    raise ValueError(f"{name} has shape {np.shape(y)} for {self.n} prompts")
                if name != "value" and np.any(np.abs(y) > self.span * (1 + 1e-6)):
                    raise ValueError(f"{name} changes by more than the {self.span:g} that a score can")

    @property
    def n(self) -> int:
        return len(self.strata)

    @property
    def sign(self) -> int:
        """The sign the gap must have."""
        return -1 if self.falls else 1

    @property
    def span(self) -> float:
        """By how much a score can change at most."""
        return self.range[1] - self.range[0]

    def array(self, name: str) -> NDArray[np.float64]:
        """`d`, `g` or `value`; an error where it was not measured."""
        y = getattr(self, name)
        if y is None:
            raise ValueError(f"this test needs {name!r}, which was not measured")
        return np.asarray(y)

    def take(self, index: slice | NDArray[np.bool_]) -> Sample:
        """The sample on some of its prompts."""

        def cut(y: ArrayLike | None) -> ArrayLike | None:
            return None if y is None else np.asarray(y)[index]

        d, g, value, other = map(cut, (self.d, self.g, self.value, self.other))
        return replace(self, strata=self.strata[index], d=d, g=g, value=value, other=other)

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
    """The sample with one row for each stratum, its mean over prompts: strata are then what is drawn.

    For verdicts about prompts from *other templates* of the same kind (`--generalise templates`). Prompts of a template
    share it, so that however many there are, k templates are k draws: figures are means over strata, each counting
    alike, and their spread is that between strata (Cameron and Miller 2015, J. Human Resources 50, on clustered errors
    and on why few clusters will not do).
    """
    _, codes, counts = np.unique(sample.strata, return_inverse=True, return_counts=True)

    def means(y: ArrayLike | None) -> ArrayLike | None:
        return None if y is None else np.bincount(codes.ravel(), np.asarray(y, float)) / counts

    return replace(
        sample,
        strata=np.zeros(len(counts)),
        d=means(sample.d),
        g=means(sample.g),
        value=means(sample.value),
        other=means(sample.other),
    )


# --- figures ----------------------------------------------------------------------------------------


def on_effects(test: Test) -> bool:
    """Whether a test is about effects, which need a gap."""
    if isinstance(test, Stronger | Moves | AboveChance):
        return False
    return not isinstance(test, Within | Beyond) or test.quantity == "effect"


def effect_of(sample: Sample) -> Ratio:
    """The effect on the prompts of a sample."""
    return Ratio(_pair(sample, "g", sample.shared), sample.sign)


def figure_of(test: Test, sample: Sample) -> Estimate:
    """The figure that a test is about, on the prompts of a sample."""
    if on_effects(test):
        return effect_of(sample)
    if isinstance(test, Stronger):
        return Versus(_pair(sample, "other", "second"))
    if isinstance(test, Moves | AboveChance) or (isinstance(test, Within | Beyond) and test.quantity == "delta"):
        return _pair(sample, "d", "").combine(1.0, 0.0)
    value = sample.array("value")
    if sample.hits:  # a prompt may have several, and is then a share of them
        return share(value) if set(value) <= {0.0, 1.0} else mean(value, ends=(0.0, 1.0))
    return mean(value, sample.strata, sample.range, sample.size)


def _pair(sample: Sample, other: str, shared: Shared) -> Pair:
    """`d` and another quantity, measured on the same prompts."""
    size = sample.size if sample.g is None else float(np.mean(sample.array("g")))
    return pair(sample.array("d"), sample.array(other), sample.strata, sample.range, shared, size)


# --- regions ----------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Versus:
    """Two changes of the metric on the same prompts, `a` and `b`, of which `a` is claimed to be larger in size.

    Shown as `a`; decided on `a - b` and `a + b`.
    """

    both: Pair

    @property
    def n(self) -> int:
        return self.both.n

    @property
    def value(self) -> Array:
        return self._own.value

    @property
    def _own(self) -> Mean:
        return self.both.combine(1.0, 0.0)

    @property
    def other(self) -> Mean:
        return self.both.combine(0.0, 1.0)

    @property
    def less(self) -> Mean:
        return self.both.combine(1.0, -1.0)

    @property
    def more(self) -> Mean:
        return self.both.combine(1.0, 1.0)

    def repeated(self, times: int) -> Versus:
        return Versus(self.both.repeated(times))

    @property
    def ends(self) -> Range:
        return self._own.ends

    def sides(self, bounds: ArrayLike) -> Array:
        return self._own.sides(bounds)

    def interval(self, alpha: Number = 0.05) -> tuple[Array, Array]:
        return self._own.interval(alpha)


@dataclass(frozen=True, slots=True)
class Larger:
    """The region |a| > |b| of two means, whatever their signs.

    |a| > |b| is (a - b)(a + b) > 0: both factors above 0, or both below. Each of the two is an intersection-union test
    (the larger of two p-values). Where |a| <= |b|, some factor of each pair has the wrong sign or is 0 (if b >= 0 then
    a - b <= 0 <= a + b, and the other way round), so that each pair is rejected at level p with probability p at the
    most; one of the two pairs is rejected with twice that (Bonferroni), which is reached where b is 0 on every prompt.
    |a| < |b| is the same with a and b exchanged: `a - b` changes its sign.
    """

    bounds: tuple[float, ...] = ()

    def contains(self, figure: Estimate) -> bool:
        assert isinstance(figure, Versus)
        return abs(float(figure.value)) > abs(float(figure.other.value))

    def p_values(self, figure: Estimate) -> dict[str, float]:
        """One-sided p-values for each sign of `a - b` and `a + b`."""
        assert isinstance(figure, Versus)
        p = {}
        for name, factor in (("less", figure.less), ("more", figure.more)):
            p[f"{name}_below"], p[f"{name}_above"] = factor.sides(0.0).tolist()
        return p

    def combine(self, p: dict[str, float]) -> tuple[float, float]:
        """Two-sided p-values for |a| > |b| and for |a| < |b|."""

        def either(*signs: tuple[str, str]) -> float:
            return min(1.0, 2 * 2 * min(max(p[f"less_{less}"], p[f"more_{more}"]) for less, more in signs))

        return either(("above", "above"), ("below", "below")), either(("above", "below"), ("below", "above"))


def region_of(test: Test, margin: float, sign: int = 1) -> Region | Larger:
    """The region a test claims; of effects for `Matters`, `Negligible`, `Signed`. `sign` is that of the gap.

    `lowers` is `delta < -margin * |gap|`, hence an effect below -margin, or above +margin where the gap is negative.
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
        case Stronger():
            return Larger()
        case Moves(direction=direction, by=by) if by:
            return Region(low=by) if direction == "rises" else Region(high=-by)
        case AboveChance():
            return Region(high=0.0, inside=False)
        case Moves(direction=direction):
            return Region(high=0.0, inside=False) if direction == "rises" else Region(low=0.0, inside=False)
        case Signed(direction=direction):
            down = (direction == "lowers") == (sign > 0)
            return Region(low=-margin, inside=False) if down else Region(high=margin, inside=False)
    raise TypeError(f"no such test: {test!r}")


# --- rarity -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rarity:
    """How the size of an effect compares with its null; ties count against it."""

    stronger: int
    size: int

    @property
    def percentile(self) -> float:
        return self.stronger / self.size if self.size else 0.0

    @property
    def enough(self) -> bool:
        return self.size >= NULL_MEMBERS

    @property
    def rare(self) -> bool:
        """Stronger than 95 % of the null, by rank: (1 + those as strong) / (size + 1) <= 5 %.

        Counting the effect itself keeps the rate at 5 % for effects that are drawn like the null's (Phipson and Smyth
        2010, Stat. Appl. Genet. Mol. Biol. 9).
        """
        return self.enough and (1 + self.size - self.stronger) / (self.size + 1) <= RARE + 1e-12


def rarity(effect: float, null: ArrayLike) -> Rarity:
    """Compare the size of an effect with the sizes of the null's, all measured on the same prompts."""
    sizes = np.abs(np.asarray(null, float).ravel())
    return Rarity(int(np.count_nonzero(sizes < abs(effect) - TIED)), sizes.size)
