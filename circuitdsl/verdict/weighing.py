"""From measured prompts to p-values for a claim and against it.

Nothing is decided here: evidence is weighed once, look by look, and `decide.py` judges it afterwards at any level.

A property of single prompts that is claimed for a share of them is an exact binomial test on its own sample, and a
member of Holm's family. A property claimed of every prompt fails on one counterexample; without one, all that is known
is the number of prompts searched. It belongs to no family and has no percentage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdsl.circuit.criteria import NULL_PROMPTS, Beyond, Matters, Test, Within
from circuitdsl.verdict import reasons
from circuitdsl.verdict.estimates import Estimate
from circuitdsl.verdict.families import FAMILY, all_of, any_of, strictest
from circuitdsl.verdict.means import SMALL, strata_of
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.samples import FEWEST_STRATA, Larger, Region, Sample, by_stratum, figure_of, region_of
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdicts import Verdict

#: fewer prompts decide nothing: they say too little about how prompts differ
FEWEST = SMALL
#: the null must have this many members, 1 / (19 + 1) being 5 %
NULL_MEMBERS = 19
RARE = 0.05
#: effects that differ by less are tied
TIED = 1e-6
#: prompts for a property without a share; the failures that a sample has on average at the claimed share, at least
EVERY, EXPECTED = 500, 5

Sets = tuple[tuple[int, ...], ...]


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
        return self.enough and self.stronger >= self.needed

    @property
    def needed(self) -> int:
        """How many of the null an effect must be stronger than, to be rare."""
        return 1 + self.size - math.floor((RARE + 1e-12) * (self.size + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One test on one sample, weighed but not yet judged: all that judging at any level needs.

    Attributes:
        figures: one for each look so far.
        against: the one-sided p-values of each figure.
        final: whether there are no more prompts, or more could not change the result.
        forced: the verdict where p-values do not decide it, and `because` its reason.
    """

    test: Test
    sample: Sample
    looks: Looks
    margin: float
    region: Region | Larger
    figures: tuple[Estimate, ...] = ()
    against: tuple[dict[str, float], ...] = ()
    p_holds: float = 1.0
    p_fails: float = 1.0
    rare: Rarity | None = None
    final: bool = False
    forced: Verdict | None = None
    because: str = ""
    cause: str = ""  # of an error: why, without its numbers

    @property
    def change(self) -> float | None:
        """The mean change of the metric, where it was measured."""
        return None if self.sample.d is None else float(np.mean(self.sample.array("d")))

    @property
    def room(self) -> float:
        """How far inside what is claimed the last figure lies (below 0: how far outside), by its point estimate.

        As a fraction, so that parts with other figures compare: a figure in the metric's unit is taken as a share of
        the gap. Without a figure there is no room at all.
        """
        if not self.figures:
            return -math.inf
        figure, sample = self.figures[-1], self.sample
        gap = abs(float(np.mean(sample.array("g")))) if sample.g is not None else sample.size
        size = gap if gap and sample.unit == "plain" and not isinstance(figure, Ratio) else 1.0
        room = self.region.room(figure) / size
        return -math.inf if math.isnan(room) else room


@dataclass(frozen=True, slots=True)
class Extreme:
    """A claim about the largest, or the smallest of several largest, of many figures: incompleteness and minimality.

    Each leaf is one figure (an effect, or a difference); only its *size* counts. With sets of leaves, the claim is
    about

        E = min over sets of (max over the leaves of a set of |figure|),

    with one set for incompleteness (all K), and one set a member for minimality (its K). For one leaf E is |figure|. A
    bound on E is a bound on leaves, joined by "all" and "some":

        E <= b   some set has all of its leaves within +/- b
        E >= a   every set has some leaf beyond +/- a

    The p-values of "all" and of "some" are those of `families.py`. Both are valid under any dependence between the
    leaves, which are measured on the same prompts, and so are combinations of them. No statement about E depends on
    which leaf happened to look largest.

    Attributes:
        name: what E is called.
        test: the claimed bounds on E.
        within, beyond: for each set, the places of the parts that test its leaves for being within the upper bound,
            and beyond the lower one; empty where that bound is not claimed.
        leaves: for each set, one part for each of its leaves.
    """

    name: str
    test: Within
    within: Sets
    beyond: Sets
    leaves: Sets

    def p_holds(self, p: Sequence[float]) -> float:
        """p-value for "E is as claimed" from those for "this part holds"."""
        upper = any_of([all_of([p[i] for i in one]) for one in self.within]) if self.within else 0.0
        lower = all_of([any_of([p[i] for i in one]) for one in self.beyond]) if self.beyond else 0.0
        return max(upper, lower)

    def p_fails(self, p: Sequence[float]) -> float:
        """p-value for "E is not as claimed" from those for "this part fails"."""
        over = [all_of([any_of([p[i] for i in one]) for one in self.within])] if self.within else []
        under = [any_of([all_of([p[i] for i in one]) for one in self.beyond])] if self.beyond else []
        return any_of([*over, *under]) if over or under else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All parts of one claim on one task: one member of the family."""

    parts: tuple[Part, ...]
    extreme: Extreme | None = None  # where the claim is about the largest of many figures

    @property
    def p_holds(self) -> float:
        p = [part.p_holds for part in self.parts]
        return self.extreme.p_holds(p) if self.extreme else all_of(p)

    @property
    def p_fails(self) -> float:
        p = [part.p_fails for part in self.parts]
        return self.extreme.p_fails(p) if self.extreme else any_of(p)

    def settled(self, members: int, alpha: float = FAMILY, adjust: bool = True) -> bool:
        """Whether more prompts cannot or need not change the verdict, however the other members come out."""
        level = strictest(members, alpha, adjust)
        broken = any(part.final and part.forced in ("fails", "error") for part in self.parts)
        decided = self.p_holds <= level.holds or self.p_fails <= level.fails
        return broken or decided or all(part.final for part in self.parts)


def weigh(
    test: Test,
    sample: Sample,
    *,
    margin: float = 0.01,
    looks: Looks | None = None,
    null: ArrayLike | None = None,
    templates: bool = False,
    before: Part | None = None,
) -> Part:
    """Weigh one test on the prompts measured so far.

    Args:
        looks: the design, of whose prompts these are the first ones; one look by default.
        null: for `Matters`, the effects of the null's members on the first `NULL_PROMPTS` prompts.
        templates: the verdict is about prompts from other strata, which are then what is counted; in one look.
        before: the result for the first of these prompts, whose looks are not taken again.
    """
    every = sample
    if templates:
        sample, looks, before = by_stratum(sample), None, None
    looks = looks or Looks((max(sample.n, 1),))
    sizes = looks.reached(sample.n) or (sample.n,)
    sample = sample.first(sizes[-1])
    region = region_of(test, margin, sample.sign)
    part = Part(test, sample, looks, margin, region, final=sample.n >= looks.sizes[-1])
    trouble = sample.trouble()
    if not trouble and null is not None and not np.all(np.isfinite(np.asarray(null, float))):
        trouble = "an effect of the null is not a number"
    if not trouble and templates and (there := len(strata_of(every.strata)[0])) < FEWEST_STRATA:
        trouble = reasons.few_strata(there, FEWEST_STRATA)
    if trouble:
        return replace(part, final=True, forced="error", because=trouble)
    part = _looked(part, sizes, before)
    if sample.n < FEWEST and not sample.hits:
        return replace(part, forced="undecided", because=reasons.too_few(sample.n, FEWEST))
    figure = part.figures[-1]
    if isinstance(figure, Ratio) and (no_gap := reasons.gap_trouble(figure, sample.unit, looks.display(FAMILY))):
        return replace(part, forced="error", because=": ".join(no_gap), cause=no_gap[0])
    p_holds, p_fails = _sequential(part)
    part = replace(part, p_holds=p_holds, p_fails=p_fails)
    return _filter_by_null(part, every.first(NULL_PROMPTS), null) if isinstance(test, Matters) else part


def _looked(part: Part, sizes: Sequence[int], before: Part | None) -> Part:
    """The part with the figure of every look and its p-values; looks at the same prompts are taken from `before`."""
    same = sum(figure.n == size for figure, size in zip(before.figures, sizes, strict=False)) if before else 0
    figures, against = (before.figures[:same], before.against[:same]) if before else ((), ())
    for size in sizes[same:]:
        figure = figure_of(part.test, part.sample.first(size))
        gap = {"gap": float(figure.unclear)} if isinstance(figure, Ratio) else {}
        figures, against = (*figures, figure), (*against, part.region.p_values(figure) | gap)
    return replace(part, figures=figures, against=against)


def _sequential(part: Part) -> tuple[float, float]:
    """Sequential two-sided p-values for "in the region" and "out of it"; for effects no smaller than the gap's."""
    at_looks = np.array([list(p.values()) for p in part.against]).T
    p = dict(zip(part.against[0], part.looks.p_value(at_looks).tolist(), strict=True))
    gap = min(1.0, 2 * p.pop("gap", 0.0))
    holds, fails = part.region.combine(p)
    return max(holds, gap), max(fails, gap)


def rarity(effect: float, null: ArrayLike) -> Rarity:
    """Compare the size of an effect with the sizes of the null's, all measured on the same prompts."""
    sizes = np.abs(np.asarray(null, float).ravel())
    return Rarity(int(np.count_nonzero(sizes < abs(effect) - TIED)), sizes.size)


def _filter_by_null(part: Part, first: Sample, null: ArrayLike | None) -> Part:
    """`matters` must also be stronger than 95 % of its null; the null alone never makes a claim hold."""
    rare = rarity(float(figure_of(part.test, first).value), [] if null is None else null)
    part = replace(part, rare=rare, p_holds=part.p_holds if rare.rare else 1.0)
    if not rare.enough:
        return replace(part, because=f"null too small: {rare.size} comparable effects, {NULL_MEMBERS} are needed")
    if rare.rare:
        return part
    because = f"not rare: stronger than {rare.stronger} of {rare.size} comparable effects, and {rare.needed} are needed"
    return replace(part, forced="fails", because=because, final=True)


def leaf_tests(test: Within) -> tuple[Within | None, Beyond | None]:
    """The tests of one leaf that a bound on E asks for: within the upper bound, beyond the lower one.

    E is a size: `>= 0` asks for nothing, `> 0` for a figure that is clearly not 0.
    """
    within = None if test.high is None else Within(test.quantity, -test.high, test.high, test.text)
    asked = test.low if test.low or test.strict else None
    beyond = None if asked is None else Beyond(test.quantity, asked, test.text)
    return within, beyond


def weigh_extreme(
    test: Within,
    sets: Sequence[Sequence[Sample]],
    *,
    name: str = "",
    looks: Looks | None = None,
    templates: bool = False,
) -> Evidence:
    """A claim about the smallest over sets of the largest figure in each, signs aside."""
    tests: tuple[Within | Beyond | None, ...] = leaf_tests(test)
    if tests == (None, None):  # `>= 0` bounds nothing: the figures are weighed without a bound
        tests = Within(test.quantity, None, None, test.text), None
    parts: list[Part] = []
    places: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
    for samples in sets:
        for one, rows in zip(tests, places, strict=True):
            if one is not None:
                rows.append(tuple(range(len(parts), len(parts) + len(samples))))
                parts += [weigh(one, sample, looks=looks, templates=templates) for sample in samples]
    within, beyond = (tuple(rows) for rows in places)
    return Evidence(tuple(parts), Extreme(name, test, within, beyond, within or beyond))


def untested(test: Test, verdict: Verdict, because: str, prompts: int = 0, label: str = "") -> Evidence:
    """The evidence of a verdict that rests on no test."""
    sample = Sample(np.zeros(prompts), label=label)
    looks = Looks((max(prompts, 1),))
    return Evidence((Part(test, sample, looks, 0.0, Region(), final=True, forced=verdict, because=because),))


def unmeasured(test: Test, because: str, label: str = "") -> Evidence:
    """The evidence of a claim that could not be measured: it stays in the family, and its verdict is an error."""
    return untested(test, "error", because, label=label)


def prompts_needed(share: float | None, members: int, alpha: float = FAMILY) -> int:
    """Prompts with which a property holds if none fails, however the other members of its family come out.

    With no failure among n the two-sided p-value for "more than `share`" is `2 share^n`. For 99 % never under 500.
    """
    if share is None:
        return EVERY
    level = strictest(members, alpha).holds
    return max(math.ceil(math.log(level / 2) / math.log(share)), math.ceil(EXPECTED / (1 - share) - 1e-9))


def weigh_share(test: Within, hits: NDArray[np.bool_], strata: ArrayLike) -> Evidence:
    """Evidence on the share of prompts that have a property."""
    sample = Sample(np.asarray(strata), value=hits.astype(float), name="share", unit="percent", hits=True)
    sample = replace(sample, most=len(hits), limit=f"the property's own sample has {len(hits)}")
    return Evidence((weigh(test, sample),))


def judge_every(hits: NDArray[np.bool_]) -> Evidence:
    """A property claimed of every prompt: it fails with one."""
    n, broken = len(hits), int(np.count_nonzero(~hits))
    because = f"{broken} of {n} prompts break it" if broken else f"no counterexample in {n} prompts"
    return untested(Within("value", None, None, "on every prompt"), "fails" if broken else "holds", because, n)
