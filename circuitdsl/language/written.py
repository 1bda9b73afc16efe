"""Syntax back to text: every piece as it is canonically written, on one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from circuitdsl.language import syntax as s
from circuitdsl.language.lexer import UNSEEN


def written(node: s.Syntax | None) -> str:
    """A node as it is written in a spec; nothing for None.

    >>> from circuitdsl.language.diagnostics import START
    >>> written(s.Brackets(START, s.Sum(START, ("+", "-"), (s.GroupRef(START, "a"), s.Head(START, 0, 1)))))
    '(a - 0.1)'

    Raises:
        ValueError: a string in it holds a double quote, a line end or a control character, which no spec can hold.
    """
    match node:
        case None:
            return ""
        case s.Text(text=text):
            if '"' in text or UNSEEN.search(text):
                raise ValueError(f"a string of a spec holds no double quote, line end or control character: {text!r}")
            return f'"{text}"'
        case s.Head(layer=layer, head=head, index=index):
            return f"{layer}.{head}" + ("" if index is None else f"[{index}]")
        case s.Mlp(layer=layer, index=index):
            return f"m{layer}" + ("" if index is None else f"[{index}]")
        case s.Sum(signs=signs, operands=operands):
            signed = (f"{sign} {written(operand)}" for sign, operand in zip(signs, operands, strict=True))
            return " ".join(signed).removeprefix("+ ")
        case s.Place(name=name, offset=0):
            return name
        case s.Place(name=name, offset=offset):
            sign, blank = "-" if offset < 0 else "+", "" if name.isupper() else " "
            # small letters are refused later; until then their sign keeps the blanks without which it is no offset
            return f"{name}{blank}{sign}{blank}{abs(offset)}"
        case s.At(places=places):
            return f"at {listed(places)}"
        case s.Protocol(via_mlps=via_mlps):
            return "via mlps" if via_mlps else "direct"
        case s.Measurement(name=word, arguments=arguments):
            return word.text + in_brackets(arguments)
        case s.Change(direction=direction, by=by):
            return joined(direction, "by" if by else "", by)
    if not node.form:
        raise TypeError(f"no part of a statement: {node!r}")
    return joined(*(_FIELD.sub(partial(_field, node), word) for word in node.form.split()))


_FIELD = re.compile(r"\{(\w+)\}")


def _field(node: s.Syntax, name: re.Match[str]) -> str:
    """The field of a node that a form names; nothing where it has no value."""
    found = getattr(node, name[1])
    return joined(*found) if isinstance(found, tuple) else joined(found)


def listed(nodes: Iterable[s.Syntax]) -> str:
    """`a, b, c`"""
    return ", ".join(map(written, nodes))


def in_brackets(nodes: Iterable[s.Syntax]) -> str:
    """`(corrupt = abc, seed = 0)`, or nothing."""
    inside = listed(nodes)
    return f"({inside})" if inside else ""


def joined(*parts: str | s.Syntax | None) -> str:
    """Words and pieces of syntax with blanks between them; what is empty is left out."""
    return " ".join(word for part in parts if (word := part if isinstance(part, str) else written(part)))
