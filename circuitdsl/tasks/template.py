"""Prompts built from pieces, so that every position is known by construction and never searched for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

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
    length = 0
    pieces, tail = _pieces(template)
    for literal, name in pieces:
        value = values[name]
        start = length + len(literal)
        length = start + len(value)
        marks.setdefault((rename or {}).get(name, name), []).append((start, length))
        parts += (literal, value)
    return Marked("".join((*parts, tail)), {name: tuple(spans) for name, spans in marks.items()})


@lru_cache(maxsize=1024)
def _pieces(template: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """A template taken apart: each field after the text before it, and the text after the last."""
    *pairs, tail = _FIELD.split(template)
    return tuple(zip(pairs[::2], pairs[1::2], strict=True)), tail


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
