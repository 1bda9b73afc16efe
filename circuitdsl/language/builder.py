"""From grammar rules to syntax nodes: Lark calls these methods while it parses.

Every token is kept, so a node's span reaches from its first child to its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from lark import Transformer

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span, as_span
from circuitdsl.language.lexer import Token

Child = Any
#: as tuples, which are looked through faster than the unions
_CLAIM, _RELATION = get_args(s.ClaimPart), get_args(s.Relation)


def span(children: Sequence[Child]) -> Span:
    """From the first child to the last."""
    first: Span = children[0].span
    if len(children) == 1:
        return first
    last = children[-1].span
    return as_span((first[0], first[1], last[2], last[3]))


def first(children: Sequence[Child], kind: Any) -> Any:
    """The first child of a kind, or None."""
    for child in children:
        if isinstance(child, kind):
            return child
    return None


def every(children: Sequence[Child], kind: Any) -> tuple[Any, ...]:
    return tuple([child for child in children if isinstance(child, kind)])


def has(children: Sequence[Child], *kinds: str) -> bool:
    return any(isinstance(c, Token) and c.type in kinds for c in children)


def _ends(children: Sequence[Child]) -> dict[str, Any]:
    """What may stand at the end of a claim."""
    kinds = {"where": s.Where, "citation": s.Text, "gap": s.KnownGap}
    return {name: first(children, kind) for name, kind in kinds.items()}


#: what stands for an index of more digits, since Python refuses to read very long ones; it is too large as well
TOO_LONG = 10**18


def whole(digits: str) -> int:
    return int(digits) if len(digits) <= 18 else TOO_LONG


def index(token: Token) -> int | str:
    """What stands in the brackets behind a node: a number, or the name of a direction."""
    return whole(token) if token.type == "INT" else str(token)


class Builder(Transformer[Token, Any]):
    """Makes the nodes of `syntax.py`: one method for each rule. Rules whose nodes are made alike stand at the end."""

    def language(self, c: list[Child]) -> s.Language:
        return s.Language(span(c), whole(c[1]))

    def model(self, c: list[Child]) -> s.Model:
        return s.Model(span(c), c[1], every(c, s.Option))

    def task(self, c: list[Child]) -> s.Task:
        *name, generator = every(c, s.Word)
        return s.Task(span((c[0], generator)), first(name, s.Word), generator, first(c, tuple) or ())

    def metric(self, c: list[Child]) -> s.Metric:
        return s.Metric(span(c[:2]), c[1], first(c, tuple) or ())

    def group(self, c: list[Child]) -> s.Group:
        more = c[4:]
        return s.Group(span(c), str(c[0]), c[1], c[3], every(more, s.At), every(more, s.Word), has(more, "OUTSIDE"))

    def sum(self, c: list[Child]) -> s.Sum:
        return s.Sum(span(c), ("+", *map(str, c[1::2])), tuple(c[::2]))

    def with_port(self, c: list[Child]) -> s.WithPort:
        return s.WithPort(span(c), c[0], s.Word(c[1].span, c[1][1:]))

    def head(self, c: list[Child]) -> s.Head:
        layer, head = map(whole, c[0].split("."))
        return s.Head(span(c[:1]), layer, head, *map(index, c[2:3]))

    def layer(self, c: list[Child]) -> s.Layer:
        return s.Layer(span(c), whole(c[0][:-2]))

    def mlp(self, c: list[Child]) -> s.Mlp:
        return s.Mlp(span(c[:1]), whole(c[0][1:]), *map(index, c[2:3]))

    def resid(self, c: list[Child]) -> s.Resid:
        return s.Resid(span(c[:1]), whole(c[0].removeprefix("resid")), *map(index, c[2:3]))

    def special(self, c: list[Child]) -> s.Special:
        return s.Special(span(c[:1]), str(c[0]), *map(index, c[2:3]))

    def direction(self, c: list[Child]) -> s.Direction:
        return s.Direction(span(c[:4]), c[1], c[3], c[4])

    def feature(self, c: list[Child]) -> s.Feature:
        return s.Feature(span(c), str(c[0]), s.Word(c[2].span, str(c[2])))

    def dictionary(self, c: list[Child]) -> s.Dictionary:
        return s.Dictionary(span(c[:4]), c[1], c[3], first(c, tuple) or ())

    def nodes_at(self, c: list[Child]) -> s.NodesAt:
        return s.NodesAt(span(c), c[0], s.At(span(c[1:]), (c[2],)))

    def place(self, c: list[Child]) -> s.Place:
        offset = 0 if len(c) == 1 else whole(c[2]) * (1 if c[1].type == "PLUS" else -1)
        return s.Place(span(c), str(c[0]), offset)

    lower_place = place

    def edge(self, c: list[Child]) -> s.Edge:
        place = first(c, s.Place)  # an edge that is an argument has one position: a comma would end it
        at = s.At(place.span, (place,)) if place else first(c, s.At)
        return s.Edge(span(c), c[0], c[2], at, first(c, s.Protocol))

    edge_argument = edge

    def protocol(self, c: list[Child]) -> s.Protocol:
        way = has(c, "VIA") if has(c, "VIA", "DIRECT") else None
        return s.Protocol(span(c), way, str(c[-1]) if has(c, "ABLATE") else None)

    def edge_claim(self, c: list[Child]) -> s.EdgeClaim:
        each, edge = has(c, "EACH"), first(c, s.Edge)
        claim, on = every(c, _CLAIM), first(c, s.Word)
        return s.EdgeClaim(span(c), each, edge, claim, on, **_ends(c))

    def path(self, c: list[Child]) -> s.Path:
        return s.Path(span(c), c[0], tuple(c[1:]))

    def hop(self, c: list[Child]) -> s.Hop:
        return s.Hop(span(c), c[1], first(c, s.At))

    def path_claim(self, c: list[Child]) -> s.PathClaim:
        each, path = has(c, "EACH"), first(c, s.Path)
        claim, on = every(c, _CLAIM), first(c, s.Word)
        return s.PathClaim(span(c), each, path, claim, on, **_ends(c))

    def expect(self, c: list[Child]) -> s.Expect:
        relation, claim, on = first(c, _RELATION), every(c, _CLAIM), first(c, s.Word)
        return s.Expect(span(c), c[1], relation, claim, on, **_ends(c))

    def measurement(self, c: list[Child]) -> s.Measurement:
        return s.Measurement(span(c), s.Word(c[0].span, str(c[0])), every(c, s.Syntax))

    knockout = measurement

    def against(self, c: list[Child]) -> s.Against:
        return s.Against(span(c), str(c[0]), c[1], first(c, s.Number), has(c, "TIMES"))

    def options(self, c: list[Child]) -> tuple[Child, ...]:
        return every(c, s.Syntax)

    places = options

    def channel(self, c: list[Child]) -> s.Channel:
        sender, receiver, *_ = every(c, s.Syntax)
        claim, apart = every(c, s.Composition), first(c, s.Apart)
        return s.Channel(span(c), has(c, "EACH"), sender, receiver, apart, claim, **_ends(c))

    def composition(self, c: list[Child]) -> s.Composition:
        quantity, kind = (*(s.Word(part.span, str(part)) for part in c[:-1]), None)[:2]
        return s.Composition(span(c), quantity, kind, c[-1])  # type: ignore[arg-type]

    def trace(self, c: list[Child]) -> s.Trace:
        return s.Trace(span(c), c[1], c[2], c[4], c[6], first(c, s.At), **_ends(c))

    def property(self, c: list[Child]) -> s.Property:
        return s.Property(span(c), c[1], first(c, s.Number), first(c, s.Word), gap=first(c, s.KnownGap))

    def text(self, c: list[Child]) -> s.Text:
        return s.Text(span(c), c[0][1:-1] if c[0].endswith('"') else c[0][1:])

    def number(self, c: list[Child]) -> s.Number:
        unit = {"PERCENT": "%", "POINTS": "points"}.get(c[-1].type, "")
        digits = "".join(c[:-1] if unit else c)
        return s.Number(span(c), float(digits), unit, digits + (" points" if unit == "points" else unit))

    def _of_nodes(kind: Any) -> Any:
        """The fields are the nodes inside, in the order written; keywords and signs are left out."""
        return lambda self, c: kind(span(c), *every(c, s.Syntax))

    def _of_list(kind: Any) -> Any:
        """The only field is a tuple of the nodes inside."""
        return lambda self, c: kind(span(c), every(c, s.Syntax))

    def _of_word(kind: Any) -> Any:
        """The first field is the first token as it is written; the others are the nodes inside."""
        return lambda self, c: kind(span(c), str(c[0]), *(every(c, s.Syntax) if len(c) > 1 else ()))

    circuit, use, margin, protocol_line = map(_of_nodes, (s.Circuit, s.Use, s.Margin, s.ProtocolLine))
    apart = _of_nodes(s.Apart)
    patched, knocked_out = map(_of_nodes, (s.WhenPatched, s.WhenKnockedOut))
    when_patched, when_knocked_out, compare = map(_of_nodes, (s.WhenPatched, s.WhenKnockedOut, s.Compare))
    role, intervention, known_gap = map(_of_nodes, (s.Role, s.Intervention, s.KnownGap))
    set_attention, scale, replace, project_out = map(_of_nodes, (s.SetAttention, s.Scale, s.Replace, s.ProjectOut))
    brackets, place_arrow, stronger, between = map(_of_nodes, (s.Brackets, s.PlaceArrow, s.Stronger, s.Between))
    above_chance, agree, option, setting = map(_of_nodes, (s.AboveChance, s.Agree, s.Option, s.Option))
    items, bare_items, at, where, when_both = map(_of_list, (s.Items, s.Items, s.At, s.Where, s.WhenBoth))
    info, word, group_ref = map(_of_word, (s.Info, s.Word, s.GroupRef))
    plain_claim, bound, compared, change = map(_of_word, (s.PlainClaim, s.Bound, s.Compared, s.Change))
