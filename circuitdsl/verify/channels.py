"""Channel claims: weights in, verdicts out. There is nothing to sample, so that they hold or fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache

import numpy as np

from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import ChannelTest, Composed
from circuitdsl.circuit.measurements import Composition
from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.engine.readers.composition import FEWEST, Compositions, compositions
from circuitdsl.errors import UserError
from circuitdsl.models.weights import AttentionWeights
from circuitdsl.report.numbers import plain
from circuitdsl.report.report import ClaimResult, Measured, MemberResult, ModelInfo, Report, SpecInfo, Standing
from circuitdsl.verdicts import WORST_FIRST, Verdict
from circuitdsl.verify.comparisons import comparison_results, needs_no_weights, verify_text

PROTOCOL = {"read": "weights", "run": "none"}

Judged = tuple[Verdict, str]


def channel_claims(circuit: Circuit, only: str | None = None) -> list[Claim]:
    """The claims of a circuit that weights alone decide; `only` is the id or the line of one claim."""
    return [c for c in circuit.claims if c.kind == "channel" and (only is None or c.answers_to(only))]


def needs_no_model(circuit: Circuit, only: str | None = None) -> bool:
    """Whether weights alone decide all claims of a circuit, and there are any."""
    wanted = [claim for claim in circuit.claims if only is None or claim.answers_to(only)]
    return bool(wanted) and all(claim.kind in ("channel", "compare") for claim in wanted)


def verify_without_model(
    circuit: Circuit, weights: Callable[[], AttentionWeights], only: str | None = None
) -> Report | None:
    """The report where the text, or weights that are loaded if need be, decide all claims; None where a model must run.

    Its seconds include loading.
    """
    start = time.perf_counter()
    if needs_no_weights(circuit, only):
        return verify_text(circuit, only)
    if not needs_no_model(circuit, only):
        return None
    report = verify_weights(circuit, weights(), only)
    return replace(report, seconds=time.perf_counter() - start)


def verify_weights(circuit: Circuit, weights: AttentionWeights, only: str | None = None) -> Report:
    """Verify the channel claims of a circuit on attention weights; nothing is run."""
    start = time.perf_counter()
    claims = in_order(circuit, [*channel_results(circuit, weights, only), *comparison_results(circuit, only)])
    return Report(
        spec=SpecInfo(circuit.path, circuit.name, circuit.sha256),
        model=ModelInfo(
            weights.name, weights.sha256, weights.n_layers, weights.n_heads, "cpu", weights.dtype, bos=False
        ),
        tasks=(),
        claims=claims,
        seconds=time.perf_counter() - start,
    )


def in_order(circuit: Circuit, claims: Sequence[ClaimResult]) -> tuple[ClaimResult, ...]:
    """Results in the order of the spec's claims."""
    place = {claim.id: i for i, claim in enumerate(circuit.claims)}
    return tuple(sorted(claims, key=lambda found: place[found.id]))


def channel_results(circuit: Circuit, weights: AttentionWeights, only: str | None = None) -> tuple[ClaimResult, ...]:
    """The records of all channel claims; every receiver's scores are computed once."""
    scores = cache(lambda receiver: compositions(weights, receiver))
    return tuple(_result(claim, scores) for claim in channel_claims(circuit, only))


def _result(claim: Claim, scores: Callable[[Input], Compositions]) -> ClaimResult:
    assert isinstance(claim.measurement, Composition)
    try:
        found = [
            (sender, to, Standing(**asdict(scores(to).standing(sender)))) for sender, to in claim.measurement.pairs
        ]
    except UserError as error:
        return _record(claim, ("error", error.message))
    tests: tuple[ChannelTest, ...] = claim.tests  # type: ignore[assignment]
    if claim.each or len(found) == 1:
        judged = [_all_of([_judge(test, where) for test in tests]) for _, _, where in found]
        worst = min(range(len(found)), key=lambda i: WORST_FIRST.index(judged[i][0]))
        (sender, to, whole), (verdict, reason) = found[worst], judged[worst]
        label = "" if len(found) == 1 else f"{sender} -> {to}: "
        members = [_member(*pair, judged=one if claim.each else None) for pair, one in zip(found, judged, strict=True)]
        result = _record(claim, (verdict, label + reason), whole, members)
        assert result.measured
        return replace(result, measured=replace(result.measured, sender=str(sender), receiver=str(to.node)))
    whole = _mean([where for _, _, where in found])
    return _record(claim, _all_of([_judge(test, whole) for test in tests]), whole, [_member(*pair) for pair in found])


# --- judging ---------------------------------------------------------------------------------------


def _mean(standings: Sequence[Standing]) -> Standing:
    """Several pairs together: mean figures, the mean of their chance levels, no rank."""
    levels = [where.chance for where in standings if where.chance is not None]
    return Standing(
        composition=float(np.mean([where.composition for where in standings])),
        rank=None,
        of=None,
        z=float(np.mean([where.z for where in standings])),
        chance=float(np.mean(levels)) if len(levels) == len(standings) else None,
    )


def _judge(test: ChannelTest, where: Standing) -> Judged:
    """Whether a figure is where it is claimed to be, with the sentence that says so."""
    shown = plain(where.composition, 3)
    if isinstance(test, Composed):
        value = getattr(where, test.figure)
        words = {
            "rank": f"rank {where.rank} of {where.of}",
            "z": f"z {plain(where.z)}",
            "composition": f"composition {shown}",
        }[test.figure]
        claimed = test.text.removeprefix("composition ")
        holds = test.admits(value)
        return ("holds", f"{words} meets {claimed}") if holds else ("fails", f"{words} does not meet {claimed}")
    if where.chance is None:
        return "undecided", f"null too small: fewer than {FEWEST} senders are upstream"
    chance = f"{plain(where.chance, 3)}, the 95th percentile of all senders"
    if where.composition > where.chance:
        return "holds", f"composition {shown} is above {chance}"
    return "fails", f"composition {shown} is not above {chance}"


def _all_of(parts: Sequence[Judged]) -> Judged:
    """Parts joined by `and`: the one that decides, or all of them where all hold."""
    worst = min(parts, key=lambda part: WORST_FIRST.index(part[0]))
    return worst if worst[0] != "holds" else ("holds", "; ".join(reason for _, reason in parts))


# --- records ---------------------------------------------------------------------------------------


def _record(
    claim: Claim, judged: Judged, where: Standing | None = None, members: Sequence[MemberResult] = ()
) -> ClaimResult:
    return ClaimResult(
        id=claim.id,
        line=claim.line,
        text=claim.text,
        kind=claim.kind,
        task=None,
        verdict=judged[0],
        reason=judged[1],
        protocol=PROTOCOL,
        measured=None if where is None else _measured(where),
        members=tuple(members),
        citation=claim.citation,
    )


def _measured(where: Standing) -> Measured:
    return Measured("composition", where.composition, ci=None, n=0, unit="composition", standing=where)


def _member(sender: Node, to: Input, where: Standing, judged: Judged | None = None) -> MemberResult:
    figures = f"composition {plain(where.composition, 3)}, rank {where.rank} of {where.of}, z {plain(where.z)}"
    return MemberResult(
        sender=str(sender),
        receiver=str(to.node),
        input=to.port,
        position="",
        effect=None,
        ci=None,
        delta=None,
        n=0,
        verdict=judged[0] if judged else None,
        reason=f"{sender} -> {to}: {figures}" if judged else figures,
        standing=where,
    )
