"""The claims of a circuit, line by line, and the conditions and interventions under which they are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from circuitdsl.circuit.arguments import attention_arguments, sites_of
from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.changes import Condition, Intervention, NodePatch, Patch, Replace, Scale, SetAttention, Verb
from circuitdsl.circuit.claims import Circuit, Claim, Group, membership
from circuitdsl.circuit.criteria import Stronger
from circuitdsl.circuit.edges import resolve_edge
from circuitdsl.circuit.expressions import evaluate
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Position
from circuitdsl.circuit.scope import Members, Scope
from circuitdsl.circuit.vocabulary import ABLATIONS, METRICS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing
from circuitdsl.language.written import written


def resolve_expect(scope: Scope, expect: s.Expect) -> Expected | None:
    """The measurement and tests of an `expect` line; None where it is wrong, after a diagnostic was emitted."""
    name, kinds = expect.measurement.name, scope.kinds
    kind = kinds.word(name.text)
    if kind is not None and scope.under and not kind.under_condition:
        message = f"{name.text} is not measured under a condition"
        help = f"under one can stand: {listing(kinds.that(lambda kind: kind.under_condition))}"
        scope.sink.error("E087", message, name.span, help)
    elif kind is not None:
        return kind.resolve(scope, expect)
    elif name.text in METRICS:
        message = f"{name.text} compares two runs: it is a metric, and says nothing of one run alone"
        scope.sink.error("E048", message, name.span)
    elif instead := kinds.elsewhere(name.text):
        scope.sink.error("E048", f"{name.text} is not measured on its own", name.span, instead)
    else:
        scope.sink.unknown("E048", "measurement", name.text, name.span, kinds.words)
    return None


def resolve_condition(scope: Scope, block: s.WhenPatched | s.WhenKnockedOut) -> Condition | None:
    """What is patched in a `when` block; None where it is wrong, after a diagnostic was emitted."""
    patch: Patch | None = None
    if isinstance(block, s.WhenPatched):
        patch = resolve_edge(scope, block.edge, scope.via_mlps)
    elif (members := evaluate(scope, block.nodes)) is not None:
        sites = sites_of(scope, members, block.nodes.span)
        patch = None if sites is None else NodePatch(sites, label=written(block.nodes))
    return None if patch is None else Condition(patch, block.span.line, block.text)


def resolve_intervention(scope: Scope, block: s.Intervention) -> Intervention | None:
    """The change that a block describes; None where some verb is wrong, after a diagnostic was emitted."""
    verbs = [line for line in block.block if isinstance(line, s.SetAttention | s.Scale | s.Replace | s.ProjectOut)]
    broken = any(isinstance(line, s.Broken) for line in block.block)
    if block.block and not verbs and not broken:
        help = "add a verb, such as: set attention(mover, END -> IO) = 100%"
        scope.sink.error("E120", f"the intervention {block.name.text} changes nothing", block.name.span, help)
    found = [_verb(scope, verb) for verb in verbs]
    if not found or None in found or broken:
        return None
    title = block.title.text if block.title else ""
    known = tuple(verb for verb in found if verb is not None)
    return Intervention(block.name.text, title, known, block.span.line)


def _verb(scope: Scope, line: s.Verb) -> Verb | None:
    match line:
        case s.SetAttention(measurement=measurement, value=value):
            name, mass = measurement.name, 1.0 if value.text == "even" else None
            if name.text != "attention":
                help = "write: set attention(mover, END -> IO) = 100%"
                scope.sink.error("E121", f"only attention can be set, not {name.text}", name.span, help)
                return None
            found = attention_arguments(scope, measurement)
            if isinstance(value, s.Number):
                mass = read(scope, value, "share", "attention", 0, 1)
            elif mass is None:
                message = f"attention is set to a share or to 'even', not '{value.text}'"
                scope.sink.error("E121", message, value.span)
            return None if found is None or mass is None else SetAttention(*found[:3], mass)
        case s.Scale(nodes=nodes, factor=factor):
            members = _heads_and_mlps(scope, nodes, components=True)
            by = read(scope, factor, "plain", "a factor")
            return None if members is None or by is None else Scale(tuple(members), by)
        case s.ProjectOut(nodes=nodes):
            members = _heads_and_mlps(scope, nodes, components=True)
            whole = [str(node) for node in members or () if not node.is_part]
            if whole:
                help = f"name one, such as {whole[0]}[0]; to silence a whole node write: replace {whole[0]} with zero"
                scope.sink.error("E121", f"{listing(whole)}: singular components are projected out", nodes.span, help)
                return None
            return None if members is None else Scale(tuple(members), 0.0)
        case s.Replace(nodes=nodes, value=word):
            if word.text not in ABLATIONS:
                evaluate(scope, nodes)
                scope.sink.unknown("E047", "replacement", word.text, word.span, ABLATIONS)
                return None
            members = _heads_and_mlps(scope, nodes, components=False)
            sites = None if members is None else sites_of(scope, members, nodes.span)
            return None if sites is None else Replace(sites, word.text)  # type: ignore[arg-type]


def _heads_and_mlps(scope: Scope, nodes: s.Set, components: bool) -> Members | None:
    """The nodes that a verb changes, singular components of heads among them only where the verb takes `components`."""
    members = evaluate(scope, nodes)
    others = [str(node) for node in members or () if node.kind not in ("head", "mlp")]
    single = [str(node) for node in members or () if node.is_part and (node.kind == "mlp" or not components)]
    if others:
        message = f"interventions change heads and MLPs; {listing(others)} is neither"
    elif single:
        what = "singular components of heads are scaled or projected out, nothing else is done to a part of a node"
        message = f"{listing(single)}: {what}"
    else:
        return members
    scope.sink.error("E121", message, nodes.span)
    return None


class Claims:
    """Collects the claims of a circuit in the order of its lines: `edges via mlps` counts from its line on."""

    def __init__(self, scope: Scope, circuit: str) -> None:
        self.scope = scope
        self.circuit = circuit
        self.claims: list[Claim] = []
        self.interventions: dict[str, Intervention | None] = {}
        #: the statements of claims about the whole circuit, which is known once every line has been read
        self.whole: dict[str, s.Statement] = {}

    def add(self, statement: s.Statement) -> None:
        match statement:
            case s.ProtocolLine(protocol=protocol):
                self.scope.via_mlps = protocol.via_mlps
            case s.WhenPatched() | s.WhenKnockedOut():
                self.block(statement, resolve_condition(self.scope, statement))
            case s.Intervention():
                self.block(statement, self.intervention(statement))
            case _ if isinstance(statement, s.Expect) or self.scope.kinds.of_statement(statement):
                self.state(statement)

    def block(self, statement: s.WhenPatched | s.WhenKnockedOut | s.Intervention, under: Condition | None) -> None:
        """The expectations of a block, each measured under its condition."""
        self.scope.under = True
        for line in statement.block:
            if isinstance(line, s.Expect) and not (isinstance(statement, s.Intervention) and self.is_refused(line)):
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

    def is_refused(self, line: s.Expect) -> bool:
        """Whether a line asks for what is not measured on a changed model; a diagnostic is emitted then."""
        name = line.measurement.name
        kind = self.scope.kinds.word(name.text)
        if kind is None or kind.not_on_changed_model is None:
            return False
        message, help = kind.not_on_changed_model
        self.scope.sink.error("E087", message, name.span, help)
        return True

    def state(self, statement: s.Statement, under: Condition | None = None) -> None:
        """Add the claim of a statement, where it is right and some task has its positions."""
        scope, kind = self.scope, self.scope.kinds.of_statement(statement)
        expected = kind.resolve(scope, statement) if kind else resolve_expect(scope, statement)  # type: ignore[arg-type]
        if scope.under and under is None:
            return  # the condition is wrong, and a diagnostic was emitted
        if expected is None:
            if not isinstance(statement, s.Property):
                self.tasks(getattr(statement, "on", None), None, statement)
            return
        measurement, tests = expected
        if under is not None and isinstance(statement, s.Expect) and measurement.is_void_under(under.effect):
            message = "the condition knocks all of it out already: there is nothing left to knock out"
            scope.sink.error("E087", message, statement.measurement.span)
        named = [*measurement.positions, *(p for t in tests if isinstance(t, Stronger) for p in t.patch.positions)]
        positions = tuple(dict.fromkeys((*named, *(under.effect.positions if under else ()))))
        tasks = measurement.tasks(scope, self.tasks, statement, positions) if measurement.needs_task else ()
        if tasks is not None:
            citation = getattr(statement, "citation", None)
            claim = Claim(
                id=f"c{len(self.claims) + 1:02d}",
                line=statement.span.line,
                text=str(getattr(statement, "text", "")),
                kind=kind.claim_kind if kind else "expect",
                measurement=measurement,
                tests=tests,
                each=bool(getattr(statement, "each", False)),
                margin=scope.margin,
                tasks=tasks,
                about=written(statement.measurement) if isinstance(statement, s.Expect) else "",
                citation=citation.text if citation else None,
                under=under,
                lone_nodes=any(isinstance(part, s.Head | s.Mlp) for part in s.walk(statement)),
            )
            self.claims.append(claim)
            if measurement.of_whole:
                self.whole[claim.id] = statement

    def finish(self, groups: Iterable[Group]) -> None:
        """Claims on the whole circuit: they need one, and are checked on the tasks that define all of its positions."""
        if not self.whole:
            return
        scope = self.scope
        whole = membership(Circuit(self.circuit, "", None, (), scope.metric, tuple(groups), tuple(self.claims)))
        kept = []
        for claim in self.claims:
            statement = self.whole.get(claim.id)
            if statement is None:
                kept.append(claim)
            elif trouble := claim.measurement.lacks(whole):
                scope.sink.error("E093", trouble, getattr(statement, "measurement", statement).span)
            elif able := tuple(t for t in claim.tasks if all(scope.defines(t, p) for p in whole.positions)):
                kept.append(replace(claim, tasks=able))
            else:
                self.no_task(list(claim.tasks), whole.positions, statement)
        self.claims = kept

    def tasks(
        self, on: s.Word | None, positions: tuple[Position, ...] | None, statement: s.Syntax
    ) -> tuple[str, ...] | None:
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
        able = tuple(name for name in names if all(scope.defines(name, p) for p in positions))
        if not able:
            self.no_task(names, positions, on or statement)
        return able or None

    def no_task(self, names: list[str], positions: tuple[Position, ...], where: s.Syntax) -> None:
        scope = self.scope
        has = scope.positions_of_tasks(names)
        if len(names) == 1:
            lacks = next(p.name for p in positions if not scope.defines(names[0], p))
            message = f"the task {names[0]} has no position {lacks} ({has.replace(names[0] + ' has', 'it has', 1)})"
        else:
            wanted = ", ".join(dict.fromkeys(p.name for p in positions))
            message = f"no task defines all of {wanted} ({has})"
        scope.sink.error("E092", message, where.span)
