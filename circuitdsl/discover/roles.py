"""Roles by their checks: every head that a search found is checked for each role that it could play where it acts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from circuitdsl.circuit.arguments import sort_arguments
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.roles import Body, built_in
from circuitdsl.discover.places import END
from circuitdsl.language import syntax as s
from circuitdsl.report.report import Report

#: a head, and where it acts
Placed = tuple[Node, Position]


def roles_of(
    heads: Collection[Placed],
    positions: Collection[str],
    opening: Sequence[str],
    check: Callable[[str], Report],
) -> dict[Placed, str]:
    """The role of every head that passes all checks of one; of several roles, the one with the most checks.

    A role whose checks look from one position is not asked of a head that acts at another. One whose checks are about
    heads of other roles (a backup's, about the movers) is asked once these are found, of heads where these act.

    Args:
        positions: names that the task's prompts have.
        opening: the lines that open a spec: circuit, model, task, metric.
        check: verifies a text.
    """
    found: dict[Placed, str] = {}
    asked: set[str] = set()
    while ready := {
        role: body
        for role, body in built_in().items()
        if role not in asked and _names(body) <= {END.name, *positions} and _others(body) <= set(found.values())
    }:
        asked |= set(ready)
        candidates = [
            (head, role)
            for head in heads
            for role, body in ready.items()
            if head not in found and _could_play(head, body, found)
        ]
        passed = _passed(candidates, found, opening, check) if candidates else {}
        found |= {head: max(roles, key=lambda role: len(ready[role].checks)) for head, roles in passed.items()}
    return found


def _passed(
    candidates: Sequence[tuple[Placed, str]],
    known: Mapping[Placed, str],
    opening: Sequence[str],
    check: Callable[[str], Report],
) -> dict[Placed, list[str]]:
    """The roles that heads pass, in the order in which they were asked."""
    lines = [f"heads known_{i} = {node} at {at} role {role}" for i, ((node, at), role) in enumerate(known.items())]
    for i, ((node, at), role) in enumerate(candidates):
        lines += [f"heads asked_{i} = {node} at {at} role {role}", f"expect role(asked_{i})"]
    held = {claim.text for claim in check("\n".join([*opening, *lines, ""])).claims if claim.verdict == "holds"}
    passed: dict[Placed, list[str]] = {}
    for i, (head, role) in enumerate(candidates):
        if f"expect role(asked_{i})" in held:
            passed.setdefault(head, []).append(role)
    return passed


def remaining(roles: Mapping[Placed, str], lost: Collection[Placed]) -> dict[Placed, str]:
    """Roles after some heads lost theirs: those about roles that nobody plays any more are gone as well."""
    kept = {placed: role for placed, role in roles.items() if placed not in lost}
    return {placed: role for placed, role in kept.items() if _others(built_in()[role]) <= set(kept.values())}


def _could_play(head: Placed, body: Body, found: Mapping[Placed, str]) -> bool:
    """Whether a head acts where a role's checks look from, and beside the heads of other roles that they are about."""
    _, place = head
    others = _others(body)
    beside = {at for (_, at), role in found.items() if role in others}
    source, _ = _places(body)
    return source <= {place} and (not others or place in beside)


# --- what a role's checks are about -----------------------------------------------------------------


def _places(body: Body) -> tuple[set[Position], set[Position]]:
    """The positions that checks look from, and those that they look at."""
    source, target = set[Position](), set[Position]()
    for line, _ in body.checks:
        found = sort_arguments(line.measurement.arguments)
        source |= {Position(place.name, place.offset) for place in found.source}
        target |= {Position(place.name, place.offset) for place in found.target}
        if line.measurement.name.text == "attribution":
            source.add(END)
    return source, target


def _names(body: Body) -> set[str]:
    return {place.name for places in _places(body) for place in places}


def _others(body: Body) -> set[str]:
    """Roles of other heads that checks are about."""
    said = (part for lines in body.checks for line in lines if line is not None for part in s.walk(line))
    return {part.name for part in said if isinstance(part, s.GroupRef)} & set(built_in())
