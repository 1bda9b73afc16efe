"""From a decision and the numbers behind it to the flat record of one claim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

import numpy as np

from circuitdsl.circuit.changes import Chain, Member
from circuitdsl.circuit.claims import Circuit, Claim, membership
from circuitdsl.circuit.criteria import NULL_PROMPTS, Exceeds, Stronger
from circuitdsl.circuit.nodes import LOGITS, Position
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.positions import places_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements import KINDS
from circuitdsl.measurements.kind import Kind, kind_of
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import ClaimPlan, patched
from circuitdsl.measurements.requests import ChangedRequest, Subgraph
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, Interval, MeasurementResult, MemberResult, Null
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verdict.decide import Decision, rule
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.hidden import one_stratum, other_prompts
from circuitdsl.verdict.ratios import Ratio, intervals
from circuitdsl.verdict.samples import Sample, effect_of
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdicts import WORST_FIRST
from circuitdsl.verify.figures import comparisons, details, measured
from circuitdsl.verify.measure import Series, having, measure
from circuitdsl.verify.plan import shape_of
from circuitdsl.verify.prompts import smallest_mean
from circuitdsl.verify.samples import Collected
from circuitdsl.verify.weigh import idle_notes, weigh_nulls, weigh_plan

#: a mean over fewer prompts than this is no good estimate
FEW = 8
#: a circuit that keeps more than this share of what can be ablated is nearly the model
NEARLY_ALL = 0.9

#: prompts on which `--full` takes what needs many runs
FULL_PROMPTS = 64

#: an effect with its plain 95 % interval
Effect = tuple[float | None, Interval | None]
#: a pair of a claim's edge that was measured by itself
Alone = tuple[Member | Chain, Series, Sample, Effect]


def claim_results(decided: Sequence[tuple[Collected, Decision]]) -> list[ClaimResult]:
    """The records of claims, each on one task; the intervals of all pairs of their edges are found together."""
    alone = [
        [(pair, own.series[r], own.sample(patched("", r))) for pair, r in own.plan.members if r in own.series]
        for own, _ in decided
    ]
    effects = iter(_effects([sample for each in alone for *_, sample in each]))
    return [
        _result(own, decision, [(*one, next(effects)) for one in each])
        for (own, decision), each in zip(decided, alone, strict=True)
    ]


def _result(own: Collected, decision: Decision, pairs: Sequence[Alone]) -> ClaimResult:
    """The record of one claim on one task; `pairs` are the pairs of its edge, each patched alone."""
    plan, null = own.plan, decision.null
    claim, kind = plan.claim, kind_of(plan.claim)
    shares, warnings = kept(plan, own.prompts)
    return ClaimResult(
        id=claim.id,
        line=claim.line,
        text=claim.text,
        kind=claim.kind,
        task=plan.task or None,
        verdict=decision.verdict,
        reason=_reason(plan, decision),
        protocol=kind.protocol_of(plan) | ({"strata": ", ".join(claim.strata)} if claim.strata else {}),
        measured=measured(own, decision),
        null=Null(null.percentile, null.size) if null else None,
        members=_members(own, decision, pairs),
        notes=(*warnings, *kind.notes(), *_notes(own, decision)),
        citation=claim.citation,
        block=claim.under.text if claim.under else None,
        block_line=claim.under.line if claim.under else None,
        details=details(own, decision),
        comparisons=comparisons(own) if decision.value is not None else (),
        kept=shares,
        cause=decision.cause,
        against=next(iter(_against(claim)), ""),
        lone_nodes=claim.lone_nodes,
        more_may_decide=decision.more,
    )


def _against(claim: Claim) -> Iterator[str]:
    """What a claim's own figure is compared with, as written."""
    for test in claim.tests:
        if isinstance(test, Exceeds | Stronger):
            yield test.names[1] if isinstance(test, Exceeds) else test.name


def _reason(plan: ClaimPlan, decision: Decision) -> str:
    """The reason of a decision; of a rank with what it was compared with."""
    rivals = plan.parts[0].peers
    if not rivals or decision.verdict == "error":
        return decision.reason
    n = decision.n
    beaten = "" if decision.value is None else f"closer to the model than {round(decision.value * n)} of "
    return f"{decision.reason}; {beaten}{n} random circuits of its shape, on the first {NULL_PROMPTS} prompts"


def kept(plan: ClaimPlan, prompts: Prompts) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    """What share of the nodes (or edges) that can be ablated the circuit keeps, on all prompts with its positions.

    With a warning where it keeps so much that a figure says little of it.
    """
    circuit = plan.circuit
    pairs = [prompts.pairs[i] for i in having(prompts, [circuit])] if circuit else []
    if circuit is None or not pairs:
        return None, ()
    share = kept_share(circuit, shape_of(prompts.source), pairs)
    if share <= NEARLY_ALL:
        return {circuit.keep: share}, ()
    what = "edges" if circuit.keep == "edges" else f"heads{' and MLPs' * circuit.mlps} at their positions"
    says = "nothing" if share == 1 else "little"
    name = getattr(plan.claim.measurement, "name", plan.called)
    note = f"the circuit keeps {percent(share)} of the model's {what}: {name} says {says} of it"
    return {circuit.keep: share}, (note,)


def kept_share(circuit: Subgraph, shape: ModelShape, pairs: Sequence[PromptPair]) -> float:
    """What is kept over what can be ablated, both counted token by token over all of some prompts.

    Of nodes that is every head at every token, and every MLP where the circuit ablates those it does not name. Of edges
    it is every (sender, receiver input, token) from heads to `q`, `k` and `v` of later heads and to the logits; where
    MLPs are ablated, every edge of the model. What the last layer writes and reads counts at END alone (its keys and
    values everywhere): nothing else of it reaches the logits. A part of a node counts as the node.
    """
    lengths = [len(pair.clean_tokens) for pair in pairs]

    @cache
    def tokens(names: frozenset[Position], end: bool) -> int:
        """At how many tokens some positions are, or at how many ENDs."""
        rows = zip(places_of(pairs, names), lengths, strict=True)
        return sum(i == n - 1 or not end for row, n in rows for i in row)

    places: dict[tuple[object, bool], set[Position]] = {}
    for what, end, position in _kept(circuit, shape):
        places.setdefault((what, end), set()).add(position)
    kept = sum(tokens(frozenset(names), end) for (_, end), names in places.items())
    return kept / sum(count * (len(pairs) if end else sum(lengths)) for count, end in _units(circuit, shape))


def _kept(circuit: Subgraph, shape: ModelShape) -> Iterator[tuple[object, bool, Position]]:
    """What a circuit keeps of what can be ablated: (node or edge, whether it counts at END alone, position)."""
    last = shape.n_layers - 1
    for site in circuit.sites:
        yield site.node.whole, site.node.layer == last, site.position
    for edge in circuit.edges:
        node, port = edge.receiver.node, edge.receiver.port
        if circuit.mlps or (edge.sender.kind == "head" and node.kind != "mlp"):
            end = node == LOGITS or (node.layer == last and port not in ("k", "v"))
            yield (edge.sender.whole, edge.receiver), end, edge.position


def _units(circuit: Subgraph, shape: ModelShape) -> Iterator[tuple[int, bool]]:
    """How many nodes or edges can be ablated, layer by layer and by receiver, and whether that is at END alone."""
    heads, mlps = shape.n_heads, int(circuit.mlps)
    for layer in range(shape.n_layers):
        before, end = layer * (heads + mlps) + mlps, layer == shape.n_layers - 1  # with `embed`, where MLPs count
        if circuit.keep == "nodes":
            yield heads + mlps, end
            continue
        yield heads * before, end  # q
        yield 2 * heads * before, False  # k and v
        yield mlps * (before + (0 if shape.parallel else heads)), end
    if circuit.keep != "nodes":
        yield shape.n_layers * (heads + mlps) + mlps, True


# --- the pairs of a group edge ---------------------------------------------------------------------


def _members(own: Collected, decision: Decision, pairs: Sequence[Alone]) -> tuple[MemberResult, ...]:
    values: dict[Any, Any] = {request: found.values for request, found in own.series.items()}
    judged: dict[str, list[Decision]] = {}
    for part in decision.parts or (decision,):
        judged.setdefault(part.label, []).append(part)
    if found := kind_of(own.plan.claim).member_results(own.plan, judged, values):
        return found
    judged = judged if own.plan.claim.each else {}
    return tuple(_member(*each, judged.get(str(each[0]), ())) for each in pairs)


def _member(
    pair: Member | Chain, found: Series, sample: Sample, effect: Effect, judged: Sequence[Decision]
) -> MemberResult:
    (value, ci), changed = effect, bool(found.changed.any())
    worst = min(judged, key=lambda part: WORST_FIRST.index(part.verdict)) if judged else None
    reason = f"{pair}: {worst.reason}" if worst else ("" if changed else "the corruption does not change it")
    return MemberResult(
        sender=str(pair.sender),
        receiver=str(pair.receiver),
        input="".join(sorted({edge.receiver.port for edge in pair.edges}, key="qkvin".index)),
        position=", ".join(dict.fromkeys(str(edge.position) for edge in pair.edges)),
        effect=value if changed else None,
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
            both = [_clear(own.sample(replace(part, request=r))) for r in (request, part.other)]
            here, there = (float(figure.value) if figure else math.nan for figure in both)
            if abs(here - there) > plan.claim.margin:
                n = len(series[request].indices)
                notes.append(f"{label}via MLPs {percent(here)}, direct {percent(there)}, both on {n} prompts")
        share = float(series[request].changed.mean()) if len(series[request].changed) else 0.0
        if 0 < share < 1:
            what = "corruption changes what is patched" if request.patches else "intervention changes something"
            notes.append(f"{label}the {what} on {percent(share)} of the prompts")
        notes += [label + note for note in idle_notes(part, series, decision.reason)]
    notes += _hidden(own, decision)
    if any(request.uses_means for request in plan.requests) and (count := smallest_mean(prompts)) < FEW:
        notes.append(f"some means are over {count} prompts of one template and length alone")
    return tuple(notes)


def _hidden(own: Collected, decision: Decision) -> Iterator[str]:
    """What the means of a claim hide: said of the part whose figure is shown, or else of the first that hides it."""
    weighed, plan = own.evidence.parts, own.plan
    if own.evidence.extreme or own.templates or plan.parts[0].peers is not None:
        return
    hits = {part.label for part in plan.parts if part.request.figure(own.prompts.metric).hits}
    pairs = list(zip(weighed, decision.parts or (decision,), strict=True))
    signed = [(part, each) for part, each in pairs if each.label not in hits]
    for find, among in ((other_prompts, signed), (one_stratum, pairs)):
        said = {each.label: text for part, each in among if (text := find(part, each))}
        if said:
            label = decision.label if decision.label in said else next(iter(said))
            more = f"; the like is true of {len(said) - 1} more of its {len(plan.parts)} parts" if len(said) > 1 else ""
            yield f"{label}: {said[label]}{more}" if label else said[label] + more


# --- everything about the whole circuit (`--full`) ----------------------------------------------------


def full(circuit: Circuit, shape: ModelShape, prompts: Mapping[str, Prompts]) -> tuple[MeasurementResult, ...]:
    """All measurements of the whole circuit on every task, by their default protocol; nothing is claimed of them."""
    whole, nulls = membership(circuit), Nulls.of(circuit, shape)
    if not whole.sites or any(site.node.index >= 0 for site in whole.sites):
        return ()
    found = []
    for task in (use.name for use in circuit.tasks if use.name in prompts):
        for how, tests in (expected for kind in KINDS for expected in cast(type[Kind], kind).besides()):
            name = str(getattr(how, "name", ""))
            claim = Claim(name, 0, name, "expect", how, tests, False, circuit.margin, (task,))
            found.append(_full(kind_of(claim).plan(claim, task, nulls), prompts[task]))
    return tuple(found)


def _full(plan: ClaimPlan, prompts: Prompts) -> MeasurementResult:
    blank = MeasurementResult(plan.claim.id, plan.task, kind_of(plan.claim).protocol_of(plan))
    member = Collected.of(plan, prompts)
    if not len(member.indices):
        return replace(blank, reason=f"no prompt of {plan.task} has all of the circuit's positions")
    if plan.extremes or plan.parts[0].peers is not None:
        member.indices = member.indices[:FULL_PROMPTS]
        member.looks = Looks((len(member.indices),))
    try:
        member.series = measure(prompts, plan.requests, member.indices)
        if nulls := member.plan.null_requests:
            weigh_nulls(member, measure(prompts, nulls, member.indices[:NULL_PROMPTS]))
    except UserError as error:
        return replace(blank, reason=error.message)
    decision = rule(weigh_plan(member))
    figure, (shares, notes) = measured(member, decision), kept(plan, prompts)
    reason = "" if figure else decision.reason
    return replace(blank, kept=shares, notes=notes, measured=figure, details=details(member, decision), reason=reason)
