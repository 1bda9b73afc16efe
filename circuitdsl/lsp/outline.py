"""The parts of a spec: its outline, and what can be folded away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span
from circuitdsl.lsp.document import Document, end_of


@dataclass(slots=True)
class Entry:
    """A part of a spec.

    Attributes:
        span: all of it, with what belongs to it.
        name_span: its name.
    """

    name: str
    detail: str
    sort: Literal["circuit", "group", "task", "role", "intervention", "property", "condition", "comparison", "claim"]
    span: Span
    name_span: Span
    inside: list[Entry] = field(default_factory=list)


class Fold(NamedTuple):
    """Rows that can be folded away below the first of them."""

    first: int
    last: int
    comment: bool = False


def outline(document: Document) -> list[Entry]:
    """The circuits of a spec, with their groups, tasks and claims; what belongs to the file stands beside them."""
    top: list[Entry] = []
    for line in document.lines:
        if line.headers:
            continue
        entry = _entry(line.statement)
        if entry is None:
            continue
        last = top[-1] if top else None
        of_file = isinstance(line.statement, s.Role | s.Compare)
        if last is not None and last.sort == "circuit" and entry.sort != "circuit" and not of_file:
            last.inside.append(entry)
            last.span = last.span.to(entry.span)
        else:
            top.append(entry)
    return top


def folds(document: Document) -> list[Fold]:
    """Circuits, blocks, statements of several rows, and comments that stand in rows of their own."""
    found = [Fold(entry.span.line, entry.span.end_line) for entry in outline(document) if entry.sort == "circuit"]
    for line in document.lines:
        last = _end(line.statement)
        found.append(Fold(line.statement.span.line, last))
    rows = [each.line for each in document.file.comments if not document.rows[each.line - 1][: each.column - 1].strip()]
    start = None
    for row, following in zip(rows, [*rows[1:], 0], strict=False):
        start = row if start is None else start
        if following != row + 1:
            found.append(Fold(start, row, comment=True))
            start = None
    return sorted({fold for fold in found if fold.last > fold.first})


def _end(statement: s.Statement) -> int:
    return max([end_of(statement), *map(_end, getattr(statement, "block", ()))])


def _entry(statement: s.Statement) -> Entry | None:
    """A statement as a part of the outline, with the lines of its block."""
    inside = [found for each in getattr(statement, "block", ()) if (found := _entry(each))]
    last = inside[-1].span if inside else statement.span
    span = statement.span.to(last)

    def entry(word: s.Word | s.Text, detail: str, sort: object) -> Entry:
        return Entry(word.text or "…", detail, sort, span, word.span, inside)  # type: ignore[arg-type]

    match statement:
        case s.Circuit(name=word, title=title):
            return entry(word, title.text if title else "", "circuit")
        case s.Group(name=word, members=members, kind=kind):
            return entry(word, f"{kind} {members}", "group")
        case s.Task(name=word, generator=generator):
            return entry(word or generator, generator.text, "task")
        case s.Role(name=word, title=title):
            return entry(word, title.text if title else "", "role")
        case s.Intervention(name=word, title=title):
            return entry(word, title.text if title else "", "intervention")
        case s.Property(title=title):
            return entry(title, "", "property")
        case s.Compare(first=first, second=second):
            return Entry(f"{first} with {second}", "", "comparison", span, span, inside)
        case s.WhenPatched() | s.WhenKnockedOut() | s.WhenBoth():
            return Entry(statement.text, "", "condition", span, statement.span, inside)
        case s.EdgeClaim() | s.PathClaim() | s.Expect() | s.Channel() | s.Trace():
            citation = statement.citation.text if statement.citation else ""
            return Entry(statement.text or "…", citation, "claim", span, span)
    return None
