"""A signal that is taken out changes the score it makes, and nothing but the head that reads it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitdsl.api import loads, make_benches
from circuitdsl.circuit.claims import Node, Position
from circuitdsl.measure.cut import Removal, _removals, _Without, cut
from circuitdsl.measure.trace import tracers
from circuitdsl.patching.runs import edited, run

HEAD, END, IO = Node("head", 2, 5), Position("END"), Position("IO")


@pytest.fixture(scope="module")
def bench(pocket):
    (circuit,) = loads('circuit t\nmodel "pocket"\ntask ioi(prompts = 48)\nexpect accuracy >= 9%\n').circuits
    return make_benches(circuit, pocket)["ioi"]


def test_a_removal_changes_the_head_as_its_matrices_say(bench) -> None:
    """Against queries recomputed from the changed input; other heads and earlier layers stay."""
    (_, tracer), *_ = tracers(bench.model, [pair.clean_tokens for pair in bench.pairs])
    runs = run(bench.model, tracer.tokens, tracer.tokens)
    token = tracer.tokens.shape[1] - 1
    part = torch.randn(bench.model.d_model, generator=torch.Generator().manual_seed(0))
    found = edited(runs, _Without(HEAD, tracer.weights.factors(2), [Removal(0, token, part)]))
    assert torch.equal(found.z[1], runs.clean.z[1])
    others = [h for h in range(8) if h != 5]
    assert torch.equal(found.z[2][:, :, others], runs.clean.z[2][:, :, others])
    assert torch.equal(found.z[2][1:], runs.clean.z[2][1:])
    attn = bench.model.blocks[2].attn
    norm = bench.model.blocks[2].attn_norm
    x = norm(runs.clean.resid_pre[2][0]).clone()
    x[token] -= norm.gain * part
    q, k, v = (attn.project_head(port, 5, x, None, None) for port in ("q", "k", "v"))
    pattern = ((q @ k.T) * attn.scale).masked_fill(torch.ones(token + 1, token + 1).triu(1).bool(), -torch.inf)
    assert torch.allclose(found.z[2][0, :, 5], pattern.softmax(-1) @ v, atol=1e-4)
    assert not torch.allclose(found.z[2][0, token, 5], runs.clean.z[2][0, token, 5], atol=1e-3)


def test_without_its_signal_the_head_scores_less(bench) -> None:
    """The traced senders push the score up along the signal: without that it falls, more than without random parts."""
    falls = {"signal": [], "control": []}
    for numbers, tracer in tracers(bench.model, [pair.clean_tokens for pair in bench.pairs]):
        for place, number in enumerate(numbers):
            firing = tracer.firing(place, HEAD, len(bench.pairs[number].clean_tokens) - 1)
            if firing is None:
                continue
            parts = tracer.omega(HEAD)
            for kind, generator in (("signal", None), ("control", torch.Generator().manual_seed(number))):
                x, y = (tracer.normed(place, 2, token)[0].clone() for token in (firing.destination, firing.source))
                for removal in _removals(tracer, firing, generator):
                    (x if removal.token == firing.destination else y)[:-1] -= removal.part
                score = float(parts.values @ ((parts.destination @ x) * (parts.source @ y)))
                falls[kind].append(firing.score - score)
    assert len(falls["signal"]) > 10
    assert np.mean(falls["signal"]) > 1 and np.mean(falls["signal"]) > 3 * abs(np.mean(falls["control"]))


def test_cutting_is_measured_on_the_firings(bench) -> None:
    found = cut(bench, HEAD, END, IO)
    assert 10 < len(found.indices) < 48 and len(found.signal) == len(found.control) == len(found.indices)
    assert np.abs(found.signal).max() > 1e-3 and np.isfinite(found.signal).all()
    again = cut(bench, HEAD, END, IO)
    assert np.array_equal(found.signal, again.signal) and np.array_equal(found.control, again.control)
