"""From claims to requests: what must be measured, merged and de-duplicated, as plain data.

A *request* is one number per prompt. Two claims that ask for the same thing make equal requests, and get it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from circuitdsl.circuit.catalogue import ModelShape
from circuitdsl.circuit.claims import (
    Attention,
    Behaviour,
    Circuit,
    Claim,
    Edge,
    EdgeEffect,
    Matters,
    Member,
    Metric,
    Node,
    NodeEffect,
    Position,
    Site,
)

if TYPE_CHECKING:
    from circuitdsl.measure.nulls import Nulls

Direction = Literal["noise", "denoise"]


@dataclass(frozen=True, slots=True)
class EdgeRequest:
    """The metric when these edges are patched, all in one live pass."""

    edges: tuple[Edge, ...]
    via_mlps: bool = False
    direction: Direction = "noise"


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """The metric when these nodes are replaced, everything downstream live."""

    sites: tuple[Site, ...]
    ablate: Literal["corrupt", "mean", "zero"] = "corrupt"
    direction: Direction = "noise"


@dataclass(frozen=True, slots=True)
class AttentionRequest:
    """Attention of the clean run: summed over targets, averaged over sources and heads."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    target: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class BehaviourRequest:
    """A metric of the clean run."""

    metric: Metric


PatchRequest = EdgeRequest | NodeRequest
Request = EdgeRequest | NodeRequest | AttentionRequest | BehaviourRequest


@dataclass(frozen=True, slots=True)
class Part:
    """What the tests of a claim are run on: the whole, or one member under `each`; with its null for `matters`."""

    label: str
    request: Request
    null: tuple[PatchRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """How one claim is measured on one task.

    `members` are reported beside a joint verdict; `other` is the same patch under the other protocol, for
    via-MLP edges.
    """

    claim: Claim
    task: str
    parts: tuple[Part, ...]
    members: tuple[tuple[Member, EdgeRequest], ...] = ()
    other: EdgeRequest | None = None

    @property
    def requests(self) -> tuple[Request, ...]:
        """Everything but the nulls."""
        found = [part.request for part in self.parts] + [request for _, request in self.members]
        return tuple(dict.fromkeys([*found, *([self.other] if self.other else [])]))


def plan(circuit: Circuit, shape: ModelShape, only: str | None = None) -> tuple[ClaimPlan, ...]:
    """The plans of all claims on all their tasks, in the spec's order (`only`: one claim's id)."""
    from circuitdsl.measure.nulls import Nulls

    nulls = Nulls(circuit, shape)
    return tuple(
        _claim_plan(claim, task, nulls)
        for claim in circuit.claims
        if only is None or claim.id == only
        for task in claim.tasks
    )


def edge_request(members: tuple[Member, ...], effect: EdgeEffect) -> EdgeRequest:
    """All edges of some members as one patch."""
    edges = tuple(sorted({edge for member in members for edge in member.edges}))
    return EdgeRequest(edges, effect.via_mlps, effect.direction)


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
            groups = [(head,) for head in heads] if claim.each else [heads]
            return ClaimPlan(
                claim, task, tuple(Part(" ".join(map(str, g)), AttentionRequest(g, source, target)) for g in groups)
            )
        case Behaviour(metric=metric):
            return ClaimPlan(claim, task, (Part("", BehaviourRequest(metric)),))
    raise TypeError(f"no such measurement: {claim.measurement!r}")


def _edge_plan(claim: Claim, task: str, effect: EdgeEffect, nulls: Nulls | None) -> ClaimPlan:
    single = tuple((member, edge_request((member,), effect)) for member in effect.members)
    joint = edge_request(effect.members, effect)
    pieces = [(str(m), r) for m, r in single] if claim.each else [("", joint)]
    parts = tuple(Part(label, request, nulls.of_edges(request) if nulls else ()) for label, request in pieces)
    other = EdgeRequest(joint.edges, not joint.via_mlps, joint.direction) if joint.via_mlps else None
    return ClaimPlan(claim, task, parts, single, other)
