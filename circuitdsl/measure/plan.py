"""From claims to requests: what must be measured for each claim on each of its tasks."""

from __future__ import annotations

from dataclasses import dataclass

from circuitdsl.circuit.catalogue import ModelShape
from circuitdsl.circuit.claims import (
    Attention,
    Behaviour,
    Circuit,
    Claim,
    EdgeEffect,
    Matters,
    Member,
    NodeEffect,
)
from circuitdsl.measure.nulls import Nulls
from circuitdsl.measure.requests import (
    AttentionRequest,
    BehaviourRequest,
    EdgeRequest,
    NodeRequest,
    PatchRequest,
    Request,
)


@dataclass(frozen=True, slots=True)
class Part:
    """What the tests of a claim are run on: the whole, or one member under `each`.

    `null` is what `matters` compares it with; `other` the same patch without its MLPs, for via-MLP edges.
    """

    label: str
    request: Request
    null: tuple[PatchRequest, ...] = ()
    other: EdgeRequest | None = None


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """How one claim is measured on one task; `members` are reported beside a joint verdict."""

    claim: Claim
    task: str
    parts: tuple[Part, ...]
    members: tuple[tuple[Member, EdgeRequest], ...] = ()

    @property
    def requests(self) -> tuple[Request, ...]:
        """Everything but the nulls; equal requests once."""
        found: list[Request] = [part.request for part in self.parts]
        found += [request for _, request in self.members]
        found += [part.other for part in self.parts if part.other]
        return tuple(dict.fromkeys(found))


def plan(circuit: Circuit, shape: ModelShape) -> tuple[ClaimPlan, ...]:
    """The plans of all claims on all their tasks, in the spec's order."""
    nulls = Nulls(circuit, shape)
    return tuple(_claim_plan(claim, task, nulls) for claim in circuit.claims for task in claim.tasks)


def _claim_plan(claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
    matters = any(isinstance(test, Matters) for test in claim.tests)
    match claim.measurement:
        case EdgeEffect() as effect:
            return _edge_plan(claim, task, effect, nulls if matters else None)
        case NodeEffect(sites=sites, ablate=ablate, direction=direction):
            request = NodeRequest(tuple(sorted(set(sites))), ablate, direction)
            null = nulls.of_sites(request) if matters else ()
            return ClaimPlan(claim, task, (Part("", request, null),))
        case Attention(heads=heads, source=source, target=target):
            return ClaimPlan(claim, task, (Part("", AttentionRequest(heads, source, target)),))
        case Behaviour(metric=metric):
            return ClaimPlan(claim, task, (Part("", BehaviourRequest(metric)),))
    raise TypeError(f"no such measurement: {claim.measurement!r}")


def _edge_plan(claim: Claim, task: str, effect: EdgeEffect, nulls: Nulls | None) -> ClaimPlan:
    single = tuple((member, _edge_request((member,), effect)) for member in effect.members)
    if claim.each:
        parts = tuple(_edge_part(str(member), request, nulls) for member, request in single)
    else:
        parts = (_edge_part("", _edge_request(effect.members, effect), nulls),)
    return ClaimPlan(claim, task, parts, single)


def _edge_part(label: str, request: EdgeRequest, nulls: Nulls | None) -> Part:
    direct = EdgeRequest(request.edges, False, request.direction) if request.via_mlps else None
    return Part(label, request, nulls.of_edges(request) if nulls else (), direct)


def _edge_request(members: tuple[Member, ...], effect: EdgeEffect) -> EdgeRequest:
    """All edges of some members as one patch."""
    edges = tuple(sorted({edge for member in members for edge in member.edges}))
    return EdgeRequest(edges, effect.via_mlps, effect.direction)
