"""Traces are what the paper defines: checked against full matrices, and against the model's own attention scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitdsl.api import loads
from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.readers.trace import _firings
from circuitdsl.engine.trace import COVERED, SIDES, NotTraced, Tracer, covering, fired, omegas, signal, tracers
from circuitdsl.models.distances import Distances, slopes
from circuitdsl.models.load import load_model
from circuitdsl.models.weights import weights_of
from circuitdsl.verify.plan import plan
from circuitdsl.verify.prompts import prompts_by_task
from tests.engine.small_models import save_random

HEADS = [Node("head", layer, head) for layer in range(4) for head in range(8)]


@pytest.fixture(scope="module")
def bench(pocket):
    (circuit,) = loads('circuit t\nmodel "pocket"\ntask ioi(prompts = 64)\nexpect accuracy >= 9%\n').circuits
    return prompts_by_task(circuit, pocket)["ioi"]


@pytest.fixture(scope="module")
def tracer(bench) -> Tracer:
    (_, first), *_ = tracers(bench.model, [pair.clean_tokens for pair in bench.pairs[:24]])
    return first


def test_omega_is_the_matrix_of_the_paper(pocket) -> None:
    weights = weights_of(pocket)
    factors = weights.factors(2)
    q, k, b_q, b_k = (getattr(factors, name)[5] for name in ("W_Q", "W_K", "b_Q", "b_K"))
    centre = torch.eye(len(q), dtype=q.dtype) - 1 / len(q)
    q, k = centre @ q, centre @ k
    whole = torch.cat((
        torch.cat((q @ k.T, (q @ b_k)[:, None]), 1),
        torch.cat(((b_q @ k.T)[None], (b_q @ b_k).view(1, 1)), 1),
    ))  # fmt: skip
    found = omegas(weights)(Node("head", 2, 5), 0)
    rebuilt = found.destination.T @ found.values.diag() @ found.source
    assert torch.allclose(rebuilt, (factors.scale * whole).float(), atol=1e-4)
    assert torch.allclose(found.values, torch.linalg.svdvals(factors.scale * whole)[:16].float(), atol=1e-4)
    for vectors in (found.destination, found.source):
        assert torch.allclose(vectors @ vectors.T, torch.eye(16), atol=1e-5)
        assert vectors[:, :-1].mean(1).abs().max() < 1e-7


def test_terms_add_up_to_the_models_own_scores(tracer: Tracer, pocket) -> None:
    for head in HEADS[8:]:
        attn = pocket.blocks[head.layer].attn
        for prompt in range(2):
            last = tracer.tokens.shape[1] - 1
            own = tracer.cache.q[head.layer][prompt, head.head, last] @ tracer.cache.k[head.layer][prompt, head.head].T
            parts = tracer.omega(head, 0)
            x = tracer.normed(prompt, head.layer, last)[0]
            for token in range(last + 1):
                y = tracer.normed(prompt, head.layer, token)[0]
                score = parts.values @ ((parts.destination @ x) * (parts.source @ y))
                assert float(score) == pytest.approx(float(own[token]) * attn.scale, abs=2e-4)


def test_a_signal_is_the_fewest_terms_that_make_the_score() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        terms = torch.randn(6, generator=generator)
        if terms.sum() < 0:
            terms = -terms
        chosen = signal(terms)
        total = float(terms.sum())
        assert float(terms[chosen].sum()) >= total - 1e-5
        sizes = [bin(mask).count("1") for mask in range(1, 64)
                 if float(sum(terms[i] for i in range(6) if mask >> i & 1)) >= total - 1e-5]  # fmt: skip
        assert len(chosen) == min(sizes)
    assert signal(torch.tensor([1.0, 2.0, 0.0])).tolist() == [1, 0]


def test_senders_are_the_fewest_that_cover() -> None:
    nodes = [Node("head", 0, h) for h in range(4)]
    values = (1.0, 5.0, -2.0, 4.0)
    found = covering(list(zip(nodes, values, strict=True)))
    assert found == ((nodes[1], 5.0), (nodes[3], 4.0)) and 5.0 < COVERED * 8 <= 9.0
    assert covering([(nodes[0], -1.0), (nodes[1], 0.5)]) == ()


def test_what_all_nodes_add_is_the_whole_of_the_signal(tracer: Tracer, pocket) -> None:
    """Heads, embedding, MLPs, the output biases and the appended 1 together are what the signal reads."""
    for head in (Node("head", 2, 5), Node("head", 3, 1)):
        token = tracer.tokens.shape[1] - 1
        x, scale = tracer.normed(0, head.layer, token)
        parts = tracer.omega(head, 3)
        chosen = torch.arange(5)
        weigh = (parts.destination @ x)[chosen].sign() * parts.values[chosen].sqrt()
        direction = weigh @ parts.destination[chosen, :-1] / scale
        heads, rest = tracer.added(0, head.layer, token, direction)
        centred = direction - direction.mean()
        biases = sum(float(pocket.blocks[layer].attn.o.bias @ centred) for layer in range(head.layer))
        one = float(weigh @ parts.destination[chosen, -1])
        whole = float((parts.values[chosen].sqrt() * (parts.destination @ x)[chosen].abs()).sum())
        assert sum(v for _, v in heads) + sum(v for _, v in rest) + biases + one == pytest.approx(whole, abs=1e-3)
        assert len(heads) == 8 * head.layer and [str(n) for n, _ in rest][:2] == ["embed", "m0"]


def test_heads_fire_where_they_attend(bench) -> None:
    """Against the pattern of the model itself, prompt by prompt."""
    from circuitdsl.circuit.nodes import Position
    from circuitdsl.measurements.attention import Attention
    from circuitdsl.verify.measure import measure

    end, target, head = Position("END"), Position("IO"), Node("head", 2, 5)
    prompts = [pair.clean_tokens for pair in bench.pairs]
    by_number = {
        n: f for _, firings in fired(bench.model, bench.pairs, head, [end], [target]) for n, f in firings.items()
    }
    found = [by_number.get(number) for number in range(len(prompts))]
    request = Attention((head,), (end,), (target,))
    attention = measure(bench, [request], np.arange(len(prompts)))[request].values
    assert 10 < sum(f is not None for f in found) < len(prompts)
    for firing, share in zip(found, attention, strict=True):
        assert (firing is not None) == (share >= 0.5)
        if firing:
            assert firing.attention == pytest.approx(share, abs=1e-5) and firing.score >= 0
            assert 1 <= len(firing.signal) <= 16
            for side in SIDES:
                values = [value for _, value in firing.senders[side]]
                assert values == sorted(values, reverse=True)
                assert all(sender.layer < 2 for sender, _ in firing.senders[side])


def test_first_layers_and_first_tokens_do_not_fire(tracer: Tracer) -> None:
    last = tracer.tokens.shape[1] - 1
    for prompt in range(len(tracer.tokens)):
        for head in HEADS:
            firing = tracer.firing(prompt, head, last)
            assert firing is None or (head.layer > 0 and firing.source > 0)
            assert tracer.firing(prompt, head, 0) is None


def test_a_trace_goes_down_from_sender_to_sender(tracer: Tracer) -> None:
    last = tracer.tokens.shape[1] - 1
    (start,) = [f for f in [tracer.firing(0, Node("head", 3, 2), last)] if f] or [
        next(f for p in range(24) for h in HEADS[24:] if (f := tracer.firing(p, h, last)))
    ]
    found = list(tracer.traced(start))
    assert found[0] is start and len({(f.head, f.destination) for f in found}) == len(found)
    asked = {(sender, f.token(side)) for f in found for side in SIDES for sender, _ in f.senders[side]}
    assert {(f.head, f.destination) for f in found[1:]} == {
        place for place in asked if tracer.firing(start.prompt, *place)
    }


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt_neox", "gptj", "gemma2"])
def test_turned_scores_are_those_of_the_firings_distance(kind: str, tmp_path) -> None:
    """Terms add up to the model's own scores for every pair of tokens, through rotary positions and norms."""
    model = load_model(str(save_random(kind, tmp_path)), device="cpu")
    tokens = torch.randint(model.n_vocab, (2, 6), generator=torch.Generator().manual_seed(0)).tolist()
    (_, tracer), *_ = tracers(model, tokens)
    seen = []
    for head in (Node("head", 1, 0), Node("head", 2, model.n_heads - 1)):
        attn = model.blocks[head.layer].attn
        q, k = (port[head.layer][0] for port in (tracer.cache.q, tracer.cache.k))
        for i in range(6):
            for j in range(i + 1):
                parts, scale = tracer.omega(head, i - j), tracer.scale(0, head, i, j)
                x, y = (tracer.normed(0, head.layer, token)[0] for token in (i, j))
                score = scale * float(parts.values @ ((parts.destination @ x) * (parts.source @ y)))
                own = attn.scale * float(q[head.head, i] @ k[head.head // attn.group, j])
                assert score == pytest.approx(own, abs=1e-3, rel=1e-3)
                seen.append(own)
    assert np.std(seen) > 0.1


@pytest.mark.parametrize(("kind", "does"), [("olmo", "clips"), ("phi", "adds biases to the norms of")])
def test_models_that_do_more_to_queries_and_keys_are_refused(kind: str, does: str, tmp_path) -> None:
    model = load_model(str(save_random(kind, tmp_path)), device="cpu")
    with pytest.raises(NotTraced, match=f"{does} its queries and keys: no one matrix"):
        list(tracers(model, [[1, 2, 3]]))


def test_models_whose_scores_depend_on_the_distance_are_refused(pocket) -> None:
    tokens, known = torch.zeros(1, 4, dtype=torch.long), weights_of(pocket)
    layers = [(norm, replace(attn, distances=Distances(slopes(attn.n_heads)))) for norm, attn in known.layers]
    with pytest.raises(NotTraced, match=r"for the distance \(ALiBi\)"):
        Tracer(pocket, tokens, replace(known, layers=tuple(layers)), pytest.fail)


# --- claims -----------------------------------------------------------------------------------------


def test_a_trace_claims_a_share_of_firings(check, bench) -> None:
    report = check(
        "circuit t\ntask ioi(prompts = 64)\ntrace 2.5 END -> IO includes 0.3 at IO\n"
        "trace 2.5 END -> IO includes 0.3 1.4 at IO\ntrace 3.5 END -> END includes 0.2\n"
    )
    spec = loads("circuit t\ntask ioi(prompts = 64)\ntrace 2.5 END -> IO includes 0.3 at IO\n")
    from circuitdsl.circuit.shapes import ModelShape

    (planned,) = plan(spec.circuits[0], ModelShape("pocket", 4, 8))
    request = planned.parts[0].request
    found = [f for f in _firings(bench, request) if f]
    share = np.mean([any(str(sender) == "0.3" for sender, _ in f.senders["source"]) for f in found])
    one, two, silent = report.claims
    assert one.measured.n <= len(found) and one.measured.value == pytest.approx(share, abs=0.25)
    assert (one.kind, one.task, one.measured.unit) == ("trace", "ioi", "share")
    assert one.protocol == {"read": "trace", "run": "clean", "side": "source"}
    assert [(m.sender, m.receiver, m.position) for m in two.members] == [("0.3", "2.5", "IO"), ("1.4", "2.5", "IO")]
    assert two.verdict == "fails" and "1.4: share of firings" in two.reason
    assert silent.verdict == "error" and "3.5 does not fire END -> END on any of 64 prompts" in silent.reason
