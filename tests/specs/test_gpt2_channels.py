"""The channels of GPT-2 small, verified on its published attention weights."""

from __future__ import annotations

import pytest

from circuitdsl.api import load, loads
from circuitdsl.circuit.claims import Circuit
from circuitdsl.models.weights import AttentionWeights, read_weights
from circuitdsl.report.report import Report
from circuitdsl.verify.judged import verify_without_model


@pytest.fixture(scope="module")
def weights(gpt2_attention):
    return read_weights(gpt2_attention)


def verified(circuit: Circuit, weights: AttentionWeights) -> Report:
    report = verify_without_model(circuit, lambda: weights)
    assert report is not None, "a model must run"
    return report


def test_every_channel_of_the_shipped_spec_holds(weights) -> None:
    (circuit,) = load("gpt2-small/channels").circuits
    assert len(circuit.claims) >= 20
    report = verified(circuit, weights)
    assert [(c.line, c.reason) for c in report.claims if c.verdict != "holds"] == []
    assert report.exit_status() == 0


def test_published_ranks(weights) -> None:
    spec = loads(
        'circuit a\nmodel "gpt2"\nchannel 4.11 -> 5.5.k : composition above chance\n'
        "channel 8.10 -> 9.9.q : composition above chance\nchannel 5.9 -> 7.3.v : composition above chance\n"
    )
    found = [c.measured.standing for c in verified(spec.circuits[0], weights).claims]
    assert [(where.rank, where.of) for where in found] == [(1, 60), (1, 108), (1, 84)]


@pytest.mark.parametrize(
    "claim",
    [
        "4.11 -> 5.9.k : composition rank <= 3",
        "8.6 -> 9.9.q : composition above chance",
        "each inhibition -> mover.q : composition above chance",
        "inhibition -> mover.q : composition above chance",
        "8.10[1] -> 9.9.v : composition above chance",
        "8.10 -> 9.9.q : composition rank < 1",
        "8.10[63] -> 9.9.q : composition z >= 1",
    ],
)
def test_claims_that_are_not_so_fail(weights, claim: str) -> None:
    text = (
        f'circuit a\nmodel "gpt2"\nheads inhibition = 7.3 7.9 8.6 8.10\nheads mover = 9.6 9.9 10.0\nchannel {claim}\n'
    )
    (result,) = verified(loads(text).circuits[0], weights).claims
    assert result.verdict == "fails", result.reason
