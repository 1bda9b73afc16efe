"""Whatever the text, reading it ends soon and in a result or in diagnostics."""

from __future__ import annotations

import random
import time
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from circuitdsl.circuit.catalogue import TaskShape
from circuitdsl.circuit.resolve import resolve
from circuitdsl.language.codes import codes
from circuitdsl.language.diagnostics import ordered, render_all
from circuitdsl.language.lexer import KEYWORDS
from circuitdsl.language.parse import parse
from circuitdsl.language.source import decode

FIXTURES = Path(__file__).parent.parent / "fixtures"
SEEDS = [
    path.read_text(encoding="utf-8") for path in (FIXTURES / "whole.circ", *sorted(FIXTURES.glob("errors/*.circ")))
]
TASKS = {
    "ioi": TaskShape("ioi", dict.fromkeys(("END", "IO", "S1", "S2"), ""), {"abc": ""}, {}, {"S2": frozenset({"S1"})})
}
NODES = "mover ioi 9.9 0.10 m3 8.6[2] END S1+1 -> : , ( ) [ ] + - * = >= <= 5% -0.5 .q .k abc file"
ODD = (
    "points",
    '"text"',
    '"open',
    "#",
    "→",
    "−",
    "≥",
    "“x”",
    "@",
    "\n",
    "\n  ",
    "\t",
    "\u00a0",
    "\r\n",
    "\0",
    "é",
    "𝟘",
)
WORDS = [*sorted(KEYWORDS), *NODES.split(" "), *ODD]


def read(text: str) -> None:
    """Parse, resolve and show a text, and check what every text must keep to."""
    start = time.perf_counter()
    file, found = parse(text, "fuzz.circ")
    circuits, more = resolve(file, tasks=TASKS)
    every = ordered((*found, *more))
    shown = render_all(every, text, "fuzz.circ")
    assert time.perf_counter() - start < 2
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for diagnostic in every:
        assert diagnostic.code in codes()
        assert diagnostic.message in shown and "\n" not in diagnostic.message
        assert 1 <= diagnostic.span.line <= len(lines)
        assert diagnostic.span.line <= diagnostic.span.end_line
        if diagnostic.span.line == diagnostic.span.end_line:
            assert 1 <= diagnostic.span.column <= diagnostic.span.end_column
    assert circuits or every


@settings(max_examples=150, deadline=None)
@given(st.text())
@example("((")
@example("heads a = a")
@example("circuit a\nheads a = b + 1.1\nheads b = c\nheads c = a")
@example("margin " + "9" * 400 + "%")
@example("heads a = " + "9" * 5000 + ".1 m" + "9" * 5000)
@example("a -> b at S1+" + "9" * 5000)
@example('model ""\ntask file("")\n')
def test_any_text(text: str) -> None:
    read(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_words(words: list[str]) -> None:
    read(" ".join(words))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    text, found = decode(data)
    assert text == "" or not found
    read(text)


def mutated(rng: random.Random) -> str:
    """A spec with a few characters, words or lines changed."""
    text = rng.choice(SEEDS)
    for _ in range(rng.randint(1, 4)):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        match rng.randrange(7):
            case 0:
                text = text[:at] + rng.choice(WORDS) + text[at:]
            case 1:
                text = text[:at] + text[min(end, at + 9) :]
            case 2:
                text = text[:at] + chr(rng.randrange(0x20, 0x3000)) + text[at + 1 :]
            case 3:
                words = text.split(" ")
                rng.shuffle(words)
                text = " ".join(words)
            case 4:
                text = text[:end]
            case 5:
                lines = text.split("\n")
                rng.shuffle(lines)
                text = "\n".join(lines)
            case _:
                text = (
                    text[:at] + rng.choice(("(", "[", '"', "#", "\n", "\n    ", "+ ")) * rng.randint(1, 60) + text[at:]
                )
    return text


def test_mutated_specs() -> None:
    rng = random.Random(0)
    for _ in range(400):
        read(mutated(rng))


def test_large_and_hostile_texts_end_soon() -> None:
    chain = "circuit a\n" + "".join(f"heads g{i} = g{i + 1} + 1.{i % 12}\n" for i in range(3000))
    pairs = "circuit a\nheads a = " + " ".join(f"{i // 100}.{i % 100}" for i in range(4000)) + " at END\na -> a.q\n"
    for text in (
        "(" * 100_000,
        "(\n" * 100_000,
        "→" * 100_000,
        '"' * 100_000,
        "heads a = " + "9.9 " * 50_000,
        "heads a = 9.9" + " + 9.8" * 50_000,
        "heads\n" * 2_000,
        "circuit a\n" * 2_000,
        "a -> b.q\n" * 2_000,
        chain,
        pairs,
    ):
        read(text)
