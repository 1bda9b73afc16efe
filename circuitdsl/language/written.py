"""Syntax back to text: every piece as it is canonically written, on one line."""

from __future__ import annotations

from collections.abc import Iterable

from circuitdsl.language import syntax as s
from circuitdsl.language.lexer import UNSEEN


def written(node: s.Set) -> str:
    """A set as it is written in a spec.

    >>> from circuitdsl.language.diagnostics import START
    >>> written(s.Brackets(START, s.Sum(START, ("+", "-"), (s.GroupRef(START, "a"), s.Head(START, 0, 1)))))
    '(a - 0.1)'
    """
    match node:
        case s.Head(layer=layer, head=head, index=index):
            return f"{layer}.{head}" + _index(index)
        case s.Mlp(layer=layer, index=index):
            return f"m{layer}" + _index(index)
        case s.Special(name=name) | s.GroupRef(name=name):
            return name
        case s.Items(members=members):
            return " ".join(written(m) for m in members)
        case s.WithPort(inner=inner, port=port):
            return f"{written(inner)}.{port.text}"
        case s.Brackets(inner=inner):
            return f"({written(inner)})"
    signed = (f"{sign} {written(operand)}" for sign, operand in zip(node.signs, node.operands, strict=True))
    return " ".join(signed).removeprefix("+ ")


def _index(index: int | None) -> str:
    return "" if index is None else f"[{index}]"


# --- words, positions, options --------------------------------------------------------------------


def quoted(text: s.Text) -> str:
    """A string in its quotes.

    Raises:
        ValueError: it holds a double quote, a line end or a control character, which the language cannot write.
    """
    if '"' in text.text or UNSEEN.search(text.text):
        raise ValueError(f"a string of a spec holds no double quote, line end or control character: {text.text!r}")
    return f'"{text.text}"'


def place(node: s.Place) -> str:
    if not node.offset:
        return node.name
    sign, offset = "-" if node.offset < 0 else "+", abs(node.offset)
    # small letters are refused later; until then their sign keeps the blanks without which it is no offset
    return f"{node.name}{sign}{offset}" if node.name.isupper() else f"{node.name} {sign} {offset}"


def places(nodes: Iterable[s.Place]) -> str:
    return ", ".join(place(node) for node in nodes)


def at(node: s.At | None) -> str:
    return f"at {places(node.places)}" if node else ""


def protocol(node: s.Protocol | None) -> str:
    return "" if node is None else "via mlps" if node.via_mlps else "direct"


def value(node: s.Value) -> str:
    return quoted(node) if isinstance(node, s.Text) else node.text


def entry(node: s.Option | s.Value) -> str:
    return f"{node.key.text} = {value(node.value)}" if isinstance(node, s.Option) else value(node)


def options(nodes: Iterable[s.Option | s.Value]) -> str:
    """`(corrupt = abc, seed = 0)`, or nothing."""
    inside = ", ".join(entry(node) for node in nodes)
    return f"({inside})" if inside else ""


# --- edges, measurements, claims ------------------------------------------------------------------


def edge(node: s.Edge) -> str:
    return joined(f"{written(node.sender)} -> {written(node.receiver)}", at(node.at), protocol(node.protocol))


def argument(node: s.Argument) -> str:
    match node:
        case s.Option() | s.Text():
            return entry(node)
        case s.Edge():
            return edge(node)
        case s.Place():
            return place(node)
        case s.PlaceArrow(source=source, target=target):
            return f"{place(source)} -> {place(target)}"
        case _:
            return written(node)


def measurement(node: s.Measurement) -> str:
    inside = ", ".join(argument(a) for a in node.arguments)
    return f"{node.name.text}({inside})" if inside else node.name.text


def relation(node: s.Relation) -> str:
    match node:
        case s.Compared(relation=sign, bound=bound):
            return f"{sign} {bound.text}"
        case s.Between(low=low, high=high):
            return f"in [{low.text}, {high.text}]"
        case s.AboveChance():
            return "above chance"
        case s.Change(direction=direction, by=by):
            return f"{direction} by {relation(by)}" if by else direction
        case _:
            return "agree"


def claim_part(node: s.ClaimPart) -> str:
    match node:
        case s.PlainClaim(word=word):
            return word
        case s.Bound(quantity=quantity, relation=bound):
            return f"{quantity} {relation(bound)}"
        case _:
            return f"stronger than {edge(node.edge)}"


def claim(parts: Iterable[s.ClaimPart]) -> str:
    """`: lowers and effect <= -20%`, or nothing."""
    inside = " and ".join(claim_part(part) for part in parts)
    return f": {inside}" if inside else ""


def composition(node: s.Composition) -> str:
    return joined(node.quantity.text, node.kind.text if node.kind else "", relation(node.relation))


def joined(*words: str) -> str:
    """Words with blanks between them; empty ones are left out."""
    return " ".join(word for word in words if word)
