"""What is changed while something is measured: a patch, a knock-out, or the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from circuitdsl.circuit.nodes import Ablation, Direction, Edge, Node, Position, Positions, Site


@dataclass(frozen=True, slots=True)
class Member:
    """One pair of a group edge: all its edges (ports and positions) are patched together."""

    sender: Node
    receiver: Node
    edges: tuple[Edge, ...]

    def __str__(self) -> str:
        ports = sorted({e.receiver.port for e in self.edges})
        places = ", ".join(dict.fromkeys(str(e.position) for e in self.edges))
        port = f".{ports[0]}" if len(ports) == 1 and ports[0] != "in" else ""
        return f"{self.sender} -> {self.receiver}{port} at {places}"


@dataclass(frozen=True)
class EdgePatch:
    """Edges that are patched together (semantics: several edges at once).

    Attributes:
        sender, receiver: the two sides as the spec has them, without the input.
        ablate: what stands in for the senders' terms.
    """

    members: tuple[Member, ...]
    via_mlps: bool = False
    direction: Direction = "noise"
    sender: str = field(default="", compare=False)
    receiver: str = field(default="", compare=False)
    ablate: Ablation = "corrupt"

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        return tuple(edge for member in self.members for edge in member.edges)

    @cached_property
    def edge_set(self) -> frozenset[Edge]:
        return frozenset(self.edges)

    @cached_property
    def positions(self) -> Positions:
        """The positions of its edges, each once."""
        return tuple(dict.fromkeys(edge.position for edge in self.edges))


@dataclass(frozen=True, slots=True)
class NodePatch:
    """Nodes that are replaced at their positions, everything downstream computed anew."""

    sites: tuple[Site, ...]
    ablate: Ablation = "corrupt"
    direction: Direction = "noise"

    @property
    def positions(self) -> Positions:
        return tuple(site.position for site in self.sites)


@dataclass(frozen=True)
class PathPatch:
    """A path along which a change goes, and along nothing else (semantics: path).

    Attributes:
        arrows: the edges of each arrow, which go together; the receivers of one are the senders of the next.
    """

    arrows: tuple[EdgePatch, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """The pairs of all arrows."""
        return tuple(member for arrow in self.arrows for member in arrow.members)

    @cached_property
    def edge_sets(self) -> tuple[frozenset[Edge], ...]:
        return tuple(arrow.edge_set for arrow in self.arrows)

    @cached_property
    def positions(self) -> Positions:
        """The positions of its edges, each once."""
        return tuple(dict.fromkeys(position for arrow in self.arrows for position in arrow.positions))

    def chains(self) -> Iterator[Chain]:
        """Every chain of single nodes, in the order in which the spec lists them."""
        first, *rest = self.arrows
        found: list[tuple[Member, ...]] = [(member,) for member in first.members]
        for arrow in rest:
            onwards: dict[Node, list[Member]] = {}
            for member in arrow.members:
                onwards.setdefault(member.sender, []).append(member)
            found = [(*links, member) for links in found for member in onwards.get(links[-1].receiver, ())]
        yield from map(Chain, found)


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain of single nodes along a path; its last arrow is what a pair of an edge is."""

    links: tuple[Member, ...]

    @property
    def sender(self) -> str:
        """All of it before the last arrow."""
        first, *rest = (str(link) for link in self.links[:-1])
        return " -> ".join((first, *(link.partition(" -> ")[2] for link in rest)))

    @property
    def receiver(self) -> Node:
        return self.links[-1].receiver

    @property
    def edges(self) -> tuple[Edge, ...]:
        return self.links[-1].edges

    def __str__(self) -> str:
        return f"{self.sender} -> {str(self.links[-1]).partition(' -> ')[2]}"


Patch = EdgePatch | PathPatch | NodePatch


@dataclass(frozen=True, slots=True)
class Both:
    """Nodes that are replaced and edges that are patched, in one run."""

    nodes: NodePatch
    edges: EdgePatch

    @property
    def positions(self) -> Positions:
        return tuple(dict.fromkeys((*self.nodes.positions, *self.edges.positions)))


def knocked_out(change: object) -> tuple[Site, ...]:
    """The sites that a condition knocks out."""
    nodes = change.nodes if isinstance(change, Both) else change
    return nodes.sites if isinstance(nodes, NodePatch) else ()


@dataclass(frozen=True, slots=True)
class SetAttention:
    """From the source positions the heads give `mass` to the targets, spread equally; the rest is scaled to fit."""

    heads: tuple[Node, ...]
    source: Positions
    target: Positions
    mass: float


@dataclass(frozen=True, slots=True)
class Scale:
    """What nodes (or singular components of heads) write is multiplied, at every position; 0 projects it out."""

    nodes: tuple[Node, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Replace:
    """What nodes write at their positions is replaced, as in a knock-out."""

    sites: tuple[Site, ...]
    ablate: Ablation


Verb = SetAttention | Scale | Replace


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change of the model: its verbs, applied in their order."""

    name: str
    title: str
    verbs: tuple[Verb, ...]
    line: int = field(default=0, compare=False)

    @property
    def positions(self) -> Positions:
        """Every position that its verbs name, each once."""
        found: list[Position] = []
        for verb in self.verbs:
            match verb:
                case SetAttention(source=source, target=target):
                    found += [*source, *target]
                case Replace(sites=sites):
                    found += [site.position for site in sites]
        return tuple(dict.fromkeys(found))

    @property
    def nodes(self) -> frozenset[Node]:
        """The nodes that its verbs change."""
        verbs = (verb for verb in self.verbs if not isinstance(verb, Replace))
        replaced = (site.node for verb in self.verbs if isinstance(verb, Replace) for site in verb.sites)
        named = (verb.heads if isinstance(verb, SetAttention) else verb.nodes for verb in verbs)
        return frozenset(replaced).union(*named)

    @property
    def means(self) -> bool:
        """Whether some node is replaced by its mean."""
        return any(isinstance(verb, Replace) and verb.ablate == "mean" for verb in self.verbs)


@dataclass(frozen=True, slots=True)
class Condition:
    """What holds while a claim is measured: `when EDGE is patched`, `when GROUP is knocked out`, both, a change."""

    effect: Patch | Both | Intervention
    line: int = field(compare=False)
    text: str = field(compare=False)
