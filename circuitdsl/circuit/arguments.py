"""What the measurements of `expect` lines share: arguments by kind, and relations of figures that are read directly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from circuitdsl.circuit.bounds import against, moves, within
from circuitdsl.circuit.criteria import Test
from circuitdsl.circuit.edges import is_before
from circuitdsl.circuit.expressions import Kind, evaluate
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Node, Positions, Site
from circuitdsl.circuit.scope import Members, Scope, complete
from circuitdsl.circuit.vocabulary import Unit
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span, listing, suggest
from circuitdsl.language.syntax_errors import as_node


@dataclass
class Arguments:
    """The arguments of a measurement by kind."""

    sets: list[s.Set] = field(default_factory=list)
    options: list[s.Option] = field(default_factory=list)
    source: list[s.Place] = field(default_factory=list)
    target: list[s.Place] = field(default_factory=list)
    arrows: int = 0
    at: list[s.Place] = field(default_factory=list)
    others: list[s.Syntax] = field(default_factory=list)

    @property
    def nodes(self) -> s.Set:
        """The set arguments as one list."""
        if len(self.sets) == 1:
            return self.sets[0]
        members = tuple(m for each in self.sets for m in (each.members if isinstance(each, s.Items) else (each,)))
        return s.Items(self.sets[0].span.to(self.sets[-1].span), members)


def sort_arguments(arguments: Iterable[s.Argument]) -> Arguments:
    """`attention(9.9, 10.0, S1, S2 -> IO)`: commas part nodes, positions and options alike."""
    found = Arguments()
    for argument in arguments:
        match argument:
            case s.Option():
                found.options.append(argument)
            case s.Place(name=name) if not found.sets and as_node(name):  # `knockout(MLP0)`: it names a node
                found.sets.append(s.GroupRef(argument.span, name))
            case s.NodesAt(nodes=nodes, at=at):
                found.sets.append(nodes)
                if found.at:
                    found.others.append(at)
                found.at += at.places
            case s.Place() if found.at:
                found.at.append(argument)
            case s.Place():
                (found.target if found.arrows else found.source).append(argument)
            case s.PlaceArrow(source=source, target=target):
                found.arrows += 1
                found.source.append(source)
                found.target.append(target)
            case s.Edge() | s.Text():
                found.others.append(argument)
            case _:
                found.sets.append(argument)
    return found


def group_argument(scope: Scope, measurement: s.Measurement, found: Arguments, kind: Kind = "nodes") -> Members | None:
    """The nodes of `NAME(GROUP, …)`, which takes nodes of a kind."""
    if not found.sets:
        name = measurement.name.text
        scope.sink.error("E084", f"{name} needs a group or nodes: {name}(mover …)", measurement.span)
        return None
    return evaluate(scope, found.nodes, kind)


def heads_argument(
    scope: Scope, measurement: s.Measurement, found: Arguments, why: str = "only heads attend", positions: bool = False
) -> tuple[Node, ...] | None:
    """The heads of `NAME(GROUP)`, which takes nothing else but positions; None after a diagnostic was emitted."""
    right = refuse_others(scope, measurement, found, positions=positions, options=False)
    members = group_argument(scope, measurement, found, "heads")
    if members is None:
        return None
    if parts := [str(node) for node in members if node.is_part]:
        message = f"{listing(parts)}: only whole heads attend and copy, not a part of what they write"
    elif others := [str(node) for node in members if node.kind != "head"]:
        message = f"{listing(others)} {'has' if len(others) == 1 else 'have'} no attention pattern: {why}"
    else:
        return tuple(members) if right else None
    scope.sink.error("E076", message, found.nodes.span)
    return None


def attention_arguments(
    scope: Scope, measurement: s.Measurement
) -> tuple[tuple[Node, ...], Positions, Positions] | None:
    """`attention(GROUP, FROM -> TO)`: the heads, and both sides of the arrow."""
    found = sort_arguments(measurement.arguments)
    for edge in found.others:
        if isinstance(edge, s.Edge):  # `attention(mover, end -> io)`
            names, _ = scope.position_names
            upper = [str(end).upper() for end in (edge.sender, edge.receiver)]
            guess = " -> ".join(suggest(end, names) or end for end in upper)
            message = "attention goes from position to position, written in capitals"
            scope.sink.error("E044", message, edge.span, meant=guess)
            return None
    heads = heads_argument(scope, measurement, found, positions=True) if found.sets or found.arrows else None
    if found.arrows != 1:
        message = "attention goes from one position to another: attention(mover, END -> IO)"
        scope.sink.error("E084", message, measurement.span)
        return None
    sources, targets = (positions_argument(scope, places) for places in (found.source, found.target))
    if sources is None or targets is None:
        return None
    if all(is_before(scope, a, b) for a in sources for b in targets):
        message = f"{sources[0]} stands before {targets[0]}: attention cannot look ahead, and is 0 there"
        scope.sink.warning("W072", message, found.source[0].span.to(found.target[-1].span))
    return None if heads is None else (heads, sources, targets)


def positions_argument(scope: Scope, places: Iterable[s.Place]) -> Positions | None:
    """Positions, each once; None where one is wrong, after a diagnostic was emitted."""
    return complete(dict.fromkeys(map(scope.position, places)))


def refuse_others(
    scope: Scope, measurement: s.Measurement, found: Arguments, positions: bool, options: bool, at: bool = False
) -> bool:
    """Whether there is no argument of a kind that the measurement does not take; `at` says where nodes are replaced."""
    strange = [*found.others, *(() if positions else (*found.source, *found.target)), *(() if at else found.at)]
    for argument in strange:
        scope.sink.error("E084", f"{measurement.name.text} takes no argument like this", argument.span)
    unknown = [] if options else found.options
    for option in unknown:
        scope.sink.error("E046", f"{measurement.name.text} takes no option '{option.key.text}'", option.span)
    return not strange and not unknown


def options_of(
    scope: Scope, measurement: s.Measurement, options: Iterable[s.Option], known: Mapping[str, tuple[str, ...]]
) -> dict[str, str] | None:
    """The options of a measurement with their values; None where one is wrong, after a diagnostic was emitted.

    Args:
        known: the options that it takes, each with its values.
    """
    name, errors, given = measurement.name.text, len(scope.sink.found), dict[str, str]()
    for option in options:
        key, value = option.key.text, option.value
        if key not in known:
            scope.sink.unknown("E046", "option", key, option.key.span, known, f" of {name}")
        elif key in given:
            scope.sink.error("E051", f"the option {key} is given twice", option.span)
        elif not isinstance(value, s.Word) or value.text not in known[key]:
            *others, last = known[key]
            scope.sink.error("E047", f"{key} is {listing(others)} or {last}", value.span)
        given[key] = value.text
    return given if len(scope.sink.found) == errors else None


def value_test(scope: Scope, expect: s.Expect, unit: Unit, low: float | None, high: float | None) -> Test | None:
    """The relation of a quantity that is measured as it is."""
    name = expect.measurement.name.text
    if expect.claim:
        message = f"{name} is measured as it is: it takes a relation, not a claim about an effect"
        span = expect.claim[0].span.to(expect.claim[-1].span)
        scope.sink.error("E083", message, span, f"write: expect {name} >= …")
        return None
    if isinstance(expect.relation, s.Change) and scope.under:
        return moves(scope, expect.relation, unit, name)
    if expect.relation is None:
        message = f"nothing is expected of {name}"
        scope.sink.error("E083", message, expect.measurement.span, "add a relation such as >= …")
        return None
    if isinstance(expect.relation, s.Against):
        return against(scope, expect.relation, unit, "delta", name, low, high)
    return within(scope, expect.relation, unit, "value", name, low, high)


def sites_of(scope: Scope, members: Members, span: Span, at: Iterable[s.Place] = ()) -> tuple[Site, ...] | None:
    """Where nodes are replaced: at the given positions, else at their own, or everywhere."""
    if LOGITS in members:
        scope.sink.error("E076", "logits writes nothing: it cannot be knocked out", span)
        return None
    if (given := scope.places(s.At(span, tuple(at)))) is None:
        return None
    return tuple(Site(node, place) for node, places in members.items() for place in given or places or (EVERYWHERE,))
