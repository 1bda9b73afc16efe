"""The claims of a circuit, line by line, and the conditions under which they are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

from circuitdsl.circuit.arguments import sites_of
from circuitdsl.circuit.changes import Both, Condition, EdgePatch, Intervention, NodePatch, Patch
from circuitdsl.circuit.claims import Circuit, Claim, Group, membership
from circuitdsl.circuit.criteria import Exceeds, Stronger, Test
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.interventions import resolve_intervention
from circuitdsl.circuit.measurement import Expected, Measurement
from circuitdsl.circuit.nodes import Ablation, Positions
from circuitdsl.circuit.overlaps import REMEDY, clash
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing


def resolve_expect(scope: Scope, expect: s.Expect) -> Expected | None:
    """The measurement and tests of an `expect` line; None where it is wrong, after a diagnostic was emitted."""
    name, kinds = expect.measurement.name, scope.kinds
    kind = kinds.word(name.text)
    if kind is not None and scope.under and not kind.under_condition:
        message = f"{name.text} is not measured under a condition"
        help = f"under one can stand: {listing(kinds.that(lambda kind: kind.under_condition))}"
        scope.sink.error("E087", message, name.span, help)
    elif kind is not None and isinstance(expect.relation, s.Against):
        return _compared(scope, kind, expect, expect.relation)
    elif kind is not None:
        return kind.resolve(scope, expect)
    elif name.text in METRICS:
        message = f"{name.text} compares two runs: it is a metric, and says nothing of one run alone"
        scope.sink.error("E048", message, name.span)
    elif instead := kinds.elsewhere(name.text):
        scope.sink.error("E048", f"{name.text} is not measured on its own", name.span, instead)
    else:
        scope.sink.unknown("E048", "measurement", name.text, name.span, scope.words)
    return None


def _compared(scope: Scope, kind: type[Measurement], expect: s.Expect, relation: s.Against) -> Expected | None:
    """A figure and the other one that it is compared with, prompt by prompt: two of one word."""
    word, other = expect.measurement.name, relation.other
    if kind.not_compared:
        message = f"{word.text} is not compared with another figure: {kind.not_compared}"
        scope.sink.error("E083", message, relation.span)
        return None
    if other.name.text != word.text:
        message = f"{word.text} is compared with a number, or with another {word.text}, not with {other.name.text}"
        scope.sink.error("E083", message, other.span)
        return None
    expected = kind.resolve(scope, expect)
    # what stands in for the terms is the same on both sides, unless the other one says so
    own, given = (
        tuple(each for each in side.arguments if isinstance(each, s.Option) and each.key.text == "ablate")
        for side in (expect.measurement, other)
    )
    other = replace(other, arguments=(*other.arguments, *(() if given else own)))
    nothing = s.Compared(relation.span, ">", s.Number(relation.span, 0.0, "", "0"))
    found = kind.resolve(scope, replace(expect, measurement=other, relation=nothing))
    if expected is None or found is None:
        return None
    (mine, (test,)), (theirs, _) = expected, found
    if mine.subject == theirs.subject:
        message = f"both sides are the same {word.text}: no figure is larger than itself"
        scope.sink.error("E086", message, relation.span)
    elif isinstance(test, Exceeds):
        itself = "".join(map(str, scope.itself or ())) or "self"
        names = [re.sub(r"\bself\b", itself, str(each)) for each in (expect.measurement, relation.other)]
        return mine, (replace(test, other=theirs, names=(names[0], names[1])),)
    return None


def resolve_condition(scope: Scope, block: s.When) -> Condition | None:
    """What is patched in a `when` block; None where it is wrong, after a diagnostic was emitted."""
    parts = block.conditions if isinstance(block, s.WhenBoth) else (block,)
    found = [_patch_of(scope, part) for part in parts]
    first, *others = found
    if first is None or None in others:
        return None
    effect = _together(scope, block, first, cast(Patch, others[0])) if others else first
    return None if effect is None else Condition(effect, block.span.line, block.text)


def _patch_of(scope: Scope, block: s.WhenPatched | s.WhenKnockedOut) -> EdgePatch | NodePatch | None:
    if isinstance(block, s.WhenPatched):
        return resolve_edge(scope, block.edge, scope.via_mlps)
    members = evaluate(scope, block.nodes)
    sites = None if members is None else sites_of(scope, members, block.nodes.span, block.at.places if block.at else ())
    return None if sites is None else NodePatch(sites)


def _together(scope: Scope, block: s.When, one: Patch, other: Patch) -> EdgePatch | NodePatch | Both | None:
    """Two patches in one run; None after a diagnostic was emitted."""
    match one, other:
        case (NodePatch() as nodes, EdgePatch() as edges) | (EdgePatch() as edges, NodePatch() as nodes):
            return Both(nodes, edges)
        case NodePatch(sites=sites), NodePatch(sites=more):
            if not set(more) <= set(sites):
                return NodePatch(tuple(dict.fromkeys((*sites, *more))))
        case EdgePatch(), EdgePatch():
            if one.via_mlps != other.via_mlps:
                message = "both edges are patched in one run: direct, or via MLPs"
                scope.sink.error("E086", message, block.span, "give them one protocol")
                return None
            if not other.edge_set <= one.edge_set:
                return EdgePatch((*one.members, *other.members), one.via_mlps)
    scope.sink.error("E051", "the second condition adds nothing to the first", block.span)
    return None


def _clash(measurement: Measurement, under: Patch | Both | Intervention) -> str:
    """Why a claim and its condition cannot be measured in one run; empty where they can."""
    both = (under.nodes, under.edges) if isinstance(under, Both) else (under,)
    patches = [patch for patch in (measurement.patch, *both) if isinstance(patch, EdgePatch | NodePatch)]
    sites = {site.node for patch in patches if isinstance(patch, NodePatch) for site in patch.sites}
    edges = [edge for patch in patches if isinstance(patch, EdgePatch) for edge in patch.edges]
    read = getattr(measurement, "nodes", ()) if isinstance(under, NodePatch | Both) else ()
    return clash(edges, sites, read, any(isinstance(patch, EdgePatch) and patch.via_mlps for patch in patches))


class Claims:
    """Collects the claims of a circuit in the order of its lines: `edges via mlps` counts from its line on.

    `known` has claims that are taken as they are, by their line; none of them is about the whole circuit.
    """

    def __init__(self, scope: Scope, circuit: str, known: Mapping[int, Claim]) -> None:
        self.scope = scope
        self.circuit = circuit
        self.known = known
        self.claims: list[Claim] = []
        self.interventions: dict[str, Intervention | None] = {}
        #: the statements of claims about the whole circuit, which is known once every line has been read
        self.whole: dict[str, s.Statement] = {}

    def add(self, statement: s.Statement) -> None:
        match statement:
            case s.ProtocolLine(protocol=protocol):
                if protocol.via_mlps is not None:
                    self.scope.via_mlps = protocol.via_mlps
                self.scope.ablate = cast(Ablation, protocol.ablate or self.scope.ablate)
            case s.WhenPatched() | s.WhenKnockedOut() | s.WhenBoth():
                self.block(statement, resolve_condition(self.scope, statement))
            case s.Intervention():
                self.block(statement, self.intervention(statement))
            case _ if isinstance(statement, s.Expect) or self.scope.kinds.of_statement(statement):
                self.state(statement)

    def block(self, statement: s.When | s.Intervention, under: Condition | None) -> None:
        """The expectations of a block, each measured under its condition."""
        self.scope.under = True
        for line in statement.block:
            if not isinstance(line, s.Expect):
                continue
            name = line.measurement.name
            kind = self.scope.kinds.word(name.text) if isinstance(statement, s.Intervention) else None
            if kind is not None and kind.not_on_changed_model:
                message, help = kind.not_on_changed_model
                self.scope.sink.error("E087", message, name.span, help)
            else:
                self.state(line, under)
        self.scope.under = False

    def intervention(self, statement: s.Intervention) -> Condition | None:
        """A change of the model, as the condition of what is expected of the model that has it."""
        name = statement.name
        if name.text in self.interventions:
            self.scope.sink.error("E050", f"the intervention {name.text} is defined twice", name.span)
        change = resolve_intervention(self.scope, statement)
        self.interventions.setdefault(name.text, change)
        return Condition(change, statement.span.line, f"intervention {name.text}") if change else None

    def state(self, statement: s.Statement, under: Condition | None = None) -> None:
        """Add the claim of a statement, where it is right and some task has its positions."""
        number = f"c{len(self.claims) + 1:02d}"
        if known := self.known.get(statement.span.line):
            self.claims.append(replace(known, id=number))
            return
        scope, kind = self.scope, self.scope.kinds.of_statement(statement)
        expected = kind.resolve(scope, statement) if kind else resolve_expect(scope, statement)  # type: ignore[arg-type]
        if scope.under and under is None:
            return  # the condition is wrong, and a diagnostic was emitted
        if expected is None:
            if not isinstance(statement, s.Property):
                self.tasks(getattr(statement, "on", None), None, statement)
            return
        measurement, tests = expected
        if under is not None and not self._possible(statement, measurement, tests, under):
            return
        others = [t.patch if isinstance(t, Stronger) else t.other for t in tests if isinstance(t, Stronger | Exceeds)]
        named = [*measurement.positions, *[position for other in others if other for position in other.positions]]
        positions = tuple(dict.fromkeys((*named, *(under.effect.positions if under else ()))))
        tasks = measurement.tasks(scope, self.tasks, statement, positions) if measurement.needs_task else ()
        each = bool(getattr(statement, "each", False))
        pairs = len(measurement.members) if each else 0
        if tasks is not None and scope.affords(5 * len(tasks) * pairs, statement.span):
            citation, gap, where = (getattr(statement, name, None) for name in ("citation", "gap", "where"))
            if gap and not gap.reason.text.strip():
                help = 'say what is known of it: expected to fail "the heads of layer 2 do it too"'
                scope.sink.error("E034", "it is not said why this is expected to fail", gap.reason.span, help)
            claim = Claim(
                id=number,
                line=statement.span.line,
                text=str(getattr(statement, "text", "")),
                kind=kind.claim_kind if kind else "expect",
                measurement=measurement,
                tests=tests,
                each=each,
                margin=scope.margin,
                tasks=tasks,
                about=str(statement.measurement) if isinstance(statement, s.Expect) else "",
                citation=citation.text if citation else None,
                expected_to_fail=gap.reason.text if gap else None,
                under=under,
                strata=_strata(scope, where, bool(tasks)),
                lone_nodes=next(s.walk_to(statement, s.Head, s.Layer, s.Mlp, s.Resid, s.Feature), None) is not None,
            )
            self.claims.append(claim)
            if measurement.of_whole:
                self.whole[claim.id] = statement

    def _possible(self, statement: s.Statement, own: Measurement, tests: Iterable[Test], under: Condition) -> bool:
        """Whether each figure of a claim can be measured under its condition; else a diagnostic was emitted."""
        where, relation = (getattr(statement, name, statement) for name in ("measurement", "relation"))
        others = [(test.other, getattr(relation, "other", where)) for test in tests if isinstance(test, Exceeds)]
        for measurement, written in ((own, where), *others):
            assert measurement is not None
            if isinstance(statement, s.Expect) and measurement.is_void_under(under.effect):
                message = "the condition knocks all of it out already: there is nothing left to knock out"
                self.scope.sink.error("E087", message, written.span)
            if message := _clash(measurement, under.effect):
                self.scope.sink.error("E087", message, written.span, REMEDY)
                return False
        return True

    def finish(self, groups: Iterable[Group]) -> None:
        """Claims on the whole circuit: they need one, and are checked on the tasks that define all of its positions."""
        if not self.whole:
            return
        scope = self.scope
        whole = membership(Circuit(self.circuit, "", None, (), scope.metric, tuple(groups), tuple(self.claims)))
        fits = {task.name: all(scope.defines(task.name, p) for p in whole.positions) for task in scope.tasks}
        kept = []
        for claim in self.claims:
            statement = self.whole.get(claim.id)
            if statement is None:
                kept.append(claim)
            elif trouble := claim.measurement.lacks(whole):
                scope.sink.error("E093", trouble, getattr(statement, "measurement", statement).span)
            elif able := tuple(task for task in claim.tasks if fits[task]):
                kept.append(replace(claim, tasks=able))
            else:
                self.no_task(list(claim.tasks), whole.positions, statement)
        self.claims = kept

    def tasks(self, on: s.Word | None, positions: Positions | None, statement: s.Syntax) -> tuple[str, ...] | None:
        """The tasks that define every position of a claim; None where there is none, after a diagnostic was emitted.

        It is None too where the claim itself is wrong (`positions` is None then).
        """
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
        if not scope.affords(len(names) * (len(positions) + 5), statement.span):
            return None
        able = tuple(name for name in names if all(scope.defines(name, p) for p in positions))
        if not able:
            self.no_task(names, positions, on or statement)
        return able or None

    def no_task(self, names: list[str], positions: Positions, where: s.Syntax) -> None:
        scope = self.scope
        has = scope.positions_of_tasks(names)
        if len(names) == 1:
            lacks = next(p.name for p in positions if not scope.defines(names[0], p))
            message = f"the task {names[0]} has no position {lacks} ({has.replace(names[0] + ' has', 'it has', 1)})"
        else:
            wanted = ", ".join(dict.fromkeys(p.name for p in positions))
            message = f"no task defines all of {wanted} ({has})"
        scope.sink.error("E092", message, where.span)


def _strata(scope: Scope, where: s.Where | None, on_prompts: bool) -> tuple[str, ...]:
    """The names of strata as written; a diagnostic is emitted where there is nothing to choose from."""
    if where is None:
        return ()
    if not on_prompts:
        help = "leave it out: only claims that are checked on a task's prompts have strata"
        scope.sink.error("E095", "this is measured on no task's prompts, so that there are no strata", where.span, help)
    for text in where.strata:
        if not text.text.strip():
            scope.sink.error("E095", "a stratum has a name", text.span, 'write: where stratum "ABBA*"')
    return tuple(dict.fromkeys(text.text for text in where.strata))
