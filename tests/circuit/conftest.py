"""Tasks and a shorthand for the tests of resolution."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.lint import lint
from circuitdsl.circuit.resolve import resolve
from circuitdsl.circuit.shapes import TaskShape
from circuitdsl.language.diagnostics import Diagnostic, ordered
from circuitdsl.language.parse import parse
from circuitdsl.measurements import KINDS

IOI = TaskShape(
    "ioi",
    positions=dict.fromkeys(("END", "IO", "S1", "S2", "ANSWER", "DISTRACTOR"), ""),
    corruptions={"abc": "three unrelated names", "flip": "roles exchanged"},
    before={"S2": frozenset({"S1", "IO"}), "END": frozenset({"S1", "S2", "IO"})},
)
OBJECTS = TaskShape(
    "colored_objects",
    positions=dict.fromkeys(("END", "ANSWER", "DISTRACTOR"), ""),
    corruptions={"object": "another object is asked for"},
    options={"objects": (3, 4)},
)

TASKS = {"ioi": IOI, "colored_objects": OBJECTS}

Resolved = tuple[tuple[Circuit, ...], tuple[Diagnostic, ...]]
Resolve = Callable[..., Resolved]


@pytest.fixture
def resolved() -> Resolve:
    """`resolved(text)` gives the circuits and all diagnostics but notes and, unless asked for, lint's warnings."""

    def run(text: str, model: str | None = None, notes: bool = False, warn: bool = False) -> Resolved:
        file, found = parse(text, "case.circ")
        circuits, more = resolve(file, tasks=TASKS, kinds=KINDS, model_override=model)
        wanted = ordered((*found, *more, *(lint(file, circuits, TASKS, KINDS) if warn else ())))
        return circuits, tuple(d for d in wanted if notes or d.severity != "note")

    return run


PRELUDE = """\
circuit ioi
model "gpt2"
task ioi(corrupt = abc)
heads previous   = 2.2 4.11       at S1+1
heads duplicate  = 0.1 0.10 3.0   at S2
heads induction  = 5.5 6.9        at S2
heads inhibition = 7.3 8.6        at END
heads mover      = 9.6 9.9 10.0   at END
mlps  late       = m10 m11        at END
"""


@pytest.fixture
def prelude() -> str:
    """The lines that `sound` puts before its own."""
    return PRELUDE


@pytest.fixture
def sound(resolved: Resolve) -> Callable[[str], Circuit]:
    """The one circuit of a prelude with the given lines, which must be without fault."""

    def run(lines: str) -> Circuit:
        circuits, found = resolved(PRELUDE + lines)
        assert not found, [str(d) for d in found]
        return circuits[0]

    return run
