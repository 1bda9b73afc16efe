"""Models whose heads and MLPs write through a norm (Gemma 2 and 3), against hooks on the Hugging Face model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.models.parts import Transformer
from circuitdsl.models.pretrained import attention_by
from tests.engine import reference
from tests.engine.small_models import FAMILIES, Case, make_case

A, END = Position("A"), Position("END")
HEAD, MLP, LATER = Node("head", 0, 1), Node("mlp", 0), Node("head", 1, 2)
Seen = dict[tuple[str, int], Tensor]


def published(model: Transformer) -> Any:
    """The model as Hugging Face runs it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    by = attention_by(AutoConfig.from_pretrained(model.name))
    return AutoModelForCausalLM.from_pretrained(model.name, attn_implementation=by).eval()


@contextmanager
def hooks(*handles: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def run(model: Any, tokens: Tensor) -> tuple[Tensor, Seen]:
    """Logits at END, and by layer what its norm before the heads reads, each `z`, their sum, and the MLP's term."""
    seen: Seen = {}
    handles = []
    for i, layer in enumerate(model.model.layers):
        handles += [
            layer.input_layernorm.register_forward_pre_hook(lambda _, x, i=i: seen.__setitem__(("resid", i), x[0])),
            layer.self_attn.o_proj.register_forward_pre_hook(lambda _, x, i=i: seen.__setitem__(("z", i), x[0])),
            layer.self_attn.o_proj.register_forward_hook(lambda _, x, y, i=i: seen.__setitem__(("sum", i), y)),
            layer.post_feedforward_layernorm.register_forward_hook(
                lambda _, x, y, i=i: seen.__setitem__(("mlp", i), y)
            ),
        ]
    with hooks(*handles):
        return model(tokens).logits[:, -1], seen


def written(model: Any, seen: Seen, node: Node) -> Tensor:
    """The term of a node: a head's share of the sum, times the post-norm's gain and the scale of its own run."""
    if node.kind == "mlp":
        return seen["mlp", node.layer]
    layer, config = model.model.layers[node.layer], model.config
    own = slice(node.head * config.head_dim, (node.head + 1) * config.head_dim)
    share = seen["z", node.layer][..., own] @ layer.self_attn.o_proj.weight[:, own].T
    mean_square = seen["sum", node.layer].square().mean(-1, keepdim=True)
    return share * (1 + layer.post_attention_layernorm.weight) * torch.rsqrt(mean_square + config.rms_norm_eps)


def patched(model: Any, receiver: Input, change: Tensor) -> Any:
    """A hook that changes what one input reads."""
    if receiver.node == LOGITS:
        return model.model.norm.register_forward_pre_hook(lambda _, x: (x[0] + change,))
    layer = model.model.layers[receiver.node.layer]
    if receiver.node.kind == "mlp":
        return layer.pre_feedforward_layernorm.register_forward_pre_hook(lambda _, x: (x[0] + change,))
    size = model.config.head_dim
    own, resid = slice(receiver.node.head * size, (receiver.node.head + 1) * size), {}

    def keep(_: Any, x: tuple[Tensor]) -> None:
        resid["read"] = x[0]

    def ask(module: Any, _: Any, out: Tensor) -> Tensor:
        kept.remove()  # the norm runs once more here
        out = out.clone()
        out[..., own] = F.linear(layer.input_layernorm(resid["read"] + change), module.weight[own])
        return out

    kept = layer.input_layernorm.register_forward_pre_hook(keep)
    return layer.self_attn.q_proj.register_forward_hook(ask)


def places(case: Case, position: Position) -> Tensor:
    """`[n, T, 1]`: 1 where a position is."""
    mask = torch.zeros(*case.clean.shape, 1)
    for row, index in enumerate(case.positions[position]):
        mask[row, index[index >= 0]] = 1
    return mask


@pytest.fixture(params=["gemma2", "gemma3_text"])
def case(request: pytest.FixtureRequest, random_model: Callable[[str], Transformer]) -> Case:
    return make_case(random_model(request.param), seed=3)


@pytest.mark.parametrize("family", FAMILIES)
def test_brute_force_gives_the_models_own_logits(family: str, random_model: Callable[[str], Transformer]) -> None:
    model = random_model(family)
    tokens = torch.randint(model.n_vocab, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = published(model)(tokens).logits[:, -1]
    ours = reference.logits(model, tokens, tokens, Experiment(), {})
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("sender", [HEAD, MLP], ids=str)
@pytest.mark.parametrize(
    ("receiver", "position"),
    [(Input(LATER, "q"), A), (Input(Node("mlp", 1), "in"), A), (Input(Node("logits"), "in"), END)],
    ids=["query", "mlp", "logits"],
)
def test_an_edge_is_what_hooks_make_of_it(case: Case, sender: Node, receiver: Input, position: Position) -> None:
    model = published(case.model)
    plain, clean = run(model, case.clean)
    _, corrupt = run(model, case.corrupt)
    change = (written(model, corrupt, sender) - written(model, clean, sender)) * places(case, position)
    with hooks(patched(model, receiver, change)):
        wanted, _ = run(model, case.clean)
    edge = Edge(sender, receiver, position)
    (found,) = effects(case.runs, [Experiment(frozenset([edge]))], case.positions, case.vocabulary)
    assert (found - wanted).abs().max() < 1e-4
    assert (wanted - plain).abs().max() > 1e-3


@pytest.mark.parametrize("ablate", ["corrupt", "zero"])
def test_a_knock_out_leaves_the_other_heads_as_they_are(case: Case, ablate: str) -> None:
    """The term is replaced behind the norm: what the other heads of the layer write does not change."""
    model = published(case.model)
    _, clean = run(model, case.clean)
    _, corrupt = run(model, case.corrupt)
    other = written(model, corrupt, HEAD) * (ablate == "corrupt")
    change = other - written(model, clean, HEAD)
    norm = model.model.layers[HEAD.layer].post_attention_layernorm
    with hooks(norm.register_forward_hook(lambda _, x, y: y + change)):
        wanted, _ = run(model, case.clean)
    experiment = Experiment(sites=frozenset([Site(HEAD, EVERYWHERE)]), ablate=ablate)  # type: ignore[arg-type]
    (found,) = effects(case.runs, [experiment], case.positions, case.vocabulary)
    assert (found - wanted).abs().max() < 1e-4


def test_a_patched_query_changes_the_scale_of_its_whole_layer(case: Case) -> None:
    """Two heads of a layer, one asked otherwise: what the other writes at that token changes by the scale alone."""
    from circuitdsl.engine.path_patching import patched_terms, terms_at_end

    reader, beside = Node("head", 1, 0), Node("head", 1, 1)
    experiment = Experiment(frozenset([Edge(HEAD, Input(reader, "q"), END)]))
    clean = terms_at_end(case.model, case.runs.clean, [beside])[:, 0]
    live = patched_terms(case.runs, [experiment], case.positions, [beside])[0, :, 0]
    assert F.cosine_similarity(clean, live).min() > 1 - 1e-5
    assert (live.norm(dim=-1) / clean.norm(dim=-1) - 1).abs().min() > 1e-4
