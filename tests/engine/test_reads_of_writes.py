"""Attribution, copying and attention scores against the Hugging Face model itself, read with plain forward hooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, Edge, Input, Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import patched_terms
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.random_tokens import sequence
from circuitdsl.measurements.attribution import Attribution
from circuitdsl.measurements.copying import Copying
from circuitdsl.measurements.head_score import HeadScore
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, PatchRequest
from circuitdsl.models.load import load_model
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import random_prompts, scored_prompts
from tests.engine import reference
from tests.engine.small_models import save_random

END = Position("END")
KINDS = ["gpt2", "llama", "gemma2"]


@dataclass
class Hooked:
    """A Hugging Face model, and what went into its attention outputs and its final norm in the last run."""

    model: Any
    kind: str
    z: dict[int, Tensor] = field(default_factory=dict)
    #: what the heads of a layer add up to, before any post-norm
    total: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    #: (layer, head) -> the term that is put in at END
    put: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    final: Tensor | None = None

    @property
    def blocks(self) -> Any:
        return self.model.transformer.h if self.kind == "gpt2" else self.model.model.layers

    @property
    def norm(self) -> Any:
        return self.model.transformer.ln_f if self.kind == "gpt2" else self.model.model.norm

    def out(self, layer: int) -> Any:
        return self.blocks[layer].attn.c_proj if self.kind == "gpt2" else self.blocks[layer].self_attn.o_proj

    @property
    def heads(self) -> int:
        return int(self.model.config.num_attention_heads)

    def hook(self) -> None:
        for layer, block in enumerate(self.blocks):
            post = self.kind == "gemma2"
            heads = block.post_attention_layernorm if post else self.out(layer)
            mlp = block.post_feedforward_layernorm if post else block.mlp
            self.out(layer).register_forward_hook(lambda _, args, out, i=layer: self._seen(i, args[0], out))
            heads.register_forward_hook(lambda _, __, out, i=layer: self._changed(i, out))
            mlp.register_forward_hook(lambda _, __, out, i=layer: self.mlp.__setitem__(i, out[0, -1]))
        self.norm.register_forward_pre_hook(lambda _, args: setattr(self, "final", args[0][0, -1]))

    def _seen(self, layer: int, z: Tensor, total: Tensor) -> None:
        self.z[layer], self.total[layer] = z[0, -1].view(self.heads, -1), total[0, -1]

    def _changed(self, layer: int, written: Tensor) -> Tensor:
        written = written.clone()
        for (at, head), term in self.put.items():
            if at == layer:
                written[0, -1] += term - self._own(layer, head)
        return written

    def run(self, tokens: tuple[int, ...], put: dict[tuple[int, int], Tensor] | None = None) -> Any:
        self.put = put or {}
        with torch.no_grad():
            return self.model(torch.tensor([tokens]), output_attentions=True, output_hidden_states=True)

    def write(self, layer: int, head: int) -> Tensor:
        """The term of a head at END in the last run."""
        return self.put.get((layer, head), self._own(layer, head))

    @torch.no_grad()
    def _own(self, layer: int, head: int) -> Tensor:
        return self.mapped(layer, head, self.z[layer][head]) * self.scale(layer)

    def mapped(self, layer: int, head: int, z: Tensor) -> Tensor:
        """`z W_O`, with the post-norm's gain."""
        weight = self.out(layer).weight.detach()
        width = z.shape[-1]
        columns = slice(head * width, (head + 1) * width)
        if self.kind == "gpt2":
            return z @ weight[columns]
        out = z @ weight[:, columns].T
        return out * (1 + self.blocks[layer].post_attention_layernorm.weight) if self.kind == "gemma2" else out

    def scale(self, layer: int) -> Tensor | float:
        if self.kind != "gemma2":
            return 1.0
        return torch.rsqrt(self.total[layer].square().mean() + self.model.config.rms_norm_eps)

    @property
    def gain(self) -> Tensor:
        """Of the final norm."""
        return self.norm.weight.detach() + (1 if self.kind == "gemma2" else 0)

    def through(self, term: Tensor, final: Tensor) -> Tensor:
        """A term through the final norm with the scale of another residual stream."""
        if self.kind == "gpt2":
            return (term - term.mean()) / (final.var(correction=0) + self.norm.eps).sqrt() * self.gain
        return term / (final.square().mean() + self.model.config.rms_norm_eps).sqrt() * self.gain


@dataclass
class Pair:
    hooked: Hooked
    bench: Prompts


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from transformers import AutoModelForCausalLM

    path: Path = save_random(request.param, tmp_path_factory.mktemp(request.param))
    hooked = Hooked(AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval(), request.param)
    hooked.hook()
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(5):
        clean = [int(t) for t in rng.integers(1, 30, 7)]
        corrupt = [*clean[:2], (clean[2] + 3) % 30, *clean[3:]]
        answers, wrong = ((3, 4), (5,)) if i % 2 else ((6,), (7, 8, 9))
        places = {"ANSWER": (2, 4) if i == 1 else (2,), "END": (6,)}
        pairs.append(PromptPair(tuple(clean), tuple(corrupt), answers, wrong, places, ""))
    model = load_model(path, device="cpu")
    return Pair(hooked, scored_prompts(model, Dataset("t", "", 0, False, tuple(pairs)), Metric()))


def towards(hooked: Hooked, pair: PromptPair) -> Tensor:
    unembed = hooked.model.lm_head.weight.detach()
    return unembed[list(pair.answers)].mean(0) - unembed[list(pair.distractors)].mean(0)


def test_attribution_is_what_hooks_see(both: Pair) -> None:
    hooked, whole = both.hooked, both.bench
    requests = [Attribution((Node("head", layer, head),)) for layer in (0, 2) for head in range(3)]
    requests += [Attribution((Node("mlp", 1),)), Attribution((Node("head", 1, 0), Node("mlp", 2)))]
    found = measure(whole, requests, np.arange(5))
    for i, pair in enumerate(whole.pairs):
        hooked.run(pair.clean_tokens)
        final = hooked.final
        for request in requests:
            terms = [hooked.write(n.layer, n.head) if n.kind == "head" else hooked.mlp[n.layer] for n in request.nodes]
            by_hand = hooked.through(torch.stack(terms).sum(0), final) @ towards(hooked, pair)
            assert found[request].values[i] == pytest.approx(float(by_hand), abs=1e-4)


def test_attributions_add_up_to_the_logit_difference(both: Pair) -> None:
    """Of all nodes, with what belongs to none: output biases and the final norm's bias."""
    hooked, whole = both.hooked, both.bench
    model = whole.model
    nodes = [EMBED, *reference.nodes(model)]
    nodes = list(dict.fromkeys(node for node in nodes if node.kind != "logits"))
    everything = measure(whole, [Attribution(tuple(nodes))], np.arange(5))
    (found,) = everything.values()
    for i, pair in enumerate(whole.pairs):
        hooked.run(pair.clean_tokens)
        rest = torch.zeros(model.d_model)
        for block in model.blocks:
            rest = rest if block.attn.o.bias is None else rest + block.attn.o.bias
        direction = towards(hooked, pair)
        left = float(hooked.through(rest, hooked.final) @ direction)
        left += 0.0 if model.final_norm.bias is None else float(model.final_norm.bias @ direction)
        whole_stream = float(hooked.through(hooked.final, hooked.final) @ direction)  # before any cap
        whole_stream += 0.0 if model.final_norm.bias is None else float(model.final_norm.bias @ direction)
        assert found.values[i] + left == pytest.approx(whole_stream, abs=1e-3)
        if model.softcap is None:
            assert whole_stream == pytest.approx(whole.clean[i], abs=1e-3)


def test_attribution_under_a_condition_keeps_the_clean_scale(both: Pair) -> None:
    hooked, whole = both.hooked, both.bench
    out = NodeRequest((Site(Node("head", 0, 1), END),))
    watched = (Node("head", 1, 0), Node("head", 2, 2), Node("head", 0, 1))
    requests = [Attribution((node,), out) for node in watched]
    found = measure(whole, requests, np.arange(5))
    for i, pair in enumerate(whole.pairs):
        hooked.run(pair.corrupt_tokens)
        corrupt = hooked.write(0, 1).clone()
        hooked.run(pair.clean_tokens)
        final = hooked.final
        hooked.run(pair.clean_tokens, {(0, 1): corrupt})
        for request in requests:
            node = request.nodes[0]
            by_hand = hooked.through(hooked.write(node.layer, node.head), final) @ towards(hooked, pair)
            assert found[request].values[i] == pytest.approx(float(by_hand), abs=1e-4)


CONDITIONS: list[PatchRequest] = [
    NodeRequest((Site(EMBED, EVERYWHERE),)),
    NodeRequest((Site(Node("mlp", 0), END), Site(Node("head", 2, 0), END)), "zero"),
    EdgeRequest((Edge(Node("head", 0, 0), Input(Node("head", 2, 1), "q"), END),)),
    EdgeRequest((Edge(EMBED, Input(Node("mlp", 1), "in"), END),)),
    EdgeRequest((Edge(EMBED, Input(Node("logits"), "in"), END),)),
]


@pytest.mark.parametrize("under", CONDITIONS, ids=range(len(CONDITIONS)))
def test_terms_of_patched_runs_are_those_of_brute_force(both: Pair, under: PatchRequest) -> None:
    model, pairs = both.bench.model, both.bench.pairs
    nodes = [n for n in (EMBED, *reference.nodes(model)) if n.kind != "logits"]
    found = measure(both.bench, [Attribution((node,), under) for node in nodes], np.arange(5))
    sites = frozenset(getattr(under, "sites", ()))
    experiment = Experiment(frozenset(getattr(under, "edges", ())), sites, getattr(under, "ablate", "corrupt"))
    clean, corrupt = (torch.tensor([getattr(p, side) for p in pairs]) for side in ("clean_tokens", "corrupt_tokens"))
    places = {END: torch.full((5, 1), 6)}
    from circuitdsl.engine.runs import run

    terms = patched_terms(run(model, clean, corrupt), [experiment], places, nodes, max_rows=3)[0]
    for i in range(5):
        at = {p: set(range(7)) if p == EVERYWHERE else {6} for p in experiment.positions}
        _, wrote = reference._patched(model, clean[i], corrupt[i], experiment, at, {})
        for j, node in enumerate(nodes):
            assert torch.allclose(terms[i, j], wrote[node][-1], atol=1e-4), node
    assert all(np.isfinite(series.values).all() for series in found.values())


def test_copying_is_what_the_modules_give(both: Pair) -> None:
    hooked, whole = both.hooked, both.bench
    heads = [Node("head", layer, head) for layer in range(3) for head in range(3)]
    requests = [Copying((head,), negated) for head in heads for negated in (False, True)]
    requests.append(Copying(tuple(heads)))
    found = measure(whole, requests, np.arange(5))
    for i, pair in enumerate(whole.pairs):
        resid = hooked.run(pair.clean_tokens).hidden_states[1][0]
        by_hand = {r: np.mean([copies(hooked, h, resid, pair, r.negated) for h in r.heads]) for r in requests}
        for request in requests:
            assert found[request].values[i] == pytest.approx(by_hand[request])
    values = np.stack([series.values for series in found.values()])
    assert 0 < values.mean() < 1  # some copy and some do not


def test_a_head_that_writes_nothing_copies_nothing(both: Pair) -> None:
    attention = both.bench.model.blocks[1].attn
    weight = attention.o.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:, : attention.d_head] = 0
    try:
        requests = [Copying((Node("head", 1, 0),), negated) for negated in (False, True)]
        found = measure(both.bench, requests, np.arange(5))
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert all(not series.values.any() for series in found.values())


def copies(hooked: Hooked, head: Node, resid: Tensor, pair: PromptPair, negated: bool) -> float:
    block, size = hooked.blocks[head.layer], hooked.model.config.hidden_size
    with torch.no_grad():
        if hooked.kind == "gpt2":
            values = block.attn.c_attn(block.ln_1(resid))[:, 2 * size :]
        else:
            values = block.self_attn.v_proj(block.input_layernorm(resid))
        groups = 1 if hooked.kind == "gpt2" else hooked.heads // hooked.model.config.num_key_value_heads
        width = hooked.z[head.layer].shape[1]
        value = values[:, head.head // groups * width :][:, :width]
        wrote = hooked.mapped(head.layer, head.head, value)
        wrote = wrote - wrote.mean(-1, keepdim=True) if hooked.kind == "gpt2" else wrote
        logits = (wrote * hooked.gain) @ hooked.model.lm_head.weight.T * (-1 if negated else 1)
    top = logits.topk(5).indices
    return float(np.mean([bool(set(top[t].tolist()) & set(pair.answers)) for t in pair.positions["ANSWER"]]))


@pytest.mark.parametrize(("kind", "back"), [("previous_token", 1), ("duplicate_token", 8), ("induction", 7)])
def test_scores_are_means_of_patterns(both: Pair, kind: Any, back: int) -> None:
    hooked, whole = both.hooked, random_prompts(both.bench.model)
    heads = (Node("head", 0, 1), Node("head", 2, 0))
    (found,) = measure(whole, [HeadScore(kind, heads)], np.arange(4)).values()
    for i in range(4):
        tokens = sequence(whole.model, 0, i, False)
        assert tokens[:8] == tokens[8:] and len(set(tokens)) == 8  # the model holds 16 tokens
        attentions = hooked.run(tuple(tokens)).attentions
        rows = range(1, 16) if kind == "previous_token" else range(8, 16)
        by_hand = np.mean([[float(attentions[h.layer][0, h.head, t, t - back]) for t in rows] for h in heads])
        assert found.values[i] == pytest.approx(by_hand, abs=1e-5)


def test_sequences_do_not_depend_on_their_company(both: Pair) -> None:
    whole = random_prompts(both.bench.model)
    request = HeadScore("induction", (Node("head", 1, 1),))
    few, many = (measure(whole, [request], np.asarray(i))[request].values for i in ([5, 2], [2, 3, 5]))
    assert few == pytest.approx(many[[2, 0]])
    assert sequence(whole.model, 0, 0, False) != sequence(whole.model, 1, 0, False)
