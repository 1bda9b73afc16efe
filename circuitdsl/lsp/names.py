"""Where the names of a spec stand: where each is defined, and where it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Span
from circuitdsl.lsp.document import Document, Line, holds, parts_of

Kind = Literal["circuit", "group", "task", "position", "role", "intervention", "direction", "dictionary", "option"]


class Name(NamedTuple):
    """A name at one place.

    Attributes:
        part: the number of the circuit in which it stands, as in `Line`.
        defines: whether it is defined here.
    """

    kind: Kind
    text: str
    span: Span
    part: int
    defines: bool = False


def names(document: Document) -> list[Name]:
    """All names of a spec in their order."""
    groups: dict[int, set[str]] = {}
    dictionaries = {d.name.text for line in document.lines if isinstance(d := line.statement, s.Dictionary)}
    for line in document.lines:
        if isinstance(line.statement, s.Group):
            groups.setdefault(line.part, set()).add(line.statement.name.text)
    found = {
        name.span: name
        for line in document.lines
        for name in (
            *_of_statement(line, groups.get(line.part, set()), dictionaries),
            *_of_broken(document, line, groups.get(line.part, set())),
        )
    }
    return sorted(found.values(), key=lambda name: name.span)


def name_at(document: Document, row: int, column: int) -> Name | None:
    """The name that a cursor touches."""
    return next((name for name in names(document) if holds(name.span, row, column)), None)


def same(document: Document, name: Name) -> list[Name]:
    """All places in a spec where one thing is named: groups and tasks belong to a circuit, all else to the file."""
    own = name.kind in ("group", "task")
    return [
        other
        for other in names(document)
        if (other.kind, other.text) == (name.kind, name.text)
        # a task above the first circuit is a task of all of them
        and (not own or other.part == name.part or (name.kind == "task" and -1 in (other.part, name.part)))
    ]


def _of_statement(line: Line, groups: set[str], dictionaries: set[str]) -> Iterator[Name]:
    statement, part = line.statement, line.part

    def defined(kind: Kind, word: s.Word) -> Name:
        return Name(kind, word.text, word.span, part, True)

    def used(kind: Kind, word: s.Word) -> Name:
        return Name(kind, word.text, word.span, part)

    match statement:
        case s.Circuit(name=word):
            yield defined("circuit", word)
        case s.Task(name=word, generator=generator):
            yield defined("task", word or generator)
        case s.Group(name=word, roles=roles):
            yield defined("group", word)
            yield from (used("role", role) for role in roles if role.text != "none")
        case s.Role(name=word):
            yield defined("role", word)
        case s.Intervention(name=word):
            yield defined("intervention", word)
        case s.Direction(name=word):
            yield defined("direction", word)
        case s.Dictionary(name=word):
            yield defined("dictionary", word)
        case s.Compare(first=first, second=second):
            yield from (used("circuit", word) for word in (first, second))
        case s.EdgeClaim(on=s.Word() as word) | s.PathClaim(on=s.Word() as word) | s.Expect(on=s.Word() as word):
            yield used("task", word)
    of_role = any(isinstance(each, s.Role) for each in (*line.headers, statement))
    for piece in parts_of(statement):
        if isinstance(piece, s.Place) and piece.name.isupper():
            row, column, *_ = piece.span
            yield Name("position", piece.name, Span(row, column, row, column + len(piece.name)), part)
        elif isinstance(piece, s.Head | s.Mlp | s.Resid | s.Special) and isinstance(piece.index, str):
            _, _, row, end = piece.span  # the brackets stand right behind the node
            yield Name("direction", piece.index, Span(row, end + 1, row, end + 1 + len(piece.index)), part)
        elif isinstance(piece, s.Feature):
            row, column, *_ = piece.span
            span = Span(row, column, row, column + len(piece.dictionary))
            yield Name("dictionary", piece.dictionary, span, part)
        elif isinstance(piece, s.GroupRef) and piece.name in dictionaries - groups:
            yield Name("dictionary", piece.name, piece.span, part)
        elif isinstance(piece, s.GroupRef) and of_role:
            yield Name("role", piece.name, piece.span, part)
        elif isinstance(piece, s.GroupRef):
            option = piece.name not in groups and (isinstance(statement, s.Expect) or piece.name == "all")
            yield Name("option" if option else "group", piece.name, piece.span, part)


def _of_broken(document: Document, line: Line, groups: set[str]) -> Iterator[Name]:
    """The names of groups and positions in a statement that could not be read."""
    if not isinstance(line.statement, s.Broken):
        return
    for kind, text, span in document.pieces_of(line.statement):
        if kind == "NAME" and (text in groups or text == line.statement.name):
            defines = text == line.statement.name and line.statement.keyword in ("heads", "mlps", "nodes", "features")
            if defines or text in groups:
                yield Name("group", text, span, line.part, defines)
        elif kind == "POSITION":
            yield Name("position", text, span, line.part)
