"""The sentence beside a verdict: the figure, its interval, and where that lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from circuitdsl.circuit.criteria import AboveChance, Matters, Negligible, Signed, Stronger
from circuitdsl.verdict.estimates import Limits, limits_of
from circuitdsl.verdict.needed import MOST_PROMPTS, MOST_TIMES
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.samples import Region, Unit, Versus, quantity_of

if TYPE_CHECKING:
    from circuitdsl.verdict.decide import Decision
    from circuitdsl.verdict.weighing import Extreme, Part

#: why a part is undecided whose looks passed both tests
CLASH = "one look shows the claim true and another shows it false"
_SUFFIX: Mapping[Unit, str] = {"percent": " %", "points": " points", "plain": ""}


def reason(part: Part, decision: Decision, needed: int | None = None) -> str:
    """Why a claim came out as it did, in one sentence, with the interval that the verdict used and its level.

    `decision.reason` is what is known without the numbers, such as the comparison with a null. `needed` is what
    `prompts_to_decide` found, where the claim `is_open`.
    """
    if decision.value is None:
        return f"{decision.name} is no number: the gap is not clear enough"
    limits = decision.ci_used or decision.ci
    shown = written(unit_of(part), decision.value, limits, part.region.bounds) + _at_level(decision, part)
    finding = _comparison(part, decision) if isinstance(part.test, Stronger) else _finding(part, decision)
    text = f"{decision.name} {shown} {finding}"
    if decision.reason:
        text += f"; {decision.reason}"
    elif part.rare and decision.verdict == "holds":
        text += f", rarer than {part.rare.stronger} of {part.rare.size}"
    text += _none_differs(part, decision)
    if is_open(part, decision):
        rows, most = part.sample.rows, min(decision.n * MOST_TIMES, MOST_PROMPTS)
        text += f"; about {needed} {rows} like these would" if needed else f"; {most} {rows} like these would not"
        text += " decide"
        if needed and not part.sample.can_have(needed):
            text += f", but {part.sample.limit}"
    if decision.disagree:
        text += f"; strata that disagree: {', '.join(decision.disagree)}"
    return text


def is_open(part: Part, decision: Decision) -> bool:
    """Whether all that was to be measured was, and the numbers do not decide."""
    return decision.verdict == "undecided" and part.final and not decision.reason


def _at_level(decision: Decision, part: Part) -> str:
    """The level of the interval, where it is not the plain one that is shown beside the claim.

    Before the last look the interval is wider than its level alone makes it, because of the looks still to come.
    """
    plain, used = decision.ci, decision.ci_used
    if used is None or (plain is not None and np.allclose(plain, used, rtol=1e-9, atol=0)):
        return ""
    at, of = len(part.looks.reached(decision.n)), len(part.looks.sizes)
    return f" at {confidence(decision.level)}" + (f" (look {at} of {of})" if at < of else "")


def gap_trouble(figure: Ratio, unit: Unit, alpha: float) -> tuple[str, str] | None:
    """Why there is no gap to measure effects by, in a few words and with the numbers; None where there is one.

    The gap's interval must lie on the right side of 0.
    """
    if figure.unclear <= alpha / 2:
        return None
    gap = figure.denominator
    wrong = gap.p_value(figure.sign, 0.0)
    limits = limits_of(gap, alpha)
    shown = written(unit, float(gap.value), limits, (0.0,))
    if wrong <= alpha / 2:
        side = "below" if figure.sign > 0 else "above"
        return "the model does not do this task", f"clean − corrupt is {shown}, {side} 0"
    return "no gap", f"clean − corrupt is {shown}, not clearly different from 0"


def too_few(n: int, needed: int) -> str:
    say = "1 prompt says" if n == 1 else f"{n} prompts say"
    return f"{say} too little about how prompts differ; a verdict needs {needed}"


def few_strata(strata: int, needed: int) -> str:
    there = "there is 1" if strata == 1 else f"there are {strata}"
    return f"verdicts about other templates need {needed} strata: {there}"


def extreme(claim: Extreme, decision: Decision, leaf: Part) -> str:
    """Why a claim about the largest of many figures came out as it did, with the one that it is."""
    value, limits, unit = decision.value or 0.0, decision.ci_used or decision.ci, unit_of(leaf)
    bounds = [bound for bound in (claim.test.low, claim.test.high) if bound is not None]
    shown = written(unit, value, limits, bounds) + _at_level(decision, leaf)
    said = " and ".join(exact(unit, bound) for bound in bounds)
    inside = (claim.test.low or 0.0) <= value <= (math.inf if claim.test.high is None else claim.test.high)
    if decision.verdict == "undecided":
        finding = f"does not decide about {said} at this level"
    elif len(bounds) == 2:
        finding = f"is {'between' if inside else 'not between'} {said}"
    else:
        finding = f"is {'above' if (claim.test.high is None) == inside else 'below'} {said}" if bounds else ""
    where = f" ({decision.label})" if decision.label else ""
    return f"{claim.name} {shown}{where} {finding}".rstrip()


def unit_of(part: Part) -> Unit:
    """The unit of a part's figure."""
    return "percent" if quantity_of(part.test) == "effect" else part.sample.unit


def _finding(part: Part, decision: Decision) -> str:
    """Where the interval lies with respect to the region."""
    limits, unit = decision.ci_used, unit_of(part)
    low, high = limits or (decision.value or 0.0,) * 2
    crossed = [bound for bound in part.region.bounds if low < bound < high]
    if crossed and (decision.verdict == "undecided" or part.forced):
        return f"reaches across {' and '.join(exact(unit, bound) for bound in crossed)}"
    if decision.verdict == "undecided" and not decision.reason:
        unclear = ": the gap is not clear enough" if quantity_of(part.test) == "effect" else ""
        return f"decides nothing{unclear} at this level"
    return f"is {place(part, decision.value or 0.0, (low, high), unit)}"


def _comparison(part: Part, decision: Decision) -> str:
    """How a change compares with another in size, with the other's number."""
    figure = part.figures[-1]
    assert isinstance(part.test, Stronger) and isinstance(figure, Versus)
    words = {"holds": "is stronger than", "fails": "is weaker than"}
    times = "" if part.test.times == 1 else f"{part.test.times:g} times "
    value = float(figure.other.value)
    limits = limits_of(figure.other, part.looks.nominal(decision.level, len(part.figures) - 1))
    shown = written(part.sample.unit, value, limits) + _at_level(decision, part)
    finding = words.get(decision.verdict, "is not clearly stronger or weaker than")
    return f"{finding} {times}{shown} of {part.test.name}"


def place(part: Part, value: float, limits: Limits, unit: Unit) -> str:
    """Where a figure lies whose interval crosses no bound."""
    if isinstance(part.test, Matters | Negligible | Signed):
        margin = exact(unit, part.margin)
        if -part.margin <= limits[0] and limits[1] <= part.margin:
            return f"inside the margin of {margin}"
        if isinstance(part.test, Matters | Negligible):
            return f"beyond the margin of {margin}"
    assert isinstance(part.region, Region)
    low, high = part.region.low, part.region.high
    if value < low or (math.isinf(low) and value < high):
        return f"below {exact(unit, low if value < low else high)}"
    if value > high or (math.isinf(high) and value > low):
        return f"above {exact(unit, high if value > high else low)}"
    if math.isinf(low) or math.isinf(high):
        return f"at {exact(unit, high if math.isinf(low) else low)}"
    return f"between {exact(unit, low)} and {exact(unit, high)}"


def _none_differs(part: Part, decision: Decision) -> str:
    """Where a change is the same on all prompts: how many other prompts may differ, at the level used."""
    if part.sample.d is None or np.ptp(part.sample.array("d")) != 0:
        return ""
    n, figures = decision.n, len(part.figures)
    share = -math.expm1(math.log(part.looks.nominal(decision.level, figures - 1) / 2) / n)
    what = "unchanged" if not np.any(part.sample.array("d")) else "changed alike"
    what = "alike" if isinstance(part.test, AboveChance) else what
    return f"; all {n} prompts are {what}, but up to {written('percent', share)} of others may differ"


def written(
    unit: Unit, value: float, limits: Limits | None = None, bounds: Sequence[float] = (), like: Limits | None = None
) -> str:
    """A figure with its interval.

    The width of the interval says how many decimals are shown (without one, that of the interval `like`); there are
    more where rounding would move a number onto a bound.
    """
    factor, span = _factor(unit), limits or like
    shown = [factor * x for x in (value, *(limits or ())) if math.isfinite(x)]
    width = factor * (span[1] - span[0]) if span else abs(shown[0]) / 10 if shown else 1.0
    decimals = 0 if not 0 < width < math.inf else min(max(math.ceil(0.5 - math.log10(width)), 0), 4)
    apart = [(x, factor * bound) for x in shown for bound in bounds if x != factor * bound]
    while decimals < 4 and any(round(x, decimals) == round(bound, decimals) for x, bound in apart):
        decimals += 1

    def number(x: float) -> str:
        return f"{round(x * factor, decimals) + 0.0:.{decimals}f}".replace("-", "−").replace("inf", "∞")

    interval = f" [{number(limits[0])}, {number(limits[1])}]" if limits else ""
    return number(value) + _SUFFIX[unit] + interval


def confidence(level: float) -> str:
    """`99.8 %` for an interval of level 0.2 %, which is given to two digits."""
    return f"{100 - float(f'{100 * level:.2g}'):g} %"


def exact(unit: Unit, x: float) -> str:
    """A bound or a margin as it was written: 0.2 is `20 %`."""
    return f"{round(x * _factor(unit), 6):g}".replace("-", "−") + _SUFFIX[unit]


def _factor(unit: Unit) -> int:
    return 1 if unit == "plain" else 100
