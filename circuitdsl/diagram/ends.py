"""Boxes of a circuit, and which of them a claim's arrow joins: groups, parts of groups and single nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from circuitdsl.circuit.changes import EdgePatch, Member
from circuitdsl.circuit.claims import Circuit, Claim, Group
from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram.model import Box, End


def drawn(circuit: Circuit) -> list[tuple[Claim, EdgePatch]]:
    """The claims that are arrows: edges as the spec states them, not what `expect` asks about them."""
    edges = ((claim, claim.measurement.patch) for claim in circuit.claims if claim.kind == "edge")
    return [(claim, patch) for claim, patch in edges if isinstance(patch, EdgePatch)]


def boxes(circuit: Circuit) -> tuple[Box, ...]:
    """Every group, then every node that edges name and no group holds. A node is drawn once at a position.

    Of several groups that hold it, the first draws it; those outside the circuit come last.
    """
    found: list[Box] = []
    for group in sorted(circuit.groups, key=lambda group: group.outside):
        found = _with_group(found, group)
    held = {node for box in found for node in box.nodes}
    members = [member for _, effect in drawn(circuit) for member in effect.members]
    alone = dict.fromkeys(node for m in members for node in (m.sender, m.receiver) if node not in held)
    return (*found, *(_lone_box(node, members) for node in sorted(alone, key=lambda n: (n.stage(), n.head))))


def _with_group(found: list[Box], group: Group) -> list[Box]:
    """The boxes so far and that of a group. Nodes that an earlier box holds stay there, and it says so."""
    places = tuple(map(str, group.positions))
    left, after = list(group.nodes), []
    for box in found:
        shared = [node for node in left if node in box.nodes] if is_at(box, places) else []
        left = [node for node in left if node not in shared]
        after.append(box.sharing(group.name, shared) if shared else box)
    if left:
        after.append(Box(group.name, "group", tuple(left), places, group.role, group.outside))
    return after


def is_at(box: Box, places: Collection[str]) -> bool:
    """Whether the nodes of a box act at some of these places."""
    return not box.positions or not places or "*" in (*places, *box.positions) or bool(set(places) & set(box.positions))


def ends(nodes: Iterable[Node], named: str, places: Collection[str], known: Sequence[Box]) -> list[End]:
    """The boxes, and nodes in boxes, that make up a set of nodes.

    Args:
        named: how the spec calls it.
        places: where the nodes act; boxes of other places stand for them only where there is none of these.
    """
    wanted = list(dict.fromkeys(nodes))
    for box in known:
        if box.key == named and set(wanted) <= set(box.nodes):
            return [End(box.key)]
    by_home: dict[Box, list[Node]] = {}
    for node in wanted:
        homes = (box for box in known if node in box.nodes)
        home = min(homes, key=lambda box: (not is_at(box, places), set(box.nodes) != set(wanted), box.outside))
        by_home.setdefault(home, []).append(node)
    return [_end(box, part) for box, part in by_home.items()]


def _end(box: Box, part: list[Node]) -> End:
    missing = [node for node in box.nodes if node not in part]
    if not missing:
        return End(box.key)
    if len(part) == 1:
        return End(box.key, part[0])
    fewer = f"without {_listed(missing)}" if len(missing) <= len(part) else f"only {_listed(part)}"
    return End(box.key, but=fewer)


def _listed(nodes: Iterable[Node]) -> str:
    return " ".join(map(str, nodes))


def _lone_box(node: Node, members: Iterable[Member]) -> Box:
    if node.kind in ("embed", "logits"):
        return Box(str(node), node.kind, (node,))
    return Box(str(node), "node", (node,), _acts_at(node, members))


def _acts_at(node: Node, members: Iterable[Member]) -> tuple[str, ...]:
    """Where a node without a group acts: where it sends, or reads queries or (an MLP) its input."""
    edges = [edge for member in members for edge in member.edges]
    acts = (e for e in edges if e.sender == node or (e.receiver.node == node and e.receiver.port in ("q", "in")))
    return tuple(dict.fromkeys(str(edge.position) for edge in acts))
