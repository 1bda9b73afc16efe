"""From claims to requests: what must be measured for each claim on each of its tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from circuitdsl.circuit.catalogue import ModelShape
from circuitdsl.circuit.changes import Intervention
from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import AboveChance, Matters, Moves, Stronger, Test
from circuitdsl.circuit.measurements import (
    Attention,
    Attribution,
    Behaviour,
    Copying,
    EdgeEffect,
    HeadScore,
    Member,
    Metric,
    NodeEffect,
    RoleCheck,
    RoleChecks,
    Tracing,
    WholeCircuit,
)
from circuitdsl.circuit.membership import membership
from circuitdsl.engine.metrics import CHANCE
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.requests import (
    AttentionRequest,
    AttributionRequest,
    BehaviourRequest,
    ChangedRequest,
    CopyingRequest,
    EdgeRequest,
    NodeRequest,
    PatchRequest,
    Request,
    ScoreRequest,
    Subgraph,
    TraceRequest,
    terms_of,
)
from circuitdsl.measurements.whole_circuit import (
    alone,
    contexts,
    groups,
    members,
    model_without,
    random_circuits,
    subsets,
    without,
)
from circuitdsl.models.parts import Transformer

#: what numbers are compared with, prompt by prompt: an unpatched run scored by the task's metric, or another request
Base = Literal["clean", "corrupt"] | Request


#: stands for random sequences, where a claim has no task
RANDOM = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What tests are run on: the whole, one member under `each`, or one check of several.

    Attributes:
        label: names the part among others; empty for a claim's only one.
        base: what is taken from the request's numbers, prompt by prompt; None leaves them as they are.
        null: what `matters` compares the effect with; compared with the same run as the request.
        other: the same patch without its MLPs, for via-MLP edges.
        rival: the patch that `stronger than` names.
        tests: the part's own; empty for those of the claim.
        peers: circuits of the same shape that the request's is compared with, on the first prompts.
        called: what its effect is called, where it has a name of its own.
    """

    label: str
    request: Request
    base: Base | None = None
    null: tuple[PatchRequest, ...] = ()
    other: EdgeRequest | None = None
    rival: EdgeRequest | None = None
    tests: tuple[Test, ...] = ()
    peers: tuple[Subgraph, ...] = ()
    called: str = ""

    @property
    def requests(self) -> tuple[Request, ...]:
        """What must be measured for it, its null apart."""
        base = () if self.base is None or isinstance(self.base, str) else (self.base,)
        others = (self.other, self.rival)
        return (self.request, *base, *(other for other in others if other is not None))

    @property
    def null_requests(self) -> tuple[Request, ...]:
        """What must be measured on the null's prompts, where it has one: the null, and what that is compared with."""
        if self.peers:
            return (*self.null, *self.peers, *self.requests)
        return (*self.null, *self.requests[1:]) if self.null else ()


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """How one claim is measured on one task.

    Attributes:
        members: pairs that are reported beside a joint verdict.
        extremes: what the claim is about, where that is the smallest over these sets of parts of the largest figure in
            each, signs aside (incompleteness: one set; minimality: one for each member).
        circuit: what the claim keeps of the model, where it is about the whole circuit.
    """

    claim: Claim
    task: str
    parts: tuple[Part, ...]
    members: tuple[tuple[Member, EdgeRequest], ...] = ()
    extremes: tuple[tuple[int, ...], ...] = ()
    circuit: Subgraph | None = None

    @property
    def requests(self) -> tuple[Request, ...]:
        """Everything but the nulls; equal requests once."""
        found = [request for part in self.parts for request in part.requests]
        found += [request for _, request in self.members]
        return tuple(dict.fromkeys(found))

    @property
    def asked(self) -> tuple[Request, ...]:
        """All that is measured look by look: the requests, and whether each of the terms that they replace changes."""
        requests = self.requests
        return tuple(dict.fromkeys((*requests, *(term for request in requests for term in terms_of(request)))))

    def tests(self, part: Part) -> tuple[Test, ...]:
        """What is tested on a part."""
        return part.tests or self.claim.tests


def shape_of(model: Transformer) -> ModelShape:
    """The size of a loaded model, or of its outline."""
    return ModelShape(model.name, model.n_layers, model.n_heads, model.parallel, model.d_head, model.d_mlp)


def plan(circuit: Circuit, shape: ModelShape) -> tuple[ClaimPlan, ...]:
    """The plans of all claims on all their tasks, in the spec's order; properties have samples of their own."""
    nulls = Nulls(circuit, shape)
    return tuple(_claim_plan(claim, task, nulls) for claim in circuit.claims for task in _places(claim))


def _places(claim: Claim) -> tuple[str, ...]:
    """The tasks that a claim is measured on; random sequences for one that needs none."""
    if claim.kind == "property":
        return ()
    measured = [claim.measurement]
    if isinstance(claim.measurement, RoleChecks):
        measured = [check.measurement for check in claim.measurement.checks]
    return (RANDOM,) if all(isinstance(each, HeadScore) for each in measured) else claim.tasks


def whole_plan(claim: Claim, task: str, how: WholeCircuit, circuit: Circuit, shape: ModelShape) -> ClaimPlan:
    """How a measurement of the whole circuit is made (see `whole_circuit`)."""
    whole = membership(circuit)
    kept = alone(whole, how)
    made = partial(ClaimPlan, claim, task, circuit=kept)
    match how.name:
        case "faithfulness" if how.form == "normalised":
            return made((Part("", kept, "corrupt", called="faithfulness"),))
        case "faithfulness":
            return made((Part("", kept, "clean"),), extremes=((0,),))
        case "sufficiency":
            return made((Part("", kept, peers=random_circuits(kept, shape)),))
        case "incompleteness":
            sets = subsets(whole, kept)
            parts = [Part(f"without {k}", without(kept, k_), model_without(kept, k_)) for k, k_ in sets.items()]
            return made(tuple(parts), extremes=(tuple(range(len(parts))),))
    parts, extremes = [], []
    for node in members(kept):
        known = contexts(node, groups(whole, kept))
        extremes.append(tuple(range(len(parts), len(parts) + len(known))))
        for name, nodes in known.items():
            label = f"{node}" + (f" once {name} is out" if name else "")
            parts.append(Part(label, without(kept, nodes | {node}), without(kept, nodes)))
    return made(tuple(parts), extremes=tuple(extremes))


def _claim_plan(claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
    matters = any(isinstance(test, Matters) for test in claim.tests)
    if isinstance(claim.measurement, WholeCircuit):
        return whole_plan(claim, task, claim.measurement, nulls.circuit, nulls.shape)
    if isinstance(claim.measurement, Tracing):
        return ClaimPlan(claim, task, tuple(_traced(claim.measurement)))
    if isinstance(claim.measurement, RoleChecks):
        return ClaimPlan(claim, task, tuple(_checked(claim, check, nulls) for check in claim.measurement.checks))
    if isinstance(claim.measurement, EdgeEffect):
        found = _edge_plan(claim, task, claim.measurement, nulls if matters else None)
    else:
        found = ClaimPlan(claim, task, (_part(claim, nulls if matters else None),))
    if any(isinstance(test, Stronger) for test in claim.tests):
        found = replace(found, parts=tuple(rival for part in found.parts for rival in _rivals(claim, part)))
    return found


def _checked(claim: Claim, check: RoleCheck, nulls: Nulls) -> Part:
    """A part for one check of a role on one head."""
    alone = replace(claim, measurement=check.measurement, tests=check.tests, under=check.under)
    matters = any(isinstance(test, Matters) for test in check.tests)
    return replace(_part(alone, nulls if matters else None), label=check.text, tests=check.tests)


def _traced(wanted: Tracing) -> Iterator[Part]:
    """A part for each sender."""
    for sender in wanted.senders:
        label = str(sender) if len(wanted.senders) > 1 else ""
        yield Part(label, TraceRequest(wanted.head, wanted.source, wanted.target, sender, wanted.side))


def _rivals(claim: Claim, part: Part) -> Iterator[Part]:
    """A part for each edge that it is compared with, and one for the claim's other tests."""
    rest = tuple(test for test in claim.tests if not isinstance(test, Stronger))
    if rest:
        yield replace(part, tests=rest)
    for test in claim.tests:
        if isinstance(test, Stronger):
            yield replace(part, null=(), rival=edge_request(test.effect.members, test.effect), tests=(test,))


def _part(claim: Claim, nulls: Nulls | None) -> Part:
    """What a claim on anything but an edge is tested on."""
    effect = None if claim.under is None else claim.under.effect
    if isinstance(effect, Intervention):
        return _changed_part(claim, effect)
    under = None if effect is None else patch_request(effect)
    moves = under is not None and any(isinstance(test, Moves) for test in claim.tests)
    match claim.measurement:
        case NodeEffect() as knocked_out:
            request = replace(node_request(knocked_out), under=under)
            null = nulls.of_sites(request) if nulls else ()
            part = patched("", request, null)
            return part if under is None else replace(part, base=under)
        case Attention(heads=heads, source=source, target=target):
            looked = AttentionRequest(heads, source, target, under)
            return Part("", looked, replace(looked, under=None) if moves else None)
        case Attribution(nodes=nodes):
            wrote = AttributionRequest(nodes, under)
            return Part("", wrote, replace(wrote, under=None) if moves else None)
        case Copying(heads=heads, negated=negated):
            return Part("", CopyingRequest(heads, negated))
        case HeadScore(kind=kind, heads=heads):
            return Part("", ScoreRequest(kind, heads))
        case Behaviour(metric=asked):
            behaviour = BehaviourRequest(asked, under)
            if AboveChance() in claim.tests:
                return Part("", behaviour, _chance(asked))
            return Part("", behaviour, replace(behaviour, under=None) if moves else None)
    raise TypeError(f"no such measurement: {claim.measurement!r}")


def _changed_part(claim: Claim, intervention: Intervention) -> Part:
    """What a claim on a changed model is tested on; what moves is compared with the model as it is."""
    moves = any(isinstance(test, Moves) for test in claim.tests)
    match claim.measurement:
        case Attention(heads=heads, source=source, target=target):
            inner: AttentionRequest | BehaviourRequest | AttributionRequest = AttentionRequest(heads, source, target)
        case Behaviour(metric=metric):
            inner = BehaviourRequest(metric)
            if AboveChance() in claim.tests:
                return Part("", ChangedRequest(inner, intervention), _chance(metric))
        case Attribution(nodes=nodes):
            inner = AttributionRequest(nodes)
        case _:
            raise TypeError(f"not measured on a changed model: {claim.measurement!r}")
    return Part("", ChangedRequest(inner, intervention), inner if moves else None)


def _chance(metric: Metric) -> BehaviourRequest:
    """What guesses would score, prompt by prompt."""
    return BehaviourRequest(replace(metric, name=CHANCE))


def patch_request(effect: EdgeEffect | NodeEffect) -> PatchRequest:
    """An effect as one patch."""
    return edge_request(effect.members, effect) if isinstance(effect, EdgeEffect) else node_request(effect)


def node_request(effect: NodeEffect) -> NodeRequest:
    """All of its sites as one patch."""
    return NodeRequest(tuple(sorted(set(effect.sites))), effect.ablate, effect.direction)


def patched(label: str, request: PatchRequest, null: tuple[PatchRequest, ...] = ()) -> Part:
    """A patch, compared with the run that it patches."""
    return Part(label, request, "clean" if request.direction == "noise" else "corrupt", null)


def _edge_plan(claim: Claim, task: str, effect: EdgeEffect, nulls: Nulls | None) -> ClaimPlan:
    single = tuple((member, edge_request((member,), effect)) for member in effect.members)
    if claim.each:
        parts = tuple(_edge_part(str(member), request, nulls) for member, request in single)
    else:
        parts = (_edge_part("", edge_request(effect.members, effect), nulls),)
    return ClaimPlan(claim, task, parts, single)


def _edge_part(label: str, request: EdgeRequest, nulls: Nulls | None) -> Part:
    direct = EdgeRequest(request.edges, False, request.direction) if request.via_mlps else None
    return replace(patched(label, request, nulls.of_edges(request) if nulls else ()), other=direct)


def edge_request(members: tuple[Member, ...], effect: EdgeEffect) -> EdgeRequest:
    """All edges of some members as one patch."""
    edges = tuple(sorted({edge for member in members for edge in member.edges}))
    return EdgeRequest(edges, effect.via_mlps, effect.direction)
