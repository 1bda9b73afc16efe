"""From numbers to verdicts.

A claim says that a figure lies in a region: below -20 %, inside +/- 1 %, beyond +/- 1 %. It *holds* when the figure's
interval lies inside the region, *fails* when it lies wholly outside, and is *undecided* when it reaches across a bound.
`p_holds` is the smallest alpha at which the `1 - alpha` interval lies inside, `p_fails` the smallest at which it lies
outside; with looks both are sequential p-values (`sampling.py`).

`families.py` divides the level among the claims of a spec, and `_judge` among the parts of one claim.

Effects are ratios of means. They are tested without dividing, on the paired `d - b g`, and only where the gap itself
is clear: p-values of claims on effects are never smaller than the gap's own.

A figure that is the same on every prompt is not certain: every test allows for an unseen prompt that differs
(`means.py`). Where the prompts at hand do not decide, the reason says how many would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from circuitdsl.circuit.criteria import AboveChance, Exceeds, Moves
from circuitdsl.verdict import reasons
from circuitdsl.verdict.estimates import Array, Estimate, Limits, limits_of
from circuitdsl.verdict.families import FAMILY, Levels, family_levels
from circuitdsl.verdict.means import SMALL, strata_of
from circuitdsl.verdict.needed import prompts_to_decide
from circuitdsl.verdict.ratios import Ratio, intervals
from circuitdsl.verdict.samples import Sample, figure_of, quantity_of
from circuitdsl.verdict.weighing import FEWEST, Evidence, Extreme, Part, Rarity
from circuitdsl.verdicts import WORST_FIRST, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with the numbers behind it; None where there is no such number.

    `ci` is the plain 95 % interval, and `ci_used` the one that the verdict used, at `level`. For a claim with several
    parts the numbers are those of the weakest part; `parts` has the decisions on all of them. `more`: whether more
    prompts, which there can be, may decide what is undecided.
    """

    verdict: Verdict
    reason: str
    name: str = ""
    cause: str = ""
    value: float | None = None
    ci: Limits | None = None
    ci_used: Limits | None = None
    delta: float | None = None
    n: int = 0
    p_holds: float = 1.0
    p_fails: float = 1.0
    level: float = FAMILY
    null: Rarity | None = None
    disagree: tuple[str, ...] = ()
    label: str = ""
    more: bool = False
    parts: tuple[Decision, ...] = field(default=(), repr=False)


def levels_of(evidence: Sequence[Evidence], alpha: float = FAMILY, adjust: bool = True) -> tuple[Levels, ...]:
    """The levels of all members (claim x task) of a spec, by Holm's procedure unless `adjust` is off."""
    return family_levels([e.p_holds for e in evidence], [e.p_fails for e in evidence], alpha, adjust)


def rule(evidence: Evidence, levels: Levels | None = None) -> Decision:
    """The verdict on one claim at its levels: it fails with any part, and holds with all."""
    return ruled([evidence], [levels or Levels()])[0]


def ruled(evidence: Sequence[Evidence], levels: Sequence[Levels]) -> list[Decision]:
    """The verdict on every claim at its levels; the intervals of all claims are computed together."""
    members = list(zip(evidence, levels, strict=True))
    parts = [(part, level, len(one.parts)) for one, level in members if not one.extreme for part in one.parts]
    judged = [(part, _judge(part, level, count)) for part, level, count in parts]
    asked = [_asked(part, decision) for part, decision in judged]
    limits = iter(intervals([pair for pairs in asked for pair in pairs]))
    counted = [_counted(*one, list(islice(limits, len(pairs)))) for one, pairs in zip(judged, asked, strict=True)]
    shown = [(part, one) for (part, _), one in zip(judged, counted, strict=True)]
    still = [i for i, pair in enumerate(shown) if _shows(*pair) and reasons.is_open(*pair)]
    needed = dict(zip(still, prompts_to_decide([(shown[i][0], shown[i][1].level) for i in still]), strict=True))
    described = (_described(*pair, needed.get(i)) for i, pair in enumerate(shown))
    return [
        _rule_extreme(one, one.extreme, level) if one.extreme else _whole(one, tuple(islice(described, len(one.parts))))
        for one, level in members
    ]


def verdict_of(evidence: Evidence, levels: Levels) -> tuple[Verdict, float]:
    """The verdict on one claim at its levels and its p-value for "holds", as `ruled` has them, without the rest."""
    if evidence.extreme:
        stuck = _stuck(evidence)
        verdict = _verdict(evidence, stuck.forced if stuck else None, levels.holds, levels.fails)[0]
        return verdict, 1.0 if stuck else evidence.p_holds
    parts = [_judge(part, levels, len(evidence.parts)).verdict for part in evidence.parts]
    return min(parts, key=WORST_FIRST.index), evidence.p_holds


def _stuck(evidence: Evidence) -> Part | None:
    """The first part that cannot be decided, without which the largest figure is not known."""
    return next((part for part in evidence.parts if part.forced in ("error", "undecided")), None)


def _verdict(by: Part | Evidence, forced: Verdict | None, holds_at: float, fails_at: float) -> tuple[Verdict, float]:
    """The verdict at two levels, unless it is forced, and the level that it used; if undecided, the stricter one."""
    holds, fails = by.p_holds <= holds_at, by.p_fails <= fails_at
    verdict: Verdict = forced or ("undecided" if holds == fails else "holds" if holds else "fails")
    return verdict, {"holds": holds_at, "fails": fails_at}.get(verdict, min(holds_at, fails_at))


def _judge(part: Part, levels: Levels, parts: int) -> Decision:
    """The verdict on one of several parts, without its numbers.

    The level of "fails" is divided by the number of parts (Bonferroni); that of "holds" is not.
    """
    fails_at = levels.fails / parts
    clash = part.p_holds <= levels.holds and part.p_fails <= fails_at
    verdict, level = _verdict(part, part.forced, levels.holds, fails_at)
    reason, sample = reasons.CLASH if clash else part.because, part.sample
    return Decision(verdict, reason, cause=part.cause, n=sample.n, level=level, null=part.rare, label=sample.label)


def _whole(evidence: Evidence, parts: tuple[Decision, ...]) -> Decision:
    """The verdict on a claim from those on its parts, with the numbers of the weakest one.

    The weakest is the part with the least room, of those that have the claim's verdict. Room goes by point estimates:
    p-values depend on the looks that were taken.
    """
    if len(parts) == 1:
        return parts[0]
    pairs = zip(parts, evidence.parts, strict=True)
    worst = min(pairs, key=lambda pair: (WORST_FIRST.index(pair[0].verdict), pair[1].room))[0]
    reason = f"{worst.label}: {worst.reason}" if worst.label else worst.reason
    return replace(worst, reason=reason, p_holds=evidence.p_holds, p_fails=evidence.p_fails, parts=parts)


def _rule_extreme(evidence: Evidence, extreme: Extreme, levels: Levels) -> Decision:
    """The verdict on a claim about the largest of many figures."""
    parts = evidence.parts
    stuck = _stuck(evidence)
    verdict, level = _verdict(evidence, stuck.forced if stuck else None, levels.holds, levels.fails)
    n = parts[0].sample.n
    if stuck:
        return Decision(verdict, stuck.because, extreme.name, stuck.cause, n=n, level=level)
    value, ci, of = largest(extreme, parts, lambda part: part.looks.display(FAMILY))
    leaf = parts[of]
    used = largest(extreme, parts, lambda part: part.looks.nominal(level, len(part.figures) - 1))[1]
    more = verdict == "undecided" and _may_have(leaf.sample, n + 1)
    found = extreme.name, "", value, ci, used, leaf.change, n, evidence.p_holds, evidence.p_fails, level
    decision = Decision(verdict, "", *found, label=leaf.sample.label, more=more)
    return replace(decision, reason=reasons.extreme(extreme, decision, leaf))


def largest(
    extreme: Extreme, parts: Sequence[Part], level: Callable[[Part], float]
) -> tuple[float, Limits | None, int]:
    """E on the prompts of the last look, its limits at a level, and the place of the part whose figure it is.

    `level` gives the level of the interval by the looks of that part. The interval combines the leaves' limits. With k
    leaves, max |figure| is at least every leaf's lower limit at alpha / k. It is at most the largest of the upper
    limits at alpha each, since it is itself one of the leaves'. The minimum over m sets is at least the smallest of
    the sets' lower limits, and at most every set's upper limit, each at alpha / m.
    """
    sizes = [np.abs([float(parts[i].figures[-1].value) for i in one]) for one in extreme.leaves]
    of_set = int(np.argmin([max(one) for one in sizes]))
    leaf = extreme.leaves[of_set][int(np.argmax(sizes[of_set]))]
    alpha = level(parts[leaf])
    every = [parts[i] for one in extreme.leaves for i in one]
    counts = np.array([len(one) for one in extreme.leaves])
    low = _limits(every, np.repeat(alpha / counts, counts))[0]
    high = _limits(every, np.full(len(every), alpha / len(counts)))[1]
    ends = np.cumsum(counts)[:-1]
    lowest, highest = (float(min(map(max, np.split(side, ends)))) for side in (low, high))
    return float(max(sizes[of_set])), None if np.isnan((lowest, highest)).any() else (lowest, highest), leaf


def _limits(parts: Sequence[Part], alpha: Array) -> tuple[Array, Array]:
    """Limits of the size of every leaf at its level."""
    found = intervals([(part.figures[-1], level) for part, level in zip(parts, alpha.tolist(), strict=True)])
    low, high = np.array([limits or (np.nan, np.nan) for limits in found]).T
    return np.maximum(0.0, np.maximum(low, -high)), np.maximum(np.abs(low), np.abs(high))


def _asked(part: Part, decision: Decision) -> list[tuple[Estimate, float]]:
    """The last figure with the levels of its intervals: of the plain one, and of the one that the verdict uses."""
    if not part.figures or decision.verdict == "error":  # without a gap an effect is no number
        return []
    levels = part.looks.display(FAMILY), part.looks.nominal(decision.level, len(part.figures) - 1)
    return [(part.figures[-1], level) for level in levels]


def _few(part: Part, decision: Decision) -> bool:
    """Whether there are too few prompts to say more than what they show."""
    return decision.n < FEWEST and not part.sample.hits


def _shows(part: Part, decision: Decision) -> bool:
    """Whether a decision has a figure that says something of the claim."""
    return bool(decision.name) and not _few(part, decision)


def _counted(part: Part, decision: Decision, limits: Sequence[Limits | None]) -> Decision:
    """The verdict on a part with its numbers; `limits` are the intervals that `_asked` asked for.

    A ratio whose gap is unclear has no value.
    """
    few = _few(part, decision)
    if not part.figures or (limits and few and decision.n == 1):
        return decision
    figure = part.figures[-1]
    decision = replace(decision, delta=part.change, p_holds=part.p_holds, p_fails=part.p_fails)
    if not limits:
        return decision
    plain, last = limits
    value = None if plain is None and isinstance(figure, Ratio) else float(figure.value)
    decision = replace(decision, name=name_of(part), value=value, ci=_shown(part, plain))
    if few:
        return replace(decision, more=decision.verdict == "undecided" and _may_have(part.sample, FEWEST))
    used = _shown(part, _used(part, decision.level, last))
    return replace(decision, ci_used=used, disagree=_disagreeing(part, decision.verdict))


def _described(part: Part, decision: Decision, needed: int | None) -> Decision:
    """The verdict on a part with its reason; `needed` prompts would decide it, where it is open."""
    if not _shows(part, decision):
        return decision
    decision = replace(decision, more=needed is not None and _may_have(part.sample, needed))
    return replace(decision, reason=reasons.reason(part, decision, needed))


def _may_have(sample: Sample, n: int) -> bool:
    """Whether so many prompts can be had."""
    return sample.rows == "prompts" and sample.can_have(n)


def name_of(part: Part) -> str:
    """What the figure of a part is called."""
    if isinstance(part.test, Exceeds):
        return "difference"
    if isinstance(part.test, Moves | AboveChance):
        return "change" if isinstance(part.test, Moves) else f"{part.sample.name} − chance"
    names = {"effect": part.sample.called or "effect", "delta": "delta", "value": part.sample.name}
    return names[quantity_of(part.test)]


def _shown(part: Part, limits: Limits | None) -> Limits | None:
    """An interval cut to what a measured score can be; tests use all of it."""
    if limits is None or name_of(part) != part.sample.name:
        return limits
    low, high = part.sample.range
    return max(limits[0], low), min(limits[1], high)


def _used(part: Part, level: float, last: Limits | None) -> Limits | None:
    """The interval that inverts the sequential test: what no look so far excludes at its own level."""
    if last is None:
        return None
    low, high = last
    for k, figure in enumerate(part.figures[:-1]):
        alpha = part.looks.nominal(level, k)
        if np.min(figure.p_value(np.array([-1.0, 1.0]), np.array([low, high]))) > alpha / 2:
            continue  # the limits of this look lie further out, which is nearly always so
        if there := limits_of(figure, alpha):
            low, high = max(low, there[0]), min(high, there[1])
    return (low, high) if low <= high else last


def _disagreeing(part: Part, verdict: Verdict) -> tuple[str, ...]:
    """Strata of at least `SMALL` prompts that show the opposite, each tested at 5 % divided by their number."""
    names, codes, counts = strata_of(part.sample.strata)
    if verdict not in ("holds", "fails") or part.forced or len(names) < 2:
        return ()
    level = FAMILY / max(int(np.sum(counts >= SMALL)), 1)
    against = []
    for k in np.flatnonzero(counts >= SMALL):
        figure = figure_of(part.test, part.sample.take(codes == k))
        if part.region.contains(figure) == (verdict == "holds"):
            continue
        gap = figure.sign * figure.denominator.value if isinstance(figure, Ratio) else 1.0
        holds, fails = part.region.combine(part.region.p_values(figure))
        if gap > 0 and (fails if verdict == "holds" else holds) <= level:
            against.append(str(names[k]))
    return tuple(against)
