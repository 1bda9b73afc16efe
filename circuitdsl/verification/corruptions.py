"""`--other-corruptions`: whether what matters under the task's corruption matters under its others.

A corruption changes some information and keeps the rest, so that an edge may matter under one alone. The claims are
verified again as they stand, each at the level that it has among all claims of the spec; the verdict stays that of the
spec's own corruption, and a note says what the others gave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.criteria import Matters
from circuitdsl.report.report import ClaimResult, Report


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
    """The report with what the other corruptions gave noted beside each claim."""
    found: dict[tuple[str, str], list[tuple[str, ClaimResult]]] = {}
    for rerun, other in again:
        for claim in other.claims:
            found.setdefault((claim.id, rerun.task), []).append((rerun.corruption, claim))
    own = {task.name: task.corrupt for task in report.tasks}
    claims = tuple(
        replace(claim, notes=(*claim.notes, *_notes(claim, own[claim.task], found[claim.id, claim.task])))
        if claim.task is not None and (claim.id, claim.task) in found
        else claim
        for claim in report.claims
    )
    return replace(report, claims=claims, seconds=report.seconds + sum(other.seconds for _, other in again))


def _notes(claim: ClaimResult, own: str, others: Sequence[tuple[str, ClaimResult]]) -> list[str]:
    notes = []
    for corruption, other in others:
        if claim.verdict == other.verdict == "holds":
            notes.append(f"holds under corrupt = {corruption} too: {other.reason}")
        elif claim.verdict == "holds":
            notes.append(f"holds under corrupt = {own} only; under {corruption} {_said(other)}")
        elif other.verdict == "holds":
            notes.append(f"holds under corrupt = {corruption} only: {other.reason}")
        else:
            notes.append(f"under corrupt = {corruption} {_said(other)}")
    return notes


def _said(claim: ClaimResult) -> str:
    word = {"fails": "it fails", "undecided": "it is undecided", "error": "it is an error"}[claim.verdict]
    return f"{word}: {claim.reason}"
