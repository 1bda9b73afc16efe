"""What a person has written of a circuit already: it is kept, and what is missing is added below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from circuitdsl.circuit.claims import Circuit, membership
from circuitdsl.circuit.nodes import Edge, Site
from circuitdsl.discover.draft import Draft
from circuitdsl.discover.groups import KEYWORDS, Named
from circuitdsl.discover.search import Group


@dataclass(frozen=True)
class Given:
    """A person's spec; empty where there is none.

    Attributes:
        text: the spec as it was written.
        groups: those of the circuit.
        sites: nodes that they say are in the circuit; those that they say are outside are `forbidden`.
        mlps: whether MLPs are part of what is said; otherwise all of them stay.
        edges: that some claim is about.
        names: of everything, so that no new group is called the same.
        on: what a claim ends in, where the spec has several tasks.
    """

    text: str = ""
    groups: tuple[Named, ...] = ()
    sites: frozenset[Site] = frozenset()
    forbidden: frozenset[Site] = frozenset()
    mlps: bool = True
    edges: frozenset[Edge] = frozenset()
    names: frozenset[str] = frozenset()
    on: str = ""

    def noted(self, made: Draft, notes: Sequence[str]) -> Draft:
        """A draft with more notes; behind what a person wrote they are comments."""
        if self.text:
            said = ("", "# --- added by discover", *(f"# {note}" for note in notes))
            return replace(made, head=(*made.head, *said))
        head = made.head
        last = max((i for i, line in enumerate(head) if line.startswith("  note")), default=0)
        return replace(made, head=(*head[: last + 1], *(f'  note "{text}"' for text in notes), *head[last + 1 :]))


def given_by(circuit: Circuit, text: str) -> Given:
    """What a person has written of a circuit."""
    whole = membership(circuit)
    groups = tuple(
        Named(group.name, Group(group.nodes, group.positions), group.role, given=True)
        for group in circuit.groups
        if not group.outside and len({node.kind for node in group.nodes} & set(KEYWORDS)) == 1
    )
    outside = {site for group in circuit.groups if group.outside for site in group.sites}
    edges = frozenset(edge for _, member in circuit.edges() for edge in member.edges)
    return Given(
        text,
        groups,
        frozenset(Site(site.node.whole, site.position) for site in whole.sites),
        frozenset(outside),
        whole.mlps or not whole.sites,
        edges,
        frozenset(group.name for group in circuit.groups),
        f" on {circuit.tasks[0].name}" if len(circuit.tasks) > 1 else "",
    )
