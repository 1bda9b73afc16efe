"""Paths: each arrow is resolved as an edge, and what stands between two arrows must carry a change on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

from circuitdsl.circuit.changes import EdgePatch, Member, PathPatch
from circuitdsl.circuit.edges import MAX_PAIRS, is_before, may_be_one, resolve_edge
from circuitdsl.circuit.nodes import EVERYWHERE, Edge, Node, Position, Positions
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Fix, listing


def resolve_path(scope: Scope, path: s.Path, negligible: bool = False) -> PathPatch | None:
    """The edges of each arrow of a path; None where it is wrong, after a diagnostic was emitted.

    Args:
        negligible: whether its effect is claimed to be, for a warning.
    """
    edges = list(edges_of(path))
    if len(edges) == 1:
        help = "leave 'path' out, or name the nodes that the change goes through"
        scope.sink.error("E070", "a path goes through a node: a single arrow is an edge", path.span, help)
        return None
    found = [resolve_edge(scope, edge, False, negligible=negligible) for edge in edges]
    arrows = [arrow for arrow in found if arrow is not None]
    if len(arrows) < len(edges):
        return None
    if crossing := next((edge.sender for arrow in arrows for edge in arrow.edges if edge.sender.crosses), None):
        message = f"no path starts at {crossing} yet, a feature that writes into several MLPs"
        scope.sink.error("E070", message, path.sender.span, "claim an edge from it, or knock it out")
        return None
    right = [_carries(scope, hop, *pair) for hop, pair in zip(path.hops, pairwise(arrows), strict=False)]
    if not all(right):
        return None
    joined = _joined(arrows)
    if joined is None:
        help = "each node of an arrow must be below one of the next"
        scope.sink.error("E070", "no chain of nodes leads along this path", path.span, help)
        return None
    if (count := chains(joined)) > MAX_PAIRS:
        scope.sink.error("E075", f"this path has {count} chains; at most {MAX_PAIRS} can be checked", path.span)
        return None
    return joined if scope.affords(5 * count, path.span) else None


def edges_of(path: s.Path) -> list[s.Edge]:
    """The arrows of a path as edges: what one ends at is what the next comes from."""
    found, sender = [], path.sender
    for hop in path.hops:
        found.append(s.Edge(sender.span.to(hop.span), sender, hop.receiver, hop.at, s.Protocol(hop.span, False)))
        sender = hop.receiver.inner if isinstance(hop.receiver, s.WithPort) else hop.receiver
    return found


def chains(path: PathPatch) -> int:
    """How many chains of single nodes a path has."""
    ways = Counter({member.sender: 1 for member in path.arrows[0].members})
    for arrow in path.arrows:
        after = Counter[object]()
        for member in arrow.members:
            after[member.receiver] += ways[member.sender]
        ways = after  # type: ignore[assignment]
    return ways.total()


def _joined(arrows: list[EdgePatch]) -> PathPatch | None:
    """The path without the pairs that no chain goes along; None where nothing is left."""
    for i in range(1, len(arrows)):
        reached = {member.receiver for member in arrows[i - 1].members}
        arrows[i] = _only(arrows[i], [member for member in arrows[i].members if member.sender in reached])
    for i in reversed(range(len(arrows) - 1)):
        goes_on = {member.sender for member in arrows[i + 1].members}
        arrows[i] = _only(arrows[i], [member for member in arrows[i].members if member.receiver in goes_on])
    return PathPatch(tuple(arrows)) if all(arrow.members for arrow in arrows) else None


def _only(arrow: EdgePatch, members: list[Member]) -> EdgePatch:
    return arrow if len(members) == len(arrow.members) else replace(arrow, members=tuple(members))


def _carries(scope: Scope, hop: s.Hop, coming: EdgePatch, going: EdgePatch) -> bool:
    """Whether what comes to each node between two arrows can change what it writes where the next arrow reads it."""
    leave: dict[Node, dict[Position, None]] = {}
    for edge in going.edges:
        leave.setdefault(edge.sender, {})[edge.position] = None
    come: dict[Node, list[Edge]] = {}
    for edge in coming.edges:
        come.setdefault(edge.receiver.node, []).append(edge)
    for node, arrive in come.items():
        read = tuple(dict.fromkeys(edge.position for edge in arrive))
        written = tuple(leave.get(node, ()))
        ports = tuple(dict.fromkeys(edge.receiver.port for edge in arrive))
        if written and (problem := _lost(scope, coming.receiver, ports, read, written)):
            message, help = problem
            query = hop.receiver.port.span if isinstance(hop.receiver, s.WithPort) and ports == ("q",) else None
            fixes = tuple(Fix(query, other) for other in (".k", ".v")) if query else ()
            hint = f"; did you mean {' or '.join(fix.text for fix in fixes)}?" if fixes else ""
            where = hop.at.span if hop.at else hop.receiver.span
            scope.sink.error("E073", message + hint, where, help, fixes=fixes)
            return False
    return True


def _lost(
    scope: Scope, name: str, ports: tuple[str, ...], read: Positions, written: Positions
) -> tuple[str, str] | None:
    """Why a change is lost at a node, and what to do; None where it is not.

    It comes at some positions, and the next arrow reads what the node writes at others.
    """
    here, there = listing(map(str, read)), listing(map(str, written))
    if ports in (("q",), ("in",)):
        pairs = ((read, written), (written, read))
        if EVERYWHERE in (*read, *written) or all(may_be_one_of(p, others) for some, others in pairs for p in some):
            return None
        what = "its query" if ports == ("q",) else "its input"
        message = f"{name} reads {what} at {here}, and is read at {there}: what comes there changes nothing elsewhere"
        return message, "let both arrows be at one position"
    early = [at for at in written if all(is_before(scope, at, place) for place in read)]
    if not early:
        return None
    there = listing(map(str, early))
    message = f"{name} is read at {there}, before {here}, where the change comes to it: no node sees what follows it"
    return message, f"let this arrow end at {early[0]} or earlier, or the next one read at {read[0]} or later"


def may_be_one_of(position: Position, others: Positions) -> bool:
    return any(may_be_one(position, each) for each in others)
