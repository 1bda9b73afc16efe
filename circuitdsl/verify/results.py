"""From a decision and the numbers behind it to the flat record of one claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from circuitdsl.circuit.changes import Member
from circuitdsl.circuit.criteria import NULL_PROMPTS, Moves, Signed, Stronger, Test, Within
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.kind import kind_of
from circuitdsl.measurements.plan import ClaimPlan, patched
from circuitdsl.measurements.requests import ChangedRequest, EdgeRequest
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, Detail, Interval, Measured, MemberResult, Null
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.ratios import Ratio, intervals
from circuitdsl.verdict.samples import Sample, effect_of
from circuitdsl.verdicts import WORST_FIRST
from circuitdsl.verify.kept import kept_share
from circuitdsl.verify.measure import Series, having, measure
from circuitdsl.verify.plan import shape_of
from circuitdsl.verify.prompts import smallest_mean
from circuitdsl.verify.samples import Collected, sample_of
from circuitdsl.verify.unchanged import idle_notes

#: means over fewer prompts are hardly means
FEW = 8
#: of what can be ablated; a circuit that keeps more of it is nearly the model
NEARLY_ALL = 0.9

#: an effect with its plain 95 % interval
Effect = tuple[float | None, Interval | None]


def claim_results(decided: Sequence[tuple[Collected, Decision]]) -> list[ClaimResult]:
    """The records of claims, each on one task; the intervals of all pairs of their edges are found together."""
    samples = [[own.sample(patched("", request)) for _, request in _pairs(own)] for own, _ in decided]
    effects = iter(_effects([sample for each in samples for sample in each]))
    return [
        _result(own, decision, [(sample, next(effects)) for sample in each])
        for (own, decision), each in zip(decided, samples, strict=True)
    ]


def _result(own: Collected, decision: Decision, pairs: Sequence[tuple[Sample, Effect]]) -> ClaimResult:
    """The record of one claim on one task; `pairs` are the pairs of its edge, each patched alone."""
    plan, null = own.plan, decision.null
    claim, kind = plan.claim, kind_of(plan.claim)
    shares = kept(plan, own.prompts)
    return ClaimResult(
        id=claim.id,
        line=claim.line,
        text=claim.text,
        kind=claim.kind,
        task=plan.task or None,
        verdict=decision.verdict,
        reason=_reason(plan, decision),
        protocol=kind.protocol_of(plan),
        measured=measured(own, decision),
        null=Null(null.percentile, null.size) if null else None,
        members=_members(own, decision, pairs),
        notes=(*warnings(plan, shares), *kind.notes(), *_notes(own, decision)),
        citation=claim.citation,
        block=claim.under.text if claim.under else None,
        block_line=claim.under.line if claim.under else None,
        details=details(own),
        kept=shares,
        cause=decision.cause,
        against=next((test.name for test in claim.tests if isinstance(test, Stronger)), ""),
        lone_nodes=claim.lone_nodes,
    )


def _reason(plan: ClaimPlan, decision: Decision) -> str:
    """The reason of a decision; of a rank with what it was compared with."""
    rivals = plan.parts[0].peers
    if not rivals or decision.verdict == "error":
        return decision.reason
    beaten = "" if decision.value is None else f"closer to the model than {round(decision.value * len(rivals))} of "
    return f"{decision.reason}; {beaten}{len(rivals)} random circuits of its shape, on the first {NULL_PROMPTS} prompts"


# --- the number that decided -----------------------------------------------------------------------


def measured(own: Collected, decision: Decision) -> Measured | None:
    """The figure of a decision; median and quartiles are those over prompts, shares being of the mean gap."""
    if decision.value is None or not np.isfinite(decision.value):
        return None
    plan = own.plan
    part = next((p for p in plan.parts if p.label == decision.label), plan.parts[0])
    pair = _pair(plan, decision.label)
    figure = Measured(
        name=decision.name,
        value=decision.value,
        ci=decision.ci,
        ci_used=decision.ci_used,
        n=decision.n,
        unit="share",
        delta=decision.delta,
        sender=str(pair.sender) if pair else "",
        receiver=str(pair.receiver) if pair else "",
        named=_is_named(plan, decision.name),
    )
    if part.peers is not None:  # a rank among circuits: there is nothing prompt by prompt
        return replace(figure, n=min(NULL_PROMPTS, len(own.series[part.request].values)), delta=None)
    sample, of_gap = own.sample(part), _is_of_gap(plan, decision)
    spread = _per_prompt(sample, of_gap)
    low, median, high = (float(q) for q in np.quantile(spread, (0.25, 0.5, 0.75)))
    differences = sample.unit == "points" and not plan.called  # of shares
    unit = "points" if differences else part.request.figure(own.prompts.metric).unit
    return replace(
        figure,
        unit="gap" if of_gap else unit,
        median=median,
        iqr=(low, high),
        right_sign=_right_sign(plan.tests(part), decision, spread, sample.falls),
    )


def _pair(plan: ClaimPlan, label: str) -> Member | None:
    """The pair that a figure is of: the only one of its edge, or the one that decided a claim about `each`."""
    pairs = plan.claim.measurement.members
    return pairs[0] if len(pairs) == 1 else next((pair for pair in pairs if str(pair) == label), None)


def _is_named(plan: ClaimPlan, name: str) -> bool:
    """Whether a figure is shown with its name, since the claim's text does not say which figure it is."""
    bounds = {test.quantity for test in plan.claim.tests if isinstance(test, Within)}
    if plan.called:
        return "delta" in bounds
    return kind_of(plan.claim).many_figures or (name == "delta" and name not in bounds)


def _is_of_gap(plan: ClaimPlan, decision: Decision) -> bool:
    """Whether the figure is a share of the gap: an effect, by that name or by one of its own."""
    tests = plan.claim.tests
    named = bool(plan.called) and isinstance(tests[0], Within) and tests[0].quantity == "effect"
    return named or decision.name == "effect"


def _per_prompt(sample: Sample, of_gap: bool) -> np.ndarray:
    """The figure prompt by prompt; effects over the mean gap, so that no prompt divides by its own."""
    if of_gap:
        return sample.array("d") / float(np.mean(sample.array("g")))
    return np.asarray(sample.value if sample.d is None else sample.d, float)


def details(own: Collected) -> tuple[Detail, ...]:
    """What the figure is the largest (or smallest) of: for each set of parts the one with the largest size.

    For a single set, every part. None without a gap to take shares of.
    """
    plan = own.plan
    if not plan.extremes or len(plan.parts) == 1 or any(request not in own.series for request in plan.requests):
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


def kept(plan: ClaimPlan, prompts: Prompts) -> dict[str, float] | None:
    """What share of the nodes (or edges) that can be ablated the circuit keeps, on all prompts with its positions."""
    if plan.circuit is None:
        return None
    pairs = [prompts.pairs[i] for i in having(prompts, [plan.circuit])]
    return {plan.circuit.keep: kept_share(plan.circuit, shape_of(prompts.model), pairs)} if pairs else None


def warnings(plan: ClaimPlan, shares: Mapping[str, float] | None) -> tuple[str, ...]:
    """A warning where a circuit keeps so much that a figure says little of it."""
    circuit = plan.circuit
    if not shares or circuit is None or (share := shares[circuit.keep]) <= NEARLY_ALL:
        return ()
    what = "edges" if circuit.keep == "edges" else f"heads{' and MLPs' * circuit.mlps} at their positions"
    says = "nothing" if share == 1 else "little"
    name = getattr(plan.claim.measurement, "name", plan.called)
    return (f"the circuit keeps {percent(share)} of the model's {what}: {name} says {says} of it",)


def _right_sign(tests: Sequence[Test], decision: Decision, spread: np.ndarray, falls: bool) -> float | None:
    """Share of prompts whose figure has the claimed sign, where a test gives its figure one."""
    for test in tests:
        sign = _claimed_sign(test, falls)
        about = "change" if isinstance(test, Moves) else test.quantity if isinstance(test, Within) else "effect"
        if sign and about == decision.name:
            return float(np.mean(sign * spread > 0))
    return None


def _claimed_sign(test: Test, falls: bool) -> int:
    """The sign a test claims for its figure; 0 where it claims none. Raising a metric with a gap below 0 is an effect
    below 0."""
    match test:
        case Moves(direction=direction):
            return 1 if direction == "rises" else -1
        case Signed(direction=direction):
            return (1 if direction == "raises" else -1) * (-1 if falls else 1)
        case Within(low=low, high=high):
            return -1 if high is not None and high <= 0 else 1 if low is not None and low >= 0 else 0
        case _:
            return 0


# --- the pairs of a group edge ---------------------------------------------------------------------


def _pairs(own: Collected) -> list[tuple[Member, EdgeRequest]]:
    """The pairs of a claim's edge that were measured by themselves."""
    return [(pair, request) for pair, request in own.plan.members if request in own.series]


def _members(own: Collected, decision: Decision, pairs: Sequence[tuple[Sample, Effect]]) -> tuple[MemberResult, ...]:
    values: dict[Any, Any] = {request: found.values for request, found in own.series.items()}
    judged = _by_label(decision)
    if found := kind_of(own.plan.claim).member_results(own.plan, judged, values):
        return found
    judged = judged if own.plan.claim.each else {}
    return tuple(
        _member(pair, *alone, bool(own.series[request].changed.any()), judged.get(str(pair), ()))
        for (pair, request), alone in zip(_pairs(own), pairs, strict=True)
    )


def _by_label(decision: Decision) -> dict[str, tuple[Decision, ...]]:
    parts: dict[str, tuple[Decision, ...]] = {}
    for part in decision.parts or (decision,):
        parts[part.label] = (*parts.get(part.label, ()), part)
    return parts


def _member(pair: Member, sample: Sample, found: Effect, changed: bool, judged: Sequence[Decision]) -> MemberResult:
    effect, ci = found
    worst = min(judged, key=lambda part: WORST_FIRST.index(part.verdict)) if judged else None
    reason = f"{pair}: {worst.reason}" if worst else ("" if changed else "the corruption does not change it")
    return MemberResult(
        sender=str(pair.sender),
        receiver=str(pair.receiver),
        input="".join(sorted({edge.receiver.port for edge in pair.edges}, key="qkvin".index)),
        position=", ".join(dict.fromkeys(str(edge.position) for edge in pair.edges)),
        effect=effect if changed else None,
        ci=ci,
        delta=float(np.mean(sample.array("d"))),
        n=sample.n,
        verdict=worst.verdict if worst else None,
        reason=reason,
    )


def _effects(samples: Sequence[Sample]) -> list[Effect]:
    """Effects with their plain 95 % intervals; none where the gap is not clear, or of a single prompt."""
    figures = [_clear(sample) for sample in samples]
    limits = iter(intervals([(figure, FAMILY) for figure in figures if figure]))
    return [(float(figure.value), next(limits)) if figure else (None, None) for figure in figures]


def _clear(sample: Sample) -> Ratio | None:
    """The effect on the prompts of a sample, where there is a gap to take a share of."""
    figure = effect_of(sample) if sample.n > 1 else None
    return figure if figure and figure.unclear <= FAMILY / 2 else None


# --- what else a reader should know ----------------------------------------------------------------


def _errors(request: ChangedRequest, found: Series, prompts: Prompts) -> list[str]:
    """Which errors of the model went, and which are new, where a claim is about accuracy."""
    if not request.inner.figure(prompts.metric).hits:
        return []
    before = measure(prompts, [request.inner], found.indices)[request.inner].values < 1
    after = found.values < 1
    went, new = int((before & ~after).sum()), int((after & ~before).sum())
    return [f"errors {int(before.sum())} of {len(before)} before, {int(after.sum())} after: {went} went, {new} new"]


def _notes(own: Collected, decision: Decision) -> tuple[str, ...]:
    plan, series, prompts = own.plan, own.series, own.prompts
    notes = []
    for part in plan.parts:
        label = f"{part.label}: " if part.label else ""
        request = part.request
        if isinstance(request, ChangedRequest) and request in series:
            notes += [label + note for note in _errors(request, series[request], prompts)]
        if not request.changes or request not in series:
            continue
        if part.other:
            both = [_clear(sample_of(prompts, replace(part, request=r), series)) for r in (request, part.other)]
            here, there = (float(figure.value) if figure else math.nan for figure in both)
            if abs(here - there) > plan.claim.margin:
                n = len(series[request].indices)
                notes.append(f"{label}via MLPs {percent(here)}, direct {percent(there)}, both on {n} prompts")
        share = float(series[request].changed.mean()) if len(series[request].changed) else 0.0
        if 0 < share < 1:
            what = "corruption changes what is patched" if request.patches else "intervention changes something"
            notes.append(f"{label}the {what} on {percent(share)} of the prompts")
        notes += [label + note for note in idle_notes(part, series, decision.reason)]
    if any(request.uses_means for request in plan.requests) and (count := smallest_mean(prompts)) < FEW:
        notes.append(f"some means are over {count} prompts of one template and length alone")
    return tuple(notes)
