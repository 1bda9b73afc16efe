"""Claims about what two circuits share: nothing is measured, so that they hold or fail."""

from __future__ import annotations

import time

from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.compare import RARE
from circuitdsl.circuit.criteria import AboveChance, RolesAgree, Within
from circuitdsl.circuit.measurements import Overlapping
from circuitdsl.circuit.shapes import near, shape_of
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, Measured, ModelInfo, Report, SpecInfo
from circuitdsl.verdicts import Verdict

PROTOCOL = {"read": "specs", "run": "none"}


def needs_no_weights(circuit: Circuit, only: str | None = None) -> bool:
    """Whether the text alone decides all claims of a circuit, and there are any."""
    wanted = [claim for claim in circuit.claims if only is None or claim.answers_to(only)]
    return bool(wanted) and all(claim.kind == "compare" for claim in wanted)


def verify_text(circuit: Circuit, only: str | None = None) -> Report:
    """Verify the comparisons of a circuit; no model is looked at."""
    start = time.perf_counter()
    name = circuit.model.name if circuit.model else ""
    shape = shape_of(near(name, circuit.path))[0] if name else None
    layers, heads = (shape.n_layers, shape.n_heads) if shape else (0, 0)
    return Report(
        spec=SpecInfo(circuit.path, circuit.name, circuit.sha256),
        model=ModelInfo(name, "", layers, heads, "none", "none", bos=False),
        tasks=(),
        claims=comparison_results(circuit, only),
        seconds=time.perf_counter() - start,
    )


def comparison_results(circuit: Circuit, only: str | None = None) -> tuple[ClaimResult, ...]:
    """The records of all comparisons of a circuit."""
    wanted = [c for c in circuit.claims if c.kind == "compare" and (only is None or c.answers_to(only))]
    return tuple(map(_result, wanted))


def _result(claim: Claim) -> ClaimResult:
    found = claim.measurement
    assert isinstance(found, Overlapping)
    verdict, reason = _judged(claim, found)
    names = f"{found.first} and {found.second}"
    chance = (
        "" if found.chance is None else f"; by chance {percent(found.chance)}, as much or more {percent(found.p or 0)}"
    )
    of_first = found.shared / found.sizes[0] if found.sizes[0] else 0.0
    note = (
        f"{names}: {found.shared} {'edges' if found.what == 'edges' else 'heads'} shared of {found.sizes[0]} and "
        f"{found.sizes[1]}, {percent(of_first)} of the first{chance}"
    )
    measured = None if found.what == "roles" else Measured("overlap", found.jaccard, ci=None, n=0, unit="share")
    return ClaimResult(
        id=claim.id,
        line=claim.line,
        text=claim.text,
        kind=claim.kind,
        task=None,
        verdict=verdict,
        reason=reason,
        protocol=PROTOCOL,
        measured=measured,
        notes=(note, *found.disagreeing) if found.what == "roles" else (note,),
        citation=claim.citation,
        block=f"compare {found.first} with {found.second}",
        block_line=found.line,
    )


def _judged(claim: Claim, found: Overlapping) -> tuple[Verdict, str]:
    (test,) = claim.tests
    match test:
        case AboveChance():
            if found.p is None:
                return "error", "the model's shape is not known, so that there is no chance level"
            said = f"random heads of the same layers overlap as much in {percent(found.p)} of draws"
            return ("holds", f"{said}, at most {percent(RARE)}") if found.p <= RARE else ("fails", said)
        case RolesAgree():
            if not found.agreeing and not found.disagreeing:
                return "error", f"no head of {found.first} and {found.second} has a role in both"
            total = found.agreeing + len(found.disagreeing)
            said = f"{found.agreeing} of {total} shared heads play the same role in both"
            return ("fails" if found.disagreeing else "holds"), said
        case Within():
            inside = test.admits(found.jaccard)
            said = f"overlap {percent(found.jaccard)} {'meets' if inside else 'does not meet'} {test.text}"
            return ("holds" if inside else "fails"), said
    raise TypeError(f"not said of a comparison: {test!r}")
