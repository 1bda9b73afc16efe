"""The last verdict on each claim of a spec: at the end of its line, and in full where the cursor rests on it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.lsp.document import Document, end_of, opens_circuit
from circuitdsl.report.report import counted
from circuitdsl.verdicts import OUTCOMES, WORST_OUTCOMES, Outcome, outcome_of, spoken
from circuitdsl.verify.last import LastVerdict, asked, of_claim

SIGNS: dict[Outcome, str] = {
    "holds": "✓", "expected": "≈", "fails": "✗", "unexpected": "✗ holds", "undecided": "?", "error": "!",
}  # fmt: skip
#: before a verdict on an earlier text of the spec
_STALE = "~"


class Hint(NamedTuple):
    """A text behind the end of a row; `more` is all of it."""

    row: int
    text: str
    more: str


class Lens(NamedTuple):
    """A row above which an editor offers to verify some claims, named by their rows; without them all are meant."""

    row: int
    title: str
    claims: list[int] | None


def hints(document: Document, known: Sequence[LastVerdict]) -> list[Hint]:
    """At the end of each claim that was verified before, its worst verdict with the figure."""
    found = []
    for circuit, claim, verdicts in _claims(document, known):
        worst = min(verdicts, key=lambda one, of=claim: WORST_OUTCOMES.index(_outcome(of, one)))  # type: ignore[misc]
        line = document.line_at(claim.line)
        row = end_of(line.statement) if line else claim.line
        figure = " ".join(part for part in (worst.figure, worst.interval) if part)
        where = f" on {worst.task}" if len(verdicts) > 1 and worst.task else ""
        stale = _STALE if _is_stale(circuit, claim, worst) else ""
        text = f"{stale}{SIGNS[_outcome(claim, worst)]} {figure}{where}".rstrip()
        found.append(Hint(row, text, "\n\n".join(_in_full(circuit, claim, verdicts))))
    return found


def lenses(document: Document, known: Sequence[LastVerdict]) -> list[Lens]:
    """Above each circuit the offer to verify it, and what was found last."""
    rows = [line.statement.span.line for line in document.lines if opens_circuit(line.statement)]
    found = []
    for row, circuit in zip(rows, document.circuits, strict=False):
        last = [_outcome(c, one) for of, c, verdicts in _claims(document, known) if of is circuit for one in verdicts]
        counts = ", ".join(counted(last.count(verdict), verdict) for verdict in OUTCOMES if verdict in last)
        claims = sorted({claim.line for claim in circuit.claims}) if len(rows) > 1 else None
        if circuit.claims:
            found.append(Lens(row, f"verify · {counts}" if counts else "verify", claims))
    return found


def claim_at(document: Document, row: int) -> int | None:
    """The row in which a claim begins that stands in a row."""
    line = document.line_at(row)
    lines = {claim.line for circuit in document.circuits for claim in circuit.claims}
    return line.statement.span.line if line and line.statement.span.line in lines else None


def of_row(document: Document, row: int, known: Sequence[LastVerdict]) -> list[str]:
    """What was found last of the claim in a row, a paragraph for each task; nothing where there is none."""
    start = claim_at(document, row)
    pairs = ((circuit, claim) for circuit in document.circuits for claim in circuit.claims if claim.line == start)
    return [said for one in pairs for said in _in_full(*one, of_claim(known, *one))]


def _claims(
    document: Document, known: Sequence[LastVerdict]
) -> Iterator[tuple[Circuit, Claim, tuple[LastVerdict, ...]]]:
    for circuit in document.circuits:
        for claim in circuit.claims:
            if verdicts := of_claim(known, circuit, claim):
                yield circuit, claim, verdicts


def _in_full(circuit: Circuit, claim: Claim, verdicts: Iterable[LastVerdict]) -> Iterator[str]:
    for one in verdicts:
        on = f" on {one.task}" if one.task else ""
        figure = " ".join(part for part in (one.figure, one.interval, f"n {one.n}" if one.n else "") if part)
        said = f"**{spoken(_outcome(claim, one))}**{on}{f': {figure}' if figure else ''}"
        stale = "; what is measured has changed since" if _is_stale(circuit, claim, one) else ""
        why = "" if claim.expected_to_fail is None else f"\n\nexpected to fail: {claim.expected_to_fail}"
        yield f"{said}\n\n{one.reason}{why}\n\n{_age(one.when)}, {one.model}{stale}"


def _outcome(claim: Claim, last: LastVerdict) -> Outcome:
    """What a verdict means by what the spec expects now."""
    return outcome_of(last.verdict, claim.expected_to_fail is not None)


def _is_stale(circuit: Circuit, claim: Claim, verdict: LastVerdict) -> bool:
    return asked(circuit, claim) != verdict.asked


def _age(when: float) -> str:
    """How long ago something was: `3 minutes ago`."""
    seconds = max(time.time() - when, 0)
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' * (count != 1)} ago"
    return "just now"
