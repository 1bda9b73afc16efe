"""`use "lab_roles.circ"`: roles and circuits from other files, in the spec's own folder or below."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.roles import Body, body_of, check_names
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import ROLES
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Sink, place
from circuitdsl.language.parse import parse
from circuitdsl.language.source import read_source


@dataclass
class Imports:
    """Reads used files, and collects what they bring.

    Attributes:
        path: the spec that uses them.
        kinds: what can be measured.
        sink: takes what is wrong in a used file, at the line of the spec that brought it in.
        roles: their checks, those of the first file that has them.
        circuits: by the name of a circuit, the first file that has it, and the line that brought it in.
        texts: what was read, in order: it belongs to the spec's hash.
        missing: whether something could not be read, so that names may be missing.
    """

    path: str
    kinds: Kinds
    sink: Sink
    roles: dict[str, Body] = field(default_factory=dict)
    circuits: dict[str, tuple[s.File, s.Use]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    missing: bool = False
    seen: set[Path] = field(default_factory=set)

    def sha256(self, text: str) -> str:
        """The hash of a spec together with what it uses."""
        hashes = [hashlib.sha256(each.encode("utf-8", "replace")) for each in (text, *self.texts)]
        for used in hashes[1:]:
            hashes[0].update(used.digest())
        return hashes[0].hexdigest()

    def read(self, statements: Iterable[s.Statement]) -> None:
        """Read the files that the statements of the spec use, and those that these use."""
        self._follow(statements, Path(self.path).parent, (_real(Path(self.path)),), None)

    def refuse(self, wrong: Iterable[Diagnostic], file: str, line: s.Use) -> None:
        """Report errors in a used file at the line of the spec that brought it in."""
        for each in wrong:
            if each.severity == "error":
                self._refuse(f"{place(each, file)}: {each.message}", line)

    def _refuse(self, message: str, line: s.Use) -> None:
        self.sink.error("E032", message, line.path.span)
        self.missing = True

    def _follow(
        self, statements: Iterable[s.Statement], folder: Path, above: tuple[Path, ...], outer: s.Use | None
    ) -> None:
        """Read what statements use that stand in a folder, in a file that the files `above` brought in."""
        for use in statements:
            if isinstance(use, s.Use):
                target = self._target(use.path.text, folder, above)
                if isinstance(target, str):
                    self._refuse(target, outer or use)
                elif target not in self.seen:
                    self.seen.add(target)
                    self._take(target, (*above, target), outer or use)

    def _target(self, written: str, folder: Path, above: tuple[Path, ...]) -> Path | str:
        """The file that is meant, or why it cannot be used."""
        if PurePosixPath(written).is_absolute() or PureWindowsPath(written).drive or written.startswith(("\\", "~")):
            return f"{written} is an absolute path: a used file stands in the spec's own folder or below"
        if ".." in PurePosixPath(written.replace("\\", "/")).parts:
            return f"{written} leads out of the folder: a used file stands in the spec's own folder or below"
        target = _real(folder / written)
        if not target.is_relative_to(_real(Path(self.path).parent)):
            return f"{written} leads out of the spec's own folder"
        return f"{written} is used by a file that it uses itself" if target in above else target

    def _take(self, target: Path, above: tuple[Path, ...], line: s.Use) -> None:
        """Take the roles and circuits of one file."""
        text, problems = read_source(target)
        file, more = parse(text, str(target)) if not problems else (s.File(str(target), ()), ())
        self.refuse((*problems, *more), str(target), line)
        self.texts.append(text)
        roles = [statement for statement in file.statements if isinstance(statement, s.Role)]
        for role in roles:
            self.roles.setdefault(role.name.text, body_of(role))
        for statement in file.statements:
            if isinstance(statement, s.Circuit):
                self.circuits.setdefault(statement.name.text, (file, line))
        self._follow(file.statements, target.parent, above, line)
        known = {*ROLES, *self.roles}
        for role in roles:
            inner = Sink()
            check_names(Scope(inner, self.kinds, roles=known, imports=self.missing), role)
            if inner.found and self.roles[role.name.text] == body_of(role):
                self.roles[role.name.text] = body_of(role, wrong=True)
            self.refuse(inner.found, str(target), line)


def _real(path: Path) -> Path:
    """Links followed; a path that cannot be looked up stays as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()
