"""`expect role(mover)`: every check of the group's role, on every head of the group; each must hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from circuitdsl.circuit.arguments import sort_arguments
from circuitdsl.circuit.changes import Condition
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.collect import resolve_condition, resolve_expect
from circuitdsl.circuit.criteria import Test
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Node, Positions
from circuitdsl.circuit.roles import Body, built_in
from circuitdsl.circuit.scope import Members, Scope, complete
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Sink
from circuitdsl.measurements.kind import ByLabel, Kind, Values
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.report.report import MemberResult
from circuitdsl.verdicts import WORST_FIRST


@dataclass(frozen=True, slots=True)
class RoleCheck:
    """One check of a role on one head."""

    node: Node
    text: str = field(compare=False)
    measurement: Kind
    tests: tuple[Test, ...]
    under: Condition | None = None


@dataclass(frozen=True, slots=True)
class RoleChecks(Kind):
    """Every check of a role on every head of a group.

    Attributes:
        overrides: whether the file's own checks take the place of a built-in role's.
    """

    role: str
    checks: tuple[RoleCheck, ...]
    overrides: bool = False

    words = ("role",)
    many_figures = True
    not_compared = "its checks have many figures"
    usage = ("`role(GROUP)` | every check of the group's role, on every head | nothing",)
    examples = ("expect role(mover)",)
    false_examples = ("expect role(induction)",)

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
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
        checks = complete(_checks(scope, expect, role, body, members))
        overrides = role in scope.bodies and role in built_in()
        return None if checks is None else (cls(role, checks, overrides), ())

    @property
    def positions(self) -> Positions:
        own = [place for check in self.checks for place in check.measurement.positions]
        return (*own, *(place for check in self.checks if check.under for place in check.under.effect.positions))

    @property
    def needs_task(self) -> bool:
        return any(check.measurement.needs_task for check in self.checks)

    def plan(self, claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
        parts = []
        for check in self.checks:
            alone = replace(claim, measurement=check.measurement, tests=check.tests, under=check.under)
            parts.append(replace(check.measurement.compared(alone, nulls), label=check.text, tests=check.tests))
        return ClaimPlan(claim, task, tuple(parts))

    def member_results(self, plan: ClaimPlan, judged: ByLabel, values: Values) -> tuple[MemberResult, ...]:
        """Each check on each head; none where the claim as a whole could not be measured."""
        return tuple(_member(check, judged) for check in self.checks if check.text in judged)

    def notes(self) -> tuple[str, ...]:
        return (f"the file's own checks of the role {self.role}, not the built-in ones",) if self.overrides else ()


def _checks(scope: Scope, expect: s.Expect, role: str, body: Body, members: Members) -> Iterator[RoleCheck | None]:
    """The checks of all heads; the first thing wrong with one is said where the role is claimed."""
    outer, via_mlps = scope.sink, scope.via_mlps
    for line, when in body.checks:
        for node, places in members.items():
            if not scope.affords(100, expect.measurement.span):
                yield None
                return
            scope.sink, scope.itself, scope.via_mlps = Sink(), {node: places}, False
            check = _check(scope, node, line, when)
            problems = [d for d in scope.sink.found if d.severity == "error"]
            scope.sink, scope.itself, scope.via_mlps = outer, None, via_mlps
            if check is None:
                if problems:  # else it names something whose own mistake was reported
                    message = f"the role {role} cannot be checked: {problems[0].message}"
                    outer.error("E089", message, expect.measurement.span, f"the role asks for: {line.text}")
                yield None
                return
            yield check


def _check(scope: Scope, node: Node, line: s.Expect, when: s.When | None) -> RoleCheck | None:
    under = None if when is None else resolve_condition(scope, when)
    if when is not None and under is None:
        return None
    scope.under = when is not None
    expected = resolve_expect(scope, line)
    scope.under = False
    if expected is None:
        return None
    measurement, tests = expected
    assert isinstance(measurement, Kind)
    words = (f"{under.text}: " if under else "") + line.text.removeprefix("expect ")
    return RoleCheck(node, re.sub(r"\bself\b", str(node), words), measurement, tests, under)


def _member(check: RoleCheck, judged: ByLabel) -> MemberResult:
    """One check of a role on one head: whether it passed, and its number."""
    worst = min(judged[check.text], key=lambda part: WORST_FIRST.index(part.verdict))
    return MemberResult(
        sender=str(check.node),
        receiver="",
        input="",
        position="",
        effect=worst.value if worst.name == "effect" else None,
        ci=worst.ci,
        delta=worst.delta,
        n=worst.n,
        verdict=worst.verdict,
        reason=f"{check.text}: {worst.reason}",
        check=check.text,
        value=worst.value,
    )
