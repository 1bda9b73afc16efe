"""The nodes of a circuit in groups that a person would have made, called after what they do.

Heads of one role are together. Of the other nodes, those of one kind are that act at one place and look at the same
one, or those that act at nearly the same places, where that makes clearly fewer groups. A group is called like its
role, or `yy_reader` where its heads attend to YY, `copier` where they attend to where they are, `carrier` where they
act at several places, `writer` where they look at no place that the task names. MLPs are the `decider` at END, a
`mixer` elsewhere. The place is added where two groups would have one name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from circuitdsl.circuit.nodes import Node, NodeKind, Position, Site
from circuitdsl.discover.places import END, tokens_of, word
from circuitdsl.discover.roles import Placed
from circuitdsl.discover.search import Group
from circuitdsl.engine.prompts import Prompts
from circuitdsl.language.parse import is_reserved
from circuitdsl.measurements.attention import Attention
from circuitdsl.verify.measure import measure

Array = np.ndarray
K = TypeVar("K")
#: heads that give a position less of their attention are not said to attend to it
ATTENDS = 0.3
#: one that has this share of the most attention has nearly as much
NEARLY = 0.9
#: nodes at several places are together where that makes less than this share of the groups of single places
FEWER = 0.85
#: nodes at several places are together where they share this share of the places of either
ALIKE = 0.6
#: prompts that say what heads look at
LOOKS = 32
#: the keyword that defines a group of a kind
KEYWORDS = {"head": "heads", "mlp": "mlps"}


@dataclass(frozen=True, slots=True)
class Named:
    """A group with its name in the spec, and the role of its heads.

    Attributes:
        given: a person has written it already.
    """

    name: str
    group: Group
    role: str | None = None
    given: bool = False

    @property
    def definition(self) -> str:
        said = f" role {self.role}" if self.role and self.role != self.name else ""
        keyword = "features" if self.group.nodes[0].of else KEYWORDS[self.group.kind]
        return f"{keyword} {self.name} = {self.group}{said}"

    @property
    def claim(self) -> str:
        return f"expect role({self.name})"


def looks(prompts: Prompts, sites: Collection[Site], where: Sequence[Position]) -> dict[Site, Position]:
    """What heads attend to most, from where they act; not those that give no position enough of their attention.

    Places that a person would say a head looks at are those that the task names, and the tokens beside them.
    """
    near = [place for place in where if place != END and abs(place.offset) <= 1]
    heads = {site: ((site.node,), site.position) for site in sorted(sites) if site.node.kind == "head"}
    means = {
        site: {target: float(values.mean()) for target, values in here.items()}
        for site, here in attended(prompts, heads, near, LOOKS).items()
    }
    return {site: target for site, here in means.items() if (target := looks_at(prompts, here)) is not None}


def attended(
    prompts: Prompts, heads: Mapping[K, tuple[tuple[Node, ...], Position]], where: Sequence[Position], many: int
) -> dict[K, dict[Position, Float[Array, " n"]]]:
    """How much of their attention some heads give from a place to each other one that half of the prompts have.

    Args:
        many: prompts to look at, at most.
    """
    requests = {
        Attention(nodes, (place,), (target,)): (key, target)
        for key, (nodes, place) in heads.items()
        for target in where
    }
    series = measure(prompts, list(requests), np.arange(min(many, len(prompts.pairs))))
    found: dict[K, dict[Position, Float[Array, " n"]]] = {}
    for request, (key, target) in requests.items():
        one = series[request].only(series[request].present)
        if len(one.values) >= len(series[request].indices) / 2:
            found.setdefault(key, {})[target] = one.values
    return found


def looks_at(prompts: Prompts, attention: Mapping[Position, float]) -> Position | None:
    """Where most of some attention goes, if that is enough; of places with nearly as much, that of fewest tokens."""
    most = max(attention.values(), default=0.0)
    if most < ATTENDS:
        return None
    near = [place for place, value in attention.items() if value >= NEARLY * most]
    return min(near, key=lambda place: np.mean([len(tokens_of(pair, place)) for pair in prompts.pairs]))


def named(
    sites: Collection[Site],
    roles: Mapping[Placed, str],
    targets: Mapping[Site, Position],
    taken: Collection[str] = (),
) -> tuple[Named, ...]:
    """The groups of a circuit's nodes; each node is in one for each place at which it acts.

    Args:
        targets: what heads attend to.
        taken: names that other groups have.
    """
    parts: dict[tuple[str, Group], str | None] = {}
    with_role = {Site(node, place): role for (node, place), role in roles.items()}
    for site in sorted(sites):
        if role := with_role.get(site):
            alike = (each for each in sites if with_role.get(each) == role and each.position == site.position)
            parts[role, Group(tuple(sorted(each.node for each in alike)), (site.position,))] = role
    rest = [site for site in sites if site not in with_role]
    for group in _alike(rest, targets):
        parts[_called(group, targets), group] = None
    names = list(_distinct([(called, group) for called, group in parts], set(taken)))
    return tuple(Named(name, group, role) for name, ((_, group), role) in zip(names, parts.items(), strict=True))


def _alike(sites: Collection[Site], targets: Mapping[Site, Position]) -> list[Group]:
    """Nodes of one kind that act at one place and look at the same one, or, where fewer, at the same places."""
    ordered = sorted(sites)
    where: dict[Node, tuple[Position, ...]] = {}
    for site in ordered:
        where[site.node] = (*where.get(site.node, ()), site.position)
    ways: list[list[Group]] = []
    kinds: tuple[Callable[[Site], tuple[Position, ...]], ...] = (lambda s: where[s.node], lambda s: (s.position,))
    for places_of in kinds:
        found: dict[tuple[NodeKind, tuple[Position, ...], Position | None], dict[Node, None]] = {}
        for site in ordered:
            places = places_of(site)
            target = targets.get(site) if len(places) == 1 else None
            found.setdefault((site.node.kind, places, target), {})[site.node] = None
        ways.append([Group(tuple(nodes), places) for (_, places, _), nodes in found.items()])
    by_places, by_place = _together(ways[0]), ways[1]
    return by_places if len(by_places) < FEWER * len(by_place) else by_place


def _together(groups: Sequence[Group]) -> list[Group]:
    """Groups at several places, those as one that act at nearly the same: at all places of either then."""
    found = list[Group]()
    for group in groups:
        for i, known in enumerate(found):
            places = dict.fromkeys((*known.positions, *group.positions))
            shared = set(known.positions) & set(group.positions)
            several = min(len(known.positions), len(group.positions)) > 1 and known.kind == group.kind
            if several and len(shared) >= ALIKE * len(places):
                found[i] = Group((*known.nodes, *group.nodes), tuple(places))
                break
        else:
            found.append(group)
    return found


def _called(group: Group, targets: Mapping[Site, Position]) -> str:
    """What a group does, in a word."""
    if group.kind == "mlp":
        return "decider" if group.positions == (END,) else "mixer"
    if len(group.positions) > 1:
        return "carrier"
    target = targets.get(Site(group.nodes[0], group.positions[0]))
    if target is None:
        return "writer"
    return "copier" if target == group.positions[0] else f"{word(target)}_reader"


def _distinct(called: Sequence[tuple[str, Group]], taken: set[str]) -> Iterator[str]:
    """Names that are no one else's: with the place where there is one, then with a number."""
    often = Counter(name for name, _ in called)
    for name, group in called:
        alone = often[name] == 1 or len(group.positions) > 1
        wanted = name if alone else f"{name}_{word(group.positions[0])}"
        free = (f"{wanted}{end}" for end in ("", *(f"_{i}" for i in range(2, 1000))))
        found = next(one for one in free if one not in taken and not is_reserved(one))
        taken.add(found)
        yield found


def written(nodes: Sequence[Node], groups: Sequence[Named], positions: Sequence[Position]) -> str:
    """Nodes that act at some positions as the spec names them: `mover`, `(mover - 9.9)`, `m1`, `(9.9 10.0)`."""
    for each in groups:
        if set(nodes) <= set(each.group.nodes) and set(positions) <= set(each.group.positions):
            missing = [node for node in each.group.nodes if node not in nodes]
            if not missing:
                return each.name
            if 1 + len(missing) < len(nodes):
                return f"({' - '.join([each.name, *map(str, missing)])})"
    listed = " ".join(map(str, nodes))
    return f"({listed})" if len(nodes) > 1 else listed
