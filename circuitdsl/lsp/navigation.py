"""Where a name is defined, and where it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from circuitdsl.circuit.roles import FILE, built_in
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import START, Span
from circuitdsl.lsp.document import Document, holds, parts_of
from circuitdsl.lsp.files import Open, from_disk, prompt_file, used, users
from circuitdsl.lsp.names import Name, name_at, names, same


class Spot(NamedTuple):
    """A place in a file."""

    path: str
    span: Span


def definitions(document: Document, row: int, column: int, opened: Open) -> list[Spot]:
    """Where the name at a place is defined, here or in a file that the spec uses; or the file that a string names."""
    if file := _file_at(document, row, column):
        return [Spot(str(file), START)]
    name = name_at(document, row, column)
    if name is None:
        return []
    if name.kind == "position":
        return [Spot(document.path, span) for span in _tasks_with(document, name)]
    if found := [each for each in same(document, name) if each.defines]:
        return [Spot(document.path, each.span) for each in found]
    if name.kind not in ("role", "circuit"):
        return []
    others = list(used(document, opened))
    if name.kind == "role" and name.text in built_in():
        others.append(from_disk(FILE))
    found_there = (Spot(other.path, each.span) for other in others for each in _defined(other, name))
    return list(found_there)[:1]


def references(
    document: Document, row: int, column: int, opened: Open, folders: Iterable[Path], declaration: bool = True
) -> list[Spot]:
    """Where the name at a place stands, in all files that share it.

    Args:
        folders: where specs may lie that use this one.
        declaration: whether the place of its definition counts.
    """
    name = name_at(document, row, column)
    if name is None:
        return []
    spots = [(document, each) for each in same(document, name)]
    spots += [(other, each) for other in sharing(document, name, opened, folders) for each in same(other, name)]
    return [Spot(where.path, each.span) for where, each in spots if declaration or not each.defines]


def sharing(document: Document, name: Name, opened: Open, folders: Iterable[Path]) -> Iterator[Document]:
    """The other files in which a name means the same thing: roles and circuits are taken from files that are used."""
    if name.kind not in ("role", "circuit"):
        return
    home = document
    if not any(_defined(document, name)):
        home = next((other for other in used(document, opened) if any(_defined(other, name))), document)
        if home is document:
            return
        yield home
    for user in users(home, folders, opened):
        if user.path != document.path and not any(_defined(user, name)):
            yield user


def _defined(document: Document, name: Name) -> Iterator[Name]:
    return (each for each in names(document) if each.defines and (each.kind, each.text) == (name.kind, name.text))


def _tasks_with(document: Document, position: Name) -> Iterator[Span]:
    """The task lines whose tasks define a position."""
    row = position.span.line
    shapes, tasks = document.shapes_at(row), (line.statement for line in document.lines)
    for task in tasks:
        if isinstance(task, s.Task):
            word = task.name or task.generator
            shape = shapes.get(word.text) or (shapes.get(Path(str(prompt_file(document, task))).stem))
            if shape and position.text in shape.positions:
                yield word.span


def _file_at(document: Document, row: int, column: int) -> Path | None:
    """The file that a string at a place names."""
    line = document.line_at(row)
    text = next(
        (
            piece
            for piece in (parts_of(line.statement) if line else ())
            if isinstance(piece, s.Text) and holds(piece.span, row, column)
        ),
        None,
    )
    if line is None or text is None:
        return None
    if isinstance(line.statement, s.Task):
        return prompt_file(document, line.statement)
    return Path(document.path).parent / text.text if isinstance(line.statement, s.Use) else None
