"""`property "…"` blocks: what must be true prompt by prompt, not only on average."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from circuitdsl.circuit.bounds import read
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.collect import resolve_expect
from circuitdsl.circuit.criteria import AboveChance, Exceeds, Within
from circuitdsl.circuit.measurement import Expected, FindTasks
from circuitdsl.circuit.nodes import Positions
from circuitdsl.circuit.scope import Scope, complete
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kind import Kind, Reading

if TYPE_CHECKING:
    import numpy as np

#: a larger share would need more prompts than a task can be asked for
LARGEST_SHARE = 0.9999


@dataclass(frozen=True, slots=True)
class Check:
    """What a property asks of every prompt: the bounds on a mean (`test`), of each value.

    Attributes:
        name: what is measured, as written; `text` is that with the bounds.
    """

    measurement: Reading
    test: Within
    name: str = field(compare=False)
    text: str = field(compare=False)

    @property
    def requests(self) -> tuple[Reading, ...]:
        """What is measured: the figure, and the one that it is compared with, if any."""
        other = (cast(Reading, self.test.other),) if isinstance(self.test, Exceeds) else ()
        return (self.measurement, *other)

    def value(self, *figures: np.ndarray) -> np.ndarray:
        """What is bounded, of what `requests` came to."""
        return figures[0] - self.test.times * figures[1] if isinstance(self.test, Exceeds) else figures[0]


@dataclass(frozen=True, slots=True)
class Property(Kind):
    """What must be true of every prompt, all checks together: of a `share` of prompts, or (None) without exception."""

    checks: tuple[Check, ...]
    share: float | None

    statement = s.Property
    claim_kind = "property"
    examples = ('property "right"\n  expect accuracy > 0%',)
    false_examples = ('property "wrong"\n  expect accuracy < 50%',)
    decided_by = "own sample"

    @classmethod
    def resolve(cls, scope: Scope, statement: s.Property) -> Expected | None:  # type: ignore[override]
        share = _share(scope, statement)
        checks = complete(_check(scope, line) if isinstance(line, s.Expect) else None for line in statement.block)
        if not checks or (share is None and statement.share is not None):
            return None
        tests = (Within("value", share, None, f">= {statement.share.text}"),) if statement.share else ()
        return cls(checks, share), tests

    @property
    def requests(self) -> list[Reading]:
        """Everything that is measured for its checks."""
        return [request for check in self.checks for request in check.requests]

    @property
    def in_family(self) -> bool:
        return self.share is not None

    def sample_size(self, members: int) -> int:
        from circuitdsl.verdict.weighing import prompts_needed

        return prompts_needed(self.share, members)

    def tasks(
        self, scope: Scope, find: FindTasks, statement: s.Statement, positions: Positions
    ) -> tuple[str, ...] | None:
        """The tasks that each of the lines can be checked on."""
        assert isinstance(statement, s.Property)
        lines = [line for line in statement.block if isinstance(line, s.Expect)]
        pairs = zip(lines, self.checks, strict=True)
        able = complete(
            find(line.on, tuple(p for each in check.requests for p in each.positions), line) for line, check in pairs
        )
        if able is None:
            return None
        tasks = tuple(name for name in able[0] if all(name in names for names in able))
        if not tasks:
            scope.sink.error(
                "E092", "no task has all of the positions that the lines of this property name", statement.span
            )
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
        message = "'above chance' is said of many prompts: a single one is answered rightly or wrongly"
        scope.sink.error("E088", message, line.relation.span, "write: expect accuracy > 0%, or expect logit_diff > 0")
        return None
    assert isinstance(measurement, Reading) and isinstance(test, Within)
    return Check(measurement, test, str(line.measurement), line.text.removeprefix("expect "))


def property_of(claim: Claim) -> Property | None:
    """What a claim asks of every prompt; an expectation that has a value on each is taken at its word."""
    measured = claim.measurement
    if isinstance(measured, Property):
        return measured
    if isinstance(measured, Reading) and measured.per_prompt and claim.under is None:
        (test,) = claim.tests
        if isinstance(test, Within) and (test.quantity == "value" or isinstance(test, Exceeds)):
            return Property((Check(measured, test, claim.about, claim.text.removeprefix("expect ")),), None)
    return None


def _share(scope: Scope, statement: s.Property) -> float | None:
    """`for 99% of prompts`; None without it, or when it is wrong, after a diagnostic was emitted."""
    if statement.share is None or statement.of is None:
        return None
    if statement.of.text != "prompts":
        scope.sink.error("E083", "a property holds for a share of prompts", statement.of.span, "write: of prompts")
        return None
    value = read(scope, statement.share, "share", "a part of the prompts", 0, 1)
    if value is not None and not 0 < value <= LARGEST_SHARE:
        limit = f"{100 * LARGEST_SHARE:g}%"
        message = f"no sample shows a share of {statement.share.text}: it lies above 0%, up to {limit}"
        help = "leave 'for … of prompts' out to ask for no counterexample" if value == 1 else None
        scope.sink.error("E081", message, statement.share.span, help)
        return None
    return value
