"""What a spec's circuit consists of (semantics: the circuit of a spec)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Node, Position, Site


@dataclass(frozen=True, slots=True)
class Membership:
    """The nodes and edges of a circuit.

    Attributes:
        sites: heads and MLPs of the circuit at their positions.
        edges: what the spec claims to be there, at its positions.
        mlps: whether the spec names MLPs, so that those it leaves out are outside.
        groups: the sites of each group of the circuit, by its name.
    """

    sites: frozenset[Site]
    edges: frozenset[Edge]
    mlps: bool
    groups: Mapping[str, frozenset[Site]]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The heads and MLPs of the circuit."""
        return tuple(sorted({site.node for site in self.sites}))

    @property
    def positions(self) -> tuple[Position, ...]:
        """Every position that it names, but for `*`."""
        found = {site.position for site in self.sites} | {edge.position for edge in self.edges}
        return tuple(sorted(found - {EVERYWHERE}))


def membership(circuit: Circuit) -> Membership:
    """The circuit: every group not marked `outside`, and every edge whose claim is not `negligible`.

    An edge brings the nodes at its ends where they act for it: its sender where it writes, and a receiver of `.q` or an
    MLP where it reads (where a receiver of `.k` or `.v` acts, an edge does not say). Nodes of control groups are out,
    and so is a part of a node that is there as a whole.
    """
    inside = [group for group in circuit.groups if not group.outside]
    edges = frozenset(circuit.own_edges())
    groups = {group.name: frozenset(site for site in group.sites if _writes(site.node)) for group in inside}
    sites = {site for members in groups.values() for site in members}
    control = {node for group in circuit.groups if group.outside for node in group.nodes} - {s.node for s in sites}
    sites |= {site for edge in edges for site in _ends(edge) if _writes(site.node) and site.node not in control}
    sites -= {site for site in sites if site.node.is_part and Site(site.node.whole, site.position) in sites}
    ends = (node for _, member in circuit.edges() for node in (member.sender, member.receiver))
    named = [*(node for group in circuit.groups for node in group.nodes), *ends]
    mlps = any(node.kind == "mlp" for node in named)
    return Membership(frozenset(sites), edges, mlps, {name: members for name, members in groups.items() if members})


def _ends(edge: Edge) -> tuple[Site, ...]:
    """The nodes that an edge shows at work."""
    sender = Site(edge.sender, edge.position)
    acts = edge.receiver.port in ("q", "in") and edge.receiver.node != LOGITS
    return (sender, Site(edge.receiver.node, edge.position)) if acts else (sender,)


def _writes(node: Node) -> bool:
    """Whether a node can be ablated; `embed` always stays."""
    return node.kind in ("head", "mlp")
