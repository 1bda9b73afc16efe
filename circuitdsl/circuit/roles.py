"""Roles: bundles of checks on every head of a group (`roles.circ` has the built-in ones, written in the language).

`use "lab_roles.circ"` takes roles and circuits from other files, in the spec's own folder or below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.paths import leaves, real
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import METRICS, PORTS, ROLES
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Sink, place
from circuitdsl.language.format import bare
from circuitdsl.language.parse import parse, read_source

FILE = Path(__file__).with_name("roles.circ")


@dataclass(frozen=True, slots=True)
class Body:
    """The checks of a role, each with the `when` block in which it stands; `wrong`: whether it has a reported error."""

    checks: tuple[tuple[s.Expect, s.When | None], ...]
    wrong: bool = False


@cache
def built_in() -> Mapping[str, Body]:
    """The roles that come with the language."""
    file, _ = parse(FILE.read_text(encoding="utf-8"), str(FILE))
    return {role.name.text: body_of(role) for role in file.statements if isinstance(role, s.Role)}


def body_of(role: s.Role, wrong: bool = False) -> Body:
    """The checks of a role, in the order written."""
    found: list[tuple[s.Expect, s.When | None]] = []
    for line in role.block:
        when = line if isinstance(line, s.When) else None
        found += [(check, when) for check in (when.block if when else (line,)) if isinstance(check, s.Expect)]
    return Body(tuple(found), wrong or any(isinstance(part, s.Broken) for part in s.walk(role)))


def check_names(scope: Scope, role: s.Role) -> None:
    """Report unknown roles, inputs, measurements and tasks in the block of a role.

    The block is resolved only where a group of a circuit has the role; until then its names are looked up in a scope
    that knows roles alone.
    """
    measurements = [part for part in s.walk(role) if isinstance(part, s.Measurement)]
    options = {  # bare options, which name no role: `accuracy(argmax)`
        argument.span
        for measurement in measurements
        for argument in measurement.arguments
        if isinstance(argument, s.GroupRef) and argument.name in ("argmax", "negated", "nodes", "edges")
    }
    for part in s.walk(role):
        match part:
            case s.GroupRef(name=name) if not (
                part.span in options or name in scope.roles or name == "all" or scope.imports
            ):
                scope.sink.unknown(
                    "E041", "role", name, part.span, scope.roles, " (the checks of a role name roles, not groups)"
                )
            case s.WithPort(port=port) if port.text not in PORTS:
                message = f"there is no input '.{port.text}'; heads have .q, .k and .v"
                scope.sink.error("E071", message, port.span)
            case s.Measurement(name=word) if scope.kinds.word(word.text) is None and word.text not in METRICS:
                scope.sink.unknown("E048", "measurement", word.text, word.span, scope.kinds.words)
            case s.Expect(on=s.Word() as task):
                scope.check_task(task)


@dataclass
class Imports:
    """Reads used files, and collects what they bring.

    Attributes:
        path: the spec that uses them.
        kinds: what can be measured.
        sink: takes what is wrong in a used file, at the line of the spec that brought it in.
        roles: their checks, those of the first file that has them.
        circuits: by the name of a circuit, the first file that has it, and the line that brought it in.
        texts, meanings: what was read, in order, as it stands, and without layout and comments: for the spec's hashes.
        said: the hash of what all of it says, once it is asked for.
        missing: whether something could not be read, so that names may be missing.
    """

    path: str
    kinds: Kinds
    sink: Sink
    roles: dict[str, Body] = field(default_factory=dict)
    circuits: dict[str, tuple[s.File, s.Use]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    meanings: list[str] = field(default_factory=list)
    said: str = ""
    missing: bool = False
    seen: set[Path] = field(default_factory=set)

    def sha256(self, text: str) -> str:
        """The hash of a spec together with what it uses."""
        return _hash(text, self.texts)

    def meaning(self, file: s.File) -> str:
        """The same of what they say, whatever their layout and comments; found once for all circuits of the file."""
        if not self.said:
            self.said = _hash(bare(file), self.meanings)
        return self.said

    def read(self, statements: Iterable[s.Statement]) -> None:
        """Read the files that the statements of the spec use, and those that these use."""
        self._follow(statements, Path(self.path).parent, (real(Path(self.path)),), None)

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
        if problem := leaves(written, folder, Path(self.path).parent):
            return f"{problem}: a used file stands in the spec's own folder or below"
        target = real(folder / written)
        return f"{written} is used by a file that it uses itself" if target in above else target

    def _take(self, target: Path, above: tuple[Path, ...], line: s.Use) -> None:
        """Take the roles and circuits of one file."""
        text, problems = read_source(target)
        file, more = parse(text, str(target)) if not problems else (s.File(str(target), ()), ())
        self.refuse((*problems, *more), str(target), line)
        self.texts.append(text)
        self.meanings.append(bare(file))
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


def _hash(text: str, used: Iterable[str]) -> str:
    first, *others = (hashlib.sha256(each.encode("utf-8", "replace")) for each in (text, *used))
    for other in others:
        first.update(other.digest())
    return first.hexdigest()
