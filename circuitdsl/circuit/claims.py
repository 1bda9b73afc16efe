"""What a resolved spec says: plain frozen records.

Resolution (`resolve.py`) turns syntax into these; planning and measuring read nothing else. Records are equal when they
say the same, on whatever line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from circuitdsl.circuit.changes import Condition, Intervention, Member
from circuitdsl.circuit.criteria import Negligible, Test
from circuitdsl.circuit.measurement import Measurement
from circuitdsl.circuit.metric import Metric
from circuitdsl.circuit.nodes import Edge, Node, Position, Site

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of the spec that can hold or fail, on every task in `tasks`; channels need none."""

    id: str
    line: int = field(compare=False)
    text: str
    kind: str
    measurement: Measurement
    tests: tuple[Test, ...]
    each: bool
    margin: float
    tasks: tuple[str, ...]
    #: of an `expect` line, the measurement as written
    about: str = field(default="", compare=False)
    citation: str | None = None
    under: Condition | None = None
    #: whether the statement names a head or an MLP itself, not only groups
    lone_nodes: bool = field(default=False, compare=False)

    def answers_to(self, name: str) -> bool:
        """Whether a claim is meant by this: its id, or its line in the spec."""
        return name in (self.id, str(self.line))


@dataclass(frozen=True, slots=True)
class TaskUse:
    """A task as the spec asks for it. `generator` names a registered task; `file` a prompt file."""

    name: str
    generator: str | None
    file: str | None = None
    corrupt: str | None = None
    prompts: int = 256
    seed: int = 0
    bos: bool | None = None
    options: tuple[tuple[str, str | int], ...] = ()
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ModelUse:
    name: str
    revision: str | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    nodes: tuple[Node, ...]
    positions: tuple[Position, ...]
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
    path: str = ""
    sha256: str = field(default="", compare=False)

    def __repr__(self) -> str:
        """One line: the fields are every head and every claim."""
        return f"<Circuit {self.name}: {len(self.groups)} groups, {len(self.claims)} claims>"

    @property
    def graph(self) -> networkx.MultiDiGraph:
        """The circuit as a graph: every node that a group or an edge names, and every claimed edge.

        Nodes are keyed by their text (`9.9`, `m3`, `logits`) and have the attributes

        - `kind`, `layer`, `head`: which node it is; layer and head are -1 where there is none;
        - `groups`: the names of its groups, in the file's order; `role`: the first role these give it, or None;
        - `positions`: where it acts, as text; `outside`: whether it is in control groups only.

        Edges run from sender to receiver, one for each input and position of each claim, and have the attributes
        `port` (`q`, `k`, `v`, `in`), `position`, `claim` (its id), `line`, `test` (the claim in words) and `via_mlps`.
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
            }
            for edge in member.edges:
                ends = (str(edge.sender), str(edge.receiver.node))
                made.add_edge(*ends, port=edge.receiver.port, position=str(edge.position), **about)
        return made

    def own_edges(self) -> Iterator[Edge]:
        """The edges of the circuit: those of every edge claim that is not `negligible`."""
        for claim, member in self.edges():
            if claim.kind == "edge" and not any(isinstance(test, Negligible) for test in claim.tests):
                yield from member.edges

    def edges(self) -> Iterator[tuple[Claim, Member]]:
        """Every claimed pair with the claim that states it."""
        for claim in self.claims:
            for member in claim.measurement.members:
                yield claim, member
