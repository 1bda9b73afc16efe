"""What a resolved spec says: plain frozen records.

Resolution (`resolve.py`) turns syntax into these; planning and measuring read nothing else. Records are equal when they
say the same, on whatever line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.circuit.changes import Condition, Intervention, Member
from circuitdsl.circuit.criteria import Negligible, Test
from circuitdsl.circuit.measurement import Measurement
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Node, Positions, Site
from circuitdsl.circuit.vocabulary import Metric

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of the spec that can hold or fail, on every task in `tasks`; channels need none."""

    id: str
    line: int = field(compare=False)
    text: str = field(compare=False)
    kind: str
    measurement: Measurement
    tests: tuple[Test, ...]
    each: bool
    margin: float
    tasks: tuple[str, ...]
    #: of an `expect` line, the measurement as written
    about: str = field(default="", compare=False)
    citation: str | None = None
    #: why the spec expects that it does not hold; None where it is to hold
    expected_to_fail: str | None = None
    under: Condition | None = None
    #: the strata of prompts that it is about, as written (a star stands for any text); none for all
    strata: tuple[str, ...] = ()
    #: whether the statement names a head or an MLP itself, not only groups
    lone_nodes: bool = field(default=False, compare=False)

    def asks_of(self, stratum: str) -> bool:
        """Whether it is about the prompts of a stratum."""
        patterns = (".*".join(map(re.escape, name.split("*"))) for name in self.strata)
        return not self.strata or any(re.fullmatch(pattern, stratum, re.DOTALL) for pattern in patterns)

    def answers_to(self, name: str) -> bool:
        """Whether a claim is meant by this: its id, or its line in the spec."""
        return name in (self.id, str(self.line))


@dataclass(frozen=True, slots=True)
class TaskUse:
    """A task as the spec asks for it. `generator` names a registered task; `file` a prompt file.

    `chat`: the prompts of a file are turns, which the chat template of the model writes down. `instead`: the prompt
    file that the user has named in the place of the spec's own prompts, as it was written; empty where there is none.
    """

    name: str
    generator: str | None
    file: str | None = None
    corrupt: str | None = None
    prompts: int = 256
    seed: int = 0
    bos: bool | None = None
    chat: bool = False
    options: tuple[tuple[str, str | int], ...] = ()
    instead: str = ""
    line: int = field(default=0, compare=False)

    def with_prompts_of(self, file: str) -> TaskUse:
        """The task of that name with the prompts of a file, named from the current folder."""
        return replace(
            self, generator=None, file=str(Path(file).absolute()), corrupt=None, options=(), chat=False, instead=file
        )


@dataclass(frozen=True, slots=True)
class ModelUse:
    name: str
    revision: str | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    nodes: tuple[Node, ...]
    positions: Positions
    role: str | None
    outside: bool
    line: int = field(compare=False)
    #: every member at each of its positions, `*` where nothing says
    sites: tuple[Site, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Circuit:
    """A resolved circuit: everything the verifier does follows from this record."""

    name: str
    title: str
    model: ModelUse | None
    tasks: tuple[TaskUse, ...]
    metric: Metric
    groups: tuple[Group, ...]
    claims: tuple[Claim, ...]
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    license: str | None = None
    margin: float = 0.01
    interventions: tuple[Intervention, ...] = ()
    #: the layers and heads a layer that its sets were counted in; None where no set depends on the model
    counted: tuple[int, int] | None = None
    path: str = ""
    #: the dictionaries whose features it may name (see `features.places_of`)
    dictionaries: tuple[tuple[str, str, str], ...] = field(default=(), compare=False)
    #: what features are called, by the name of their dictionary
    labels: Mapping[str, Mapping[int, str]] = field(default_factory=dict, compare=False)
    #: the hash of the spec's text with what it uses; `said` gives the same without layout and comments
    sha256: str = field(default="", compare=False)
    said: Callable[[], str] = field(default=str, compare=False)

    def __repr__(self) -> str:
        """One line: the fields are every head and every claim."""
        return f"<Circuit {self.name}: {len(self.groups)} groups, {len(self.claims)} claims>"

    @property
    def meaning(self) -> str:
        """The hash of what the spec says, whatever its layout and comments; empty where it has no text."""
        return self.said()

    @property
    def graph(self) -> networkx.MultiDiGraph:
        """The circuit as a graph: every node that a group or an edge names, and every claimed edge.

        Nodes are keyed by their text (`9.9`, `m3`, `logits`) and have the attributes

        - `kind`, `layer`, `head`: which node it is; layer and head are -1 where there is none;
        - `groups`: the names of its groups, in the file's order; `role`: the first role these give it, or None;
        - `positions`: where it acts, as text; `outside`: whether it is in control groups only.

        Edges run from sender to receiver, one for each input and position of each claim, and have the attributes
        `port` (`q`, `k`, `v`, `in`), `position`, `claim` (its id), `line`, `test` (the claim in words), `via_mlps`,
        `ablate`, and `path` (whether it is an arrow of a path, all of which the claim is about).
        """
        import networkx

        made = networkx.MultiDiGraph(name=self.name, title=self.title)
        nodes: dict[Node, list[Group]] = {}
        for group in self.groups:
            for node in group.nodes:
                nodes.setdefault(node, []).append(group)
        for _, member in self.edges():
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
        for claim, member in self.edges():
            about = {
                "claim": claim.id,
                "line": claim.line,
                "test": " and ".join(map(str, claim.tests)),
                "via_mlps": getattr(claim.measurement.patch, "via_mlps", False),
                "ablate": getattr(claim.measurement.patch, "ablate", "corrupt"),
                "path": claim.kind == "path",
            }
            for edge in member.edges:
                ends = (str(edge.sender), str(edge.receiver.node))
                made.add_edge(*ends, port=edge.receiver.port, position=str(edge.position), **about)
        return made

    def own_edges(self) -> Iterator[Edge]:
        """The edges of the circuit: those of every claim on an edge or a path that is not `negligible`.

        Edges into a part of a node are none of it: what else the node writes reads the same.
        """
        for claim, member in self.edges():
            negligible = any(isinstance(test, Negligible) for test in claim.tests)
            whole = _is_member(member.sender) and not member.receiver.is_part
            if claim.kind in ("edge", "path") and whole and not negligible:
                yield from member.edges

    def edges(self) -> Iterator[tuple[Claim, Member]]:
        """Every claimed pair with the claim that states it."""
        for claim in self.claims:
            for member in claim.measurement.members:
                yield claim, member


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
    def positions(self) -> Positions:
        """Every position that it names, but for `*`."""
        found = {site.position for site in self.sites} | {edge.position for edge in self.edges}
        return tuple(sorted(found - {EVERYWHERE}))


def membership(circuit: Circuit) -> Membership:
    """The circuit: every group not marked `outside`, and every edge or path whose claim is not `negligible`.

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
    ends = {node for _, each in circuit.edges() if not each.receiver.is_part for node in (each.sender, each.receiver)}
    named = [*(node for group in circuit.groups for node in group.nodes), *ends]
    mlps = any(node.kind == "mlp" and _is_member(node) for node in named)
    return Membership(frozenset(sites), edges, mlps, {name: members for name, members in groups.items() if members})


def _ends(edge: Edge) -> tuple[Site, ...]:
    """The nodes that an edge shows at work."""
    sender = Site(edge.sender, edge.position)
    acts = edge.receiver.port in ("q", "in") and edge.receiver.node != LOGITS
    return (sender, Site(edge.receiver.node, edge.position)) if acts else (sender,)


def _is_member(node: Node) -> bool:
    """Whether a node is one of those that the model is made of, or a singular component, neuron or feature of one."""
    return node.kind in ("embed", "head", "mlp", "logits") and node.along is None


def _writes(node: Node) -> bool:
    """Whether a node can be ablated; `embed` always stays."""
    return node.kind in ("head", "mlp") and _is_member(node)
