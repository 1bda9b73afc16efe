"""Roles: bundles of checks on every head of a group (`roles.circ` has the built-in ones, written in the language)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from circuitdsl.circuit.arguments import Expected, sort_arguments
from circuitdsl.circuit.changes import Condition
from circuitdsl.circuit.conditions import resolve_condition
from circuitdsl.circuit.measurements import RoleCheck, RoleChecks
from circuitdsl.circuit.nodes import Node
from circuitdsl.circuit.scope import Members, Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink
from circuitdsl.language.parse import parse

FILE = Path(__file__).with_name("roles.circ")
Resolve = Callable[[Scope, s.Expect], Expected | None]


@dataclass(frozen=True, slots=True)
class Body:
    """The checks of a role, each with the `when` block in which it stands; `wrong` where a mistake in it was said."""

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


def resolve_role(scope: Scope, expect: s.Expect, resolve: Resolve) -> Expected | None:
    """`role(mover)`: every check of the group's role, on every head of the group; `resolve` is for single checks."""
    measurement, sink = expect.measurement, scope.sink
    found = sort_arguments(measurement.arguments)
    if expect.relation is not None or expect.claim:
        sink.error("E083", "role takes no relation: its checks have their own", measurement.span)
        return None
    group = found.sets[0] if len(found.sets) == 1 and len(measurement.arguments) == 1 else None
    if not isinstance(group, s.GroupRef):
        sink.error("E084", "role takes the name of one group: role(mover)", measurement.span)
        return None
    if group.name not in scope.definitions:
        scope.unknown_group(group)
        return None
    line, members = scope.definitions[group.name], scope.groups.get(group.name)
    role = line.roles[0].text if line.roles else group.name
    body = scope.bodies.get(role) or built_in().get(role)
    if members is None or (body is not None and body.wrong):
        return None
    if body is None:
        if role not in scope.roles and not scope.imports:
            help = f"write: heads {group.name} = … role mover"
            sink.error("E041", f"the group {group.name} has no role", group.span, help)
        return None
    checks = list(_checks(scope, expect, role, body, members, resolve))
    known = [check for check in checks if check is not None]
    overrides = role in scope.bodies and role in built_in()
    return (RoleChecks(role, tuple(known), overrides), ()) if len(known) == len(checks) else None


def _checks(
    scope: Scope, expect: s.Expect, role: str, body: Body, members: Members, resolve: Resolve
) -> Iterator[RoleCheck | None]:
    """The checks of all heads; the first thing wrong with one is said where the role is claimed."""
    outer, via_mlps = scope.sink, scope.via_mlps
    for line, when in body.checks:
        for node, places in members.items():
            scope.sink, scope.itself, scope.via_mlps = Sink(), {node: places}, False
            check = _check(scope, node, line, when, resolve)
            problems = [d for d in scope.sink.found if d.severity == "error"]
            scope.sink, scope.itself, scope.via_mlps = outer, None, via_mlps
            if check is None:
                if problems:  # else it names something whose own mistake was reported
                    message = f"the role {role} cannot be checked: {problems[0].message}"
                    outer.error("E089", message, expect.measurement.span, line.text)
                yield None
                return
            yield check


def _check(
    scope: Scope, node: Node, line: s.Expect, when: s.WhenPatched | s.WhenKnockedOut | None, resolve: Resolve
) -> RoleCheck | None:
    under: Condition | None = None
    if when is not None:
        under = resolve_condition(scope, when)
        if under is None:
            return None
    scope.under = when is not None
    expected = resolve(scope, line)
    scope.under = False
    if expected is None:
        return None
    words = line.text.removeprefix("expect ") if under is None else f"{under.text}: {line.text.removeprefix('expect ')}"
    return RoleCheck(node, re.sub(r"\bself\b", str(node), words), *expected, under)
