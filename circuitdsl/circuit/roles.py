"""Roles: bundles of checks on every head of a group (`roles.circ` has the built-in ones, written in the language)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import METRICS, PORTS
from circuitdsl.language import syntax as s
from circuitdsl.language.parse import parse

FILE = Path(__file__).with_name("roles.circ")


@dataclass(frozen=True, slots=True)
class Body:
    """The checks of a role, each with the `when` block in which it stands; `wrong`: whether it has a reported error."""

    checks: tuple[tuple[s.Expect, s.WhenPatched | s.WhenKnockedOut | None], ...]
    wrong: bool = False


@cache
def built_in() -> Mapping[str, Body]:
    """The roles that come with the language."""
    file, _ = parse(FILE.read_text(encoding="utf-8"), str(FILE))
    return {role.name.text: body_of(role) for role in file.statements if isinstance(role, s.Role)}


def body_of(role: s.Role, wrong: bool = False) -> Body:
    """The checks of a role, in the order written."""
    found: list[tuple[s.Expect, s.WhenPatched | s.WhenKnockedOut | None]] = []
    for line in role.block:
        match line:
            case s.Expect():
                found.append((line, None))
            case s.WhenPatched(block=inside) | s.WhenKnockedOut(block=inside):
                found += [(check, line) for check in inside if isinstance(check, s.Expect)]
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
            case s.GroupRef(name=name) if not (part.span in options or name in scope.roles or scope.imports):
                scope.sink.unknown("E041", "role", name, part.span, scope.roles, ", and a role's checks name roles")
            case s.WithPort(port=port) if port.text not in PORTS:
                message = f"there is no input '.{port.text}'; heads have .q, .k and .v"
                scope.sink.error("E071", message, port.span)
            case s.Measurement(name=word) if scope.kinds.word(word.text) is None and word.text not in METRICS:
                scope.sink.unknown("E048", "measurement", word.text, word.span, scope.kinds.words)
            case s.Expect(on=s.Word() as task):
                scope.check_task(task)
