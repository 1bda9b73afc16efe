"""The circuit as a networkx graph: what a figure shows, and what an analysis asks about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitdsl.circuit.claims import Circuit, Group
from circuitdsl.circuit.nodes import Node

if TYPE_CHECKING:
    import networkx


def graph(circuit: Circuit) -> networkx.MultiDiGraph:
    """Every node that a group or an edge names, and every claimed edge.

    Nodes are keyed by their text (`9.9`, `m3`, `logits`) and have the attributes

    - `kind`, `layer`, `head`: which node it is; layer and head are -1 where there is none;
    - `groups`: the names of its groups, in the file's order; `role`: the first role these give it, or None;
    - `positions`: where it acts, as text; `outside`: whether it is in control groups only.

    Edges run from sender to receiver, one for each input and position of each claim, and have the attributes
    `port` (`q`, `k`, `v`, `in`), `position`, `claim` (its id), `line`, `test` (the claim in words) and `via_mlps`.
    """
    import networkx

    made = networkx.MultiDiGraph(name=circuit.name, title=circuit.title)
    nodes: dict[Node, list[Group]] = {}
    for group in circuit.groups:
        for node in group.nodes:
            nodes.setdefault(node, []).append(group)
    for _, member in circuit.edges():
        nodes.setdefault(member.sender, [])
        nodes.setdefault(member.receiver, [])
    for node, groups in nodes.items():
        made.add_node(
            str(node),
            kind=node.kind,
            layer=node.layer,
            head=node.head,
            groups=tuple(group.name for group in groups),
            role=next((group.role for group in groups if group.role), None),
            positions=tuple(dict.fromkeys(str(place) for group in groups for place in group.positions)),
            outside=bool(groups) and all(group.outside for group in groups),
        )
    for claim, member in circuit.edges():
        about = {
            "claim": claim.id,
            "line": claim.line,
            "test": " and ".join(map(str, claim.tests)),
            "via_mlps": getattr(claim.measurement.patch, "via_mlps", False),
        }
        for edge in member.edges:
            ends = (str(edge.sender), str(edge.receiver.node))
            made.add_edge(*ends, port=edge.receiver.port, position=str(edge.position), **about)
    return made
