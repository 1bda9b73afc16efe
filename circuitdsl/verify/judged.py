"""Claims that need no run of the model: weights, or the spec alone, decide them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.shapes import near, shape_of
from circuitdsl.measurements.kind import kind_of
from circuitdsl.report.report import ClaimResult, ModelInfo, Report, SpecInfo

if TYPE_CHECKING:
    from circuitdsl.models.model import Model
    from circuitdsl.models.weights import AttentionWeights


def wanted(circuit: Circuit, only: Sequence[str] | None = None) -> list[Claim]:
    """The claims of a circuit, or those of some ids or lines."""
    return [claim for claim in circuit.claims if only is None or any(map(claim.answers_to, only))]


def judged(claims: Sequence[Claim], weights: Callable[[], AttentionWeights]) -> list[ClaimResult]:
    """The records of the claims among some that need no run; weights are loaded where one needs them."""
    from circuitdsl.engine.named import function_of

    by_judge: dict[str, list[Claim]] = {}
    for claim in claims:
        by_judge.setdefault(kind_of(claim).judge, []).append(claim)
    found: list[ClaimResult] = []
    for judge, mine in by_judge.items():
        if judge:
            needs_weights = kind_of(mine[0]).decided_by == "weights"
            found += function_of(judge)(mine, weights() if needs_weights else None)
    return found


def on_model(model: Model, claims: Sequence[Claim]) -> list[ClaimResult]:
    """The records of the claims among some that need no run, by the weights of a model."""
    return judged(claims, lambda: import_module("circuitdsl.models.weights").weights_of(model.parts))


def verify_without_model(
    circuit: Circuit, weights: Callable[[], AttentionWeights], only: Sequence[str] | None = None
) -> Report | None:
    """The report where the text, or weights that are loaded if need be, decide all claims; None where a model must run.

    Its seconds include loading.
    """
    start = time.perf_counter()
    claims = wanted(circuit, only)
    deciding = {kind_of(claim).decided_by for claim in claims}
    if not deciding or not deciding <= {"weights", "text"}:
        return None
    if "weights" in deciding:
        own = weights()
        model = ModelInfo(own.name, own.sha256, own.n_layers, own.n_heads, "cpu", own.dtype, False, own.config_sha256)
    else:  # of a model that is not looked at, what is known without loading it
        name = circuit.model.name if circuit.model else ""
        shape = shape_of(near(name, circuit.path))[0] if name else None
        layers, heads = (shape.n_layers, shape.n_heads) if shape else (0, 0)
        model = ModelInfo(name, "", layers, heads, "none", "none", bos=False)
    spec = SpecInfo(circuit.path, circuit.name, circuit.sha256, circuit.meaning)
    return Report(spec, model, (), in_order(circuit, judged(claims, weights)), time.perf_counter() - start)


def in_order(circuit: Circuit, claims: Sequence[ClaimResult]) -> tuple[ClaimResult, ...]:
    """Results in the order of the spec's claims, each with why it is expected to fail."""
    place = {claim.id: i for i, claim in enumerate(circuit.claims)}
    ordered = sorted(claims, key=lambda found: place[found.id])
    reasons = [circuit.claims[place[each.id]].expected_to_fail for each in ordered]
    return tuple(
        replace(each, expected_to_fail=why) if why else each for each, why in zip(ordered, reasons, strict=True)
    )
