"""From a decision and the numbers behind it to the flat record of one claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuitdsl.circuit.changes import Intervention
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.criteria import Moves, Signed, Stronger, Test, Within
from circuitdsl.circuit.measurements import EdgeEffect, Member, RoleCheck, RoleChecks, Tracing, WholeCircuit
from circuitdsl.circuit.nodes import Node, Site
from circuitdsl.engine.metrics import HITS, unit
from circuitdsl.measurements.requests import (
    AttentionRequest,
    AttributionRequest,
    BehaviourRequest,
    ChangedRequest,
    CopyingRequest,
    EdgeRequest,
    NodeRequest,
    Request,
    ScoreRequest,
    TraceRequest,
    changes,
    patches_of,
    uses_means,
)
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, Interval, Measured, MemberResult, Null
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.ratios import Ratio, intervals
from circuitdsl.verdict.samples import Sample, effect_of
from circuitdsl.verdicts import WORST_FIRST
from circuitdsl.verify import whole
from circuitdsl.verify.bench import Bench, Series, behaviour
from circuitdsl.verify.plan import ClaimPlan, patched
from circuitdsl.verify.samples import sample_of
from circuitdsl.verify.unchanged import idle_notes

#: means over fewer prompts are hardly means
FEW = 8

#: an effect with its plain 95 % interval
Effect = tuple[float | None, Interval | None]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A pair of a group edge as it was measured by itself."""

    member: Member
    sample: Sample
    unchanged: bool


def claim_results(
    decided: Sequence[tuple[ClaimPlan, Decision, Mapping[Request, Series], Bench]],
) -> list[ClaimResult]:
    """The records of claims, each on one task; the intervals of all pairs of their edges are found together."""
    pairs = [_pairs(plan, series, bench) for plan, _, series, bench in decided]
    effects = iter(_effects([pair.sample for each in pairs for pair in each]))
    return [_result(*one, [(pair, next(effects)) for pair in each]) for one, each in zip(decided, pairs, strict=True)]


def _result(
    plan: ClaimPlan,
    decision: Decision,
    series: Mapping[Request, Series],
    bench: Bench,
    pairs: Sequence[tuple[Pair, Effect]],
) -> ClaimResult:
    """The record of one claim on one task."""
    claim = plan.claim
    null = decision.null
    is_whole = isinstance(claim.measurement, WholeCircuit)
    kept = whole.kept(plan, bench)
    return ClaimResult(
        id=claim.id,
        line=claim.line,
        text=claim.text,
        kind=claim.kind,
        task=plan.task or None,
        verdict=decision.verdict,
        reason=whole.reason(plan, decision) if is_whole else decision.reason,
        protocol=whole.protocol(plan) if is_whole else _protocol(plan),
        measured=(whole.measured if is_whole else _measured)(plan, decision, series, bench),
        null=Null(null.percentile, null.size) if null else None,
        members=_members(plan, decision, series, pairs),
        notes=(*whole.warnings(plan, kept), *_notes(plan, decision, series, bench)),
        citation=claim.citation,
        block=claim.under.text if claim.under else None,
        block_line=claim.under.line if claim.under else None,
        details=whole.details(plan, series, bench) if is_whole else (),
        kept=kept,
        cause=decision.cause,
        against=next((test.name for test in claim.tests if isinstance(test, Stronger)), ""),
        lone_nodes=claim.lone_nodes,
    )


def _protocol(plan: ClaimPlan) -> dict[str, str]:
    """How it was measured: the patch, its direction and what stands in for what is taken out, and the condition."""
    protocol = _own_protocol(plan.parts[0].request)
    under = plan.claim.under
    if under is not None and isinstance(under.effect, Intervention):
        return {**protocol, "run": "changed model", "under": under.text}
    return protocol if under is None else {**protocol, "run": "patched", "under": under.text.removeprefix("when ")}


def _own_protocol(request: Request) -> dict[str, str]:
    match request:
        case EdgeRequest(via_mlps=via, direction=direction):
            return {"patch": "via_mlps" if via else "direct", "direction": direction, "ablate": "corrupt"}
        case NodeRequest(sites=sites, ablate=ablate, direction=direction):
            return {"patch": "node", "direction": direction, "ablate": ablate, "at": _places(sites)}
        case ChangedRequest(inner=inner):
            return _own_protocol(inner)
        case AttentionRequest():
            return {"read": "attention", "run": "clean"}
        case TraceRequest(side=side):
            return {"read": "trace", "run": "clean", "side": side}
        case AttributionRequest():
            return {"read": "attribution", "run": "clean", "norm": "clean"}
        case CopyingRequest(negated=negated):
            return {"read": "copying", "run": "clean", "output": "negated" if negated else "as it is"}
        case ScoreRequest(kind=kind):
            return {"read": f"{kind}_score", "run": "random repeated tokens"}
        case _:
            return {"read": "behaviour", "run": "clean"}


def _places(sites: Iterable[Site]) -> str:
    """`END`; where nodes differ, `2.2 2.5 at *, m1 at END`"""
    places: dict[Node, list[str]] = {}
    for site in sorted(sites):
        places.setdefault(site.node, []).append(str(site.position))
    nodes: dict[str, list[str]] = {}
    for node, at in places.items():
        nodes.setdefault(" and ".join(at), []).append(str(node))
    return next(iter(nodes)) if len(nodes) == 1 else ", ".join(f"{' '.join(n)} at {at}" for at, n in nodes.items())


# --- the number that decided -----------------------------------------------------------------------


def _measured(plan: ClaimPlan, decision: Decision, series: Mapping[Request, Series], bench: Bench) -> Measured | None:
    if decision.value is None or not np.isfinite(decision.value):
        return None
    part = next((p for p in plan.parts if p.label == decision.label), plan.parts[0])
    sample = sample_of(bench, part, series)
    spread = _per_prompt(decision, sample)
    low, median, high = (float(q) for q in np.quantile(spread, (0.25, 0.5, 0.75)))
    pair = _pair(plan, decision.label)
    return Measured(
        name=decision.name,
        value=decision.value,
        ci=decision.ci,
        ci_used=decision.ci_used,
        n=decision.n,
        unit=_unit(decision, sample, part.request, bench),
        delta=decision.delta,
        median=median,
        iqr=(low, high),
        right_sign=_right_sign(plan.tests(part), decision, spread, sample.falls),
        sender=str(pair.sender) if pair else "",
        receiver=str(pair.receiver) if pair else "",
        named=_is_named(plan.claim, decision.name),
    )


def _pair(plan: ClaimPlan, label: str) -> Member | None:
    """The pair that a figure is of: the only one of its edge, or the one that decided a claim about `each`."""
    effect = plan.claim.measurement
    pairs = effect.members if isinstance(effect, EdgeEffect) else ()
    return pairs[0] if len(pairs) == 1 else next((pair for pair in pairs if str(pair) == label), None)


def _is_named(claim: Claim, name: str) -> bool:
    """Whether a figure is shown with its name, since the claim's text does not say which figure it is."""
    bounded = any(isinstance(test, Within) and test.quantity == name for test in claim.tests)
    return isinstance(claim.measurement, RoleChecks | Tracing) or (name == "delta" and not bounded)


def _unit(decision: Decision, sample: Sample, request: Request, bench: Bench) -> str:
    """`gap` for effects, `share` and `points` for shares and their differences, else the metric's own unit."""
    if decision.name == "effect":
        return "gap"
    inner = request.inner if isinstance(request, ChangedRequest) else request
    if isinstance(inner, AttributionRequest):
        return "logits"
    if sample.unit != "plain":
        return "points" if sample.unit == "points" else "share"
    return unit(inner.metric if isinstance(inner, BehaviourRequest) else bench.metric)


def _per_prompt(decision: Decision, sample: Sample) -> np.ndarray:
    """The figure prompt by prompt; effects over the mean gap, so that no prompt divides by its own."""
    if decision.name == "effect":
        return np.asarray(sample.d, float) / float(np.mean(np.asarray(sample.g, float)))
    return np.asarray(sample.value if sample.d is None else sample.d, float)


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


def _pairs(plan: ClaimPlan, series: Mapping[Request, Series], bench: Bench) -> list[Pair]:
    return [
        Pair(member, sample_of(bench, patched("", request), series), not series[request].changed.any())
        for member, request in plan.members
        if request in series
    ]


def _members(
    plan: ClaimPlan,
    decision: Decision,
    series: Mapping[Request, Series],
    pairs: Sequence[tuple[Pair, Effect]],
) -> tuple[MemberResult, ...]:
    if isinstance(plan.claim.measurement, Tracing):
        return tuple(_sender(part.request, _by_label(decision).get(part.label, ()), series) for part in plan.parts)
    if isinstance(plan.claim.measurement, RoleChecks):
        judged = _by_label(decision)  # not by check where the claim as a whole could not be measured
        return tuple(_checked(c, judged[c.text]) for c in plan.claim.measurement.checks if c.text in judged)
    each = _by_label(decision) if plan.claim.each else {}
    return tuple(_member(pair, found, each.get(str(pair.member), ())) for pair, found in pairs)


def _checked(check: RoleCheck, judged: Sequence[Decision]) -> MemberResult:
    """One check of a role on one head: whether it passed, and its number."""
    worst = min(judged, key=lambda part: WORST_FIRST.index(part.verdict))
    return MemberResult(
        sender=str(check.node),
        receiver="",
        input="",
        position="",
        effect=worst.value if worst.name == "effect" else None,
        ci=worst.ci,
        delta=worst.delta,
        n=worst.n,
        verdict=worst.verdict,
        reason=f"{check.text}: {worst.reason}",
        check=check.text,
        value=worst.value,
    )


def _sender(request: Request, judged: Sequence[Decision], series: Mapping[Request, Series]) -> MemberResult:
    """One head that a trace includes: its share of the firings."""
    assert isinstance(request, TraceRequest)
    found = series.get(request)
    share = f"in {percent(float(found.values.mean()))} of {len(found.values)} firings" if found else "not measured"
    return MemberResult(
        sender=str(request.sender),
        receiver=str(request.head),
        input="q" if request.side == "destination" else "k",
        position=", ".join(map(str, request.source if request.side == "destination" else request.target)),
        effect=None,
        ci=None,
        delta=None,
        n=len(found.values) if found else 0,
        verdict=judged[0].verdict if judged else None,
        reason=f"{request.sender} {share}",
    )


def _by_label(decision: Decision) -> dict[str, tuple[Decision, ...]]:
    parts: dict[str, tuple[Decision, ...]] = {}
    for part in decision.parts or (decision,):
        parts[part.label] = (*parts.get(part.label, ()), part)
    return parts


def _member(pair: Pair, found: Effect, judged: Sequence[Decision]) -> MemberResult:
    member, (effect, ci) = pair.member, found
    worst = min(judged, key=lambda part: WORST_FIRST.index(part.verdict)) if judged else None
    reason = f"{member}: {worst.reason}" if worst else ("the corruption does not change it" if pair.unchanged else "")
    return MemberResult(
        sender=str(member.sender),
        receiver=str(member.receiver),
        input="".join(sorted({edge.receiver.port for edge in member.edges}, key="qkvin".index)),
        position=", ".join(dict.fromkeys(str(edge.position) for edge in member.edges)),
        effect=None if pair.unchanged else effect,
        ci=ci,
        delta=float(np.mean(pair.sample.array("d"))),
        n=pair.sample.n,
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


def _errors(request: ChangedRequest, found: Series, bench: Bench) -> list[str]:
    """Which errors of the model went, and which are new, where a claim is about accuracy."""
    if not isinstance(request.inner, BehaviourRequest) or request.inner.metric.name not in HITS:
        return []
    before = behaviour(bench, request.inner.metric)[found.indices] < 1
    after = found.values < 1
    went, new = int((before & ~after).sum()), int((after & ~before).sum())
    return [f"errors {int(before.sum())} of {len(before)} before, {int(after.sum())} after: {went} went, {new} new"]


def _notes(plan: ClaimPlan, decision: Decision, series: Mapping[Request, Series], bench: Bench) -> tuple[str, ...]:
    notes = []
    claimed = plan.claim.measurement
    if isinstance(claimed, RoleChecks) and claimed.overrides:
        notes.append(f"the file's own checks of the role {claimed.role}, not the built-in ones")
    for part in plan.parts:
        label = f"{part.label}: " if part.label else ""
        request = part.request
        if isinstance(request, ChangedRequest) and request in series:
            notes += [label + note for note in _errors(request, series[request], bench)]
        if not changes(request) or request not in series:
            continue
        if part.other and isinstance(request, EdgeRequest):
            both = [_clear(sample_of(bench, patched("", r), series)) for r in (request, part.other)]
            here, there = (float(figure.value) if figure else math.nan for figure in both)
            if abs(here - there) > plan.claim.margin:
                n = len(series[request].indices)
                notes.append(f"{label}via MLPs {percent(here)}, direct {percent(there)}, both on {n} prompts")
        share = float(series[request].changed.mean()) if len(series[request].changed) else 0.0
        if 0 < share < 1:
            what = "corruption changes what is patched" if patches_of(request) else "intervention changes something"
            notes.append(f"{label}the {what} on {percent(share)} of the prompts")
        notes += [label + note for note in idle_notes(part, series, decision.reason)]
    if any(map(uses_means, plan.requests)) and bench.smallest_mean < FEW:
        notes.append(f"some means are over {bench.smallest_mean} prompts of one template and length alone")
    return tuple(notes)
