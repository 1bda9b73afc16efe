"""How much two circuits have in common: component reuse, after Merullo et al. 2023 (arXiv 2310.08744, section 4).

Overlap is that of heads, whatever their positions: those belong to the tasks, and have other names there. It says
little by itself, for two circuits in the same layers of a small model share heads by accident. So it is compared with
its chance level: random sets of heads with as many heads in each layer as the circuits have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import comb
from typing import Generic, TypeVar

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import Input, Node

T = TypeVar("T", bound=Hashable)

#: an overlap is above chance when random ones reach it less often than this
RARE = 0.05


@dataclass(frozen=True, slots=True)
class Overlap(Generic[T]):
    """Two sets and what they share."""

    first: frozenset[T]
    second: frozenset[T]

    @property
    def shared(self) -> frozenset[T]:
        return self.first & self.second

    @property
    def jaccard(self) -> float:
        """Intersection over union; 0 for two empty sets."""
        union = len(self.first | self.second)
        return len(self.shared) / union if union else 0.0

    @property
    def of_first(self) -> float:
        """The share of the first set that the second has too."""
        return len(self.shared) / len(self.first) if self.first else 0.0


@dataclass(frozen=True, slots=True)
class Chance:
    """What random sets of heads with the same number in each layer share.

    Attributes:
        expected: heads shared on average.
        jaccard: the overlap that goes with it.
        p: how often random sets share at least as many heads as the circuits do.
    """

    expected: float
    jaccard: float
    p: float

    @property
    def exceeded(self) -> bool:
        return self.p <= RARE


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two circuits side by side.

    Attributes:
        heads: their heads, without positions.
        edges: (sender, receiver input) of their edges, without positions.
        chance: the chance level of the overlap of heads; None where the model's shape is not known.
        roles: for every shared head that has a role in both, the two roles.
    """

    first: str
    second: str
    heads: Overlap[Node]
    edges: Overlap[tuple[Node, Input]]
    chance: Chance | None
    roles: tuple[tuple[Node, str, str], ...]
    first_roles: tuple[tuple[Node, str], ...]
    second_roles: tuple[tuple[Node, str], ...]

    @property
    def disagreements(self) -> tuple[tuple[Node, str, str], ...]:
        """Shared heads that play one role here and another there."""
        return tuple(each for each in self.roles if each[1] != each[2])

    def by_role(self) -> dict[str, tuple[frozenset[Node], frozenset[Node]]]:
        """For every role (or group, where it has none): the heads that play it in each of the circuits."""
        sides = (self.first_roles, self.second_roles)
        names = dict.fromkeys(role for side in sides for _, role in side)
        here, there = ({name: frozenset(n for n, role in side if role == name) for name in names} for side in sides)
        return {name: (here[name], there[name]) for name in names}

    def by_layer(self) -> dict[int, tuple[int, int, int]]:
        """For every layer with heads of either: (only in the first, shared, only in the second)."""
        both = self.heads
        parts = (both.first - both.second, both.shared, both.second - both.first)
        first, shared, second = (Counter(node.layer for node in part) for part in parts)
        return {layer: (first[layer], shared[layer], second[layer]) for layer in sorted(first + shared + second)}


def compare(first: Circuit, second: Circuit, n_heads: int | None) -> Comparison:
    """Compare two circuits of one model.

    Args:
        n_heads: heads in a layer of the model, for the chance level; None where that is not known.
    """
    heads = Overlap(heads_of(first), heads_of(second))
    mine, theirs = (dict(roles_of(circuit)) for circuit in (first, second))
    both = tuple((node, mine[node], theirs[node]) for node in sorted(heads.shared) if node in mine and node in theirs)
    edges, by_chance = Overlap(edges_of(first), edges_of(second)), chance(heads, n_heads) if n_heads else None
    first_roles, second_roles = (tuple(parts_of(circuit)) for circuit in (first, second))
    return Comparison(first.name, second.name, heads, edges, by_chance, both, first_roles, second_roles)


def heads_of(circuit: Circuit) -> frozenset[Node]:
    """The heads of a circuit: those of its groups (but for groups `outside`) and of its edges."""
    sites = [(node.whole, group.outside) for group in circuit.groups for node in group.nodes]
    inside, outside = ({node for node, out in sites if out == side} for side in (False, True))
    ends = {end for sender, receiver in edges_of(circuit) for end in (sender, receiver.node)}
    return frozenset(node for node in inside | (ends - outside) if node.kind == "head")


def edges_of(circuit: Circuit) -> frozenset[tuple[Node, Input]]:
    """Every (sender, receiver input) that the circuit claims to be more than negligible."""
    return frozenset((edge.sender.whole, edge.receiver) for edge in circuit.own_edges())


def roles_of(circuit: Circuit) -> Iterable[tuple[Node, str]]:
    """Heads with the roles that groups give them, whatever the order of the groups."""
    found: dict[Node, set[str]] = {}
    for group in circuit.groups:
        if group.role and not group.outside:
            for node in group.nodes:
                found.setdefault(node.whole, set()).add(group.role)
    return [(node, " and ".join(sorted(roles))) for node, roles in found.items()]


def parts_of(circuit: Circuit) -> Iterable[tuple[Node, str]]:
    """Every head of the circuit with its roles, else with the name of its group, else with a dash."""
    inside = [group for group in reversed(circuit.groups) if not group.outside]
    named = {node.whole: group.name for group in inside for node in group.nodes} | dict(roles_of(circuit))
    return [(node, named.get(node, "–")) for node in sorted(heads_of(circuit))]


def chance(heads: Overlap[Node], n_heads: int) -> Chance:
    """The chance level of an overlap: independent random sets with the same number of heads in every layer.

    In a layer of H heads of which the circuits have a and b, the number shared is hypergeometric; the total is the sum
    over layers, and its distribution is computed exactly.
    """
    from numpy import arange, convolve, ones

    a, b = (Counter(node.layer for node in side) for side in (heads.first, heads.second))
    total = ones(1)
    for layer in sorted(a.keys() & b.keys()):
        m, n = a[layer], b[layer]
        ways = [comb(m, shared) * comb(n_heads - m, n - shared) for shared in range(min(m, n) + 1)]
        total = convolve(total, [way / comb(n_heads, n) for way in ways])
    expected = float(total @ arange(len(total)))
    sizes = len(heads.first) + len(heads.second)
    jaccard = float(sum(p * k / (sizes - k) for k, p in enumerate(total) if sizes > k))
    return Chance(expected, jaccard, min(1.0, float(total[len(heads.shared) :].sum())))
