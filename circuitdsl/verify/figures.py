"""The figure of a claim: which part it is of, its unit, and the numbers, prompt by prompt, whose mean it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circuitdsl.circuit.criteria import NULL_PROMPTS, Exceeds, Moves, Quantity, Signed, Stronger, Test, Within
from circuitdsl.engine.prompts import Array
from circuitdsl.measurements.kind import kind_of
from circuitdsl.measurements.plan import Part, by_itself
from circuitdsl.measurements.requests import Request
from circuitdsl.report.report import Detail, FigurePair, Measured
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.ratios import intervals
from circuitdsl.verdict.samples import by_stratum, effect_of, figure_of
from circuitdsl.verify.samples import Collected


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """The numbers of one part of a claim.

    Attributes:
        unit: as in `Measured`.
        values: on each prompt [prompts]; their mean is the part's figure. Shares are of the mean gap, so that no prompt
            divides by its own.
    """

    part: Part
    unit: str
    values: Array


def figures_of(own: Collected, decision: Decision) -> Figures | None:
    """The numbers of the part that a decision is about.

    None without a figure, and for a rank among circuits: there is nothing prompt by prompt.
    """
    part = part_of(own, decision)
    if part.peers is not None or decision.value is None or not np.isfinite(decision.value):
        return None
    plan, tests, sample = own.plan, own.plan.claim.tests, own.sample(part)
    differences = sample.unit == "points" and not plan.called  # of shares
    unit = "points" if differences else part.request.figure(own.prompts.metric).unit
    called = bool(plan.called) and isinstance(tests[0], Within) and tests[0].quantity == "effect"
    values = np.asarray(sample.value if sample.d is None else sample.d, float)
    versus = any(isinstance(test, Exceeds) and test.quantity == "effect" for test in plan.tests(part))
    if called or versus or decision.name == "effect":
        unit, values = "gap", values / float(np.mean(sample.array("g")))
    if plan.extremes:  # of which the size is claimed
        values = values * np.sign(np.mean(values))
    return Figures(part, unit, values)


def part_of(own: Collected, decision: Decision) -> Part:
    return next((part for part in own.plan.parts if part.label == decision.label), own.plan.parts[0])


def measured(own: Collected, decision: Decision) -> Measured | None:
    """The figure of a decision. Median and quartiles are over prompts; their shares are of the mean gap."""
    if decision.value is None or not np.isfinite(decision.value):
        return None
    plan, tests = own.plan, own.plan.claim.tests
    pairs = plan.claim.measurement.members
    # the only pair of its edge, or the one that the figure is of, of a claim about `each`
    pair = pairs[0] if len(pairs) == 1 else next((pair for pair in pairs if str(pair) == decision.label), None)
    # a figure is shown with its name where the claim's text does not say which figure it is
    bounded = "delta" in {test.quantity for test in tests if isinstance(test, Within)}
    several = len({part.name for part in decision.parts if part.name}) > 1
    unnamed = kind_of(plan.claim).many_figures or (decision.name == "delta" and not bounded)
    unnamed |= decision.name == "difference"
    figure = Measured(
        name=decision.name,
        value=decision.value,
        ci=decision.ci,
        ci_used=decision.ci_used,
        n=decision.n,
        unit="share",
        delta=decision.delta,
        part=decision.label,
        sender=str(pair.sender) if pair else "",
        receiver=str(pair.receiver) if pair else "",
        named=bounded if plan.called else unnamed or several,
    )
    found = figures_of(own, decision)
    if found is None:
        return replace(figure, n=min(NULL_PROMPTS, len(own.series[part_of(own, decision).request].values)), delta=None)
    low, median, high = (float(q) for q in np.quantile(found.values, (0.25, 0.5, 0.75)))
    right = _right_sign(plan.tests(found.part), decision, found.values, own.prompts.falls)
    return replace(figure, unit=found.unit, median=median, iqr=(low, high), right_sign=right)


def _right_sign(tests: Sequence[Test], decision: Decision, values: Array, falls: bool) -> float | None:
    """Share of prompts whose figure has the claimed sign, where a test gives its figure one."""
    for about, sign in (_claimed_sign(test, falls) for test in tests):
        if sign and about == decision.name:
            return float(np.mean(sign * values > 0))
    return None


def _claimed_sign(test: Test, falls: bool) -> tuple[str, int]:
    """The figure of a test and the sign that it claims for it; 0 where it claims none.

    Raising a metric with a gap below 0 is an effect below 0.
    """
    match test:
        case Moves(direction=direction):
            return "change", 1 if direction == "rises" else -1
        case Signed(direction=direction):
            return "effect", (1 if direction == "raises" else -1) * (-1 if falls else 1)
        case Exceeds(low=low):
            return "difference", -1 if low is None else 1
        case Within(quantity=quantity, low=low, high=high):
            return quantity, -1 if high is not None and high <= 0 else 1 if low is not None and low >= 0 else 0
        case _:
            return "", 0


def comparisons(own: Collected) -> tuple[FigurePair, ...]:
    """Both figures of every comparison that a claim makes, each by itself, with plain 95 % intervals."""
    found = []
    for part in own.plan.parts:
        for test in own.plan.tests(part):
            both = [each for each in (part.request, part.rival or part.base) if each in own.series]
            if isinstance(test, Exceeds | Stronger) and len(both) == 2:
                label = part.label or own.plan.claim.text.removeprefix("expect ")
                names = test.names if isinstance(test, Exceeds) else (label.partition(" : ")[0], test.name)
                first, second = (_by_itself(own, *each, test) for each in zip(names, both, strict=True))
                found.append(FigurePair(first, second, test.times, part.label))
    return tuple(found)


def _by_itself(own: Collected, name: str, request: Request, test: Exceeds | Stronger) -> Detail:
    """A figure of a comparison, without the other one."""
    sample = own.sample(by_itself(request))
    quantity: Quantity = "value" if sample.d is None else test.quantity if isinstance(test, Exceeds) else "delta"
    unit = request.figure(own.prompts.metric).unit if sample.unit != "points" else "points"
    figure = figure_of(Within(quantity, None, None, ""), by_stratum(sample) if own.templates else sample)
    return Detail(name, float(figure.value), intervals([(figure, FAMILY)])[0], "gap" if quantity == "effect" else unit)


def details(own: Collected, decision: Decision) -> tuple[Detail, ...]:
    """The figures behind that of a decision: those it is the largest or smallest of, or those of its tests."""
    return _of_sets(own) if own.plan.extremes else _of_tests(own, decision)


def _of_tests(own: Collected, decision: Decision) -> tuple[Detail, ...]:
    """The figure of every test, where some part has several."""
    weighed = own.evidence.parts
    if len(weighed) <= len(own.plan.parts) or len(weighed) != len(decision.parts):
        return ()
    found = []
    for part, each in zip(weighed, decision.parts, strict=True):
        if (figures := figures_of(own, each)) and each.value is not None:
            name = f"{each.label}, {part.test}" if each.label else str(part.test)
            found.append(Detail(name, each.value, each.ci, figures.unit, each.verdict))
    return tuple(found)


def _of_sets(own: Collected) -> tuple[Detail, ...]:
    """For each set of parts the one with the largest size; for a single set, every part.

    None without a gap to take shares of.
    """
    plan = own.plan
    if len(plan.parts) == 1 or any(request not in own.series for request in plan.requests):
        return ()
    samples = [own.sample(part) for part in plan.parts]
    if samples[0].n < 2 or effect_of(samples[0]).unclear > FAMILY / 2:
        return ()
    effects = [float(np.mean(s.array("d")) / np.mean(s.array("g"))) for s in samples]
    if len(plan.extremes) == 1:
        shown = list(plan.extremes[0])
    else:
        shown = [max(one, key=lambda i: abs(effects[i])) for one in plan.extremes]
    limits = intervals([(effect_of(samples[i]), FAMILY) for i in shown])
    return tuple(Detail(plan.parts[i].label, effects[i], ci) for i, ci in zip(shown, limits, strict=True))
