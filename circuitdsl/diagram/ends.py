"""Which boxes a claim's arrow joins: its pairs of nodes, read back as groups, parts of groups and single nodes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from circuitdsl.circuit.changes import EdgePatch, Member
from circuitdsl.circuit.claims import Circuit, Claim, Group
from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram.model import Box, BoxKind, End

_EDGE = re.compile(r"^(?:each\s+)?(.+?)\s*->\s*(.+?)(?=\s+(?:at|via|direct|on)\b|\s*[:\"]|$)")


def drawn(circuit: Circuit) -> list[tuple[Claim, EdgePatch]]:
    """The claims that are arrows: edges as the spec states them, not what `expect` asks about them."""
    edges = ((claim, claim.measurement.patch) for claim in circuit.claims if claim.kind == "edge")
    return [(claim, patch) for claim, patch in edges if isinstance(patch, EdgePatch)]


def boxes(circuit: Circuit) -> tuple[Box, ...]:
    """Every group, then every node that edges name and no group holds."""
    groups = [_group_box(group) for group in circuit.groups]
    held = {node for group in circuit.groups for node in group.nodes}
    members = [member for _, effect in drawn(circuit) for member in effect.members]
    alone = dict.fromkeys(node for m in members for node in (m.sender, m.receiver) if node not in held)
    return (*groups, *(_lone_box(node, members) for node in sorted(alone, key=lambda n: (n.stage(), n.head))))


def sides(text: str) -> tuple[str, str]:
    """Sender and receiver as the claim's text names them, without the receiver's input."""
    found = _EDGE.match(text.strip())
    if not found:
        return "", ""
    return found[1].strip(), re.sub(r"\.[qkv]$", "", found[2].strip())


def ends(nodes: Iterable[Node], named: str, places: Collection[str], known: Sequence[Box]) -> list[End]:
    """The boxes, and nodes in boxes, that make up a set of nodes.

    Args:
        named: how the spec calls it.
        places: where the nodes act; boxes of other places stand for them only where there is none of these.
    """
    wanted = list(dict.fromkeys(nodes))
    for box in sorted(known, key=lambda box: box.key != named):
        whole = set(box.nodes) == set(wanted) and _is_at(box, places)
        if whole or (box.key == named and set(wanted) <= set(box.nodes)):
            return [End(box.key)]
    words = set(re.findall(r"[a-z][a-z0-9_]*", named))
    by_home: dict[str, list[Node]] = {}
    for node in wanted:
        homes = (box for box in known if node in box.nodes)
        home = min(
            homes,
            key=lambda box: (
                box.key not in words,
                not _is_at(box, places),
                set(box.nodes) != set(wanted),
                box.outside,
            ),
        )
        by_home.setdefault(home.key, []).append(node)
    lookup = {box.key: box for box in known}
    return [_end(lookup[key], part) for key, part in by_home.items()]


def _is_at(box: Box, places: Collection[str]) -> bool:
    """Whether the nodes of a box act at some of these places."""
    return not box.positions or not places or "*" in (*places, *box.positions) or bool(set(places) & set(box.positions))


def _end(box: Box, part: list[Node]) -> End:
    missing = [node for node in box.nodes if node not in part]
    if not missing:
        return End(box.key)
    if len(part) == 1:
        return End(box.key, part[0])
    left_out = " ".join(map(str, missing))
    return End(box.key, but=f"without {left_out}" if len(missing) <= len(part) else f"only {' '.join(map(str, part))}")


def _group_box(group: Group) -> Box:
    places = tuple(str(position) for position in group.positions)
    return Box(group.name, "group", group.nodes, places, group.role, group.outside, group.line)


def _lone_box(node: Node, members: Iterable[Member]) -> Box:
    kind: BoxKind = node.kind if node.kind in ("embed", "logits") else "node"
    return Box(str(node), kind, (node,), () if kind != "node" else _acts_at(node, members))


def _acts_at(node: Node, members: Iterable[Member]) -> tuple[str, ...]:
    """Where a node without a group acts: where it sends, or reads queries or (an MLP) its input."""
    found: dict[str, None] = {}
    for member in members:
        for edge in member.edges:
            if edge.sender == node or (edge.receiver.node == node and edge.receiver.port in ("q", "in")):
                found[str(edge.position)] = None
    return tuple(found)
