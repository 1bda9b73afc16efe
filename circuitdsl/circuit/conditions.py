"""`when` blocks: what is patched while their expectations are measured."""

from __future__ import annotations

from ..language import syntax as s
from ..language.written import written
from .arguments import sites_of
from .changes import Condition
from .edges import resolve_edge
from .expressions import evaluate
from .measurements import EdgeEffect, NodeEffect
from .scope import Scope


def resolve_condition(scope: Scope, block: s.WhenPatched | s.WhenKnockedOut) -> Condition | None:
    """The patch of a block; None when it is wrong (and said so)."""
    effect: EdgeEffect | NodeEffect | None = None
    if isinstance(block, s.WhenPatched):
        effect = resolve_edge(scope, block.edge, scope.via_mlps)
    elif (members := evaluate(scope, block.nodes)) is not None:
        sites = sites_of(scope, members, block.nodes.span)
        effect = None if sites is None else NodeEffect(sites, label=written(block.nodes))
    return None if effect is None else Condition(effect, block.span.line, block.text)
