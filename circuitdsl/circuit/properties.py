"""`property` blocks: what must be true prompt by prompt, not only on average."""

from __future__ import annotations

from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.criteria import AboveChance, Within
from circuitdsl.circuit.expectations import resolve_expect
from circuitdsl.circuit.measurements import Attention, Attribution, Behaviour, Check, Property
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import BEHAVIOUR, MEASUREMENTS
from circuitdsl.language import syntax as s

#: what has a value on every prompt
PER_PROMPT = (*BEHAVIOUR, "attention", "attribution")
#: a larger share would need more prompts than a task can be asked for
LARGEST_SHARE = 0.9999


def resolve_property(scope: Scope, statement: s.Property) -> Property | None:
    """The checks of a property and the share of prompts it is claimed for; None when one is wrong (and said so)."""
    share = _share(scope, statement)
    right = share is not None or statement.share is None
    checks: list[Check] = []
    for line in statement.block:
        found = _check(scope, line) if isinstance(line, s.Expect) else None
        if found is None:
            right = False
        else:
            checks.append(found)
    return Property(tuple(checks), share) if right and checks else None


def _check(scope: Scope, line: s.Expect) -> Check | None:
    name = line.measurement.name
    if name.text in MEASUREMENTS and name.text not in PER_PROMPT:
        message = f"{name.text} has no value on a single prompt, and a property is about every one"
        scope.sink.error("E088", message, name.span, f"a property takes {', '.join(PER_PROMPT)}")
        return None
    expected = resolve_expect(scope, line)
    if expected is None:
        return None
    measurement, tests = expected
    (test,) = tests
    if isinstance(test, AboveChance) and line.relation is not None:
        message = "one prompt is answered rightly or not: nothing is above chance on every one"
        scope.sink.error("E088", message, line.relation.span, "write: expect accuracy > 0%, or expect logit_diff > 0")
        return None
    assert isinstance(measurement, Behaviour | Attention | Attribution) and isinstance(test, Within)
    return Check(measurement, test.low, test.high, test.strict, line.text.removeprefix("expect "))


def _share(scope: Scope, statement: s.Property) -> float | None:
    """`for 99% of prompts`; None without it, or when it is wrong (and said so)."""
    if statement.share is None or statement.of is None:
        return None
    if statement.of.text != "prompts":
        scope.sink.error("E083", "a property holds for a share of prompts", statement.of.span, "write: of prompts")
        return None
    value = read(scope, statement.share, "share", "it", 0, 1)
    if value is not None and not 0 < value <= LARGEST_SHARE:
        limit = f"{100 * LARGEST_SHARE:g}%"
        message = f"no sample shows a share of {statement.share.text}: it lies above 0%, up to {limit}"
        help = "leave 'for … of prompts' out to ask for no counterexample" if value == 1 else None
        scope.sink.error("E081", message, statement.share.span, help)
        return None
    return value
