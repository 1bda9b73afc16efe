"""Syntax to circuits: every name looked up, every claim as a record that can be measured.

Resolution goes over all statements that could be read, whatever is wrong with others, so that the diagnostics of a file
come in one go. A statement that refers to something broken is dropped silently: the mistake was reported where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from circuitdsl.circuit.claims import Circuit, Claim, Group, ModelUse, TaskUse
from circuitdsl.circuit.collect import Claims
from circuitdsl.circuit.directions import resolve_direction
from circuitdsl.circuit.expressions import find_homes, record, resolve_group, role_of
from circuitdsl.circuit.features import find_dictionaries, places_of
from circuitdsl.circuit.header import margin_of, metric_of, model_use, task_use
from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.paths import leaves
from circuitdsl.circuit.roles import Body, Imports, body_of, check_names
from circuitdsl.circuit.scope import Scope, Work
from circuitdsl.circuit.shapes import (
    ANY_MODEL,
    ModelShape,
    TaskShape,
    at_hand,
    large_enough,
    near,
    shape_of,
)
from circuitdsl.circuit.vocabulary import ROLES, Metric
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic, Sink, ordered

LANGUAGE = 1
#: these belong to the file, wherever they stand
OF_THE_FILE = (s.Use, s.Role, s.Compare, s.Language)
HEADER = (s.Direction, s.Model, s.Task, s.Metric, s.Margin, s.ProtocolLine, s.Info)

T = TypeVar("T", bound=s.Syntax)


@dataclass(frozen=True, slots=True)
class OtherTask:
    """A task that takes the place of a circuit's own: the one of these that is so named or, where none is, `use`."""

    written: str
    use: TaskUse | None


def resolve(
    syntax: s.File,
    *,
    tasks: Mapping[str, TaskShape],
    kinds: Kinds,
    model_override: str | None = None,
    files: Callable[[str], TaskShape | None] = lambda _: None,
    known: Mapping[int, Claim] | None = None,
    allow_outside: bool = False,
    task: OtherTask | None = None,
    shape: ModelShape | None = None,
    prompt_files: Mapping[str, str] = MappingProxyType({}),
) -> tuple[tuple[Circuit, ...], tuple[Diagnostic, ...]]:
    """The circuits of a file, and what is wrong with it.

    Args:
        syntax: the parsed file.
        tasks: the registered tasks.
        kinds: what can be measured.
        model_override: resolve against this model instead of the one that the file names.
        files: what is known of the task that a prompt file makes, by the file's name in the spec.
        known: claims by their line, where they are the same as before; their lines are not resolved again.
            Such a circuit is no spec that is reported: it has no `meaning`.
        allow_outside: prompt files may lie outside the folder of the file.
        task: resolve for this task instead of those that the file names.
        shape: the size of the model, where the caller knows it.
        prompt_files: files whose prompts take the place of those of the tasks of these names.
    """
    sink = Sink()
    used = Imports(syntax.path, kinds, sink)
    how = (known, allow_outside, task, shape, prompt_files)
    file = _File(syntax, tasks, kinds, model_override, files, sink, used, *how)
    _split(file)
    _resolve_shared(file)
    circuits = tuple(_circuit(part, file) for part in file.parts)
    return _with_comparisons(file, circuits), ordered(sink.found)


def _with_comparisons(file: _File, circuits: tuple[Circuit, ...]) -> tuple[Circuit, ...]:
    """The circuits of a file with the claims of its `compare` blocks, each with the first circuit that it names."""
    blocks = [each for each in file.shared if isinstance(each, s.Compare)]
    found = {circuit.name: circuit for circuit in circuits}
    foreign = {word.text for block in blocks for word in (block.first, block.second)} - found.keys()
    known = {**found, **_used_circuits(file, foreign)}
    for block in blocks:
        kind = file.kinds.of_statement(block)
        claims = kind.between(block, known, file.used.missing, file.kinds, file.sink) if kind else ()
        home = next((w.text for w in (block.first, block.second) if w.text in found), next(iter(found), None))
        if home is None and claims:
            help = 'add a line such as: circuit both "…"'
            file.sink.error("E090", "a comparison is reported with a circuit, and this file has none", block.span, help)
        elif home is not None:
            circuit = found[home]
            numbered = (
                replace(claim, id=f"c{i:02d}", margin=circuit.margin)
                for i, claim in enumerate(claims, len(circuit.claims) + 1)
            )
            found[home] = replace(circuit, claims=(*circuit.claims, *numbered))
    return tuple(found[circuit.name] for circuit in circuits)


def _used_circuits(file: _File, wanted: set[str]) -> dict[str, Circuit]:
    """Circuits of used files, for comparisons: what they claim is read here, and verified in their own files."""
    found: dict[str, Circuit] = {}
    for name in sorted(wanted & file.used.circuits.keys()):
        syntax, line = file.used.circuits[name]
        alone = replace(syntax, statements=tuple(x for x in syntax.statements if not isinstance(x, s.Compare)))
        circuits, wrong = resolve(
            alone,
            tasks=file.tasks,
            kinds=file.kinds,
            model_override=file.model_override,
            allow_outside=file.allow_outside,
            task=file.task,
            shape=file.shape,
            prompt_files=file.prompt_files,
        )
        new = [each for each in wrong if each.code != "E032"]  # what it uses was read already
        file.used.refuse(new, syntax.path, line)
        found |= {circuit.name: circuit for circuit in circuits if circuit.name == name}
    return found


@dataclass
class _Part:
    """The statements of one circuit."""

    name: str
    title: str = ""
    statements: list[s.Statement] = field(default_factory=list)


@dataclass
class _File:
    """A file cut into what belongs to all of it and what belongs to each circuit; the arguments of `resolve` besides.

    Attributes:
        used: what used files bring.
        before: header lines above the first circuit.
        homeless: groups defined above the first circuit: they are reported there, and not again where they are used.
        bodies: the checks of roles, the file's own before those of used files.
        imports: whether something could not be imported, so that names may be missing.
    """

    syntax: s.File
    tasks: Mapping[str, TaskShape]
    kinds: Kinds
    model_override: str | None
    files: Callable[[str], TaskShape | None]
    sink: Sink
    used: Imports
    known: Mapping[int, Claim] | None
    allow_outside: bool
    task: OtherTask | None
    shape: ModelShape | None
    prompt_files: Mapping[str, str]
    before: list[s.Statement] = field(default_factory=list)
    shared: list[s.Statement] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)
    homeless: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=lambda: set(ROLES))
    bodies: dict[str, Body] = field(default_factory=dict)
    imports: bool = False
    work: Work = field(default_factory=Work)


def _split(file: _File) -> None:
    """Sort the statements of a file by what they belong to."""
    homeless: list[s.Statement] = []
    opened: dict[str, int] = {}
    for statement in file.syntax.statements:
        if isinstance(statement, s.Circuit):
            name = statement.name
            if name.text in opened:
                _twice(file.sink, "circuit", name, f"it is opened in line {opened[name.text]} already")
            opened.setdefault(name.text, statement.span.line)
            file.parts.append(_Part(name.text, statement.title.text if statement.title else ""))
        elif isinstance(statement, s.Broken) and statement.keyword == "circuit":
            opened.setdefault(statement.name, statement.span.line)
            file.parts.append(_Part(statement.name or "circuit"))
        elif isinstance(statement, OF_THE_FILE):
            file.shared.append(statement)
        elif file.parts:
            file.parts[-1].statements.append(statement)
        else:
            (file.before if isinstance(statement, (*HEADER, s.Broken)) else homeless).append(statement)
    if homeless:
        what = "stands before the first 'circuit' line" if file.parts else "belongs to no circuit"
        help = 'begin with a line such as: circuit ioi "…"'
        file.sink.error("E090", f"this statement {what}", homeless[0].span, help)
    elif not file.parts:
        # header lines alone say nothing; a file of roles may be used by others
        alone = file.before or [each for each in file.shared if isinstance(each, s.Language)]
        broken = any(isinstance(each, s.Broken) for each in alone)
        if alone and not broken and (file.before or len(alone) == len(file.shared)):
            help = 'add a line such as: circuit ioi "…"'
            file.sink.error("E090", "the file has no 'circuit' line", alone[0].span, help)
    file.homeless = {g.name.text for g in homeless if isinstance(g, s.Group)}
    if not file.parts and (file.before or homeless):
        # resolved all the same, to find what else is wrong
        statements: list[s.Statement] = [b for b in file.syntax.statements if not isinstance(b, OF_THE_FILE)]
        file.parts.append(_Part(Path(file.syntax.path).stem or "circuit", statements=statements))
        file.before = []


def _twice(sink: Sink, what: str, name: s.Word, first: str) -> None:
    sink.error("E050", f"the {what} {name.text} is defined twice", name.span, None, first)


def _resolve_shared(file: _File) -> None:
    """Language version, roles and imports, which belong to the whole file."""
    sink, defined = file.sink, dict[str, int]()
    roles = [statement for statement in file.shared if isinstance(statement, s.Role)]
    for statement in file.shared:
        if isinstance(statement, s.Language) and statement.version != LANGUAGE:
            message = f"this file is written in language {statement.version}; this program reads language {LANGUAGE}"
            sink.error("E031", message, statement.span)
    for role in roles:
        if role.name.text in defined:
            _twice(sink, "role", role.name, f"it is defined in line {defined[role.name.text]} already")
        defined.setdefault(role.name.text, role.span.line)
    broken = [statement for statement in file.syntax.statements if isinstance(statement, s.Broken)]
    file.used.read(file.shared)
    file.imports = file.used.missing or any(statement.keyword == "use" for statement in broken)
    file.roles |= defined.keys() | {each.name for each in broken if each.keyword == "role"} | file.used.roles.keys()
    file.bodies = {**file.used.roles}
    for role in roles:
        known = len(sink.found)
        check_names(Scope(sink, file.kinds, roles=file.roles, imports=file.imports), role)
        file.bodies[role.name.text] = body_of(role, wrong=len(sink.found) > known)


def _circuit(part: _Part, file: _File) -> Circuit:
    scope = Scope(file.sink, file.kinds, file.work, roles=file.roles, imports=file.imports, broken=set(file.homeless))
    scope.bodies = file.bodies
    # what stands before the first circuit is resolved with each of them, and reported once (see `ordered`)
    statements = [*file.before, *part.statements]
    model = _model(scope, file, part)
    find_dictionaries(scope, statements, file.syntax.path, file.allow_outside)
    _tasks(scope, file, part)
    if metric := _last(scope, file, part, s.Metric, "metric"):
        scope.metric = metric_of(scope.sink, metric.name, metric.arguments) or Metric()
    if margin := _last(scope, file, part, s.Margin, "margin"):
        scope.margin = margin_of(scope, margin) or scope.margin
    _directions(scope, file, part)
    _one_thing_each(scope.sink, statements)
    groups = _groups(scope, part.statements)
    claims = Claims(scope, part.name, file.known or {})
    for statement in statements:
        claims.add(statement)
    claims.finish(groups)
    infos = [i for i in statements if isinstance(i, s.Info)]
    licenses = [i.text.text for i in infos if i.kind == "license"]
    return Circuit(
        name=part.name,
        title=part.title,
        model=model,
        tasks=tuple(scope.tasks),
        metric=scope.metric,
        groups=groups,
        claims=tuple(claims.claims),
        sources=tuple(i.text.text for i in infos if i.kind == "source"),
        notes=tuple(i.text.text for i in infos if i.kind == "note"),
        license=licenses[-1] if licenses else None,
        margin=scope.margin,
        counted=scope.counted,
        interventions=tuple(each for each in claims.interventions.values() if each is not None),
        path=file.syntax.path,
        dictionaries=places_of(scope),
        labels=scope.labels,
        sha256=file.used.sha256(file.syntax.text),
        said=partial(file.used.meaning, file.syntax) if file.known is None else str,
    )


def _last(scope: Scope, file: _File, part: _Part, kind: type[T], word: str) -> T | None:
    """The circuit's own line of a kind, else the file's; a second one beside it is refused."""
    found = None
    for statements in (file.before, part.statements):
        own = [statement for statement in statements if isinstance(statement, kind)]
        for extra in own[1:]:
            first = f"the first is in line {own[0].span.line}"
            scope.sink.error("E054", f"a second '{word}' line; a circuit has one", extra.span, None, first)
        found = own[0] if own else found
    return found


def _model(scope: Scope, file: _File, part: _Part) -> ModelUse | None:
    statement, override = _last(scope, file, part, s.Model, "model"), file.model_override
    use = model_use(scope.sink, statement) if statement else None
    if override is not None:
        # the file does not name this model: whoever loads it reports what is wrong with it
        scope.model, scope.model_name = file.shape or shape_of(override)[0], override
        scope.size = cache(partial(_any_size, file) if override == ANY_MODEL else partial(at_hand, override))
        return ModelUse(override, None, use.line if use else 0)
    if statement and use:
        scope.model_name = use.name.strip()
    if statement and use and use.name.strip():
        scope.model, problem = shape_of(near(use.name, file.syntax.path))
        scope.size = cache(partial(at_hand, use.name, use.revision))
        if problem:
            scope.sink.error("E062", problem, statement.name.span)
            scope.model_name = ""
    return use


def _any_size(file: _File) -> ModelShape:
    """A size at which every node of a file exists, whatever model it is verified on."""
    nodes = [node for each in file.syntax.statements for node in s.walk_to(each, s.Head, s.Layer, s.Mlp, s.Resid)]
    return large_enough((getattr(node, "layer", 0), getattr(node, "head", 0)) for node in nodes)


def _tasks(scope: Scope, file: _File, part: _Part) -> None:
    """The tasks of a circuit: the file's, and its own, which replace those of the same name."""
    found: dict[str, TaskUse] = {}
    for statements in (file.before, part.statements):
        own: dict[str, int] = {}
        for statement in statements:
            if isinstance(statement, s.Broken) and statement.keyword == "task":
                scope.tasks_broken = True
                scope.broken.add(statement.name)
            if not isinstance(statement, s.Task):
                continue
            use, name = task_use(scope.sink, statement, file.tasks), statement.name or statement.generator
            if use and (given := file.prompt_files.get(use.name)):
                use = use.with_prompts_of(given)
            if use is None or not _may_be_read(scope, file, use, statement):
                scope.tasks_broken = True
                scope.broken.add(name.text)
            elif use.name in own:
                help = f"give it a name of its own: task {use.name}2 = {statement.generator.text}(…)"
                first = f"the first is in line {own[use.name]}"
                scope.sink.error("E050", f"the task {use.name} is defined twice", name.span, help, first)
            else:
                own[use.name], found[use.name] = use.line, use
    if file.task:
        wanted = found.get(file.task.written, file.task.use)
        found = {wanted.name: wanted} if wanted else {}
    scope.tasks = list(found.values())
    scope.shapes = {
        use.name: file.tasks.get(use.generator) if use.generator else file.files(use.file or "") for use in scope.tasks
    }


def _may_be_read(scope: Scope, file: _File, use: TaskUse, statement: s.Task) -> bool:
    """Whether a task has no prompt file, or one that may be opened; else a diagnostic was emitted."""
    folder = Path(file.syntax.path).parent
    trusted = file.allow_outside or use.instead
    problem = leaves(use.file, folder, folder) if use.file and not trusted else None
    if problem:
        message = f"{problem}: a prompt file lies in the spec's own folder or below"
        scope.sink.error(
            "E032", message, statement.span, "move it there, or run with --allow-outside if you trust the spec"
        )
    return problem is None


def _directions(scope: Scope, file: _File, part: _Part) -> None:
    """The directions of a circuit: the file's, and its own, which replace those of the same name.

    What they are is part of what the spec says: it goes into its hashes.
    """
    for statements in (file.before, part.statements):
        own: dict[str, int] = {}
        for statement in statements:
            if isinstance(statement, s.Broken) and statement.keyword == "direction":
                scope.broken.add(statement.name)
            if not isinstance(statement, s.Direction):
                continue
            name = statement.name
            if name.text in own:
                _twice(scope.sink, "direction", name, f"it is defined in line {own[name.text]} already")
                continue
            own[name.text] = statement.span.line
            folder = Path(file.syntax.path).parent
            found = scope.directions[name.text] = resolve_direction(scope, statement, folder, file.allow_outside)
            if found is not None and found.sha256 not in file.used.texts:
                file.used.texts.append(found.sha256)
                file.used.meanings.append(found.sha256)


def _one_thing_each(sink: Sink, statements: Iterable[s.Statement]) -> None:
    """Refuse a name of a group, a dictionary or a direction that is another of the three as well."""
    known: dict[str, s.Group | s.Dictionary | s.Direction] = {}
    for statement in statements:
        if isinstance(statement, s.Group | s.Dictionary | s.Direction):
            name, first = statement.name, known.setdefault(statement.name.text, statement)
            if type(first) is not type(statement):
                what = type(first).__name__.lower()
                message = f"{name.text} is the name of a {what} already, which line {first.span.line} defines"
                sink.error("E050", message, name.span, "take another name")


def _groups(scope: Scope, statements: Iterable[s.Statement]) -> tuple[Group, ...]:
    """All groups; they may be used above the line that defines them."""
    for statement in statements:
        if isinstance(statement, s.Broken) and statement.keyword in ("heads", "mlps", "nodes", "features"):
            scope.broken.add(statement.name)
        elif isinstance(statement, s.Group):
            earlier = scope.definitions.setdefault(statement.name.text, statement)
            if earlier is not statement:
                _twice(scope.sink, "group", statement.name, f"it is defined in line {earlier.span.line} already")
    records = []
    for name, group in scope.definitions.items():
        members = scope.groups[name] if name in scope.groups else resolve_group(scope, group)
        role = role_of(scope, group)
        if members is not None:
            records.append(record(group, members, role))
    find_homes(scope)
    return tuple(records)
