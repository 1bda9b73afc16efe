"""Prompts built from pieces, so that every position is known by construction and never searched for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Marked:
    """A text and the character spans of its named parts (a name may stand several times)."""

    text: str
    marks: Mapping[str, tuple[tuple[int, int], ...]]


def fill(template: str, values: Mapping[str, str], rename: Mapping[str, str] | None = None) -> Marked:
    """Fill `{FIELD}`s of a template; each field's span is marked under its (renamed) name."""
    parts: list[str] = []
    marks: dict[str, list[tuple[int, int]]] = {}
    length = end = 0
    for field in _FIELD.finditer(template):
        literal = template[end : field.start()]
        name = field.group(1)
        value = values[name]
        start = length + len(literal)
        length = start + len(value)
        marks.setdefault((rename or {}).get(name, name), []).append((start, length))
        parts += (literal, value)
        end = field.end()
    parts.append(template[end:])
    return Marked("".join(parts), {name: tuple(spans) for name, spans in marks.items()})


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
