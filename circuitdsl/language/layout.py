"""Rows in columns: where words, citations and comments stand on the page.

Lines that follow one another without a blank line make a section. Like statements of a section share their
columns; the citations of a circuit stand in one column, two blanks past the longest line of the sections that
have any. A cell or line far longer than the others runs over its column instead of pushing it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuitdsl.language.lexer import STATEMENTS
from circuitdsl.language.rows import Column, Row, columns_of

WIDTH = 120
INDENT = "  "
CONTINUED = "    "
#: cells and lines longer than this do not move the columns after them
LONG_CELL, LONG_LIST, LONG_LINE, LONG_CITED = 48, 72, 64, 80


@dataclass(slots=True)
class Line:
    """A statement or a comment on a line of its own.

    Attributes:
        row: the statement; None for a comment alone.
        depth: 0, or 1 inside a block.
        blank: whether a blank line stands above.
        comment: the comment alone, or the one at the statement's end.
        opens: whether a circuit begins here.
    """

    row: Row | None
    depth: int
    blank: bool
    comment: str = ""
    opens: bool = False


@dataclass(slots=True)
class _Placed:
    """A line with its words in columns; a long one is wrapped, and its last piece goes on."""

    line: Line
    pieces: list[str]
    claims: bool

    @property
    def end(self) -> int:
        """Where its last piece ends."""
        return len(self.pieces[-1])

    @property
    def citation(self) -> str:
        return self.line.row.citation if self.line.row else ""

    def put(self, column: int, text: str) -> None:
        """Put a text at a column, two blanks after the line's words at the least."""
        if text:
            self.pieces[-1] = self.pieces[-1].ljust(max(column, self.end + 2)) + text


def lay_out(lines: Sequence[Line]) -> str:
    """The lines as text; it ends with a line end."""
    placed = [_place(line) for line in lines]
    sections = list(_sections(placed))
    for section in sections:
        for run in _runs(section):
            _align(run)
    for circuit in _circuits(sections):
        cited = [section for section in circuit if any(each.citation for each in section)]
        column = _citation_column(cited)
        for section in circuit:
            _put_tails(section, column if section in cited else 0)
    out: list[str] = []
    for each in placed:
        out += [""] * (each.line.blank and bool(out))
        out += each.pieces
    return "\n".join(out) + "\n"


def _place(line: Line) -> _Placed:
    indent = INDENT * line.depth
    if line.row is None:
        return _Placed(line, [indent + line.comment], False)
    claims = line.row.table.partition(" ")[0] in ("edge", "expect", "channel") or bool(line.row.citation)
    return _Placed(line, wrapped(indent, line.row.text), claims)


# --- sections and runs ----------------------------------------------------------------------------


def _sections(placed: list[_Placed]) -> Iterator[list[_Placed]]:
    """Stretches without a blank line, of one circuit."""
    section: list[_Placed] = []
    for each in placed:
        if (each.line.blank or each.line.opens) and section:
            yield section
            section = []
        section.append(each)
    yield section


def _circuits(sections: list[list[_Placed]]) -> Iterator[list[list[_Placed]]]:
    """The sections of each circuit."""
    circuit: list[list[_Placed]] = []
    for section in sections:
        if circuit and any(each.line.opens for each in section):
            yield circuit
            circuit = []
        circuit.append(section)
    yield circuit


def _runs(section: list[_Placed]) -> Iterator[list[_Placed]]:
    """Rows of one table that follow one another; comments on lines of their own may stand between them."""
    run: list[_Placed] = []
    for each in section:
        row = each.line.row
        if row is None:
            continue
        alike = run and (run[0].line.row.table, run[0].line.depth) == (row.table, each.line.depth)  # type: ignore[union-attr]
        if not alike:
            yield run
            run = []
        if row.table and len(each.pieces) == 1:
            run.append(each)
        else:
            yield run
            run = []
    yield run


# --- columns --------------------------------------------------------------------------------------


def _align(run: list[_Placed]) -> None:
    """Put the cells of a run into its columns."""
    if not run:
        return
    rows = [each.line.row for each in run if each.line.row]
    columns = columns_of(rows[0].table)
    cells = [(*row.cells, *[""] * (len(columns) - len(row.cells))) for row in rows]
    used = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    widths = {i: _width(columns[i], [row[i] for row in cells], [any(row[i + 1 :]) for row in cells]) for i in used}
    for each, row in zip(run, cells, strict=True):
        text, end = "", 0
        for i in used:
            start = end + columns[i].gap
            if row[i]:
                least = len(text) + min(columns[i].gap, 2) if text else 0
                text = text.ljust(max(start if text else 0, least)) + row[i]
            end = start + widths[i]
        each.pieces = [INDENT * each.line.depth + text]


def _width(column: Column, cells: list[str], followed: list[bool]) -> int:
    """The width of a column: that of its longest cell, but for outliers."""
    long = LONG_LIST if any(cell.startswith("= ") for cell in cells) else LONG_CELL
    counted = [len(cell) for cell, more in zip(cells, followed, strict=True) if more or not column.ragged]
    return max((n for n in counted if n <= long), default=0)


def _citation_column(sections: list[list[_Placed]]) -> int:
    """Two blanks past the longest claim of the sections that have citations."""
    ends = [each.end for section in sections for each in section if each.claims]
    return max((end for end in ends if end <= LONG_CITED), default=0) + 2


def _put_tails(section: list[_Placed], column: int) -> None:
    """Citations at their column; comments there as well, or aligned with the section's other comments."""
    commented = []
    for each in section:
        each.put(column, each.citation)
        if each.line.row and each.line.comment:
            if column and each.claims and not each.citation:
                each.put(column, each.line.comment)
            else:
                commented.append(each)
    longest = max((each.end for each in section if each.line.row and each.end <= LONG_LINE), default=0)
    own = max((each.end + 2 for each in commented if each.end <= WIDTH - 20), default=0)
    for each in commented:
        each.put(max(longest, own), each.line.comment)


# --- long lines -----------------------------------------------------------------------------------

_WORDS = re.compile(r'"[^"]*"|[^ "]+')


def wrapped(indent: str, text: str) -> list[str]:
    """A statement on one line; one that is too long goes on below, inside its brackets."""
    lines, line, depth = [], indent, 0
    if len(indent) + len(text) <= WIDTH:
        return [indent + text]
    for word in _WORDS.finditer(text):
        piece = text[word.start() : word.end()]
        blank = " " if text[: word.start()].endswith(" ") else ""
        # a keyword at the start of a line would be taken for a statement
        if depth and blank and len(line) + 1 + len(piece) > WIDTH and piece not in STATEMENTS:
            lines.append(line)
            line, blank = indent + CONTINUED, ""
        line += blank + piece
        if not piece.startswith('"'):
            depth += piece.count("(") + piece.count("[") - piece.count(")") - piece.count("]")
    return [*lines, line]
