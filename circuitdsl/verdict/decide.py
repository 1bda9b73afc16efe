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

A figure that is the same on every prompt is no certainty: n equal prompts show only that, at 95 %, less than a share
`1 - 0.05^(1/n)` of prompts differ (Clopper and Pearson; about 3 / n). Every test allows for a prompt that was not seen
(`means.py`). Where the prompts at hand do not decide, the reason says how many would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike

from circuitdsl.circuit.criteria import AboveChance, Moves, Stronger, Test, Within
from circuitdsl.verdict import extremes, reasons
from circuitdsl.verdict.estimates import Estimate, Limits, limits_of
from circuitdsl.verdict.extremes import Extreme
from circuitdsl.verdict.families import FAMILY, Levels, family_levels
from circuitdsl.verdict.ratios import Ratio, intervals
from circuitdsl.verdict.samples import Rarity, Sample, figure_of, on_effects
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.strata import SMALL
from circuitdsl.verdict.weighing import FEWEST, Evidence, Part, weigh
from circuitdsl.verdicts import WORST_FIRST, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with the numbers behind it; None where there is no such number.

    `ci` is the plain 95 % interval, `ci_used` the one the verdict went by, at `level`. Of a claim with several parts
    the numbers are those of the part that decided, and `parts` has all.
    """

    verdict: Verdict
    reason: str
    name: str = ""
    cause: str = ""
    value: float | None = None
    ci: Limits | None = None
    ci_used: Limits | None = None
    delta: float | None = None
    gap: float | None = None
    n: int = 0
    p_holds: float = 1.0
    p_fails: float = 1.0
    level: float = FAMILY
    null: Rarity | None = None
    disagree: tuple[str, ...] = ()
    label: str = ""
    parts: tuple[Decision, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A part, the verdict on it, and the level of that: all that p-values decide."""

    part: Part
    verdict: Verdict
    level: float

    def asked(self) -> list[tuple[Estimate, float]]:
        """The last figure with the levels of its intervals: of the plain one, and of what the verdict goes by."""
        if not self.part.figures or self.verdict == "error":  # without a gap an effect is no number
            return []
        figures, looks = self.part.figures, self.part.looks
        return [(figures[-1], level) for level in (looks.display(FAMILY), looks.nominal(self.level, len(figures) - 1))]


# --- judging ----------------------------------------------------------------------------------------


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


def decide_family(evidence: Sequence[Evidence], *, alpha: float = FAMILY, adjust: bool = True) -> list[Decision]:
    """Verdicts on all members (claim x task) of a spec, by Holm's procedure unless `adjust` is off."""
    return _ruled(evidence, family_levels([e.p_holds for e in evidence], [e.p_fails for e in evidence], alpha, adjust))


def rule(evidence: Evidence, levels: Levels | None = None) -> Decision:
    """The verdict on one claim at its levels: it fails with any part, and holds with all."""
    return _ruled([evidence], [levels or Levels()])[0]


def _ruled(evidence: Sequence[Evidence], levels: Sequence[Levels]) -> list[Decision]:
    """The verdict on every claim at its levels; the intervals of all of them are found together."""
    members = list(zip(evidence, levels, strict=True))
    judged = [_judge(part, level, len(one.parts)) for one, level in members if not one.extreme for part in one.parts]
    asked = [one.asked() for one in judged]
    limits = iter(intervals([pair for pairs in asked for pair in pairs]))
    parts = iter([_described(one, list(islice(limits, len(pairs)))) for one, pairs in zip(judged, asked, strict=True)])
    return [
        _rule_extreme(one, one.extreme, level) if one.extreme else _whole(one, tuple(islice(parts, len(one.parts))))
        for one, level in members
    ]


def _judge(part: Part, levels: Levels, parts: int) -> Judged:
    """The verdict on one of several parts: "fails" is paid for by all of them (Bonferroni), "holds" is not."""
    fails_at = levels.fails / parts
    holds, fails = part.p_holds <= levels.holds, part.p_fails <= fails_at
    if holds and fails:
        part = replace(part, because=reasons.CLASH)
    verdict: Verdict = part.forced or ("undecided" if holds == fails else "holds" if holds else "fails")
    return Judged(part, verdict, {"holds": levels.holds, "fails": fails_at}.get(verdict, min(levels.holds, fails_at)))


def _whole(evidence: Evidence, parts: tuple[Decision, ...]) -> Decision:
    """The verdict on a claim from those on its parts."""
    if len(parts) == 1:
        return parts[0]
    worst = min(parts, key=lambda part: (WORST_FIRST.index(part.verdict), part.p_fails, -part.p_holds))
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
    blank = Decision(verdict, "", extreme.name, n=parts[0].sample.n, level=level)
    if forced:
        return replace(blank, reason=forced.because, cause=forced.cause)
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


# --- the numbers behind a verdict -------------------------------------------------------------------


def _described(judged: Judged, limits: Sequence[Limits | None]) -> Decision:
    """The verdict on a part with its numbers; `limits` are those that it has asked for."""
    part, sample, level = judged.part, judged.part.sample, judged.level
    blank = Decision(judged.verdict, part.because, cause=part.cause, n=sample.n, label=sample.label, level=level)
    blank = replace(blank, null=part.rare)
    if not part.figures:
        return blank
    numbers = replace(_with_differences(blank, part.figures[-1], part), p_holds=part.p_holds, p_fails=part.p_fails)
    if not limits:
        return numbers
    few = sample.n < FEWEST and not sample.hits
    if few and sample.n == 1:
        return blank
    decision = _with_figure(numbers, part, limits)
    if few:
        return replace(decision, ci_used=None)
    decision = replace(decision, disagree=_disagreeing(part, judged.verdict))
    return replace(decision, reason=reasons.reason(part, decision))


def _with_differences(decision: Decision, figure: Estimate, part: Part) -> Decision:
    """Add `delta` and, for effects, the gap."""
    if isinstance(figure, Ratio):
        return replace(decision, delta=float(figure.numerator.value), gap=float(figure.denominator.value))
    return decision if part.sample.d is None else replace(decision, delta=float(np.mean(part.sample.array("d"))))


def _with_figure(decision: Decision, part: Part, limits: Sequence[Limits | None]) -> Decision:
    """Add name, value and intervals of the figure; a ratio whose gap is unclear has no value."""
    figure, (plain, last) = part.figures[-1], limits
    known = plain is not None or not isinstance(figure, Ratio)
    value, used = float(figure.value) if known else None, _used(part, decision.level, last)
    return replace(decision, name=name_of(part), value=value, ci=_shown(part, plain), ci_used=_shown(part, used))


def name_of(part: Part) -> str:
    """What the figure of a part is called."""
    if on_effects(part.test):
        return part.sample.called or "effect"
    if isinstance(part.test, Moves | AboveChance):
        return "change" if isinstance(part.test, Moves) else f"{part.sample.name} − chance"
    delta = isinstance(part.test, Stronger) or (isinstance(part.test, Within) and part.test.quantity == "delta")
    return "delta" if delta else part.sample.name


def _shown(part: Part, limits: Limits | None) -> Limits | None:
    """An interval cut to what a measured score can be; tests go by the whole of it."""
    if limits is None or name_of(part) != part.sample.name:
        return limits
    low, high = part.sample.range
    return max(limits[0], low), min(limits[1], high)


def _used(part: Part, level: float, last: Limits | None) -> Limits | None:
    """The interval that inverts the sequential test: what no look so far excludes at its own boundary."""
    if last is None:
        return None
    low, high = last
    for k, figure in enumerate(part.figures[:-1]):
        alpha = part.looks.nominal(level, k)
        if min(float(figure.sides(low)[1]), float(figure.sides(high)[0])) > alpha / 2:
            continue  # the limits of this look lie further out, as they nearly always do
        if there := limits_of(figure, alpha):
            low, high = max(low, there[0]), min(high, there[1])
    return (low, high) if low <= high else last


def _disagreeing(part: Part, verdict: Verdict) -> tuple[str, ...]:
    """Strata of `SMALL` prompts or more that say the opposite, each tested at 5 % over the number of such strata."""
    names, codes, counts = np.unique(part.sample.strata, return_inverse=True, return_counts=True)
    if verdict not in ("holds", "fails") or part.forced or len(names) < 2:
        return ()
    level = FAMILY / max(int(np.sum(counts >= SMALL)), 1)
    against = []
    for k in np.flatnonzero(counts >= SMALL):
        figure = figure_of(part.test, part.sample.take(codes.ravel() == k))
        if part.region.contains(figure) == (verdict == "holds"):
            continue
        if isinstance(figure, Ratio) and not figure.sign * figure.denominator.value > 0:
            continue
        holds, fails = part.region.combine(part.region.p_values(figure))
        if (fails if verdict == "holds" else holds) <= level:
            against.append(str(names[k]))
    return tuple(against)
