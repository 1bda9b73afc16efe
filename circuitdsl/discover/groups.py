"""What a search found, as the groups of a spec: heads by role and position, the others by what they send to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.discover.roles import Placed
from circuitdsl.discover.search import Group

#: the keyword that defines a group of a kind
KEYWORDS = {"head": "heads", "mlp": "mlps"}


@dataclass(frozen=True, slots=True)
class Named:
    """A group with its name in the spec, and the role of its heads."""

    name: str
    group: Group
    role: str | None = None

    @property
    def definition(self) -> str:
        said = f" role {self.role}" if self.role and self.role != self.name else ""
        nodes = " ".join(map(str, self.group.nodes))
        return f"{KEYWORDS[self.group.kind]} {self.name} = {nodes} at {self.group.position}{said}"


def named(senders: Iterable[Group], roles: Mapping[Placed, str]) -> tuple[Named, ...]:
    """Every node in one group for each position at which it acts, in the order in which they were found.

    Heads of one role and position are together; what has no role is with those with which it was found to send first.
    A group is called like its role, with its position where the role has several groups; without one, after its
    position.
    """
    parts: dict[tuple[str, Position, str | int], set[Node]] = {}
    homes: dict[Placed, tuple[str, Position, str | int]] = {}
    for number, group in enumerate(group for group in senders if group.kind in KEYWORDS):
        for node in group.nodes:
            placed = node, group.position
            homes.setdefault(placed, (group.kind, group.position, roles.get(placed, number)))
            parts.setdefault(homes[placed], set()).add(node)
    played = [role for _, _, role in parts]
    result: list[Named] = []
    for (kind, position, role), nodes in parts.items():
        place = f"{position.name.lower()}{'_next' * position.offset}"
        group = Group(tuple(sorted(nodes)), position)
        if isinstance(role, str):
            result.append(Named(role if played.count(role) == 1 else f"{role}_{place}", group, role))
        else:
            base = place if kind == "head" else f"{kind}_{place}"
            taken = {each.name for each in result}
            result.append(Named(next(n for n in (f"{base}_{i}" for i in range(1, 1000)) if n not in taken), group))
    return tuple(result)


def written(group: Group, known: Sequence[Named]) -> str:
    """A set of nodes as the spec names it, by its groups: `inhibition`, `inhibition - 0.7 + end_1`, `m1`."""
    wanted, said = set(group.nodes), list[str]()
    for each in known:
        here = [node for node in each.group.nodes if node in wanted and each.group.position == group.position]
        missing = [node for node in each.group.nodes if node not in here]
        if here:
            wanted -= set(here)
            short = not missing or 1 + len(missing) < len(here)
            said.append(" - ".join([each.name, *map(str, missing)]) if short else _listed(here))
    return " + ".join([*said, *([_listed(sorted(wanted))] if wanted else [])])


def _listed(nodes: Sequence[Node]) -> str:
    listed = " ".join(map(str, nodes))
    return f"({listed})" if len(nodes) > 1 else listed
