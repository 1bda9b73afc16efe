"""What can become of a claim: the four verdicts and their order, and what these mean where one is expected to fail."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Verdict = Literal["holds", "fails", "undecided", "error"]
#: in the order in which they are counted
VERDICTS: tuple[Verdict, ...] = ("holds", "fails", "undecided", "error")
#: of several parts, the one whose verdict comes first here decides about the whole
WORST_FIRST: tuple[Verdict, ...] = ("fails", "error", "undecided", "holds")

#: a verdict, or of a claim that is expected to fail: that it does not hold (`expected`), or that it does (`unexpected`)
Outcome = Literal["holds", "expected", "fails", "unexpected", "undecided", "error"]
#: in the order in which they are counted
OUTCOMES: tuple[Outcome, ...] = ("holds", "expected", "fails", "unexpected", "undecided", "error")
#: those that are as the spec says
PASSES: frozenset[str] = frozenset({"holds", "expected"})
#: the worst first, as of verdicts
WORST_OUTCOMES: tuple[Outcome, ...] = ("fails", "unexpected", "error", "undecided", "expected", "holds")


def outcome_of(verdict: Verdict, expected_to_fail: bool) -> Outcome:
    """What a verdict means; an error stays an error, whatever is expected."""
    if not expected_to_fail or verdict == "error":
        return verdict
    return "unexpected" if verdict == "holds" else "expected"


def status_of(outcomes: Collection[str], allow_undecided: bool, interrupted: bool = False) -> int:
    """The exit status where claims came to these outcomes: 0 as the spec says, 1 not so, 3 some were not measured."""
    if "fails" in outcomes or "unexpected" in outcomes:
        return 1
    if "error" in outcomes or not outcomes or interrupted:
        return 3
    return 1 if "undecided" in outcomes and not allow_undecided else 0


def spoken(outcome: str) -> str:
    """`unexpectedly holds`; the other outcomes are words."""
    return "unexpectedly holds" if outcome == "unexpected" else outcome
