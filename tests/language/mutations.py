"""Broken specs by the thousand: whatever the text, reading it ends soon, in a result or in diagnostics.

    python tests/language/mutations.py --runs 100000 --seed 0

Every text has a seed of its own; a failure prints it, and `--only SEED` runs that text again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
import unicodedata
from functools import cache
from pathlib import Path

from circuitdsl.circuit.lint import lint
from circuitdsl.circuit.resolve import resolve
from circuitdsl.circuit.shapes import TaskShape
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, codes, ordered, render_all
from circuitdsl.language.format import dumps, format_text
from circuitdsl.language.lexer import KEYWORDS
from circuitdsl.language.parse import decode, parse
from circuitdsl.measurements import KINDS

SECONDS = 2.0
HERE = Path(__file__).parent
FIXTURES = HERE.parent / "fixtures"
TASKS = {
    "ioi": TaskShape("ioi", dict.fromkeys(("END", "IO", "S1", "S2"), ""), {"abc": ""}, {}, {"S2": frozenset({"S1"})})
}
NODES = "mover ioi all 9.* 9.9 0.10 m3 8.6[2] END S1+1 -> : , ( ) [ ] + - * = >= <= 5% -0.5 .q .k abc file"
ODD = (
    "points", '"text"', '"open', "#", "→", "−", "≥", "“x”", "@", "\n", "\n  ", "\t", "\u00a0", "\r\n", "\0", "é", "𝟘",
    "\u2028", "\x85", "\ufeff", "٣", "\r", "\x0c", "1e999", "9" * 400, "each each", "at *",
    'where stratum "A*"', "where stratum", 'where stratum "A", "", "B"', 'expected to fail "why"', "expected to fail",
    "expected to",
    "ablate mean", "edges ablate mean", "is knocked out and", "and mover is knocked out",
    "stronger than knockout(mover)", "by 2 times", "by -1 times", "by 0% times", "times", "knockout (",
    "> accuracy", "< attention(mover, END -> IO) by 3 points", "by 3 points", "> knockout(mover) by 2 times",
    "all - mover", "0.* - 0.*", "all + 9.*", "(all - 3.*).q",
)  # fmt: skip
WORDS = [*sorted(KEYWORDS), *NODES.split(" "), *ODD]
NESTS = ("(", "[", '"', "#", "\n", "\n    ", "+ ", "(9.9 ", "- (", "when a is knocked out\n  ", ": lowers and ", "9.9 ")


@cache
def seeds() -> tuple[str, ...]:
    """The texts that are mutated: fixtures, shipped specs, the examples of the codes."""
    specs = HERE.parent.parent / "specs"
    files = (*sorted(FIXTURES.rglob("*.circ")), *sorted(specs.rglob("*.circ")))
    examples = (code.example for code in codes().values() if code.example)
    return (*(path.read_bytes().decode() for path in files), *examples)


@cache
def characters() -> dict[str, tuple[str, ...]]:
    """Up to 60 characters of every Unicode category, lone surrogates aside: no file holds them."""
    found: dict[str, list[str]] = {}
    for point in (*range(0x3000), *range(0x3000, 0x110000, 97)):
        some = found.setdefault(unicodedata.category(chr(point)), [])
        if len(some) < 60:
            some.append(chr(point))
    found.pop("Cs", None)
    return {category: tuple(some) for category, some in found.items()}


# --- making texts ---------------------------------------------------------------------------------


def mutated(rng: random.Random, text: str | None = None) -> str:
    """A text, by default one of the seeds, with a few bytes, characters, words or lines changed."""
    text = rng.choice(seeds()) if text is None else text
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(MUTATIONS)(text, rng)
    return text


def _place(text: str, rng: random.Random) -> int:
    return rng.randrange(len(text) + 1)


def _word(text: str, rng: random.Random) -> str:
    at = _place(text, rng)
    return text[:at] + rng.choice(("", " ")) + rng.choice(WORDS) + rng.choice(("", " ")) + text[at:]


def _cut(text: str, rng: random.Random) -> str:
    at = _place(text, rng)
    return text[:at] + text[at + rng.randint(1, 9) :]


def _truncate(text: str, rng: random.Random) -> str:
    return text[: _place(text, rng)]


def _character(text: str, rng: random.Random) -> str:
    at = _place(text, rng)
    odd = "".join(rng.choice(characters()[rng.choice(list(characters()))]) for _ in range(rng.randint(1, 3)))
    return text[:at] + odd + text[at + rng.randrange(2) :]


def _bytes(text: str, rng: random.Random) -> str:
    """Flipped bits; what is no UTF-8 any more is refused, and else read."""
    data = bytearray(text.encode("utf-8", "replace"))
    for _ in range(rng.randint(1, 3) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return decode(bytes(data))[0] or data.decode("latin-1")


def _shuffle_words(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    words = lines[at].split(" ")
    rng.shuffle(words)
    return "\n".join([*lines[:at], " ".join(words), *lines[at + 1 :]])


def _shuffle_lines(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    rng.shuffle(lines)
    return "\n".join(lines)


def _join(text: str, rng: random.Random) -> str:
    """Lines of another spec in the midst of this one."""
    lines, others = text.split("\n"), rng.choice(seeds()).split("\n")
    at, start = rng.randrange(len(lines) + 1), rng.randrange(len(others))
    return "\n".join([*lines[:at], *others[start : start + rng.randint(1, 5)], *lines[at:]])


def _indent(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    return "\n".join([*lines[:at], rng.choice((" ", "  ", "\t", "\u3000")) + lines[at], *lines[at + 1 :]])


def _nest(text: str, rng: random.Random) -> str:
    at = _place(text, rng)
    return text[:at] + rng.choice(NESTS) * rng.choice((2, 30, 45, 200)) + text[at:]


def _repeat(text: str, rng: random.Random) -> str:
    at = _place(text, rng)
    return text[:at] + text[at : at + 40] * rng.choice((2, 3, 40)) + text[at + 40 :]


MUTATIONS = (
    _word, _word, _cut, _truncate, _character, _bytes, _shuffle_words, _shuffle_words, _shuffle_lines, _join, _join,
    _indent, _nest, _repeat,
)  # fmt: skip


# --- what every text must keep to -----------------------------------------------------------------


def read(text: str) -> tuple[Diagnostic, ...]:
    """Parse, resolve, lint, show and format a text, check what every text must keep to, and return what is wrong."""
    start = time.process_time()
    file, found = parse(text, "fuzz.circ")
    circuits, more = resolve(file, tasks=TASKS, kinds=KINDS)
    every = ordered((*found, *more, *lint(file, circuits, TASKS, KINDS)))
    shown = render_all(every, text, "fuzz.circ")
    assert time.process_time() - start < SECONDS
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for diagnostic in every:
        assert diagnostic.code in codes()
        assert diagnostic.message in shown and "\n" not in diagnostic.message
        assert 1 <= diagnostic.span.line <= len(lines)
        assert diagnostic.span.line <= diagnostic.span.end_line
        if diagnostic.span.line == diagnostic.span.end_line:
            assert 1 <= diagnostic.span.column <= diagnostic.span.end_column
    assert circuits or every or any(isinstance(line, s.Role | s.Use | s.Compare) for line in file.statements)
    if not found:
        formatted = dumps(file)
        again, wrong = parse(formatted, "fuzz.circ")
        assert not wrong
        assert again == file
        assert resolve(again, tasks=TASKS, kinds=KINDS)[0] == circuits
        assert sorted(c.text.rstrip() for c in again.comments) == sorted(c.text.rstrip() for c in file.comments)
        assert format_text(formatted, "fuzz.circ") == formatted
    return every


def main() -> int:
    parser = argparse.ArgumentParser(description="Read mutated specs; exits with 1 when one fails.")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the seed of one text")
    given = parser.parse_args()
    first, last = (given.only, given.only + 1) if given.only is not None else (given.seed, given.seed + given.runs)
    failed, slowest, start = 0, (0.0, first), time.perf_counter()
    for seed in range(first, last):
        text, begun = mutated(random.Random(seed)), time.process_time()
        try:
            read(text)
        except Exception:
            failed += 1
            print(f"seed {seed} fails on {text!r}\n{traceback.format_exc()}", flush=True)
        slowest = max(slowest, (time.process_time() - begun, seed))
        if (seed - first) % 10_000 == 9_999:
            done = seed - first + 1
            print(f"{done} texts, {failed} failed, {time.perf_counter() - start:.0f} s", flush=True)
    print(f"seeds {first} to {last - 1}: {failed} failed; the slowest, {slowest[1]}, took {slowest[0]:.2f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
