"""`inhibition -> mover.q at END : lowers`: the effect of patching edges (path patching)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar

from circuitdsl.circuit.bounds import is_negligible, resolve_claim
from circuitdsl.circuit.changes import EdgePatch
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kind import Kind
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import ClaimPlan, Part, patched
from circuitdsl.measurements.requests import EdgeRequest, edge_request


@dataclass(frozen=True, slots=True)
class EdgeEffect(Kind):
    """The effect of patching edges, all together (semantics: several edges at once)."""

    patch: EdgePatch

    statement = s.EdgeClaim
    claim_kind = "edge"
    examples = ("some -> logits at END : effect <= 30%",)
    false_examples = ("some -> logits at END : effect >= 50%",)
    signed = True
    instead_of_chance: ClassVar = dict.fromkeys(
        ("effect", "delta"), "what random edges do is what 'matters' compares with: write ': matters'"
    )
    elsewhere: ClassVar = {
        "effect": "an effect is that of a patch: expect knockout(mover) : effect <= -20%, or an edge with a claim"
    }

    @classmethod
    def resolve(cls, scope: Scope, statement: s.EdgeClaim) -> Expected | None:  # type: ignore[override]
        patch = resolve_edge(
            scope, statement.edge, scope.via_mlps, negligible=is_negligible(statement.claim), ablate=scope.ablate
        )
        tests = resolve_claim(scope, statement.claim, own=patch)
        return None if patch is None or tests is None else (cls(patch), tests)

    @property
    def subject(self) -> Hashable:
        return self.patch.edge_set, self.patch.via_mlps, self.patch.direction, self.patch.ablate

    def part(self, claim: Claim, nulls: Nulls) -> Part:
        return _part("", edge_request(self.members, self.patch), claim, nulls)

    def plan(self, claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
        single = tuple((member, edge_request((member,), self.patch)) for member in self.members)
        if not claim.each:
            return ClaimPlan(claim, task, (self.compared(claim, nulls),), single)
        return ClaimPlan(claim, task, tuple(_part(str(m), request, claim, nulls) for m, request in single), single)


def _part(label: str, request: EdgeRequest, claim: Claim, nulls: Nulls) -> Part:
    direct = replace(request, via_mlps=False) if request.via_mlps else None
    return replace(patched(label, request, claim, nulls), other=direct)
