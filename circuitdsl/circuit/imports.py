"""`use "lab_roles.circ"`: roles and circuits from other files, in the spec's own folder or below."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.names import check_names
from circuitdsl.circuit.roles import Body, body_of
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import ROLES
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Sink, place
from circuitdsl.language.parse import parse
from circuitdsl.language.source import read_source


@dataclass
class Imports:
    """What used files bring.

    Attributes:
        kinds: what can be measured.
        roles: their checks; those of the file itself come first, then those of the first file that has them.
        circuits: by the name of a circuit, the first file that has it, and the line that brought it in.
        texts: what was read, in order: it belongs to the spec's hash.
        missing: whether something could not be read, so that names may be missing.
    """

    kinds: Kinds
    roles: dict[str, Body] = field(default_factory=dict)
    circuits: dict[str, tuple[s.File, s.Use]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    missing: bool = False

    def sha256(self, text: str) -> str:
        """The hash of a spec together with what it uses."""
        digest = hashlib.sha256(text.encode("utf-8", "replace"))
        for used in self.texts:
            digest.update(hashlib.sha256(used.encode("utf-8", "replace")).digest())
        return digest.hexdigest()


def read_imports(statements: Iterable[s.Statement], path: str, kinds: Kinds, sink: Sink) -> Imports:
    """Read the files that a spec uses, and those that these use."""
    found, root = Imports(kinds), Path(path).parent
    _read(statements, root, root, (_real(Path(path)),), set(), None, found, sink)
    return found


def _read(
    statements: Iterable[s.Statement],
    folder: Path,
    root: Path,
    above: tuple[Path, ...],
    seen: set[Path],
    outer: s.Use | None,
    found: Imports,
    sink: Sink,
) -> None:
    for use in statements:
        if not isinstance(use, s.Use):
            continue
        said = outer or use  # what is wrong further down is said at the line that brought it in
        target, problem = _target(use.path.text, folder, root, above)
        if problem or target is None:
            sink.error("E032", problem, said.path.span)
            found.missing = True
        elif target not in seen:
            seen.add(target)
            _take(target, root, (*above, target), seen, said, found, sink)


def _target(written: str, folder: Path, root: Path, above: tuple[Path, ...]) -> tuple[Path | None, str]:
    """The file that is meant, or why it cannot be used."""
    if PurePosixPath(written).is_absolute() or PureWindowsPath(written).drive or written.startswith(("\\", "~")):
        return None, f"{written} is an absolute path: a used file stands in the spec's own folder or below"
    if ".." in PurePosixPath(written.replace("\\", "/")).parts:
        return None, f"{written} leads out of the folder: a used file stands in the spec's own folder or below"
    target = _real(folder / written)
    if not target.is_relative_to(_real(root)):
        return None, f"{written} leads out of the spec's own folder"
    if target in above:
        return None, f"{written} is used by a file that it uses itself"
    return target, ""


def _take(
    target: Path, root: Path, above: tuple[Path, ...], seen: set[Path], said: s.Use, found: Imports, sink: Sink
) -> None:
    """Roles and circuits of one file; what is wrong in it is said with its own place."""
    text, problems = read_source(target)
    file, more = parse(text, str(target)) if not problems else (s.File(str(target), ()), ())
    refuse((*problems, *more), target, said, found, sink)
    found.texts.append(text)
    roles = [statement for statement in file.statements if isinstance(statement, s.Role)]
    for role in roles:
        found.roles.setdefault(role.name.text, body_of(role))
    for line in file.statements:
        if isinstance(line, s.Circuit):
            found.circuits.setdefault(line.name.text, (file, said))
    _read(file.statements, target.parent, root, above, seen, said, found, sink)
    known = {*ROLES, *found.roles}
    for role in roles:
        inner = Sink()
        check_names(Scope(inner, found.kinds, roles=known, imports=found.missing), role, in_role=True)
        if inner.found and found.roles[role.name.text] == body_of(role):
            found.roles[role.name.text] = body_of(role, wrong=True)
        refuse(inner.found, target, said, found, sink)


def refuse(wrong: Iterable[Diagnostic], file: Path, said: s.Use, found: Imports, sink: Sink) -> None:
    """Say at the line that brought a file in what is wrong there."""
    for each in wrong:
        if each.severity == "error":
            sink.error("E032", f"{place(each, str(file))}: {each.message}", said.path.span)
            found.missing = True


def _real(path: Path) -> Path:
    """Links followed; a path that cannot be looked up stays as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()
