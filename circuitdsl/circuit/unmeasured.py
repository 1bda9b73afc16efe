"""What the language has and nothing measures yet: its names are checked, and the report lists it."""

from __future__ import annotations

from ..language import syntax as s
from ..language.diagnostics import Sink
from .claims import Unmeasured
from .scope import Scope
from .vocabulary import MEASUREMENTS, PORTS

WHAT: dict[type[s.Syntax], str] = {
    s.Role: "a role of the file's own",
    s.Use: "'use'",
    s.Property: "a property",
}


def unmeasured(sink: Sink, statement: s.Statement, what: str | None = None) -> tuple[Unmeasured, ...]:
    """The statement and the lines of its block, each as a record; one note says that they are not measured."""
    what = what or WHAT[type(statement)]
    sink.note("N001", f"not measured yet: {what}", statement.span)
    name = what.removeprefix("a ").removeprefix("an ")
    records = [Unmeasured(statement.span.line, _text(statement), name)]
    for line in getattr(statement, "block", ()):
        if not isinstance(line, s.Broken):
            records.append(Unmeasured(line.span.line, _text(line), name))
    return tuple(records)


def _text(statement: s.Statement) -> str:
    return f'use "{statement.path.text}"' if isinstance(statement, s.Use) else str(getattr(statement, "text", ""))


def check_names(scope: Scope, statement: s.Statement, in_role: bool = False) -> None:
    """Unknown groups, nodes, positions and measurements in a statement that is not resolved."""
    words = _words(statement)
    for part in s.walk(statement):
        match part:
            case s.GroupRef(name=name) if in_role and part.span not in words:
                if name not in scope.roles and not scope.imports:
                    scope.sink.unknown("E041", "role", name, part.span, scope.roles, ", and a role's checks name roles")
            case s.GroupRef() if part.span not in words and part.name not in scope.definitions:
                scope.unknown_group(part)
            case s.Special(name="self") if not in_role:
                scope.node(part)
            case s.Head() | s.Mlp():
                scope.node(part)
            case s.Place() if not in_role:
                scope.position(part)
            case s.WithPort(port=port) if port.text not in PORTS:
                message = f"there is no input '.{port.text}'; heads have .q, .k and .v"
                scope.sink.error("E071", message, port.span)
            case s.Measurement(name=name) if name.text not in MEASUREMENTS and name.text != "kl":
                scope.sink.unknown("E048", "measurement", name.text, name.span, MEASUREMENTS)
            case s.Expect(on=s.Word() as task):
                scope.check_task(task)


def _words(statement: s.Statement) -> set[object]:
    """The bare options among the arguments of measurements: `accuracy(argmax)` names no group."""
    measurements = (part for part in s.walk(statement) if isinstance(part, s.Measurement))
    return {
        argument.span
        for measurement in measurements
        for argument in measurement.arguments
        if isinstance(argument, s.GroupRef) and argument.name in ("argmax", "negated", "nodes", "edges")
    }
