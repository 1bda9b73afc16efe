"""The claims of a circuit, line by line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from circuitdsl.circuit.bounds import resolve_claim
from circuitdsl.circuit.changes import Condition, Intervention
from circuitdsl.circuit.channels import resolve_channel
from circuitdsl.circuit.claims import Circuit, Claim, Group
from circuitdsl.circuit.conditions import resolve_condition
from circuitdsl.circuit.criteria import Stronger, Test, Within
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.expectations import resolve_expect
from circuitdsl.circuit.interventions import resolve_intervention
from circuitdsl.circuit.measurements import (
    Attention,
    Copying,
    EdgeEffect,
    HeadScore,
    Measurement,
    NodeEffect,
    RoleChecks,
    Tracing,
    WholeCircuit,
)
from circuitdsl.circuit.membership import Membership, membership
from circuitdsl.circuit.nodes import EVERYWHERE, Position, Site
from circuitdsl.circuit.properties import resolve_property
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.traces import HALF, resolve_trace
from circuitdsl.language import syntax as s

ANSWER = Position("ANSWER")

_KINDS: dict[type[s.Syntax], Literal["edge", "expect", "channel", "trace", "property"]] = {
    s.EdgeClaim: "edge",
    s.Expect: "expect",
    s.Channel: "channel",
    s.Trace: "trace",
    s.Property: "property",
}


class Claims:
    """Collects the claims of a circuit, line by line, for `edges via mlps` counts from its line on."""

    def __init__(self, scope: Scope, circuit: str) -> None:
        self.scope = scope
        self.circuit = circuit
        self.claims: list[Claim] = []
        self.interventions: dict[str, Intervention | None] = {}
        #: claims about the whole circuit, which is known once every line has been read
        self.whole: dict[str, s.Expect] = {}

    def add(self, statement: s.Statement) -> None:
        match statement:
            case s.ProtocolLine(protocol=protocol):
                self.scope.via_mlps = protocol.via_mlps
            case s.EdgeClaim():
                self.edge(statement)
            case s.Expect():
                self.expect(statement)
            case s.Channel():
                self.channel(statement)
            case s.WhenPatched() | s.WhenKnockedOut():
                self.when(statement)
            case s.Trace():
                self.trace(statement)
            case s.Property():
                self.property(statement)
            case s.Intervention():
                self.intervention(statement)

    def edge(self, statement: s.EdgeClaim) -> None:
        effect = resolve_edge(self.scope, statement.edge, self.scope.via_mlps)
        tests = resolve_claim(self.scope, statement.claim, via_mlps=None if effect is None else effect.via_mlps)
        if effect is not None and tests is not None:
            self.compare_with_itself(statement, effect, tests)
        tasks = self.tasks(statement.on, positions_of(effect, tests), statement)
        if effect is not None and tests is not None and tasks is not None:
            self.state(statement, effect, tests, tasks)

    def compare_with_itself(self, statement: s.EdgeClaim, effect: EdgeEffect, tests: tuple[Test, ...]) -> None:
        for test in tests:
            if isinstance(test, Stronger) and set(test.effect.edges) == set(effect.edges):
                span = next(part.span for part in statement.claim if isinstance(part, s.Stronger))
                self.scope.sink.error("E086", "no edge is stronger than itself", span)

    def when(self, statement: s.WhenPatched | s.WhenKnockedOut) -> None:
        """The expectations of a block, each measured under its condition."""
        condition = resolve_condition(self.scope, statement)
        self.scope.under = True
        for line in statement.block:
            if isinstance(line, s.Expect):
                self.expect(line, condition)
        self.scope.under = False
        return

    def intervention(self, statement: s.Intervention) -> None:
        """A change of the model, and what is expected of the model that has it."""
        name = statement.name
        if name.text in self.interventions:
            self.scope.sink.error("E050", f"the intervention {name.text} is defined twice", name.span)
        change = resolve_intervention(self.scope, statement)
        self.interventions.setdefault(name.text, change)
        condition = Condition(change, statement.span.line, f"intervention {name.text}") if change else None
        self.scope.under = True
        for line in statement.block:
            if isinstance(line, s.Expect) and not self.is_patch(line):
                self.expect(line, condition)
        self.scope.under = False

    def is_patch(self, line: s.Expect) -> bool:
        """Whether a line asks for an effect, which a changed model has no use for (and said so)."""
        word = line.measurement.name
        if word.text == "knockout":
            message = "knock-outs are not measured on a changed model"
            self.scope.sink.error("E087", message, word.span, "write a verb instead: replace GROUP with corrupt")
        return word.text == "knockout"

    def expect(self, statement: s.Expect, under: Condition | None = None) -> None:
        expected = resolve_expect(self.scope, statement)
        measurement, tests = expected or (None, None)
        if self.scope.under and under is None:
            return  # the condition is wrong, and that was said
        if under is not None and _is_out(measurement, under.effect):
            message = "the condition knocks all of it out already: there is nothing left to knock out"
            self.scope.sink.error("E087", message, statement.measurement.span)
        positions = positions_of(measurement, tests)
        if positions is not None and under is not None:
            positions = tuple(dict.fromkeys((*positions, *_positions(under.effect))))
        measured = [c.measurement for c in measurement.checks] if isinstance(measurement, RoleChecks) else [measurement]
        free = all(isinstance(each, HeadScore) for each in measured)
        tasks = () if free else self.tasks(statement.on, positions, statement)
        if measurement is not None and tests is not None and tasks is not None:
            self.state(statement, measurement, tests, tasks, under)
            if isinstance(measurement, WholeCircuit):
                self.whole[self.claims[-1].id] = statement
        return

    def channel(self, statement: s.Channel) -> None:
        found = resolve_channel(self.scope, statement)
        if found is not None:
            self.state(statement, *found, tasks=())

    def trace(self, statement: s.Trace) -> None:
        found = resolve_trace(self.scope, statement)
        tasks = self.tasks(None, positions_of(found, HALF), statement)
        if found is not None and tasks is not None:
            self.state(statement, found, HALF, tasks)

    def property(self, statement: s.Property) -> None:
        """All lines of a block as one claim, on the tasks that each of them can be checked on."""
        found = resolve_property(self.scope, statement)
        if found is None:
            return
        lines = [line for line in statement.block if isinstance(line, s.Expect)]
        able = [
            self.tasks(line.on, positions_of(check.measurement, ()), line)
            for line, check in zip(lines, found.checks, strict=True)
        ]
        if None in able:
            return
        tasks = tuple(name for name in able[0] or () if all(name in (names or ()) for names in able))
        if not tasks:
            self.scope.sink.error("E092", "no task has the positions of all lines of this property", statement.span)
            return
        share = Within("value", found.share, None, f">= {statement.share.text}") if statement.share else None
        self.state(statement, found, (share,) if share else (), tasks)
        return

    def finish(self, groups: Iterable[Group]) -> None:
        """What is said of the whole circuit needs one, and is checked on the tasks that define its positions."""
        if not self.whole:
            return
        scope = self.scope
        whole = membership(Circuit(self.circuit, "", None, (), scope.metric, tuple(groups), tuple(self.claims)))
        kept = []
        for claim in self.claims:
            statement = self.whole.get(claim.id)
            if statement is None:
                kept.append(claim)
            elif trouble := _no_circuit(claim.measurement, whole):
                scope.sink.error("E093", trouble, statement.measurement.span)
            elif able := tuple(t for t in claim.tasks if all(scope.defines(t, p) for p in whole.positions)):
                kept.append(replace(claim, tasks=able))
            else:
                self.no_task(list(claim.tasks), whole.positions, statement)
        self.claims = kept

    def state(
        self,
        statement: s.EdgeClaim | s.Expect | s.Channel | s.Trace | s.Property,
        measurement: Measurement,
        tests: tuple[Test, ...],
        tasks: tuple[str, ...],
        under: Condition | None = None,
    ) -> None:
        self.claims.append(
            Claim(
                id=f"c{len(self.claims) + 1:02d}",
                line=statement.span.line,
                text=statement.text,
                kind=_KINDS[type(statement)],
                measurement=measurement,
                tests=tests,
                each=isinstance(statement, s.EdgeClaim | s.Channel) and statement.each,
                margin=self.scope.margin,
                tasks=tasks,
                citation=None
                if isinstance(statement, s.Property) or not statement.citation
                else statement.citation.text,
                under=under,
                lone_nodes=any(isinstance(part, s.Head | s.Mlp) for part in s.walk(statement)),
            )
        )

    # -- tasks

    def tasks(
        self, on: s.Word | None, positions: tuple[Position, ...] | None, statement: s.EdgeClaim | s.Expect | s.Trace
    ) -> tuple[str, ...] | None:
        """The tasks that define every position of a claim; None when there is none (and said so), or it is wrong."""
        scope = self.scope
        known = scope.check_task(on)
        if positions is None or not known or scope.tasks_broken:
            return None
        if not scope.tasks:
            if not scope.no_task_reported:
                help = "add a line such as: task ioi(corrupt = abc)"
                scope.sink.error("E091", f"the circuit {self.circuit} has claims, but no task", statement.span, help)
            scope.no_task_reported = True
            return None
        names = [on.text] if on else [task.name for task in scope.tasks]
        able = tuple(name for name in names if all(scope.defines(name, p) for p in positions))
        if not able:
            self.no_task(names, positions, on or statement)
        return able or None

    def no_task(self, names: list[str], positions: tuple[Position, ...], where: s.Syntax) -> None:
        scope = self.scope
        wanted = ", ".join(dict.fromkeys(p.name for p in positions))
        has = scope.positions_of_tasks(names)
        if len(names) == 1:
            lacks = [p.name for p in positions if not scope.defines(names[0], p)]
            message = f"the task {names[0]} has no position {lacks[0]} ({has.replace(names[0] + ' has', 'it has', 1)})"
        else:
            message = f"no task defines all of {wanted} ({has})"
        scope.sink.error("E092", message, where.span)


def _is_out(measurement: Measurement | None, condition: EdgeEffect | NodeEffect | Intervention) -> bool:
    """Whether a knock-out replaces what its condition has replaced, and nothing else."""
    if not isinstance(measurement, NodeEffect) or not isinstance(condition, NodeEffect):
        return False
    out = set(condition.sites)
    nodes = ((site, node) for site in measurement.sites for node in (site.node, site.node.whole))
    covered = {site for site, node in nodes if {Site(node, site.position), Site(node, EVERYWHERE)} & out}
    return covered == set(measurement.sites)


def _no_circuit(measurement: Measurement, whole: Membership) -> str:
    """Why there is nothing that the whole circuit could be; empty where there is."""
    edges = isinstance(measurement, WholeCircuit) and measurement.keep == "edges"
    if edges and not whole.edges:
        return "the circuit has no edge: no line claims one that is not negligible"
    return "" if edges or whole.sites else "the circuit has no heads: no group is part of it, and no edge is claimed"


def positions_of(measurement: Measurement | None, tests: tuple[Test, ...] | None) -> tuple[Position, ...] | None:
    """Every position that a measurement and its tests need, each once; None where one of the two is wrong."""
    if measurement is None or tests is None:
        return None
    found = _positions(measurement)
    for test in tests:
        if isinstance(test, Stronger):
            found += _positions(test.effect)
    return tuple(dict.fromkeys(found))


def _positions(measurement: Measurement | Intervention) -> list[Position]:
    match measurement:
        case Intervention():
            return list(measurement.positions)
        case EdgeEffect(members=members):
            return [edge.position for member in members for edge in member.edges]
        case NodeEffect(sites=sites):
            return [site.position for site in sites]
        case Attention(source=source, target=target) | Tracing(source=source, target=target):
            return [*source, *target]
        case Copying():
            return [ANSWER]
        case RoleChecks(checks=checks):
            conditions = [_positions(check.under.effect) for check in checks if check.under]
            return [p for found in (*(_positions(c.measurement) for c in checks), *conditions) for p in found]
        case _:
            return []
