"""Cuts equal Hugging Face's own model with plain hooks, and what must be true of them is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitdsl.api import loads
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.engine.cut import Cut, Cuts, Reach, edits_of, outside
from circuitdsl.engine.runs import one_run
from circuitdsl.engine.trace import Firing, Omega, Tracer, trace_graph, tracers
from circuitdsl.models.load import POCKET, load_model
from circuitdsl.verify.prompts import prompts_by_task
from tests.engine.brute_cut import ByHand
from tests.engine.small_models import save_random

HEAD, END, IO = Node("head", 2, 5), Position("END"), Position("IO")
REACHES: tuple[Reach, ...] = ("local", "global")


@pytest.fixture(scope="module")
def bench(pocket):
    (circuit,) = loads('circuit t\nmodel "pocket"\ntask ioi(prompts = 48)\nexpect accuracy >= 9%\n').circuits
    return prompts_by_task(circuit, pocket)["ioi"]


@pytest.fixture(scope="module")
def random_gpt2(tmp_path_factory) -> Path:
    """A small GPT-2 with large random weights: far from linear, every bias and every gain at work."""
    from transformers import GPT2Config, GPT2LMHeadModel

    path = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_layer=4, n_head=3, n_embd=24, n_positions=16))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
            else:
                weight.normal_(0, 1.0 if "wte" in name else 0.3)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["random", "pocket"])
def traced(request, bench, random_gpt2) -> tuple[Path, Tracer, list[Firing]]:
    """A model, a tracer with prompts on it, and firings of one head."""
    path, head = (POCKET, HEAD) if request.param == "pocket" else (random_gpt2, None)
    if head is None:
        tokens = torch.randint(30, (24, 9), generator=torch.Generator().manual_seed(1)).tolist()
        model = load_model(str(random_gpt2), device="cpu")
    else:
        tokens, model = [pair.clean_tokens for pair in bench.pairs], bench.model
    (_, tracer), *_ = tracers(model, tokens)
    last = tracer.tokens.shape[1] - 1
    heads = [head] if head else [Node("head", 3, h) for h in range(3)]
    found = {h: [f for p in range(len(tracer.tokens)) if (f := tracer.firing(p, h, last))] for h in heads}
    firings = max(found.values(), key=len)[:4]
    assert len(firings) == 4
    return path, tracer, firings


def cut(bench, reach: Reach, **how) -> Cut:
    cuts = Cuts(bench, [reach], **how)
    trace_graph(bench.model, bench.pairs, HEAD, END, IO, cuts.add)
    return cuts.found()[reach]


def run(tracer: Tracer, edits) -> Tensor:
    """Logits at END."""
    return tracer.model.logits(one_run(tracer.model, tracer.tokens, edits).end)


@pytest.mark.parametrize("boost", [False, True])
@pytest.mark.parametrize("reach", REACHES)
def test_a_cut_is_what_hooks_on_the_model_do(traced, reach: Reach, boost: bool) -> None:
    path, tracer, firings = traced
    edits = edits_of(tracer, firings, [firing.signal for firing in firings], reach, boost)
    cache = one_run(tracer.model, tracer.tokens, edits)
    logits = tracer.model.logits(cache.end)
    for firing in firings:
        hand = ByHand(str(path), tracer.tokens[firing.prompt])
        head = (firing.head.layer, firing.head.head)
        assert torch.allclose(tracer.model.logits(tracer.cache.end[firing.prompt]).double(), hand.clean, atol=1e-4)
        found = hand.traced(head, firing.destination, firing.source)
        assert found.signal == set(firing.signal)
        for senders, side in zip(found.senders, ("destination", "source"), strict=True):
            assert senders == [(sender.layer, sender.head) for sender, _ in firing.senders[side]]
        wanted, score, pairs = hand.cut(head, found, reach, 1.0 if boost else -1.0)
        assert torch.allclose(logits[firing.prompt].double(), wanted, atol=1e-4)
        assert not torch.allclose(wanted, hand.clean, atol=1e-2)
        assert edits.score(cache, firing) == pytest.approx(score, abs=1e-4)
        mine = list(edits.before_and_after(cache, firing))
        assert len(mine) == len(pairs)
        for figure in (lambda old, new: new.norm() / old.norm(), lambda old, new: torch.cosine_similarity(old, new, 0)):
            mean = [float(np.mean([float(figure(*pair)) for pair in each])) for each in (mine, pairs)]
            assert mean[0] == pytest.approx(mean[1], abs=1e-5)


def test_no_other_prompt_notices(traced) -> None:
    _, tracer, firings = traced
    rest = [p for p in range(len(tracer.tokens)) if p != firings[0].prompt]
    for reach in REACHES:
        logits = run(tracer, edits_of(tracer, firings[:1], [firings[0].signal], reach))
        assert torch.equal(logits[rest], tracer.model.logits(tracer.cache.end)[rest])


def test_along_no_vectors_nothing_changes(traced) -> None:
    _, tracer, firings = traced
    for reach in REACHES:
        edits = edits_of(tracer, firings, [()] * len(firings), reach)
        cache = one_run(tracer.model, tracer.tokens, edits)
        assert torch.equal(cache.end, tracer.cache.end)
        for firing in firings:
            assert edits.score(cache, firing) == pytest.approx(firing.score, abs=1e-4)
            assert not list(edits.before_and_after(cache, firing))


def test_along_all_directions_a_sender_is_silenced(traced) -> None:
    """With a signal that spans the whole space, the global cut is zero ablation, the local one direct ablation."""
    path, tracer, firings = traced
    firing, d = firings[0], tracer.model.d_model
    head, token = (firing.head.layer, firing.head.head), firing.source
    ones = torch.ones(d, 1, dtype=torch.double)
    basis = torch.linalg.qr(torch.cat((ones, torch.eye(d, dtype=torch.double)), 1))[0][:, 1:].T
    whole = torch.cat((basis, torch.zeros(d - 1, 1)), 1).float()
    blind = replace(tracer, omega=lambda *_: Omega(torch.ones(d - 1), whole, whole))
    sender = firing.senders["source"][0]
    alone = replace(firing, senders={"destination": (), "source": (sender,)})
    hand = ByHand(str(path), tracer.tokens[firing.prompt])
    term = hand.term((sender[0].layer, sender[0].head), token)
    scale = tracer.normed(firing.prompt, firing.head.layer, token)[1]
    wanted = {
        "global": hand.run(written={(sender[0].layer, token): -term}),
        "local": hand.run(read=(*head, {token: (term.mean() - term) / scale})),
    }
    for reach in REACHES:
        logits = run(tracer, edits_of(blind, [alone], [range(d - 1)], reach))[firing.prompt]
        assert torch.allclose(logits.double(), wanted[reach], atol=1e-4)
        assert not torch.allclose(wanted[reach], hand.clean, atol=1e-3)


def test_a_local_cut_is_for_one_head_alone(traced) -> None:
    """The others of its layer, and everything below, stay."""
    _, tracer, firings = traced
    layer, h = firings[0].head.layer, firings[0].head.head
    edits = edits_of(tracer, firings, [firing.signal for firing in firings], "local")
    z = one_run(tracer.model, tracer.tokens, edits).z
    others = [other for other in range(tracer.model.n_heads) if other != h]
    assert all(torch.equal(z[below], tracer.cache.z[below]) for below in range(layer))
    assert torch.equal(z[layer][:, :, others], tracer.cache.z[layer][:, :, others])
    assert not torch.allclose(z[layer][:, :, h], tracer.cache.z[layer][:, :, h], atol=1e-3)


def test_a_control_is_as_many_vectors_outside_the_signal(traced) -> None:
    _, tracer, firings = traced
    for firing in firings:
        drawn, again = (outside(tracer, firing, torch.Generator().manual_seed(3)) for _ in range(2))
        assert not set(drawn) & set(firing.signal) and len(set(drawn)) == len(drawn)
        assert len(drawn) == min(len(firing.signal), tracer.model.d_head - len(firing.signal))
        assert drawn == again
    wide = replace(firings[0], signal=tuple(range(tracer.model.d_head)))
    assert outside(tracer, wide, torch.Generator()) == []


@pytest.mark.parametrize("reach", REACHES)
def test_cutting_is_measured_on_the_firings(bench, reach: Reach) -> None:
    found = cut(bench, reach)
    n = len(found.indices)
    assert 10 < n < 48 and (np.diff(found.indices) > 0).all()
    for change in (found.signal, found.control):
        assert all(len(getattr(change, name)) == n for name in ("metric", "score", "norm", "cosine", "vectors"))
    again = cut(bench, reach)
    assert np.array_equal(found.signal.metric, again.signal.metric)
    assert np.array_equal(found.control.metric, again.control.metric)
    assert not np.array_equal(found.control.metric, cut(bench, reach, seed=1).control.metric)
    # what the senders write along the signal is what pushes the score up
    assert found.score.mean() > 1 and found.signal.score.mean() < -1
    assert abs(found.control.score.mean()) < abs(found.signal.score.mean()) / 3
    number = int(found.indices[3])
    pair = bench.pairs[number]
    hand = ByHand(str(POCKET), torch.tensor(pair.clean_tokens))
    traced = hand.traced((2, 5), pair.positions["END"][0], pair.positions["IO"][0])
    logits, score, _ = hand.cut((2, 5), traced, reach)
    lead = [float(each[pair.answers[0]] - each[list(pair.distractors)].mean()) for each in (logits, hand.clean)]
    assert found.signal.metric[3] == pytest.approx(lead[0] - lead[1], abs=1e-4)
    assert found.signal.vectors[3] == len(traced.signal)
    assert found.score[3] + found.signal.score[3] == pytest.approx(score, abs=1e-4)
    boosted = cut(bench, reach, boost=True)
    assert boosted.signal.score.mean() > 1
    assert boosted.signal.metric[3] != pytest.approx(found.signal.metric[3], abs=1e-3)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_turned_queries_and_keys_are_cut_as_by_hand(kind: str, tmp_path) -> None:
    """Transformers' own model, in which one head's maps read another input, from rotary positions on."""
    from transformers import AutoModelForCausalLM

    save_random(kind, tmp_path, num_key_value_heads=4)
    model = load_model(str(tmp_path), device="cpu")
    tokens = torch.randint(model.n_vocab, (40, 6), generator=torch.Generator().manual_seed(2)).tolist()
    (_, tracer), *_ = tracers(model, tokens)
    every = (tracer.firing(p, Node("head", 2, h), 5) for p in range(40) for h in range(4))
    firing = next(f for f in every if f and f.senders["source"] and f.senders["destination"])
    edits = edits_of(tracer, [firing], [firing.signal], "local")
    hand = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    layer, width, head = hand.model.layers[2], model.d_head, firing.head.head
    added = edits.added[firing.prompt] * layer.input_layernorm.weight.detach()

    def other_input(module, inputs, out):
        own = slice(head * width, (head + 1) * width)
        out[..., own] = (inputs[0] + added) @ module.weight[own].T
        return out

    clean = hand(tracer.tokens[[firing.prompt]]).logits[0, -1]
    for port in ("q_proj", "k_proj", "v_proj"):
        getattr(layer.self_attn, port).register_forward_hook(other_input)
    wanted = hand(tracer.tokens[[firing.prompt]]).logits[0, -1]
    cache = one_run(model, tracer.tokens, edits)
    assert torch.allclose(model.logits(cache.end)[firing.prompt], wanted, atol=1e-4)
    assert not torch.allclose(wanted, clean, atol=1e-3)
    assert edits.score(cache, firing) < firing.score
    unchanged = edits_of(tracer, [firing], [()], "global").score(tracer.cache, firing)
    assert unchanged == pytest.approx(firing.score, abs=1e-3)
