"""`when` blocks: what is patched while their expectations are measured."""

from __future__ import annotations

from circuitdsl.circuit.arguments import sites_of
from circuitdsl.circuit.changes import Condition, NodePatch, Patch
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.written import written


def resolve_condition(scope: Scope, block: s.WhenPatched | s.WhenKnockedOut) -> Condition | None:
    """The patch of a block; None when it is wrong (and said so)."""
    patch: Patch | None = None
    if isinstance(block, s.WhenPatched):
        patch = resolve_edge(scope, block.edge, scope.via_mlps)
    elif (members := evaluate(scope, block.nodes)) is not None:
        sites = sites_of(scope, members, block.nodes.span)
        patch = None if sites is None else NodePatch(sites, label=written(block.nodes))
    return None if patch is None else Condition(patch, block.span.line, block.text)
