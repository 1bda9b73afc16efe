"""`--other-corruptions`: whether what matters under the task's corruption matters under its others.

A corruption changes some information and keeps the rest, so that an edge may matter under one alone. The claims are
verified again as they stand, each at the level that it has among all claims of the spec; the verdict stays that of the
spec's own corruption, and one note says what it is under each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.criteria import Matters
from circuitdsl.engine.prompts import Prompts
from circuitdsl.report.numbers import value
from circuitdsl.report.report import ClaimResult, Report, Verdict
from circuitdsl.verify.options import Options
from circuitdsl.verify.verify import verify

if TYPE_CHECKING:
    from circuitdsl.verify.session import Session


def under_other_corruptions(
    session: Session, circuit: Circuit, by_task: Mapping[str, Prompts], report: Report, how: Options
) -> Report:
    """The report with a note beside every `matters` claim: what it is under each of the task's corruptions.

    Ctrl-C ends this early: the notes are then on those corruptions that all claims were measured under.
    """
    reported = {claim.id for claim in report.claims}
    matters = [c for c in circuit.claims if c.id in reported and any(isinstance(test, Matters) for test in c.tests)]
    found: dict[tuple[str, str | None], list[tuple[str, ClaimResult]]] = {}
    try:
        for use in circuit.tasks:
            ids = frozenset(claim.id for claim in matters if use.name in claim.tasks)
            for corruption in by_task[use.name].others if ids else ():
                other = replace(use, corrupt=corruption)
                changed = replace(circuit, tasks=tuple(other if each is use else each for each in circuit.tasks))
                kept = replace(how, claim=None, full=False, ids=ids, task=use.name)
                prompts = session.prompts_of(changed, other)
                again = verify(changed, prompts.model, {**by_task, use.name: prompts}, kept)
                if again.interrupted:
                    raise KeyboardInterrupt
                for claim in again.claims:
                    found.setdefault((claim.id, use.name), []).append((corruption, claim))
    except KeyboardInterrupt:
        report = replace(report, interrupted=True)
    own = {task.name: task.corrupt for task in report.tasks}
    claims = (
        replace(claim, notes=(*claim.notes, _note(claim, own[str(claim.task)], others)))
        if (others := found.get((claim.id, claim.task)))
        else claim
        for claim in report.claims
    )
    return replace(report, claims=tuple(claims))


#: the words of each verdict before the corruptions that have it, in the order of a note
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
