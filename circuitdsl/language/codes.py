"""What every diagnostic's code means: the pages of `codes.md`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGES = Path(__file__).with_name("codes.md")


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of diagnostic.

    Attributes:
        code: `E040`.
        title: what is wrong, in a few words.
        explanation: why it is wrong, and what to write instead.
        example: a line, or a few, that gives this diagnostic; empty where no text does.
    """

    code: str
    title: str
    explanation: str
    example: str


@cache
def codes() -> Mapping[str, Code]:
    """All codes in the order of the pages."""
    found = {}
    for page in PAGES.read_text(encoding="utf-8").split("\n## ")[1:]:
        header, _, body = page.partition("\n")
        code, _, title = header.partition(": ")
        lines = body.strip().split("\n")
        example = "\n".join(line[4:] for line in lines if line.startswith("    "))
        explanation = " ".join(line for line in lines if line and not line.startswith("    "))
        found[code] = Code(code, title, explanation, example)
    return found
