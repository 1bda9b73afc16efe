"""Roles: bundles of checks on every head of a group (`roles.circ` has the built-in ones, written in the language)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from circuitdsl.language import syntax as s
from circuitdsl.language.parse import parse

FILE = Path(__file__).with_name("roles.circ")


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
