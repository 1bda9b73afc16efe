"""`when` blocks: what is patched while their expectations are measured."""

from __future__ import annotations

from circuitdsl.circuit.arguments import sites_of
from circuitdsl.circuit.changes import Condition
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.measurements import EdgeEffect, NodeEffect
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.written import written


def resolve_condition(scope: Scope, block: s.WhenPatched | s.WhenKnockedOut) -> Condition | None:
    """The patch of a block; None when it is wrong (and said so)."""
    effect: EdgeEffect | NodeEffect | None = None
    if isinstance(block, s.WhenPatched):
        effect = resolve_edge(scope, block.edge, scope.via_mlps)
    elif (members := evaluate(scope, block.nodes)) is not None:
        sites = sites_of(scope, members, block.nodes.span)
        effect = None if sites is None else NodeEffect(sites, label=written(block.nodes))
    return None if effect is None else Condition(effect, block.span.line, block.text)
