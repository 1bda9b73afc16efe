"""The names in the block of a role, which is resolved only where a group has the role."""

from __future__ import annotations

from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import METRICS, PORTS
from circuitdsl.language import syntax as s


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
            case s.Measurement(name=name) if scope.kinds.word(name.text) is None and name.text not in METRICS:
                scope.sink.unknown("E048", "measurement", name.text, name.span, scope.kinds.words)
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
