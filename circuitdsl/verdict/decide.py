"""From numbers to verdicts.

A claim says that a figure lies in a region: below -20 %, inside +/- 1 %, beyond +/- 1 %. It *holds* when the figure's
interval lies inside the region, *fails* when it lies wholly outside, and is *undecided* when it reaches across a bound.
`p_holds` is the smallest alpha at which the `1 - alpha` interval lies inside, `p_fails` the smallest at which it lies
outside; with looks both are sequential p-values (`sampling.py`).

How alpha is spent: at level alpha each limit of the interval errs with probability alpha / 2, and wherever the truth
lies only one bound can be crossed towards a wrong "holds" and only one towards a wrong "fails". So one claim comes
out as a wrong "holds" with probability at most alpha / 2 (2.5 % of the usual 5 %), and as a wrong "fails" with at
most alpha / 2. Parts of a claim (`each`, `and`) must all hold at the claim's level, and "fails" is divided by their
number; over the claims of a spec, Holm's procedure keeps each of the two sums at alpha / 2 (`families.py`).

Effects are ratios of means. They are tested without dividing, on the paired `d - b g`, and only where the gap itself
is clear: p-values of claims on effects are never smaller than the gap's own.

A figure that is the same on every prompt has no variance, and no interval can be computed from its spread. n equal
prompts show only that, at 95 %, less than a share `1 - 0.05^(1/n)` of prompts differ (Clopper and Pearson; about
3 / n). Where the metric moves with every change of the logits, equal figures are no accident, and such a figure is
decided by its value, at the last look, from `CONSTANT` prompts on; its reason says how many prompts may differ. Nearer
to a bound than rounding can tell (a millionth of the gap) it decides nothing, unless it is the bound exactly. Where
the metric jumps (`Sample.step`: accuracy), that no prompt changed is what chance does with few changes: all such
figures have intervals that allow for the prompts that would change by the whole step (`bounded.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from circuitdsl.circuit.claims import AboveChance, Matters, Moves, Stronger, Test, Within
from circuitdsl.verdict import extremes, reasons
from circuitdsl.verdict.extremes import Extreme
from circuitdsl.verdict.families import FAMILY, Levels, all_of, any_of, family_levels, strictest
from circuitdsl.verdict.intervals import SMALL, Estimate, Ratio
from circuitdsl.verdict.samples import (
    CONSTANT,
    FEWEST_STRATA,
    Larger,
    Rarity,
    Region,
    Sample,
    by_stratum,
    constant,
    figure_of,
    on_effects,
    rarity,
    region_of,
)
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.words import Limits

Verdict = Literal["holds", "fails", "undecided", "error"]

#: from fewer prompts neither spread nor skewness can be estimated: they decide nothing
FEWEST = SMALL
#: effects are compared with their null on the first prompts, as many as the null's
NULL_PROMPTS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One test on one sample, weighed but not yet judged: all that judging at any level needs."""

    test: Test
    sample: Sample
    looks: Looks
    margin: float
    region: Region | Larger
    figures: tuple[Estimate, ...] = ()  # one for each look so far
    p_holds: float = 1.0
    p_fails: float = 1.0
    rare: Rarity | None = None
    final: bool = False  # no more prompts can come, or none could help
    forced: Verdict | None = None
    because: str = ""


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


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with the numbers behind it; None where there is no such number.

    `ci` is the plain 95 % interval, `ci_used` the one the verdict went by, at `level`. Of a claim with several parts
    the numbers are those of the part that decided, and `parts` has all. `degenerate` figures have no interval, being
    the same on every prompt.
    """

    verdict: Verdict
    reason: str
    name: str = ""
    value: float | None = None
    ci: Limits | None = None
    ci_used: Limits | None = None
    delta: float | None = None
    gap: float | None = None
    n: int = 0
    p_holds: float = 1.0
    p_fails: float = 1.0
    level: float = FAMILY
    degenerate: bool = False
    null: Rarity | None = None
    disagree: tuple[str, ...] = ()
    label: str = ""
    parts: tuple[Decision, ...] = field(default=(), repr=False)


# --- weighing: p-values, at every look so far -------------------------------------------------------


def weigh(
    test: Test,
    sample: Sample,
    *,
    margin: float = 0.01,
    looks: Looks | None = None,
    null: ArrayLike | None = None,
    templates: bool = False,
) -> Part:
    """Weigh one test on the prompts measured so far, the first ones of the design `looks` (default: one look).

    `null`, for `Matters`, holds the effects of the null's members on the first `NULL_PROMPTS` prompts. With `templates`
    the verdict is about prompts from other strata, and strata are what is counted; there is one look then.
    """
    first, strata = sample.take(slice(NULL_PROMPTS)), len(np.unique(sample.strata))
    if templates:
        sample, looks = by_stratum(sample), None
    looks = looks or Looks((max(sample.n, 1),))
    sizes = looks.reached(sample.n) or (sample.n,)
    sample = sample.take(slice(sizes[-1]))
    region = region_of(test, margin, sample.sign)
    part = Part(test, sample, looks, margin, region, final=sample.n >= looks.sizes[-1])
    if trouble := sample.trouble() or _null_trouble(null):
        return replace(part, final=True, forced="error", because=trouble)
    if templates and strata < FEWEST_STRATA:
        return replace(part, final=True, forced="error", because=reasons.few_strata(strata, FEWEST_STRATA))
    part = replace(part, figures=tuple(figure_of(test, sample.take(slice(size))) for size in sizes))
    if sample.n < FEWEST and not sample.hits:
        return replace(part, forced="undecided", because=reasons.too_few(sample.n, FEWEST))
    if on_effects(test) and (trouble := reasons.gap_trouble(part.figures[-1], sample.unit, looks.display(FAMILY))):
        return replace(part, forced="error", because=trouble)
    p_holds, p_fails = _sequential(part)
    part = replace(part, p_holds=p_holds, p_fails=p_fails)
    return _filter_by_null(part, first, null) if isinstance(test, Matters) else part


def _null_trouble(null: ArrayLike | None) -> str:
    finite = null is None or np.all(np.isfinite(np.asarray(null, float)))
    return "" if finite else "an effect of the null is not a number"


def _sequential(part: Part) -> tuple[float, float]:
    """Sequential two-sided p-values for "in the region" and "out of it", for effects no smaller than the gap's."""
    rows = [_at_look(part, figure) for figure in part.figures]
    p = {key: float(part.looks.p_value([row[key] for row in rows])) for key in rows[0]}
    gap = min(1.0, 2 * p.pop("gap", 0.0))
    holds, fails = part.region.combine(p)
    return max(holds, gap), max(fails, gap)


def _at_look(part: Part, figure: Estimate) -> dict[str, float]:
    """One-sided p-values of one look; a figure without variance waits for the last look, then goes by its value."""
    p = part.region.p_values(figure)
    if isinstance(figure, Ratio):
        p["gap"] = float(figure.denominator.above(0.0) if figure.sign > 0 else figure.denominator.below(0.0))
    if constant(figure) and (figure.n < part.looks.sizes[-1] or figure.n < CONSTANT):
        return dict.fromkeys(p, 1.0)
    return p


def _filter_by_null(part: Part, first: Sample, null: ArrayLike | None) -> Part:
    """`matters` must also be stronger than 95 % of its null; the null alone never makes a claim hold."""
    rare = rarity(float(figure_of(part.test, first).value), [] if null is None else null)
    part = replace(part, rare=rare, p_holds=part.p_holds if rare.rare else 1.0)
    if rare.enough and not rare.rare:
        return replace(part, forced="fails", because=reasons.common(rare), final=True)
    return part if rare.enough else replace(part, because=reasons.small_null(rare))


# --- judging: verdicts at a level -------------------------------------------------------------------


def rule(evidence: Evidence, levels: Levels | None = None) -> Decision:
    """The verdict on one claim at its levels: it fails with any part, and holds with all."""
    levels = levels or Levels()
    if evidence.extreme:
        return _rule_extreme(evidence, evidence.extreme, levels)
    parts = tuple(_rule_part(part, levels, len(evidence.parts)) for part in evidence.parts)
    if len(parts) == 1:
        return parts[0]
    order: tuple[Verdict, ...] = ("fails", "error", "undecided", "holds")
    worst = min(parts, key=lambda part: (order.index(part.verdict), part.p_fails, -part.p_holds))
    named = worst.verdict != "holds" and worst.label
    reason = f"{worst.label}: {worst.reason}" if named else worst.reason
    return replace(worst, reason=reason, p_holds=evidence.p_holds, p_fails=evidence.p_fails, parts=parts)


def _rule_extreme(evidence: Evidence, extreme: Extreme, levels: Levels) -> Decision:
    """The verdict on a claim about the largest of many figures (see `extremes.py`)."""
    parts, p = evidence.parts, (evidence.p_holds, evidence.p_fails)
    holds, fails = p[0] <= levels.holds, p[1] <= levels.fails
    forced = next((part for part in parts if part.forced in ("error", "undecided")), None)
    verdict: Verdict = (forced and forced.forced) or ("undecided" if holds == fails else "holds" if holds else "fails")
    level = {"holds": levels.holds, "fails": levels.fails}.get(verdict, min(levels.holds, levels.fails))
    blank = Decision(verdict, forced.because if forced else "", extreme.name, n=parts[0].sample.n, level=level)
    if forced:
        return blank
    shown = extremes.found(extreme, parts, lambda part: part.looks.display(FAMILY))
    used = extremes.found(extreme, parts, lambda part: part.looks.nominal(level, len(part.figures) - 1))
    leaf = parts[shown.leaf]
    decision = replace(
        _with_differences(blank, leaf.figures[-1], leaf),
        value=shown.value,
        ci=shown.limits,
        ci_used=used.limits,
        p_holds=p[0],
        p_fails=p[1],
        label=leaf.sample.label,
    )
    return replace(decision, reason=reasons.extreme(extreme, decision, leaf))


def _rule_part(part: Part, levels: Levels, parts: int) -> Decision:
    """The verdict on one of several parts: "fails" is paid for by all of them (Bonferroni), "holds" is not."""
    fails_at = levels.fails / parts
    holds, fails = part.p_holds <= levels.holds, part.p_fails <= fails_at
    if holds and fails:
        part = replace(part, because=reasons.CLASH)
    verdict: Verdict = part.forced or ("undecided" if holds == fails else "holds" if holds else "fails")
    level = {"holds": levels.holds, "fails": fails_at}.get(verdict, min(levels.holds, fails_at))
    blank = Decision(verdict, part.because, n=part.sample.n, label=part.sample.label, null=part.rare, level=level)
    if not part.figures:
        return blank
    figure = part.figures[-1]
    numbers = replace(_with_differences(blank, figure, part), p_holds=part.p_holds, p_fails=part.p_fails)
    if verdict == "error":  # without a gap an effect is no number
        return numbers
    if part.sample.n < FEWEST and not part.sample.hits:
        return _with_figure(numbers, figure, part) if part.sample.n > 1 else blank
    decision = _with_figure(numbers, figure, part)
    used, against = _shown(part, _used(part, level)), _disagreeing(part, verdict)
    decision = replace(decision, ci_used=used, degenerate=constant(figure), disagree=against)
    return replace(decision, reason=reasons.reason(part, decision))


def _with_differences(decision: Decision, figure: Estimate, part: Part) -> Decision:
    """Add `delta` and, for effects, the gap."""
    if isinstance(figure, Ratio):
        return replace(decision, delta=float(figure.numerator.value), gap=float(figure.denominator.value))
    return decision if part.sample.d is None else replace(decision, delta=float(np.mean(part.sample.array("d"))))


def _with_figure(decision: Decision, figure: Estimate, part: Part) -> Decision:
    """Add name, value and plain interval of the figure; a ratio whose gap is unclear has no value."""
    ci = _limits(figure, part.looks.display(FAMILY))
    known = ci is not None or not isinstance(figure, Ratio) or bool(figure.degenerate)
    return replace(decision, name=name_of(part), value=float(figure.value) if known else None, ci=_shown(part, ci))


def name_of(part: Part) -> str:
    """What the figure of a part is called."""
    if on_effects(part.test):
        return part.sample.called or "effect"
    if isinstance(part.test, Moves | AboveChance):
        return "change" if isinstance(part.test, Moves) else f"{part.sample.name} − chance"
    delta = isinstance(part.test, Stronger) or (isinstance(part.test, Within) and part.test.quantity == "delta")
    return "delta" if delta else part.sample.name


def _limits(figure: Estimate, alpha: float) -> Limits | None:
    low, high = (float(v) for v in figure.interval(alpha))
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def _shown(part: Part, limits: Limits | None) -> Limits | None:
    """An interval cut to what a measured value can be; tests go by the whole of it."""
    possible = part.sample.possible
    if limits is None or possible is None or name_of(part) != part.sample.name:
        return limits
    return max(limits[0], possible[0]), min(limits[1], possible[1])


def _used(part: Part, level: float) -> Limits | None:
    """The interval that inverts the sequential test: what no look so far excludes at its own boundary."""
    *earlier, last = part.figures
    limits = _limits(last, part.looks.nominal(level, len(earlier)))
    if limits is None:
        return None
    low, high = limits
    for k, figure in enumerate(earlier):
        alpha = part.looks.nominal(level, k)
        if constant(figure) or min(float(figure.above(low)), float(figure.below(high))) > alpha / 2:
            continue  # the limits of this look lie further out
        if there := _limits(figure, alpha):
            low, high = max(low, there[0]), min(high, there[1])
    return (low, high) if low <= high else limits


def _disagreeing(part: Part, verdict: Verdict) -> tuple[str, ...]:
    """Strata of `SMALL` prompts or more that say the opposite, each tested at 5 % over the number of such strata."""
    names, codes, counts = np.unique(part.sample.strata, return_inverse=True, return_counts=True)
    if verdict not in ("holds", "fails") or part.forced or len(names) < 2:
        return ()
    level = FAMILY / max(int(np.sum(counts >= SMALL)), 1)
    against = []
    for k in np.flatnonzero(counts >= SMALL):
        figure = figure_of(part.test, part.sample.take(codes.ravel() == k))
        if part.region.contains(figure) == (verdict == "holds") or constant(figure):
            continue
        if isinstance(figure, Ratio) and not figure.sign * figure.denominator.value > 0:
            continue
        holds, fails = part.region.combine(part.region.p_values(figure))
        if (fails if verdict == "holds" else holds) <= level:
            against.append(str(names[k]))
    return tuple(against)


# --- in one go --------------------------------------------------------------------------------------


def decide(
    test: Test,
    sample: Sample,
    *,
    margin: float = 0.01,
    looks: Looks | None = None,
    null: ArrayLike | None = None,
    levels: Levels | None = None,
) -> Decision:
    """One test on one sample, judged on its own."""
    return rule(Evidence((weigh(test, sample, margin=margin, looks=looks, null=null),)), levels)


def weigh_claim(
    tests: Sequence[Test],
    samples: Sequence[Sample],
    *,
    margin: float = 0.01,
    looks: Looks | None = None,
    nulls: Sequence[ArrayLike | None] | None = None,
    templates: bool = False,
) -> Evidence:
    """All tests of a claim on all its samples: one for a joint claim, one for each member under `each`."""
    nulls = nulls or [None] * len(samples)
    pairs = [(test, sample, null) for sample, null in zip(samples, nulls, strict=True) for test in tests]
    parts = (weigh(t, sample, margin=margin, looks=looks, null=null, templates=templates) for t, sample, null in pairs)
    return Evidence(tuple(parts))


def weigh_extreme(
    test: Within,
    sets: Sequence[Sequence[Sample]],
    *,
    name: str = "",
    looks: Looks | None = None,
    templates: bool = False,
) -> Evidence:
    """A claim about the smallest over sets of the largest figure in each, signs aside."""
    parts, extreme = extremes.build(test, name, sets, lambda one, s: weigh(one, s, looks=looks, templates=templates))
    return Evidence(parts, extreme)


def unmeasured(test: Test, because: str, label: str = "") -> Evidence:
    """A member that could not be measured: it stays in the family, and its verdict is an error."""
    sample = Sample(np.zeros(0), label=label)
    return Evidence((Part(test, sample, Looks((1,)), 0.0, Region(), final=True, forced="error", because=because),))


def decide_family(evidence: Sequence[Evidence], *, alpha: float = FAMILY, adjust: bool = True) -> list[Decision]:
    """Verdicts on all members (claim x task) of a spec, by Holm's procedure unless `adjust` is off."""
    levels = family_levels([e.p_holds for e in evidence], [e.p_fails for e in evidence], alpha, adjust)
    return [rule(e, level) for e, level in zip(evidence, levels, strict=True)]
