"""Composition without large matrices is the composition of the papers, and what weights cannot say is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.engine.readers.composition import NotComposed, compositions
from circuitdsl.models.load import load_model
from circuitdsl.models.weights import AttentionWeights, read_weights, weights_of
from tests.engine.small_models import save_random


def matrices(weights: AttentionWeights, layer: int, head: int) -> dict[str, torch.Tensor]:
    """W_OV and what a receiver input multiplies, as full matrices."""
    found = weights.factors(layer)
    qk, ov = found.W_Q[head] @ found.W_K[head].T, found.W_V[head] @ found.W_O[head]
    return {"q": qk, "k": qk.T, "v": ov}


@pytest.mark.parametrize("port", ["q", "k", "v"])
def test_scores_are_those_of_the_full_matrices(pocket, port: str) -> None:
    weights = weights_of(pocket)
    found = compositions(weights, Input(Node("head", 3, 2), port))
    into = matrices(weights, 3, 2)[port]
    assert found.heads.shape == (3, 8) and found.components.shape == (3, 8, 16)
    for layer in range(3):
        for head in range(8):
            ov = matrices(weights, layer, head)["v"]
            score = (ov @ into).norm() / (ov.norm() * into.norm())
            assert found.heads[layer, head] == pytest.approx(float(score), abs=1e-6)
            _, values, rows = torch.linalg.svd(ov)
            each = (rows[:16] @ into).norm(dim=-1) / into.norm()
            each[values[:16] < 0.01 * values[0]] = torch.nan
            assert np.allclose(found.components[layer, head], each.numpy(), atol=2e-5, equal_nan=True)


def test_standing_counts_among_all_upstream(pocket) -> None:
    found = compositions(weights_of(pocket), Input(Node("head", 3, 0), "v"))
    standings = [found.standing(Node("head", layer, head)) for layer in range(3) for head in range(8)]
    assert sorted(where.rank for where in standings) == list(range(1, 25))
    assert {where.of for where in standings} == {24}
    assert np.mean([where.z for where in standings]) == pytest.approx(0, abs=1e-9)
    assert np.std([where.z for where in standings]) == pytest.approx(1)
    assert sum(where.composition > where.chance for where in standings) == 2  # 5 % of 24, rounded up
    part = found.standing(Node("head", 2, 1, 0))
    assert part.of == np.isfinite(found.components).sum() > 24 * 10


def test_few_senders_have_no_chance_level(pocket) -> None:
    found = compositions(weights_of(pocket), Input(Node("head", 1, 0), "q"))
    assert found.standing(Node("head", 0, 0)).chance is None


def test_what_weights_do_not_have_is_refused(pocket) -> None:
    weights = weights_of(pocket)
    found = compositions(weights, Input(Node("head", 2, 0), "q"))
    with pytest.raises(NotComposed, match=r"1\.3\[16\] does not exist: 1\.3 has components 0 to 15"):
        found.standing(Node("head", 1, 3, 16))
    with pytest.raises(NotComposed, match=r"nothing is upstream of 0\.1"):
        compositions(weights, Input(Node("head", 0, 1), "q"))
    rotary = replace(weights, rotary=True)
    for port in ("q", "k"):
        with pytest.raises(NotComposed, match=r"rotary.*depends on the distance"):
            compositions(rotary, Input(Node("head", 1, 1), port))
    assert compositions(rotary, Input(Node("head", 1, 1), "v")).heads.shape == (1, 8)


def test_next_to_no_singular_value_is_left_out() -> None:
    from circuitdsl.models.parts import Attention, Linear, Norm

    torch.manual_seed(0)
    norm = Norm("rms", torch.ones(12), None, 1e-5)
    narrow = torch.randn(4, 12)
    narrow[2:] = 0
    maps = [Linear(torch.randn(4, 12)), Linear(torch.randn(4, 12)), Linear(narrow), Linear(torch.randn(12, 4))]
    layer = (norm, Attention(*maps, n_heads=1, n_kv_heads=1, d_head=4, scale=0.5))
    weights = AttentionWeights("m", "test", (layer, layer), False, lambda: (None, None))
    found = compositions(weights, Input(Node("head", 1, 0), "q"))
    assert np.isfinite(found.components).sum() == 2
    with pytest.raises(NotComposed, match=r"0\.0\[2\] is under 1 %"):
        found.standing(Node("head", 0, 0, 2))


def rotation(model: Any, node: Node, place: int) -> torch.Tensor:
    """The matrix by which transformers turns a row at a position, from its own function for Llama."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    attn = model.blocks[node.layer].attn
    rows, width = torch.eye(attn.d_head), 2 * attn.rotary.inv_freq.shape[0]
    angles = torch.cat([place * attn.rotary.inv_freq] * 2).expand(1, attn.d_head, -1)
    turning = rows[None, None, :, :width]
    turned, _ = apply_rotary_pos_emb(turning, turning, angles.cos(), angles.sin())
    return torch.cat((turned[0, 0], rows[:, width:]), 1).double()


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_at_a_distance_queries_and_keys_are_turned(kind: str, tmp_path) -> None:
    """Scores are those of `W_Q R(i) R(j)ᵀ W_Kᵀ` as full matrices, wherever the two stand; distances differ."""
    model = load_model(str(save_random(kind, tmp_path)), device="cpu")
    weights, read = weights_of(model), read_weights(tmp_path)
    node = Node("head", 2, 1)
    heads = {}
    for distance in (0, 1, 3):
        i, j = distance + 4, 4
        found = weights.factors(2)
        turned = found.W_Q[1] @ rotation(model, node, i) @ rotation(model, node, j).T @ found.W_K[1].T
        for port, into in (("q", turned), ("k", turned.T)):
            scores = compositions(weights, Input(node, port), distance).heads
            ov = [matrices(weights, layer, head)["v"] for layer, head in np.ndindex(scores.shape)]
            wanted = [float((each @ into).norm() / (each.norm() * into.norm())) for each in ov]
            assert scores.ravel() == pytest.approx(wanted, abs=1e-5)
            assert compositions(read, Input(node, port), distance).heads == pytest.approx(scores, abs=1e-6)
            heads[port, distance] = scores
    assert np.abs(heads["k", 3] - heads["k", 0]).max() > 1e-3


def test_a_distance_changes_nothing_without_rotary_positions(pocket) -> None:
    weights, to = weights_of(pocket), Input(Node("head", 3, 2), "k")
    assert np.array_equal(compositions(weights, to, 7).heads, compositions(weights, to).heads)


def test_a_head_does_not_see_further_than_its_window(tmp_path) -> None:
    weights = weights_of(load_model(str(save_random("gemma2", tmp_path)), device="cpu"))
    assert compositions(weights, Input(Node("head", 1, 0), "q"), 3).heads.shape == (1, 3)
    with pytest.raises(NotComposed, match=r"1\.0 sees 4 tokens, its own included, and none at distance 4"):
        compositions(weights, Input(Node("head", 1, 0), "q"), 4)
