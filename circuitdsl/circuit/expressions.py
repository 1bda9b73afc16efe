"""Groups and set expressions to nodes, each with the positions at which it acts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from circuitdsl.circuit.claims import Group
from circuitdsl.circuit.features import feature_of
from circuitdsl.circuit.nodes import EVERYWHERE, Node, Positions, Site
from circuitdsl.circuit.overlaps import REMEDY, clash
from circuitdsl.circuit.scope import Members, Scope, add
from circuitdsl.circuit.vocabulary import ROLES
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span, listing, shorten
from circuitdsl.language.syntax_errors import as_node

#: what a list is of: heads, MLPs, or both
Kind = Literal["heads", "mlps", "nodes", "features"]
#: groups that are defined through one another, and members of the wrong kind that are named
MAX_CHAIN, MAX_WRONG = 100, 50


def evaluate(scope: Scope, node: s.Set, kind: Kind = "nodes") -> Members | None:
    """The nodes of a set in the order written; None after a diagnostic was emitted.

    Args:
        kind: what `all` is all of.
    """
    match node:
        case s.Head() | s.Mlp() | s.Resid() | s.Special():
            if scope.itself is not None and isinstance(node, s.Special) and node.name == "self":
                return dict(scope.itself)
            found = scope.node(node)
            return None if found is None else {found: _home(scope, found)}
        case s.Feature():
            one = feature_of(scope, node)
            return None if one is None else {one: scope.homes.get(one)}
        case s.GroupRef(name=name) if name in scope.dictionaries and name not in scope.definitions:
            if scope.dictionaries[name] is not None:
                scope.sink.error(
                    "E065", f"{name} is a dictionary, and no node", node.span, f"name a feature: {name}[0]"
                )
            return None
        case s.Layer(layer=layer):
            shape = scope.sized(node)
            if shape is None or not scope.in_range(Node("head", layer, 0), node.span, str(node)):
                return None
            return _every(scope, node, "heads", shape.n_heads, range(layer, layer + 1))
        case s.GroupRef(name="all") if "all" not in scope.definitions:
            shape = scope.sized(node)
            return None if shape is None else _every(scope, node, kind, shape.n_heads, range(shape.n_layers))
        case s.GroupRef(name=name) if scope.itself is not None and name in scope.roles:
            if not scope.affords(len(scope.definitions), node.span):
                return None
            of_role = scope.nodes_of_role(name)
            if not of_role:
                scope.sink.error("E041", f"the circuit has no group of the role {name}", node.span)
            return of_role or None
        case s.GroupRef(name=name) if name in scope.definitions:
            members = _group_members(scope, node)
            return members if scope.affords(len(members or ()), node.span) else None
        case s.GroupRef(name=name):
            scope.unknown_group(node)
            return None
        case s.Items(members=members):
            return _combine(scope, node, ("+",) * len(members), members, kind)
        case s.Sum(signs=signs, operands=operands):
            return _combine(scope, node, signs, operands, kind)
        case s.Brackets(inner=inner):
            return evaluate(scope, inner, kind)
    message = f"'.{node.port.text}' stands only at the end of an edge's receiver"
    head = as_node(str(node))
    scope.sink.error("E071", message, node.span if head else node.port.span, meant=head)
    return None


def _home(scope: Scope, node: Node) -> Positions | None:
    """Where a node acts that is named alone."""
    return scope.homes.get(node) or scope.homes.get(node.whole)


def _every(scope: Scope, written: s.Set, kind: Kind, n_heads: int, layers: range) -> Members | None:
    """Every node of a kind in some layers, as if each were written out."""
    if not scope.affords(len(layers) * (n_heads + 1), written.span):
        return None
    heads = range(n_heads) if kind != "mlps" else ()
    found: list[Node] = []
    for layer in layers:
        found += [Node("head", layer, head) for head in heads]
        found += [Node("mlp", layer)] * (kind != "heads")
    return {node: _home(scope, node) for node in found}


def _combine(
    scope: Scope, whole: s.Set, signs: Iterable[str], operands: tuple[s.Set, ...], kind: Kind
) -> Members | None:
    """Union and difference from left to right; every operand is looked at, so that all mistakes are found."""
    found: Members = {}
    by_name: dict[Node, str] = {}
    named: set[str] = set()
    wrong = False
    for sign, operand in zip(signs, operands, strict=True):
        members = evaluate(scope, operand, kind)
        if members is None or not scope.affords(5 * len(members if sign == "+" else found), operand.span):
            wrong = True
        elif sign == "+":
            _named_twice(scope, operand, members, found, by_name, named)
            add(found, members)
        elif not wrong:
            if absent := [str(node) for node in members if node not in found]:
                left = str(whole).rpartition(f" - {operand}")[0]
                scope.sink.error("E052", f"{shorten(left)} does not hold {listing(absent)}", operand.span)
                wrong = True
            found = {node: places for node, places in found.items() if node not in members}
    for part in [node for node in found if node.is_part and node.whole in found]:
        scope.sink.error("E051", f"{part} is part of {part.whole}, which is named too", whole.span)
        wrong = True
    if message := clash((), found):
        scope.sink.error("E051", message, whole.span, REMEDY)
        wrong = True
    if not wrong and not found:
        scope.sink.error("E056", f"{whole} is empty", whole.span)
        wrong = True
    return None if wrong else found


def _named_twice(
    scope: Scope, operand: s.Set, members: Members, found: Members, by_name: dict[Node, str], named: set[str]
) -> None:
    """A name may stand once in a list; groups that overlap may both stand there."""
    name = str(operand)
    twice = None
    if name in named:
        twice = f"{name} is named twice"
    elif isinstance(operand, s.Head | s.Mlp | s.Resid | s.Feature) and next(iter(members)) in found:
        twice = f"{name} is named twice: it is in {by_name[next(iter(members))]}"
    elif isinstance(operand, s.GroupRef | s.Layer):
        again = [node for node in members if by_name.get(node) == str(node)]
        if again:
            twice = f"{again[0]} is named twice: it is in {name}"
    named.add(name)
    for node in members:
        by_name.setdefault(node, name)
    if twice and twice not in named:
        named.add(twice)
        scope.sink.error("E051", twice, operand.span)


def _group_members(scope: Scope, ref: s.GroupRef) -> Members | None:
    """The members of a defined group, worked out when first asked for."""
    name = ref.name
    if name in scope.groups:
        return scope.groups[name]
    open_groups = list(scope.resolving)
    if name in open_groups:
        circle = " -> ".join([*open_groups[open_groups.index(name) :], name])
        message = f"the group {name} is defined through itself: {circle}"
    elif len(open_groups) >= MAX_CHAIN:
        message = f"more than {MAX_CHAIN} groups are defined through one another"
    else:
        return resolve_group(scope, scope.definitions[name])
    scope.sink.error("E053", message, ref.span)
    return None


def resolve_group(scope: Scope, group: s.Group) -> Members | None:
    """The members of a group with their positions: the group's own, or those its parts have."""
    name = group.name.text
    scope.resolving[name] = None
    members = evaluate(scope, group.members, group.kind)  # type: ignore[arg-type]
    scope.resolving.pop(name)
    for extra in group.at[1:]:
        scope.sink.error("E054", "a second 'at'; several positions are written: at S1, S2", extra.span)
    positions = scope.places(group.at[0]) if group.at else None
    right = members is not None and _right_kind(scope, group, members)
    if not right or (group.at and positions is None):
        members = None
    elif members is not None and positions is not None:
        members = dict.fromkeys(members, positions)
    scope.groups[name] = members
    return members


def _right_kind(scope: Scope, group: s.Group, members: Members) -> bool:
    """Whether all members are of the kind that the group lists; `nodes` lists any."""
    kind = {"heads": "head", "mlps": "mlp"}.get(group.kind)
    wrong = [node for node in members if (group.kind == "features") != bool(node.of) and group.kind != "nodes"]
    wrong += [node for node in members if kind and not node.of and node.kind != kind]
    written = s.walk_to(group.members, s.Head, s.Mlp, s.Resid, s.Feature, s.Special)
    places = {str(part): part.span for part in reversed([*written])}
    by_place: dict[Span, list[Node]] = {}
    for node in wrong:
        by_place.setdefault(places.get(str(node), group.members.span), []).append(node)
    for where, nodes in [*by_place.items()][:MAX_WRONG]:
        what = {"head": "a head", "mlp": "an MLP"}.get(nodes[0].kind, "neither a head nor an MLP")
        what = "a feature" if nodes[0].of else what
        more = "" if len(nodes) == 1 else f" ({len(nodes)} of its members do not fit)"
        help = f"write: nodes {group.name.text} = …"
        scope.sink.error("E074", f"{nodes[0]} is {what}, and the group lists {group.kind}{more}", where, help)
    return not wrong


def role_of(scope: Scope, group: s.Group) -> str | None:
    """The group's role: the one that its line gives, else a built-in or defined one of the same name."""
    for extra in group.roles[1:]:
        scope.sink.error("E054", "a second 'role'; a group has one", extra.span)
    if not group.roles:
        return group.name.text if group.name.text in ROLES or group.name.text in scope.roles else None
    role, span = group.roles[0].text, group.roles[0].span
    if role == "none" or role in scope.roles or scope.imports:
        return None if role == "none" else role
    scope.sink.unknown("E041", "role", role, span, scope.roles)
    return None


def record(group: s.Group, members: Members, role: str | None) -> Group:
    """The group as a record; its positions are those all its members share."""
    shared = set(members.values())
    positions = shared.pop() if len(shared) == 1 else None
    sites = tuple(Site(node, place) for node, places in members.items() for place in places or (EVERYWHERE,))
    return Group(group.name.text, tuple(members), positions or (), role, group.outside, group.span.line, sites)


def find_homes(scope: Scope) -> None:
    """Find where a node acts when it is named alone: where its groups act, if they agree."""
    inside = {name: members for name, members in scope.groups.items() if not scope.definitions[name].outside}
    scope.homes, scope.any_homes = _agreed(inside.values()), _agreed(scope.groups.values())
    for members in scope.groups.values():
        for node, positions in (members or {}).items():
            scope.places_of.setdefault(node, set()).update(positions or ())


def _agreed(groups: Iterable[Members | None]) -> dict[Node, Positions]:
    places: dict[Node, set[Positions]] = {}
    for members in groups:
        for node, positions in (members or {}).items():
            if positions:
                places.setdefault(node, set()).add(positions)
    return {node: next(iter(at)) for node, at in places.items() if len(at) == 1}
