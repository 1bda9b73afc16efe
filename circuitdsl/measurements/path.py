"""`path inhibition -> mover.q at END -> logits : lowers`: the effect of what travels along a whole path."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from circuitdsl.circuit.bounds import is_negligible, resolve_claim
from circuitdsl.circuit.changes import PathPatch
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.path_arrows import resolve_path
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kind import Kind
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import ClaimPlan, Part, patched
from circuitdsl.measurements.requests import path_request


@dataclass(frozen=True, slots=True)
class PathEffect(Kind):
    """The effect of a change that goes along a path and along nothing else (semantics: path)."""

    patch: PathPatch

    statement = s.PathClaim
    claim_kind = "path"
    examples = ("path some -> m3 at END -> logits : effect <= 30%",)
    false_examples = ("path some -> m3 at END -> logits : effect >= 50%",)
    signed = True

    @classmethod
    def resolve(cls, scope: Scope, statement: s.PathClaim) -> Expected | None:  # type: ignore[override]
        patch = resolve_path(scope, statement.path, is_negligible(statement.claim))
        tests = resolve_claim(scope, statement.claim, own=patch)
        return None if patch is None or tests is None else (cls(patch), tests)

    @property
    def subject(self) -> Hashable:
        return self.patch.edge_sets

    def part(self, claim: Claim, nulls: Nulls) -> Part:
        return patched("", path_request(arrow.members for arrow in self.patch.arrows), claim, nulls)

    def plan(self, claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
        if not claim.each:
            return ClaimPlan(claim, task, (self.part(claim, nulls),))
        single = tuple((chain, path_request([link] for link in chain.links)) for chain in self.patch.chains())
        return ClaimPlan(claim, task, tuple(patched(str(c), request, claim, nulls) for c, request in single), single)
