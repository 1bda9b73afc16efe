"""Traces: claims about which upstream heads made a head attend where it does (sparse attention decomposition).

`trace 9.9 END -> IO includes 8.6 7.9 at END` says of each head that it is among the senders of 9.9 at END in at least
half of the prompts on which 9.9 fires from END to IO. `at` names one end of the arrow; without it the first is meant,
where the head asks.
"""

from __future__ import annotations

from circuitdsl.circuit.criteria import Test, Within
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.measurements import Tracing
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing
from circuitdsl.language.written import written

#: in at least half of the head's firings
HALF: tuple[Test, ...] = (Within("value", 0.5, None, ">= 50%"),)


def resolve_trace(scope: Scope, trace: s.Trace) -> Tracing | None:
    """What a trace looks for; None when something is wrong (and said so)."""
    head = _head(scope, trace)
    senders = _senders(scope, trace, head)
    source, target = (_places(scope, places) for places in (trace.source, trace.target))
    at = scope.places(trace.at)
    if head is None or senders is None or source is None or target is None or at is None:
        return None
    if at and set(at) not in (set(source), set(target)):
        message = f"a trace is looked at where its arrow begins or ends, not at {', '.join(map(str, at))}"
        help = f"write: at {', '.join(map(str, source))}, or at {', '.join(map(str, target))}"
        scope.sink.error("E114", message, trace.at.span if trace.at else trace.span, help)
        return None
    side = "source" if at and set(at) != set(source) else "destination"
    return Tracing(head, source, target, senders, side)  # type: ignore[arg-type]


def _head(scope: Scope, trace: s.Trace) -> Node | None:
    """The one head whose attention is traced."""
    found = evaluate(scope, trace.nodes)
    if found is None:
        return None
    heads = list(found)
    if len(heads) > 1 or heads[0].kind != "head" or heads[0].index >= 0:
        message = f"a trace starts at one head, and {written(trace.nodes)} is not one"
        scope.sink.error("E113", message, trace.nodes.span, "write a line for each head")
        return None
    if heads[0].layer == 0:
        scope.sink.error("E070", f"no head is upstream of {heads[0]}", trace.nodes.span)
        return None
    return heads[0]


def _senders(scope: Scope, trace: s.Trace, head: Node | None) -> tuple[Node, ...] | None:
    found = evaluate(scope, trace.includes)
    if found is None or head is None:
        return None
    others = [str(node) for node in found if node.kind != "head" or node.index >= 0]
    late = [str(node) for node in found if node.kind == "head" and node.layer >= head.layer]
    if others:
        scope.sink.error("E113", f"a trace includes whole heads, and {listing(others)} is none", trace.includes.span)
    elif late:
        message = f"{listing(late)} {'is' if len(late) == 1 else 'are'} not upstream of {head}"
        scope.sink.error("E070", message, trace.includes.span)
    return None if others or late else tuple(found)


def _places(scope: Scope, places: tuple[s.Place, ...]) -> tuple[Position, ...] | None:
    found = [scope.position(place) for place in places]
    known = tuple(position for position in found if position is not None)
    return known if len(known) == len(found) else None
