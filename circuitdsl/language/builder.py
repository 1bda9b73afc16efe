"""Grammar rules to syntax nodes: one method a rule, called by Lark while it parses.

Every token is kept, so a node's span reaches from its first child to its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from lark import Token, Transformer

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span
from circuitdsl.language.lexer import span_of

Child = Any
T = TypeVar("T")


def span(children: Sequence[Child]) -> Span:
    """From the first child to the last."""
    first, last = children[0], children[-1]
    begins = (first.line, first.column) if isinstance(first, Token) else first.span[:2]
    ends = (last.end_line, last.end_column) if isinstance(last, Token) else last.span[2:]
    return Span(*begins, *ends)


def start(child: Child) -> Span:
    return span_of(child) if isinstance(child, Token) else child.span


def first(children: Sequence[Child], kind: type[T]) -> T | None:
    """The first child of a kind, or None."""
    return next((c for c in children if isinstance(c, kind)), None)


def every(children: Sequence[Child], kind: Any) -> tuple[Any, ...]:
    return tuple(c for c in children if isinstance(c, kind))


def token(children: Sequence[Child], kind: str) -> Token | None:
    return next((c for c in children if isinstance(c, Token) and c.type == kind), None)


def has(children: Sequence[Child], *kinds: str) -> bool:
    return any(isinstance(c, Token) and c.type in kinds for c in children)


def text_of(string: Token | None) -> s.Text | None:
    return None if string is None else s.Text(span_of(string), string[1:-1] if string.endswith('"') else string[1:])


def final_text(children: Sequence[Child]) -> s.Text | None:
    """The citation or title at the end of a statement."""
    return text_of(children[-1]) if has(children[-1:], "STRING") else None


def whole(digits: str) -> int:
    """An index as an int; absurdly long ones stay merely too large, for Python refuses to read them."""
    return int(digits) if len(digits) <= 18 else 10**18


class Builder(Transformer[Token, Any]):
    """Makes the nodes of `syntax.py`."""

    # -- header

    def circuit(self, c: list[Child]) -> s.Circuit:
        return s.Circuit(span(c), c[1], final_text(c))

    def info(self, c: list[Child]) -> s.Info:
        text = text_of(c[1])
        assert text is not None
        return s.Info(span(c), str(c[0]), text)

    def language(self, c: list[Child]) -> s.Language:
        return s.Language(span(c), whole(c[1]))

    def model(self, c: list[Child]) -> s.Model:
        name = text_of(c[1])
        assert name is not None
        return s.Model(span(c), name, every(c, s.Option))

    def setting(self, c: list[Child]) -> s.Option:
        return self.option(c)

    def task(self, c: list[Child]) -> s.Task:
        arguments = c[-1] if isinstance(c[-1], tuple) else ()
        words = every(c, s.Word)
        where = span(c[:-1]) if isinstance(c[-1], tuple) else span(c)
        return s.Task(where, words[0] if len(words) > 1 else None, words[-1], arguments)

    def metric(self, c: list[Child]) -> s.Metric:
        return s.Metric(span(c[:2]), c[1], c[2] if len(c) > 2 else ())

    def margin(self, c: list[Child]) -> s.Margin:
        return s.Margin(span(c), c[1])

    def protocol_line(self, c: list[Child]) -> s.ProtocolLine:
        return s.ProtocolLine(span(c), c[1])

    # -- groups

    def group(self, c: list[Child]) -> s.Group:
        return s.Group(
            span(c),
            str(c[0]),
            c[1],
            c[3],
            every(c[4:], s.At),
            every(c[4:], s.Word),
            has(c[4:], "OUTSIDE"),
        )

    def modifier(self, c: list[Child]) -> Child:
        return c[-1]

    def items(self, c: list[Child]) -> s.Items:
        return s.Items(span(c), every(c, s.Syntax))

    bare_items = items

    def sum(self, c: list[Child]) -> s.Sum:
        return s.Sum(span(c), ("+", *(str(sign) for sign in c[1::2])), tuple(c[::2]))

    def with_port(self, c: list[Child]) -> s.WithPort:
        return s.WithPort(span(c), c[0], s.Word(span_of(c[1]), c[1][1:]))

    def brackets(self, c: list[Child]) -> s.Brackets:
        return s.Brackets(span(c), c[1])

    def head(self, c: list[Child]) -> s.Head:
        layer, _, head = c[0].partition(".")
        return s.Head(span(c[:1]), whole(layer), whole(head), c[1] if len(c) > 1 else None)

    def mlp(self, c: list[Child]) -> s.Mlp:
        return s.Mlp(span(c[:1]), whole(c[0][1:]), c[1] if len(c) > 1 else None)

    def special(self, c: list[Child]) -> s.Special:
        return s.Special(span(c), str(c[0]))

    def group_ref(self, c: list[Child]) -> s.GroupRef:
        return s.GroupRef(span(c), str(c[0]))

    def index(self, c: list[Child]) -> int:
        return whole(c[1])

    # -- positions

    def at(self, c: list[Child]) -> s.At:
        return s.At(span(c), every(c, s.Place))

    def place(self, c: list[Child]) -> s.Place:
        offset = 0 if len(c) == 1 else whole(c[2]) * (1 if c[1].type == "PLUS" else -1)
        return s.Place(span(c), str(c[0]), offset)

    lower_place = place

    def places(self, c: list[Child]) -> tuple[s.Place, ...]:
        return every(c, s.Place)

    def place_arrow(self, c: list[Child]) -> s.PlaceArrow:
        return s.PlaceArrow(span(c), c[0], c[2])

    # -- edges and claims

    def edge(self, c: list[Child]) -> s.Edge:
        return s.Edge(span(c), c[0], c[2], first(c, s.At), first(c, s.Protocol))

    def edge_argument(self, c: list[Child]) -> s.Edge:
        place = first(c, s.Place)
        at = None if place is None else s.At(place.span, (place,))
        return s.Edge(span(c), c[0], c[2], at, first(c, s.Protocol))

    def protocol(self, c: list[Child]) -> s.Protocol:
        return s.Protocol(span(c), has(c, "VIA"))

    def on(self, c: list[Child]) -> s.Word:
        return c[1]

    def edge_claim(self, c: list[Child]) -> s.EdgeClaim:
        edge = first(c, s.Edge)
        assert edge is not None
        return s.EdgeClaim(span(c), has(c, "EACH"), edge, _parts(c), first(c, s.Word), final_text(c), "")

    def claim(self, c: list[Child]) -> _Parts:
        return _Parts(c[1::2])

    def plain_claim(self, c: list[Child]) -> s.PlainClaim:
        return s.PlainClaim(span(c), str(c[0]))

    def bound(self, c: list[Child]) -> s.Bound:
        return s.Bound(span(c), str(c[0]), c[1])

    def stronger(self, c: list[Child]) -> s.Stronger:
        return s.Stronger(span(c), c[2])

    def compared(self, c: list[Child]) -> s.Compared:
        return s.Compared(span(c), str(c[0]), c[1])

    def between(self, c: list[Child]) -> s.Between:
        return s.Between(span(c), c[2], c[4])

    def above_chance(self, c: list[Child]) -> s.AboveChance:
        return s.AboveChance(span(c))

    def change(self, c: list[Child]) -> s.Change:
        by = s.Compared(span(c[2:]), str(c[2]), c[3]) if len(c) > 1 else None
        return s.Change(span(c), str(c[0]), by)

    def agree(self, c: list[Child]) -> s.Agree:
        return s.Agree(span(c))

    # -- expectations

    def expect(self, c: list[Child]) -> s.Expect:
        relation = first(c, s.Compared | s.Between | s.AboveChance | s.Change | s.Agree)  # type: ignore[arg-type]
        return s.Expect(span(c), c[1], relation, _parts(c), first(c, s.Word), final_text(c), "")

    def measurement(self, c: list[Child]) -> s.Measurement:
        name = s.Word(span_of(c[0]), str(c[0]))
        if len(c) == 1:
            return s.Measurement(name.span, name, ())
        return s.Measurement(name.span.to(c[1][-1]), name, c[1][:-1])

    def arguments(self, c: list[Child]) -> tuple[Child, ...]:
        """The arguments, then the span of the closing bracket."""
        inside = (text_of(a) if has([a], "STRING") else a for a in c[1:-1] if not has([a], "COMMA"))
        return (*inside, span_of(c[-1]))

    def options(self, c: list[Child]) -> tuple[Child, ...]:
        return tuple(text_of(a) if has([a], "STRING") else a for a in c[1:-1] if not has([a], "COMMA"))

    def option(self, c: list[Child]) -> s.Option:
        return s.Option(span(c), c[0], text_of(c[2]) if has(c[2:], "STRING") else c[2])  # type: ignore[arg-type]

    def number(self, c: list[Child]) -> s.Number:
        digits = "".join(str(part) for part in c if part.type in ("PLUS", "MINUS", "INT", "DECIMAL", "SCIENTIFIC"))
        unit = "%" if has(c, "PERCENT") else "points" if has(c, "POINTS") else ""
        return s.Number(span(c), float(digits), unit, digits + (" points" if unit == "points" else unit))

    def word(self, c: list[Child]) -> s.Word:
        return s.Word(span(c), str(c[0]))

    # -- everything else

    def when_patched(self, c: list[Child]) -> s.WhenPatched:
        return s.WhenPatched(span(c), c[1], "")

    def when_knocked_out(self, c: list[Child]) -> s.WhenKnockedOut:
        return s.WhenKnockedOut(span(c), c[1], "")

    def role(self, c: list[Child]) -> s.Role:
        return s.Role(span(c), c[1], final_text(c), "")

    def use(self, c: list[Child]) -> s.Use:
        path = text_of(c[1])
        assert path is not None
        return s.Use(span(c), path)

    def channel(self, c: list[Child]) -> s.Channel:
        sets = [part for part in c if isinstance(part, s.Syntax) and not isinstance(part, s.Composition)]
        return s.Channel(span(c), has(c, "EACH"), sets[0], sets[1], every(c, s.Composition), final_text(c), "")  # type: ignore[arg-type]

    def composition(self, c: list[Child]) -> s.Composition:
        words = [s.Word(span_of(part), str(part)) for part in c[:-1]]
        return s.Composition(span(c), words[0], words[1] if len(words) > 1 else None, c[-1])

    def trace(self, c: list[Child]) -> s.Trace:
        return s.Trace(span(c), c[1], c[2], c[4], c[6], first(c, s.At), final_text(c), "")

    def property(self, c: list[Child]) -> s.Property:
        title = text_of(c[1])
        assert title is not None
        return s.Property(span(c), title, first(c, s.Number), first(c, s.Word), "")

    def compare(self, c: list[Child]) -> s.Compare:
        return s.Compare(span(c), c[1], c[3], "")

    def intervention(self, c: list[Child]) -> s.Intervention:
        return s.Intervention(span(c), c[1], final_text(c), "")

    def set_attention(self, c: list[Child]) -> s.SetAttention:
        return s.SetAttention(span(c), c[1], c[3], "")

    def scale(self, c: list[Child]) -> s.Scale:
        return s.Scale(span(c), c[1], c[3], "")

    def replace(self, c: list[Child]) -> s.Replace:
        return s.Replace(span(c), c[1], c[3], "")

    def project_out(self, c: list[Child]) -> s.ProjectOut:
        return s.ProjectOut(span(c), c[2], "")


class _Parts:
    """The parts of a claim on their way into its statement."""

    def __init__(self, parts: Sequence[s.ClaimPart]) -> None:
        self.parts = tuple(parts)
        self.span = span(parts)


def _parts(children: Sequence[Child]) -> tuple[s.ClaimPart, ...]:
    claim = first(children, _Parts)
    return claim.parts if claim else ()
