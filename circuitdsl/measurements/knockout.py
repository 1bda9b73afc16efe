"""`expect knockout(mover, ablate = mean) : effect <= -20%`: the total effect of replacing nodes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from circuitdsl.circuit.arguments import group_argument, options_of, refuse_others, sites_of, sort_arguments
from circuitdsl.circuit.bounds import effect_tests
from circuitdsl.circuit.changes import Both, Intervention, NodePatch, Patch, knocked_out
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import EVERYWHERE, Ablation, Site
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import ABLATIONS
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kind import Kind
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import Part, patched
from circuitdsl.measurements.requests import NodeRequest, patch_request


@dataclass(frozen=True, slots=True)
class NodeEffect(Kind):
    """The total effect of replacing nodes at their positions."""

    patch: NodePatch

    words = ("knockout",)
    usage = (
        "`knockout(GROUP)`, `knockout(resid6 at S2)`, `knockout(GROUP, ablate = mean)`"
        " | the metric with all that the group writes replaced: `corrupt` (default), `mean`, `zero`"
        " | a claim; or a bound with `%`, on the effect",
    )
    options: ClassVar = {"ablate": ABLATIONS}
    examples = ("expect knockout(some) : effect <= 30%", "expect knockout(resid2 at END) : lowers")
    false_examples = ("expect knockout(some) : effect >= 50%", "expect knockout(resid2 at END) : raises")
    under_condition = True
    not_on_changed_model = (
        "knock-outs are not measured on a changed model",
        "write a verb instead: replace GROUP with corrupt",
    )
    signed = True

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        patch = cls._patch_of(scope, expect.measurement)
        ablate = patch.ablate if patch else "corrupt"
        tests = effect_tests(scope, expect, own=patch, knockout=lambda other: cls._patch_of(scope, other, ablate))
        return None if patch is None or tests is None else (cls(patch), tests)

    @classmethod
    def _patch_of(cls, scope: Scope, knockout: s.Measurement, ablate: Ablation = "corrupt") -> NodePatch | None:
        """What is knocked out, with `ablate` where it says nothing of it; None after a diagnostic was emitted."""
        found = sort_arguments(knockout.arguments)
        right = refuse_others(scope, knockout, found, positions=False, options=True, at=True)
        members = group_argument(scope, knockout, found)
        given = options_of(scope, knockout, found.options, cls.options)
        sites = None if members is None else sites_of(scope, members, found.nodes.span, found.at)
        if not right or sites is None or given is None:
            return None
        ablate = cast(Ablation, given.get("ablate", ablate))
        if scope.under and ablate != "corrupt":
            message = "under a condition, knock-outs put in corrupt terms only, as the condition itself does"
            scope.sink.error("E087", message, found.options[0].span)
            return None
        return NodePatch(sites, ablate)

    @property
    def subject(self) -> Hashable:
        return frozenset(self.patch.sites), self.patch.ablate, self.patch.direction

    def is_void_under(self, change: Patch | Both | Intervention) -> bool:
        out = knocked_out(change)
        return all(
            any(
                Site(node, place) in out
                for node in (site.node, site.node.whole)
                for place in (site.position, EVERYWHERE)
            )
            for site in self.patch.sites
        )

    def part(self, claim: Claim, nulls: Nulls) -> Part:
        under = None if claim.under is None else patch_request(cast(Patch | Both, claim.under.effect))
        request = replace(cast(NodeRequest, patch_request(self.patch)), under=under)
        part = patched("", request, claim, nulls)
        return part if under is None else replace(part, base=under)
