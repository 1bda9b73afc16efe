"""A spec as an editor has it: its text at one moment, and all that is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from circuitdsl.api import CATALOGUE, resolver
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.lint import lint
from circuitdsl.circuit.shapes import ModelShape, TaskShape, near, shape_of
from circuitdsl.errors import UserError
from circuitdsl.garbage import quickly
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Span, lines_of, ordered
from circuitdsl.language.parse import MAX_BYTES, Read, decode, parse
from circuitdsl.lsp.legend import MARK
from circuitdsl.lsp.pieces import Piece, cut
from circuitdsl.measurements import KINDS
from circuitdsl.tasks.places import positions_in


@dataclass(frozen=True)
class Line:
    """A statement, the headers of the blocks in which it stands, outermost first, and the number of its circuit."""

    statement: s.Statement
    headers: tuple[s.Statement, ...]
    part: int


@dataclass(frozen=True, eq=False)
class Document:
    """A spec at one moment. Lines and columns count from 1, as in every `Span`.

    Attributes:
        path: where it lies, or would lie.
        text: without a byte-order mark.
        file: its statements.
        circuits: what they resolve to, as far as they can.
        diagnostics: everything that is wrong with it.
    """

    path: str
    text: str
    file: s.File
    circuits: tuple[Circuit, ...]
    diagnostics: tuple[Diagnostic, ...]

    @cached_property
    def rows(self) -> list[str]:
        """The physical lines without their ends."""
        return lines_of(self.text)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """All statements in their order, those in blocks after their headers."""
        found: list[Line] = []
        part = -1
        for statement in self.file.statements:
            part += opens_circuit(statement)
            found += _flat(statement, (), part)
        return tuple(found)

    def line_at(self, row: int) -> Line | None:
        """The statement that stands in a row, blocks below it left out."""
        above = [line for line in self.lines if line.statement.span.line <= row]
        return above[-1] if above and row <= end_of(above[-1].statement) else None

    def part_at(self, row: int) -> int:
        """The number of the circuit to which a row belongs; -1 above the first one."""
        above = (line.part for line in self.lines if line.statement.span.line <= row)
        return max(above, default=-1)

    def circuit_at(self, row: int) -> Circuit | None:
        """The circuit to which a row belongs; above all of them, the first."""
        number = max(self.part_at(row), 0)
        return self.circuits[number] if number < len(self.circuits) else None

    def shapes_at(self, row: int) -> dict[str, TaskShape]:
        """What is known of the tasks of a row's circuit, by the names that they have there."""
        circuit, found = self.circuit_at(row), {}
        for use in circuit.tasks if circuit else ():
            if use.generator:
                found[use.name] = CATALOGUE[use.generator]
            elif names := positions_in(Path(self.path).parent / (use.file or "")):
                found[use.name] = TaskShape(use.name, dict.fromkeys(names, f"as {use.file} says"), {})
        return found

    def model_at(self, row: int) -> ModelShape | None:
        """The size of the model of a row's circuit, where it is known without loading anything."""
        circuit = self.circuit_at(row)
        return shape_of(near(circuit.model.name, self.path))[0] if circuit and circuit.model else None

    def groups_at(self, row: int) -> dict[str, s.Group]:
        """The groups that a row's circuit defines, as they are written."""
        part = max(self.part_at(row), 0)
        groups = (each.statement for each in self.lines if max(each.part, 0) == part)
        return {group.name.text: group for group in groups if isinstance(group, s.Group)}

    def pieces_of(self, statement: s.Statement) -> list[Piece]:
        """The words and signs of a statement, also where it could not be read."""
        first, last = statement.span.line, end_of(statement)
        found, _ = cut("\n" * (first - 1) + "\n".join(self.rows[first - 1 : last]))
        return [piece for line in found for piece in line]


def read(path: str, text: str, before: Read | None = None) -> Document:
    """A spec's text with all that is known of it.

    Args:
        before: what was read of its earlier text (see `parse`).
    """
    text = text.removeprefix(MARK)
    nothing = s.File(path, (), (), text)
    if len(text) > MAX_BYTES // 4 and (problems := decode(text.encode("utf-8", "replace"))[1]):
        return Document(path, text, nothing, (), problems)
    with quickly():
        file, found = parse(text, path, before)
        try:
            circuits, more = resolver(path)(file, known={})
            more += lint(file, circuits, CATALOGUE, KINDS)
        except UserError as error:  # a package that adds to the language cannot be loaded
            circuits, more = (), (Diagnostic("E001", "error", error.message, help=error.hint),)
    return Document(path, text, file, circuits, ordered([*found, *more]))


def opens_circuit(statement: s.Statement) -> bool:
    """Whether a circuit begins with a statement, whether or not it could be read."""
    broken = isinstance(statement, s.Broken) and statement.keyword == "circuit"
    return broken or isinstance(statement, s.Circuit)


def end_of(statement: s.Statement) -> int:
    """The last row of a statement, without the block below it."""
    return max((statement.span.end_line, *(piece.span.end_line for piece in parts_of(statement))))


def parts_of(statement: s.Statement) -> Iterator[s.Syntax]:
    """All syntax in a statement, without the block below it."""
    for name, value in vars(statement).items():
        for piece in value if isinstance(value, tuple) and name != "block" else (value,):
            if isinstance(piece, s.Syntax):
                yield from s.walk(piece)


def _flat(statement: s.Statement, headers: tuple[s.Statement, ...], part: int) -> Iterable[Line]:
    yield Line(statement, headers, part)
    for inner in getattr(statement, "block", ()):
        yield from _flat(inner, (*headers, statement), part)


def holds(span: Span, row: int, column: int) -> bool:
    """Whether a place touches a span: an editor's cursor may stand right behind the last character of a word."""
    return (span.line, span.column) <= (row, column) <= (span.end_line, span.end_column)
