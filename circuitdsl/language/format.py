"""The one canonical layout of a spec: syntax to text, with its comments and its sections.

The order of statements and the comments are kept, and one blank line wherever the text has some. Everything else
follows from the syntax, so formatting a second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from circuitdsl.errors import UserError
from circuitdsl.garbage import quickly
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import START, Diagnostic, lines_of
from circuitdsl.language.layout import Line, Row, lay_out, row_of
from circuitdsl.language.lexer import Comment
from circuitdsl.language.parse import parse


class NotFormatted(UserError):
    """A text with syntax errors; `diagnostics` are all of them."""

    status = 2

    def __init__(self, path: str, diagnostics: tuple[Diagnostic, ...]) -> None:
        first, more = diagnostics[0], len(diagnostics) - 1
        where = f"{path or 'the text'}:{first.span.line}:{first.span.column}"
        others = f" (and {more} more)" if more else ""
        super().__init__(f"{where} cannot be formatted: {first.message}{others}", "mend its syntax errors first")
        self.diagnostics = diagnostics


def format_text(text: str, path: str = "") -> str:
    """A spec in its canonical layout.

    Raises:
        NotFormatted: the text has syntax errors.
    """
    with quickly():
        file, found = parse(text, path)
        if found:
            raise NotFormatted(path, found)
        return dumps(file)


def dumps(file: s.File) -> str:
    """The canonical text of a parsed file, with the comments and sections of the text it was parsed from.

    A file made without a text gets a blank line between its sections.

    Raises:
        ValueError: a statement could not be read, or a string holds a double quote, a line end or a control character.
    """
    return lay_out(list(_with_comments(file) if file.text else _with_sections(file)))


def bare(file: s.File) -> str:
    """The canonical text of a parsed file without its comments; the text as it is where some of it could not be read.

    Files of which it is the same say the same.
    """
    try:
        return dumps(replace(file, text="", comments=()))
    except ValueError:
        return file.text


#: stands for a statement where a line holds a comment alone
_COMMENT = Row("", ())


@dataclass(frozen=True, slots=True)
class _Flat:
    """A statement, and the headers of the blocks in which it stands, outermost first."""

    statement: s.Statement
    headers: tuple[s.Statement, ...]
    depth: int

    def opened_by(self, other: _Flat | None) -> bool:
        """Whether the statement is the first of the block below another."""
        return other is not None and bool(self.headers) and self.headers[-1] is other.statement


def _flat(statements: Iterable[s.Statement], headers: tuple[s.Statement, ...] = ()) -> Iterator[_Flat]:
    """All statements in the order written; what describes a circuit stands indented below its line."""
    below_circuit = False
    for statement in statements:
        described = below_circuit and isinstance(statement, s.Info)
        below_circuit = described or isinstance(statement, s.Circuit)
        yield _Flat(statement, headers, len(headers) or int(described))
        yield from _flat(getattr(statement, "block", ()), (*headers, statement))


def _line(flat: _Flat, blank: bool, comment: str = "") -> Line:
    return Line(row_of(flat.statement), flat.depth, blank, comment, isinstance(flat.statement, s.Circuit))


def _with_sections(file: s.File) -> Iterator[Line]:
    """The lines of a file without a text: a blank line stands where another kind of statement begins."""
    before = ""
    for flat in _flat(file.statements):
        line = _line(flat, False)
        kind = "circuit" if line.opens else "block" if hasattr(flat.statement, "block") else line.row.table
        line.blank = not flat.headers and (kind != before or kind in ("circuit", "block")) and kind != "info"
        before = "block" if flat.headers else kind
        yield line


def _with_comments(file: s.File) -> Iterator[Line]:
    """Every statement with the comments above it and the one at its end."""
    source = _Source(file)
    statements = list(_flat(file.statements))
    ends = _ends(statements, (len(source.lines) + 1, 1))
    before: _Flat | None = None
    for flat, end in zip(statements, ends, strict=True):
        start = flat.statement.span.line
        yield from _own_lines(source, source.until((start, 1)), before, flat)
        inside, trailing = source.of(flat.statement, end)
        blank = source.blank_above(start) and not flat.opened_by(before)
        for comment in inside:  # comments between the lines of a statement, which is written on one
            yield Line(_COMMENT, flat.depth, blank, comment)
            blank = False
        yield _line(flat, blank, trailing)
        before = flat
    yield from _own_lines(source, source.until((len(source.lines) + 1, 1)), before, None)


def _own_lines(source: _Source, comments: list[Comment], before: _Flat | None, after: _Flat | None) -> Iterator[Line]:
    """Comments on lines of their own: those indented below a block's header still belong to the block."""
    open_above = before.headers if before else ()
    first = after is not None and after.opened_by(before)
    least, depth = after.depth if after else 0, len(open_above)
    for comment in comments:
        below = sum(header.span.column < comment.column for header in open_above)
        depth = max(least, min(depth, below))
        yield Line(_COMMENT, depth, source.blank_above(comment.line) and not first, comment.text.rstrip())
        first = False


def _ends(statements: list[_Flat], last: tuple[int, int]) -> list[tuple[int, int]]:
    """For every statement, where the next one begins in the text; those without a place in the text are passed over."""
    ends = []
    for flat in reversed(statements):
        ends.append(last)
        span = flat.statement.span
        last = min(last, (span.line, span.column)) if span != START else last
    return ends[::-1]


class _Source:
    """The text that was parsed, and its comments not yet placed, in order."""

    def __init__(self, file: s.File) -> None:
        self.lines = lines_of(file.text)
        self.comments = list(reversed(file.comments))

    def blank_above(self, line: int) -> bool:
        return 2 <= line <= len(self.lines) and not self.words(line - 1, None)

    def words(self, line: int, until: int | None) -> str:
        return self.lines[line - 1][:until].replace("\ufeff", "").strip()

    def until(self, place: tuple[int, int]) -> list[Comment]:
        """The comments before a place."""
        found = []
        while self.comments and (self.comments[-1].line, self.comments[-1].column) < place:
            found.append(self.comments.pop())
        return found

    def of(self, statement: s.Statement, end: tuple[int, int]) -> tuple[list[str], str]:
        """(comments between the lines of a statement, the one at its end)."""
        inside, trailing = list[str](), ""
        if not self.comments or (self.comments[-1].line, self.comments[-1].column) >= end:
            return inside, trailing
        header = replace(statement, block=()) if isinstance(statement, s.Block) else statement
        last = max(part.span.end_line for part in s.walk(header))
        while self.comments:
            comment = self.comments[-1]
            alone = not self.words(comment.line, comment.column - 1)
            if (comment.line, comment.column) >= end or (alone and comment.line > last):
                break
            self.comments.pop()
            text = comment.text.rstrip()
            if alone:
                inside.append(text)
            else:
                inside += [trailing] if trailing else []
                trailing = text
        return inside, trailing
