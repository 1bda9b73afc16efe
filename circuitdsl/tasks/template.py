"""Prompts are built from named pieces, so that positions need not be searched for in the finished text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Marked:
    """A text and the character spans of its named parts (a name may occur several times)."""

    text: str
    marks: Mapping[str, tuple[tuple[int, int], ...]]


def joined(pieces: Iterable[tuple[str, Sequence[str]]]) -> Marked:
    """A text made of pieces, each with the names under which its span is marked."""
    parts: list[str] = []
    marks: dict[str, list[tuple[int, int]]] = {}
    length = 0
    for piece, names in pieces:
        parts.append(piece)
        start, length = length, length + len(piece)
        for name in names:
            marks.setdefault(name, []).append((start, length))
    return Marked("".join(parts), {name: tuple(spans) for name, spans in marks.items()})


def fill(template: str, values: Mapping[str, str], rename: Mapping[str, str] | None = None) -> Marked:
    """Fill the `{FIELD}`s of a template; the span of each is marked with its name, or the name in `rename`."""
    pieces = enumerate(_FIELD.split(template))  # every second one is the name of a field
    renamed = rename or {}
    return joined((values[piece], (renamed.get(piece, piece),)) if i % 2 else (piece, ()) for i, piece in pieces)


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"an {word}" if word[0].lower() in "aeiou" else f"a {word}"
