"""`expect` lines: each is resolved by the kind of measurement that its word names."""

from __future__ import annotations

from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing


def resolve_expect(scope: Scope, expect: s.Expect) -> Expected | None:
    """The measurement and tests of an expectation; None where it is wrong, after a diagnostic was emitted."""
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
