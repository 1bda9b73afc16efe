"""GPT-NeoX (Pythia): the MLP beside the heads, or after them."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Family, Weights, layer_norm, linear, plain_mlp
from circuitdsl.models.parts import Attention, Linear, Norm


def by_head(qkv: Linear, n_heads: int) -> tuple[Linear, Linear, Linear]:
    """Queries, keys and values of a matrix that holds those of head 0, then those of head 1, and so on."""
    weight = qkv.weight.unflatten(0, (n_heads, 3, -1))
    bias = None if qkv.bias is None else qkv.bias.unflatten(0, (n_heads, 3, -1))
    q, k, v = (Linear(weight[:, i].flatten(0, 1), None if bias is None else bias[:, i].flatten()) for i in range(3))
    return q, k, v


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    n_heads = config.num_attention_heads
    d_head = config.hidden_size // n_heads
    at = f"gpt_neox.layers.{layer}"
    q, k, v = by_head(linear(w, f"{at}.attention.query_key_value"), n_heads)
    norm = layer_norm(w, f"{at}.input_layernorm", config.layer_norm_eps)
    return norm, Attention(q, k, v, linear(w, f"{at}.attention.dense"), n_heads, n_heads, d_head, d_head**-0.5)


_MLP = ("post_attention_layernorm", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "hidden_act", "layer_norm_eps")
FAMILIES = {
    "gpt_neox": Family(
        "GPT-NeoX, Pythia",
        _heads,
        plain_mlp("gpt_neox.layers.{}", *_MLP),
        lambda config, w: layer_norm(w, "gpt_neox.final_layer_norm", config.layer_norm_eps),
        ("gpt_neox.embed_in", "", "embed_out"),
        ("layers.{}.attention.dense.weight", "layers.{}.mlp.dense_4h_to_h.*"),
        about=lambda config, w: {"parallel": config.use_parallel_residual},
    )
}
