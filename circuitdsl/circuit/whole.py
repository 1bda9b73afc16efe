"""`expect faithfulness(keep = edges) >= 80%`: measurements of the whole circuit, with their options."""

from __future__ import annotations

from dataclasses import replace

from circuitdsl.circuit.bounds import delta_unit, within
from circuitdsl.circuit.criteria import Test, Within
from circuitdsl.circuit.measurements import WholeCircuit
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import WHOLE_OPTIONS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing


def resolve_whole(scope: Scope, expect: s.Expect) -> tuple[WholeCircuit, tuple[Test, ...]] | None:
    """The measurement and its bounds; None when it is wrong (and said so)."""
    measurement = _measurement(scope, expect.measurement)
    if expect.claim or expect.relation is None:
        name = expect.measurement.name.text
        where = expect.claim[0].span.to(expect.claim[-1].span) if expect.claim else expect.measurement.span
        message = f"{name} is a number of the whole circuit: it takes a relation, not a claim about an effect"
        scope.sink.error("E083", message, where, f"write: expect {name} >= …")
        return None
    if measurement is None:
        return None
    test = _test(scope, expect.relation, measurement)
    return None if test is None else (measurement, (test,))


def _measurement(scope: Scope, written: s.Measurement) -> WholeCircuit | None:
    """The measurement with its options."""
    found = WholeCircuit(written.name.text)  # type: ignore[arg-type]
    known = [name for name in WHOLE_OPTIONS if name != "form" or found.name == "faithfulness"]
    given: set[str] = set()
    right = True
    for argument in written.arguments:
        if not isinstance(argument, s.Option):
            message = f"{found.name} is said of the whole circuit, and takes options only"
            scope.sink.error("E084", message, argument.span, f"write: {found.name}(keep = edges)")
            right = False
            continue
        key, value = argument.key.text, argument.value
        if key not in known:
            scope.sink.unknown("E046", "option", key, argument.key.span, known, f" of {found.name}")
            right = False
        elif key in given:
            scope.sink.error("E051", f"the option {key} is given twice", argument.span)
            right = False
        elif not isinstance(value, s.Word) or value.text not in WHOLE_OPTIONS[key]:
            *others, last = WHOLE_OPTIONS[key]
            scope.sink.error("E047", f"{key} is {listing(others)} or {last}", value.span)
            right = False
        else:
            found = replace(found, **{key: value.text})  # type: ignore[arg-type]
        given.add(key)
    return found if right else None


def _test(scope: Scope, relation: s.Relation, measurement: WholeCircuit) -> Within | None:
    """Bounds in the unit that the figure has: a share of the gap, a share of circuits, or the metric's own."""
    name = measurement.name
    if name == "sufficiency":
        return within(scope, relation, "share", "value", name, 0, 1)
    if measurement.form == "wang":
        return within(scope, relation, delta_unit(scope), "delta", f"{name}(form = wang)", 0)
    found = within(scope, relation, "effect", "effect", name, None if name == "faithfulness" else 0)
    # the bounds are on a figure of its own name
    return replace(found, text=found.text.removeprefix("effect ")) if isinstance(found, Within) else found
