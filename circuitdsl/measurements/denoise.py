"""`expect denoise(mover)` or `denoise(inhibition -> mover.q)`: the clean term put into the corrupt run."""

from __future__ import annotations

from circuitdsl.circuit.arguments import group_argument, refuse_others, sites_of, sort_arguments
from circuitdsl.circuit.bounds import effect_tests
from circuitdsl.circuit.changes import NodePatch
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.measurements.edge import EdgeEffect
from circuitdsl.measurements.kind import Kind
from circuitdsl.measurements.knockout import NodeEffect


class Denoise(Kind):
    """The word; what it measures is the effect of edges or nodes, the other way round."""

    words = ("denoise",)
    usage = (
        "`denoise(GROUP)`, `denoise(GROUP at POS)`, `denoise(A -> B.q at POS)`"
        " | the clean term put into the corrupt run"
        " | the same",
    )
    examples = ("expect denoise(some) : effect >= -30%",)
    false_examples = ("expect denoise(some) : effect <= -50%",)
    signed = True

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        measurement = expect.measurement
        found = sort_arguments(measurement.arguments)
        edges = [other for other in found.others if isinstance(other, s.Edge)]
        found.others = [other for other in found.others if not isinstance(other, s.Edge)]
        right = refuse_others(scope, measurement, found, positions=False, options=False, at=True)
        if len(edges) + bool(found.sets) != 1:
            message = "denoise takes nodes or one edge: denoise(mover), denoise(inhibition -> mover.q)"
            scope.sink.error("E084", message, measurement.span)
            return None
        effect: EdgeEffect | NodeEffect | None = None
        patch = resolve_edge(scope, edges[0], scope.via_mlps, "denoise") if edges else None
        if patch is not None:
            effect = EdgeEffect(patch)
        elif not edges and (members := group_argument(scope, measurement, found)) is not None:
            sites = sites_of(scope, members, found.nodes.span, found.at)
            effect = NodeEffect(NodePatch(sites, direction="denoise")) if sites else None
        tests = effect_tests(scope, expect, "denoise", patch)
        return (effect, tests) if right and effect is not None and tests is not None else None
