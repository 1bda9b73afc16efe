"""`--other-corruptions`: whether what matters under the task's corruption matters under its others.

A corruption changes some information and keeps the rest, so that an edge may matter under one alone. The claims are
verified again as they stand, each at the level that it has among all claims of the spec; the verdict stays that of the
spec's own corruption, and one note says what it is under each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.criteria import Matters
from circuitdsl.report.numbers import value
from circuitdsl.report.report import ClaimResult, Report
from circuitdsl.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Rerun:
    """A circuit's `matters` claims on one task under another corruption."""

    circuit: Circuit
    task: str
    corruption: str
    claims: frozenset[str]


def reruns(circuit: Circuit, others: Mapping[str, Sequence[str]], chosen: Callable[[str], bool]) -> list[Rerun]:
    """What is verified again.

    Args:
        others: the other corruptions of each task, by the task's name in the spec.
        chosen: whether a claim is verified at all, by its id.
    """
    found = []
    for task, corruptions in others.items():
        about = [c for c in circuit.claims if any(isinstance(t, Matters) for t in c.tests) and task in c.tasks]
        claims = frozenset(claim.id for claim in about if chosen(claim.id))
        for corruption in corruptions if claims else ():
            tasks = tuple(_corrupted(use, corruption) if use.name == task else use for use in circuit.tasks)
            found.append(Rerun(replace(circuit, tasks=tasks), task, corruption, claims))
    return found


def _corrupted(use: TaskUse, corruption: str) -> TaskUse:
    return replace(use, corrupt=corruption)


def with_notes(report: Report, again: Sequence[tuple[Rerun, Report]]) -> Report:
    """The report with what each corruption gave noted beside each claim, in one line."""
    found: dict[tuple[str, str], list[tuple[str, ClaimResult]]] = {}
    for rerun, other in again:
        for claim in other.claims:
            found.setdefault((claim.id, rerun.task), []).append((rerun.corruption, claim))
    own = {task.name: task.corrupt for task in report.tasks}
    claims = tuple(
        replace(claim, notes=(*claim.notes, _note(claim, own[claim.task], found[claim.id, claim.task])))
        if claim.task is not None and (claim.id, claim.task) in found
        else claim
        for claim in report.claims
    )
    return replace(report, claims=claims, seconds=report.seconds + sum(other.seconds for _, other in again))


#: how verdicts are said of corruptions, in this order
_WORDS: dict[Verdict, str] = {
    "holds": "holds under",
    "fails": "fails under",
    "undecided": "undecided under",
    "error": "cannot be measured under",
}


def _note(claim: ClaimResult, own: str, others: Sequence[tuple[str, ClaimResult]]) -> str:
    """`corruptions: holds under abc −9.6 %, flip −7.0 %; fails under io 0.0 %; cannot be measured under s (no gap)`"""
    found: dict[Verdict, list[str]] = {}
    for corruption, result in ((own, claim), *others):
        found.setdefault(result.verdict, []).append(_said(corruption, result))
    return "corruptions: " + "; ".join(f"{_WORDS[v]} {', '.join(found[v])}" for v in _WORDS if v in found)


def _said(corruption: str, claim: ClaimResult) -> str:
    """A corruption with the figure under it, or with why there is none."""
    if claim.verdict == "error":
        return f"{corruption} ({claim.cause or claim.reason})"
    return f"{corruption} {value(claim.measured)}" if claim.measured else corruption
