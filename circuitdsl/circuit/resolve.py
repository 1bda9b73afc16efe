"""Syntax to circuits: every name looked up, every claim as a record that can be measured.

Resolution goes over all statements that could be read, whatever is wrong with others, so that the
diagnostics of a file come in one go. A statement that refers to something broken is dropped silently:
the mistake was reported where it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from circuitdsl.circuit.catalogue import ModelShape, TaskShape
from circuitdsl.circuit.claims import Circuit, Group, ModelUse, TaskUse
from circuitdsl.circuit.collect import Claims
from circuitdsl.circuit.expressions import check_modifiers, find_homes, record, resolve_group, role_of
from circuitdsl.circuit.header import margin_of, metric_of, model_use, task_use
from circuitdsl.circuit.imports import Imports, read_imports, refuse
from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.metric import Metric
from circuitdsl.circuit.names import check_names
from circuitdsl.circuit.roles import Body, body_of
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.shapes import near, shape_of
from circuitdsl.circuit.vocabulary import ROLES
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Sink, ordered

LANGUAGE = 1
#: these belong to the file, wherever they stand
OF_THE_FILE = (s.Use, s.Role, s.Compare, s.Language)
HEADER = (s.Model, s.Task, s.Metric, s.Margin, s.ProtocolLine, s.Info)


def resolve(
    syntax: s.File,
    *,
    tasks: Mapping[str, TaskShape],
    kinds: Kinds,
    model_override: str | None = None,
    files: Callable[[str], TaskShape | None] = lambda _: None,
) -> tuple[tuple[Circuit, ...], tuple[Diagnostic, ...]]:
    """The circuits of a file, and what is wrong with it.

    Args:
        syntax: the parsed file.
        tasks: the registered tasks.
        kinds: what can be measured.
        model_override: resolve against this model instead of the one that the file names.
        files: what is known of the task that a prompt file makes, by the file's name in the spec.
    """
    sink = Sink()
    file = _split(syntax, kinds, sink)
    file.files = files
    _check_language(file, sink)
    _common(file, sink)
    circuits = tuple(_circuit(part, file, tasks, model_override, sink) for part in file.parts)
    blocks = [each for each in file.shared if isinstance(each, s.Compare)]
    own = {circuit.name: circuit for circuit in circuits}
    foreign = {word.text for block in blocks for word in (block.first, block.second)} - own.keys()
    known = {**own, **_used_circuits(foreign, file, tasks, model_override, sink)}
    return _with_comparisons(circuits, blocks, known, file, sink), ordered(sink.found)


def _with_comparisons(
    circuits: tuple[Circuit, ...], blocks: Iterable[s.Compare], known: Mapping[str, Circuit], file: _File, sink: Sink
) -> tuple[Circuit, ...]:
    """The circuits of a file with the claims of its `compare` blocks, each with the first circuit that it names.

    Args:
        known: every circuit that can be compared, by its name: the file's own, and those of used files.
    """
    found = {circuit.name: circuit for circuit in circuits}
    for block in blocks:
        kind = file.kinds.of_statement(block)
        claims = kind.between(block, known, file.used.missing, file.kinds, sink) if kind else ()
        home = next((w.text for w in (block.first, block.second) if w.text in found), next(iter(found), None))
        if home is None and claims:
            help = 'add a line such as: circuit both "…"'
            sink.error("E090", "a comparison is reported with a circuit, and this file has none", block.span, help)
        elif home is not None:
            circuit = found[home]
            numbered = (
                replace(claim, id=f"c{i:02d}", margin=circuit.margin)
                for i, claim in enumerate(claims, len(circuit.claims) + 1)
            )
            found[home] = replace(circuit, claims=(*circuit.claims, *numbered))
    return tuple(found[circuit.name] for circuit in circuits)


def _used_circuits(
    wanted: set[str], file: _File, tasks: Mapping[str, TaskShape], override: str | None, sink: Sink
) -> dict[str, Circuit]:
    """Circuits of used files, for comparisons: what they claim is read, and verified in their own files."""
    found: dict[str, Circuit] = {}
    for name in sorted(wanted & file.used.circuits.keys()):
        syntax, said = file.used.circuits[name]
        alone = replace(syntax, statements=tuple(x for x in syntax.statements if not isinstance(x, s.Compare)))
        circuits, wrong = resolve(alone, tasks=tasks, kinds=file.kinds, model_override=override)
        new = [each for each in wrong if each.code != "E032"]  # what it uses was read already
        refuse(new, Path(syntax.path), said, file.used, sink)
        found |= {circuit.name: circuit for circuit in circuits if circuit.name == name}
    return found


# --- the parts of a file --------------------------------------------------------------------------


@dataclass
class _Part:
    """The statements of one circuit."""

    head: s.Circuit | s.Broken | None
    name: str
    statements: list[s.Statement] = field(default_factory=list)


@dataclass
class _File:
    """A file cut into what belongs to all of it and what belongs to each circuit."""

    syntax: s.File
    kinds: Kinds
    #: what used files bring
    used: Imports
    before: list[s.Statement] = field(default_factory=list)
    shared: list[s.Statement] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)
    #: the names of the circuits, with the lines that open them
    opened: dict[str, int] = field(default_factory=dict)
    #: groups defined before the first circuit: reported there, and not again where they are used
    homeless: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=lambda: set(ROLES))
    imports: bool = False
    #: the checks of roles, the file's own before those of used files
    bodies: dict[str, Body] = field(default_factory=dict)
    sha256: str = ""
    #: what is known of a prompt file's task
    files: Callable[[str], TaskShape | None] = lambda _: None


def _split(syntax: s.File, kinds: Kinds, sink: Sink) -> _File:
    file = _File(
        syntax, kinds, Imports(kinds), sha256=hashlib.sha256(syntax.text.encode("utf-8", "replace")).hexdigest()
    )
    homeless: list[s.Statement] = []
    for statement in syntax.statements:
        if isinstance(statement, s.Circuit) or _is_broken(statement, "circuit"):
            file.parts.append(_opened(statement, file.opened, sink))
        elif isinstance(statement, OF_THE_FILE):
            file.shared.append(statement)
        elif file.parts:
            file.parts[-1].statements.append(statement)
        elif isinstance(statement, (*HEADER, s.Broken)):
            file.before.append(statement)
        else:
            homeless.append(statement)
    if homeless:
        what = "stands before the first 'circuit' line" if file.parts else "belongs to no circuit"
        sink.error("E090", f"this statement {what}", homeless[0].span, 'begin with a line such as: circuit ioi "…"')
    elif not file.parts:
        _without_circuit(file, sink)
    file.homeless = {g.name.text for g in homeless if isinstance(g, s.Group)}
    if not file.parts and (file.before or homeless):
        # resolved all the same, to find what else is wrong
        statements: list[s.Statement] = [b for b in syntax.statements if not isinstance(b, OF_THE_FILE)]
        file.parts.append(_Part(None, Path(syntax.path).stem or "circuit", statements))
        file.before = []
    return file


def _without_circuit(file: _File, sink: Sink) -> None:
    """A file of roles alone may be used by others; one of header lines says nothing."""
    alone = file.before or [each for each in file.shared if isinstance(each, s.Language)]
    if not alone or any(isinstance(each, s.Broken) for each in alone):
        return
    if file.before or len(alone) == len(file.shared):
        sink.error("E090", "the file has no 'circuit' line", alone[0].span, 'add a line such as: circuit ioi "…"')


def _opened(statement: s.Statement, opened: dict[str, int], sink: Sink) -> _Part:
    if isinstance(statement, s.Broken):
        opened.setdefault(statement.name, statement.span.line)
        return _Part(statement, statement.name or "circuit")
    assert isinstance(statement, s.Circuit)
    name = statement.name
    if name.text in opened:
        first = f"it is opened in line {opened[name.text]} already"
        sink.error("E050", f"the circuit {name.text} is defined twice", name.span, None, first)
    opened.setdefault(name.text, statement.span.line)
    return _Part(statement, name.text)


def _is_broken(statement: s.Statement, keyword: str) -> bool:
    return isinstance(statement, s.Broken) and statement.keyword == keyword


def _check_language(file: _File, sink: Sink) -> None:
    for statement in file.shared:
        if isinstance(statement, s.Language) and statement.version != LANGUAGE:
            message = f"this file is written in language {statement.version}; this program reads language {LANGUAGE}"
            sink.error("E031", message, statement.span)


def _common(file: _File, sink: Sink) -> None:
    """Roles and imports, which belong to the whole file."""
    defined: dict[str, int] = {}
    for statement in file.shared:
        if isinstance(statement, s.Role):
            name = statement.name.text
            if name in defined:
                first = f"it is defined in line {defined[name]} already"
                sink.error("E050", f"the role {name} is defined twice", statement.name.span, None, first)
            defined.setdefault(name, statement.span.line)
            file.roles.add(name)
    for statement in file.syntax.statements:
        if _is_broken(statement, "role"):
            file.roles.add(str(getattr(statement, "name", "")))
        file.imports |= _is_broken(statement, "use")
    used = read_imports(file.shared, file.syntax.path, file.kinds, sink)
    file.imports |= used.missing
    file.roles |= used.roles.keys()
    file.used = used
    file.bodies = {**used.roles}
    for statement in file.shared:
        if isinstance(statement, s.Role):
            said = len(sink.found)
            check_names(Scope(sink, file.kinds, roles=file.roles, imports=file.imports), statement, in_role=True)
            file.bodies[statement.name.text] = body_of(statement, wrong=len(sink.found) > said)
    if used.texts:
        file.sha256 = used.sha256(file.syntax.text)


# --- one circuit ----------------------------------------------------------------------------------


def _circuit(
    part: _Part,
    file: _File,
    tasks: Mapping[str, TaskShape],
    model_override: str | None,
    sink: Sink,
) -> Circuit:
    scope = Scope(sink, file.kinds, roles=file.roles, imports=file.imports, broken=set(file.homeless))
    scope.bodies = file.bodies
    # what stands before the first circuit is resolved with each of them, and reported once (see `ordered`)
    statements = [*file.before, *part.statements]
    model = _model(scope, file, part, model_override)
    _tasks(scope, file, part, tasks)
    _metric_and_margin(scope, file, part)
    groups = _groups(scope, part.statements)
    claims = Claims(scope, part.name)
    for statement in statements:
        claims.add(statement)
    claims.finish(groups)
    infos = [i for i in statements if isinstance(i, s.Info)]
    licenses = [i.text.text for i in infos if i.kind == "license"]
    return Circuit(
        name=part.name,
        title=part.head.title.text if isinstance(part.head, s.Circuit) and part.head.title else "",
        model=model,
        tasks=tuple(scope.tasks),
        metric=scope.metric,
        groups=groups,
        claims=tuple(claims.claims),
        sources=tuple(i.text.text for i in infos if i.kind == "source"),
        notes=tuple(i.text.text for i in infos if i.kind == "note"),
        license=licenses[-1] if licenses else None,
        margin=scope.margin,
        interventions=tuple(each for each in claims.interventions.values() if each is not None),
        path=file.syntax.path,
        sha256=file.sha256,
    )


# --- header ---------------------------------------------------------------------------------------


def _last(scope: Scope, lists: Iterable[list[s.Statement]], kind: type[s.Syntax], word: str) -> s.Statement | None:
    """The circuit's own line of a kind, else the file's; a second one beside it is refused."""
    found = None
    for statements in lists:
        own = [statement for statement in statements if isinstance(statement, kind)]
        for extra in own[1:]:
            first = f"the first is in line {own[0].span.line}"
            scope.sink.error("E054", f"a second '{word}' line; a circuit has one", extra.span, None, first)
        found = own[0] if own else found
    return found


def _model(scope: Scope, file: _File, part: _Part, override: str | None) -> ModelUse | None:
    statement = _last(scope, (file.before, part.statements), s.Model, "model")
    use = model_use(scope.sink, statement) if isinstance(statement, s.Model) else None
    if override is not None:
        scope.model = _shape(override)
        return ModelUse(override, None, use.line if use else 0)
    if use is None or not use.name.strip() or not isinstance(statement, s.Model):
        return use
    scope.model, problem = shape_of(near(use.name, file.syntax.path))
    if problem:
        scope.sink.error("E062", problem, statement.name.span)
    return use


def _shape(name: str) -> ModelShape | None:
    """A model from outside the file has no place in it: whoever loads it says what is wrong."""
    return shape_of(name)[0]


def _tasks(scope: Scope, file: _File, part: _Part, tasks: Mapping[str, TaskShape]) -> None:
    found: dict[str, TaskUse] = {}
    for statements in (file.before, part.statements):
        own: dict[str, int] = {}
        for statement in statements:
            if isinstance(statement, s.Broken) and (statement.keyword == "task"):
                scope.tasks_broken = True
                scope.broken.add(statement.name)
            elif isinstance(statement, s.Task):
                _add_task(scope, statement, tasks, found, own)
    scope.tasks = list(found.values())
    scope.shapes = {
        use.name: tasks.get(use.generator) if use.generator else file.files(use.file or "") for use in scope.tasks
    }


def _add_task(
    scope: Scope, statement: s.Task, tasks: Mapping[str, TaskShape], found: dict[str, TaskUse], own: dict[str, int]
) -> None:
    use = task_use(scope.sink, statement, tasks)
    name = statement.name or statement.generator
    if use is None:
        scope.tasks_broken = True
        scope.broken.add(name.text)
        return
    if use.name in own:
        help = f"give it a name of its own: task {use.name}2 = {statement.generator.text}(…)"
        first = f"the first is in line {own[use.name]}"
        scope.sink.error("E050", f"the task {use.name} is defined twice", name.span, help, first)
        return
    own[use.name] = use.line
    found[use.name] = use


def _metric_and_margin(scope: Scope, file: _File, part: _Part) -> None:
    lists = (file.before, part.statements)
    metric = _last(scope, lists, s.Metric, "metric")
    if isinstance(metric, s.Metric):
        scope.metric = metric_of(scope.sink, metric.name, metric.arguments) or Metric()
    margin = _last(scope, lists, s.Margin, "margin")
    if isinstance(margin, s.Margin):
        scope.margin = margin_of(scope, margin) or scope.margin


# --- groups ---------------------------------------------------------------------------------------


def _groups(scope: Scope, statements: Iterable[s.Statement]) -> tuple[Group, ...]:
    """All groups; they may be used above the line that defines them."""
    defined = []
    for statement in statements:
        if isinstance(statement, s.Broken) and statement.keyword in ("heads", "mlps", "nodes"):
            scope.broken.add(statement.name)
        elif isinstance(statement, s.Group):
            name = statement.name
            if name.text in scope.definitions:
                first = f"it is defined in line {scope.definitions[name.text].span.line} already"
                scope.sink.error("E050", f"the group {name.text} is defined twice", name.span, None, first)
            else:
                scope.definitions[name.text] = statement
                defined.append(statement)
    records = []
    for group in defined:
        known = group.name.text in scope.groups
        members = scope.groups[group.name.text] if known else resolve_group(scope, group)
        check_modifiers(scope, group)
        role = role_of(scope, group)
        if members is not None:
            records.append(record(scope, group, members, role))
    find_homes(scope)
    return tuple(records)
