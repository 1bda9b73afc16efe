"""Rows in columns: where words, citations and comments stand on the page.

Lines that follow one another without a blank line make a section. Like statements of a section share their
columns; the citations of a circuit stand in one column, two blanks past the longest line of the sections that
have any. A cell or line far longer than the others runs over its column instead of pushing it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

from circuitdsl.language import syntax as s
from circuitdsl.language.lexer import STATEMENTS
from circuitdsl.language.syntax import in_brackets, joined, listed


@dataclass(frozen=True, slots=True)
class Row:
    """One statement, without its comment.

    Attributes:
        table: rows of the same table that follow one another share their columns.
        cells: the words in columns; a cell may be empty.
        citation: the string at its end, in its quotes, and why the claim is expected to fail.
        of: what the table is of, where there are several of a kind: `expect attention` rows share no columns with
            `expect accuracy` rows.
    """

    table: str
    cells: tuple[str, ...]
    citation: str = ""
    of: str = ""

    @property
    def text(self) -> str:
        """With single blanks, without its citation."""
        return joined(*self.cells)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `gap` blanks before it; `ragged` where a cell with nothing after it may run on below it."""

    gap: int = 1
    ragged: bool = False


#: by table, its columns
TABLES: dict[str, tuple[Column, ...]] = {
    "header": (Column(0), Column(ragged=True), Column()),
    "info": (Column(0), Column()),
    "dictionary": (Column(0), Column(), Column()),
    "group": (Column(0), Column(), Column(), Column(6, ragged=True), Column(2)),
    "edge": (Column(0), Column(), Column(3), Column(2), Column(2), Column(2)),
    "path": (Column(0), Column(), Column(2), Column(2)),
    "channel": (Column(0), Column(), Column(), Column(), Column(2)),
    "expect": (Column(0), Column(), Column(2)),
}


def row_of(statement: s.Statement) -> Row:
    """A statement as it is canonically written.

    Raises:
        ValueError: it could not be read when it was parsed, or holds a string that cannot be written.
    """
    match statement:
        case s.Info(kind=kind, text=text):
            return Row("info", (kind, str(text)))
        case s.Model(name=path, options=options):
            return Row("header", ("model", listed((path, *options))))
        case s.Task(name=name, generator=generator, arguments=arguments):
            made = generator.text + in_brackets(arguments)
            return Row("header", ("task", name.text, f"= {made}") if name else ("task", made))
        case s.Metric(name=name, arguments=arguments):
            return Row("header", ("metric", name.text + in_brackets(arguments)))
        case s.Dictionary(name=name, kind=made, arguments=arguments):
            return Row("dictionary", ("dictionary", name.text, f"= {made}{in_brackets(arguments)}"))
        case s.Margin() | s.ProtocolLine():
            return Row("header", tuple(str(statement).split(" ", 1)))
        case s.Group(kind=kind, name=name, members=members, at=places, roles=roles, outside=outside):
            more = "  ".join((*(f"role {role.text}" for role in roles), *["outside"] * outside))
            return Row("group", (kind, name.text, f"= {members}", joined(*places), more))
        case s.EdgeClaim(each=each, edge=edge, claim=claim, on=on):
            first = joined("each" if each else "", edge.sender)
            rest = f"-> {edge.receiver}", joined(edge.at), joined(edge.protocol)
            return Row("edge", (first, *rest, _claim(claim), _asked(on, statement)), _tail(statement))
        case s.PathClaim(each=each, path=path, claim=claim, on=on):
            first = joined("path", "each" if each else "", path.sender)
            way = joined(*path.hops)
            return Row("path", (first, way, _claim(claim), _asked(on, statement)), _tail(statement))
        case s.Expect(measurement=measurement, relation=relation, claim=claim, on=on):
            cells = (f"expect {measurement}", joined(relation) or _claim(claim), _asked(on, statement))
            return Row("expect", cells, _tail(statement), measurement.name.text)
        case s.Channel(each=each, sender=sender, receiver=receiver, apart=apart, claim=claim):
            first = joined("each" if each else "", sender)
            words = ("channel", first, f"-> {receiver}", joined(apart), _claim(claim))
            return Row("channel", words, _tail(statement))
        case s.Trace(nodes=nodes, source=source, target=target, includes=includes, at=at):
            way = f"{listed(source)} -> {listed(target)}"
            return Row("", (joined("trace", nodes, way, "includes", includes, at, statement.where),), _tail(statement))
        case s.Property(title=title, share=share, of=of):
            header = joined("property", title, *(("for", share, "of", of or "prompts") if share else ()))
            return Row("", (header,), joined(statement.gap))
        case s.Broken(span=span, text=text):
            raise ValueError(f"line {span.line} could not be read: {text}")
    return Row("", (str(statement),))


def _asked(on: s.Word | None, claim: s.Cited) -> str:
    """On which prompts a claim is checked, where it says so."""
    return joined(f"on {on}" if on else "", claim.where)


def _tail(claim: s.Cited) -> str:
    """What stands behind a claim."""
    return joined(claim.citation, claim.gap)


def _claim(parts: Sequence[s.Syntax]) -> str:
    """`: lowers and effect <= -20%`, or nothing."""
    return f": {' and '.join(map(str, parts))}" if parts else ""


WIDTH = 120
INDENT = "  "
CONTINUED = "    "
#: cells and lines longer than this do not move the columns after them
LONG_CELL, LONG_LIST, LONG_WAY, LONG_LINE, LONG_CITED = 48, 72, 80, 64, 80


@dataclass(slots=True)
class Line:
    """A statement or a comment on a line of its own.

    Attributes:
        row: the statement; without cells for a comment alone.
        depth: how many blocks it stands in.
        blank: whether a blank line stands above.
        comment: the comment alone, or the one at the statement's end.
        opens: whether a circuit begins here.
        pieces: the lines of text that it makes; a long statement makes several, and the last one goes on.
    """

    row: Row
    depth: int
    blank: bool
    comment: str = ""
    opens: bool = False
    pieces: list[str] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Where its last piece ends."""
        return len(self.pieces[-1])

    @property
    def claims(self) -> bool:
        """Whether it states a claim, so that a citation or comment stands in the circuit's column."""
        return self.row.table in ("edge", "path", "expect", "channel") or bool(self.row.citation)

    def put(self, column: int, text: str) -> None:
        """Put a text at a column, two blanks after the line's words at the least."""
        if text:
            self.pieces[-1] = self.pieces[-1].ljust(max(column, self.end + 2)) + text


def lay_out(lines: Sequence[Line]) -> str:
    """The lines as text; it ends with a line end."""
    for line in lines:
        indent = INDENT * line.depth
        line.pieces = wrapped(indent, line.row.text) if line.row.cells else [indent + line.comment]
    sections = _split(lines, lambda line: line.blank or line.opens)
    for section in sections:
        for rows, run in groupby((line for line in section if line.row.cells), _run):
            if rows:
                _align(list(run))
    for circuit in _split(sections, lambda section: any(line.opens for line in section)):
        cited = [section for section in circuit if any(line.row.citation for line in section)]
        # two blanks past the longest claim of the sections that have citations
        ends = [line.end for section in cited for line in section if line.claims and line.end <= LONG_CITED]
        for section in circuit:
            _put_tails(section, max(ends, default=0) + 2 if section in cited else 0)
    pieces = (piece for line in lines for piece in ([""] * (line.blank and line is not lines[0]) + line.pieces))
    return "\n".join(pieces) + "\n"


T = TypeVar("T")


def _split(items: Iterable[T], begins: Callable[[T], bool]) -> list[list[T]]:
    """The items in stretches: a new one begins at every item for which `begins` is true."""
    stretches: list[list[T]] = []
    for item in items:
        if begins(item) or not stretches:
            stretches.append([])
        stretches[-1].append(item)
    return stretches


def _run(line: Line) -> tuple[str, str, int] | None:
    """Rows in sequence that are alike in this share their columns; None for a row that shares none."""
    row = line.row
    return (row.table, row.of, line.depth) if row.table and len(line.pieces) == 1 else None


# --- columns --------------------------------------------------------------------------------------


def _align(run: list[Line]) -> None:
    """Put the cells of rows that follow one another into their columns."""
    rows = [line.row for line in run]
    columns = TABLES.get(rows[0].table, (Column(0),))
    cells = [(*row.cells, *[""] * (len(columns) - len(row.cells))) for row in rows]
    used = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    widths = {i: _width(columns[i], [row[i] for row in cells], [any(row[i + 1 :]) for row in cells]) for i in used}
    for line, row in zip(run, cells, strict=True):
        text, end = "", 0
        for i in used:
            start = end + columns[i].gap
            if row[i]:
                least = len(text) + min(columns[i].gap, 2) if text else 0
                text = text.ljust(max(start if text else 0, least)) + row[i]
            end = start + widths[i]
        line.pieces = [INDENT * line.depth + text]


def _width(column: Column, cells: list[str], followed: list[bool]) -> int:
    """The width of a column: that of its longest cell, apart from outliers."""
    way = any(cell.count("-> ") > 1 for cell in cells)
    long = LONG_WAY if way else LONG_LIST if any(cell.startswith("= ") for cell in cells) else LONG_CELL
    counted = [len(cell) for cell, more in zip(cells, followed, strict=True) if more or not column.ragged]
    return max((n for n in counted if n <= long), default=0)


def _put_tails(section: list[Line], column: int) -> None:
    """Citations at their column; comments there as well, or aligned with the section's other comments."""
    commented = []
    for each in section:
        each.put(column, each.row.citation)
        if each.row.cells and each.comment:
            if column and each.claims and not each.row.citation:
                each.put(column, each.comment)
            else:
                commented.append(each)
    longest = max((each.end for each in section if each.row.cells and each.end <= LONG_LINE), default=0)
    own = max((each.end + 2 for each in commented if each.end <= WIDTH - 20), default=0)
    for each in commented:
        each.put(max(longest, own), each.comment)


# --- long lines -----------------------------------------------------------------------------------

_WORDS = re.compile(r'"[^"]*"|[^ "]+')


def wrapped(indent: str, text: str) -> list[str]:
    """A statement on one line; one that is too long goes on below, inside its brackets."""
    lines, line, depth = [], indent, 0
    if len(indent) + len(text) <= WIDTH:
        return [indent + text]
    for word in _WORDS.finditer(text):
        piece = text[word.start() : word.end()]
        blank = " " if word.start() and text[word.start() - 1] == " " else ""
        # a keyword at the start of a line would be taken for a statement
        if depth and blank and len(line) + 1 + len(piece) > WIDTH and piece not in STATEMENTS:
            lines.append(line)
            line, blank = indent + CONTINUED, ""
        line += blank + piece
        if not piece.startswith('"'):
            depth += piece.count("(") + piece.count("[") - piece.count(")") - piece.count("]")
    return [*lines, line]
