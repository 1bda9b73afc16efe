"""A name written anew wherever it stands, in all files that share it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from circuitdsl.circuit.vocabulary import ROLES
from circuitdsl.errors import UserError
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Fix, Span, lines_of
from circuitdsl.language.parse import is_reserved, read_source
from circuitdsl.lsp.document import Document
from circuitdsl.lsp.files import Open, prompt_file
from circuitdsl.lsp.names import Name, name_at, names, same
from circuitdsl.lsp.navigation import sharing
from circuitdsl.tasks.places import POSITION

#: by file, the texts to put into it
Edits = dict[str, list[Fix]]
_SMALL = re.compile(r"[a-z][a-z0-9_]*")
_RENAMED = ("group", "position", "circuit", "task", "intervention", "direction", "dictionary")


class CannotRename(UserError):
    """Why a name stays as it is."""


def renamed(document: Document, row: int, column: int) -> Name:
    """The name at a place that can be changed; raises `CannotRename` where there is none."""
    name = name_at(document, row, column)
    if name is None or name.kind == "option":
        raise CannotRename("there is no name here")
    if name.kind not in _RENAMED:
        raise CannotRename(f"a {name.kind} is not renamed from here")
    if name.kind == "position":
        for task, shape in document.shapes_at(row).items():
            if name.text in shape.positions and task not in _file_tasks(document):
                raise CannotRename(f"{name.text} is a position of the task {task}, which comes with circuitdsl")
        if name.text == "END":
            raise CannotRename("END is the last token of every prompt")
    return name


def rename(document: Document, row: int, column: int, new: str, opened: Open, folders: Iterable[Path] = ()) -> Edits:
    """What to write where, so that the name at a place becomes another, and all else means what it meant.

    Args:
        folders: where specs may lie that use this one.

    Raises:
        CannotRename: it cannot be changed, or the new name is none, or is taken.
    """
    name = renamed(document, row, column)
    _check(document, name, new)
    found: Edits = {document.path: [Fix(each.span, new) for each in same(document, name)]}
    for other in sharing(document, name, opened, folders):
        _check(other, name, new)
        found[other.path] = [Fix(each.span, new) for each in same(other, name)]
    if name.kind == "group":
        found[document.path] += _roles_kept(document, name, new)
    elif name.kind == "task":
        _keep_generator(document, name, found[document.path])
    elif name.kind == "position":
        for path in _file_tasks(document).values():
            if edits := list(_in_prompts(path, name.text, new)):
                found[str(path)] = edits
    return {path: sorted(edits) for path, edits in found.items() if edits}


def _check(document: Document, name: Name, new: str) -> None:
    """Raise `CannotRename` where a file cannot have the new name."""
    if name.kind == "position":
        if not POSITION.fullmatch(new):
            raise CannotRename("a position is written in capitals (A to Z, 0 to 9, _)")
    elif is_reserved(new):
        raise CannotRename(f"'{new}' is reserved")
    elif not _SMALL.fullmatch(new):
        raise CannotRename("a name is written in small letters, digits and '_'")
    taken = Name(name.kind, new, name.span, name.part)
    if new != name.text and any(same(document, taken)):
        raise CannotRename(f"there is a {name.kind} {new} already in {Path(document.path).name}")


def _roles_kept(document: Document, name: Name, new: str) -> Iterator[Fix]:
    """A group named like a role has it: the role is then written down, or denied."""
    roles = {*ROLES, *(each.text for each in names(document) if each.kind == "role" and each.defines)}
    for line in document.lines:
        group = line.statement
        if isinstance(group, s.Group) and line.part == name.part and group.name.text == name.text and not group.roles:
            role = name.text if name.text in roles else "none" if new in roles else ""
            end = Span(group.span.end_line, group.span.end_column, group.span.end_line, group.span.end_column)
            if role:
                yield Fix(end, f"  role {role}")


def _keep_generator(document: Document, name: Name, edits: list[Fix]) -> None:
    """`task ioi(…)` has its name from its generator, which stays: `task new = ioi(…)`."""
    for line in document.lines:
        task = line.statement
        if isinstance(task, s.Task) and task.name is None:
            for i, fix in enumerate(edits):
                if fix.span == task.generator.span:
                    edits[i] = Fix(fix.span, f"{fix.text} = {name.text}")


def _file_tasks(document: Document) -> dict[str, Path]:
    """The prompt files of a spec's tasks, by the tasks' names."""
    tasks = (line.statement for line in document.lines if isinstance(line.statement, s.Task))
    found = ((task, prompt_file(document, task)) for task in tasks)
    return {task.name.text if task.name else path.stem: path for task, path in found if path}


def _in_prompts(path: Path, old: str, new: str) -> Iterator[Fix]:
    """Where a prompt file names a position: a key of JSON, or a column of CSV."""
    text, problems = read_source(path)
    if problems and path.exists():
        raise CannotRename(f"{path.name} cannot be changed: {problems[0].message}")
    rows = lines_of(text)
    csv = path.suffix.lower() == ".csv"
    named = re.compile(rf'(?:^|(?<=,))"?({old})(?="?(?:,|$))' if csv else rf'[{{,]\s*"({old})"\s*:')
    for number, row in enumerate(rows[:1] if csv else rows, 1):
        for match in named.finditer(row):
            start, end = match.span(1)
            yield Fix(Span(number, start + 1, number, end + 1), new)
