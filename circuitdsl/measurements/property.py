"""`property "…"` blocks: what must be true prompt by prompt, not only on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.collect import resolve_expect
from circuitdsl.circuit.criteria import AboveChance, Within, is_between
from circuitdsl.circuit.measurement import Expected, FindTasks
from circuitdsl.circuit.nodes import Position
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.written import written
from circuitdsl.measurements.kind import Kind, Reading, Source

#: a larger share would need more prompts than a task can be asked for
LARGEST_SHARE = 0.9999


@dataclass(frozen=True, slots=True)
class Check:
    """What a property asks of every prompt; a strict bound (`>`, `<`) is itself outside.

    Attributes:
        name: what is measured, as written; `bound` is what is asked of it, and `text` is both.
    """

    measurement: Reading
    low: float | None
    high: float | None
    strict: bool
    name: str
    bound: str
    text: str

    def admits(self, value: float) -> bool:
        """Whether a prompt's value passes; what is not a number does not."""
        return is_between(value, self.low, self.high, self.strict)


@dataclass(frozen=True, slots=True)
class Property(Kind):
    """What must be true of every prompt, all checks together: of a `share` of prompts, or (None) without exception."""

    checks: tuple[Check, ...]
    share: float | None

    statement: ClassVar[type[s.Syntax] | None] = s.Property
    claim_kind: ClassVar[str] = "property"
    examples: ClassVar = ('property "right"\n  expect accuracy > 0%',)
    false_examples: ClassVar = ('property "wrong"\n  expect accuracy < 50%',)
    decided_by: ClassVar[Source] = "own sample"

    @classmethod
    def resolve(cls, scope: Scope, statement: s.Property) -> Expected | None:  # type: ignore[override]
        share = _share(scope, statement)
        right = share is not None or statement.share is None
        checks: list[Check] = []
        for line in statement.block:
            found = _check(scope, line) if isinstance(line, s.Expect) else None
            if found is None:
                right = False
            else:
                checks.append(found)
        if not right or not checks:
            return None
        tests = (Within("value", share, None, f">= {statement.share.text}"),) if statement.share else ()
        return cls(tuple(checks), share), tests

    @property
    def in_family(self) -> bool:
        return self.share is not None

    def sample_size(self, members: int) -> int:
        from circuitdsl.verdict.weighing import prompts_needed

        return prompts_needed(self.share, members)

    def tasks(
        self, scope: Scope, find: FindTasks, statement: s.Statement, positions: tuple[Position, ...]
    ) -> tuple[str, ...] | None:
        """The tasks that each of the lines can be checked on."""
        assert isinstance(statement, s.Property)
        lines = [line for line in statement.block if isinstance(line, s.Expect)]
        able = [
            find(line.on, check.measurement.positions, line) for line, check in zip(lines, self.checks, strict=True)
        ]
        if None in able:
            return None
        tasks = tuple(name for name in able[0] or () if all(name in (names or ()) for names in able))
        if not tasks:
            scope.sink.error("E092", "no task has the positions of all lines of this property", statement.span)
        return tasks or None


def _check(scope: Scope, line: s.Expect) -> Check | None:
    name = line.measurement.name
    kind = scope.kinds.word(name.text)
    if kind is not None and not kind.per_prompt:
        message = f"{name.text} has no value on a single prompt, and a property is about every one"
        able = ", ".join(scope.kinds.that(lambda kind: kind.per_prompt))
        scope.sink.error("E088", message, name.span, f"a property takes {able}")
        return None
    expected = resolve_expect(scope, line)
    if expected is None:
        return None
    measurement, (test,) = expected
    if isinstance(test, AboveChance) and line.relation is not None:
        message = "one prompt is answered rightly or not: nothing is above chance on every one"
        scope.sink.error("E088", message, line.relation.span, "write: expect accuracy > 0%, or expect logit_diff > 0")
        return None
    assert isinstance(measurement, Reading) and isinstance(test, Within)
    return check_of(measurement, test, written(line.measurement), line.text)


def check_of(measurement: Reading, test: Within, name: str, text: str) -> Check:
    """What a bound on a mean asks of every prompt; `text` is that of the line."""
    return Check(measurement, test.low, test.high, test.strict, name, test.text, text.removeprefix("expect "))


def property_of(claim: Claim) -> Property | None:
    """What a claim asks of every prompt; an expectation that has a value on each is taken at its word."""
    measured = claim.measurement
    if isinstance(measured, Property):
        return measured
    if isinstance(measured, Reading) and measured.per_prompt and claim.under is None:
        (test,) = claim.tests
        if isinstance(test, Within) and test.quantity == "value":
            return Property((check_of(measured, test, claim.about, claim.text),), None)
    return None


def _share(scope: Scope, statement: s.Property) -> float | None:
    """`for 99% of prompts`; None without it, or when it is wrong, after a diagnostic was emitted."""
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
