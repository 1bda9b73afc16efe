"""Phi 1 to 2: heads and MLP beside each other behind one norm, biases everywhere."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Family, Weights, layer_norm, linear, plain_mlp
from circuitdsl.models.parts import Attention, Norm


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"model.layers.{layer}"
    n_heads, eps = config.num_attention_heads, config.layer_norm_eps
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    q, k, v, o = (linear(w, f"{at}.self_attn.{x}") for x in ("q_proj", "k_proj", "v_proj", "dense"))
    q_norm, k_norm = (
        layer_norm(w, f"{at}.self_attn.{x}_layernorm", eps) if config.qk_layernorm else None for x in "qk"
    )
    n_kv_heads = config.num_key_value_heads or n_heads
    attn = Attention(q, k, v, o, n_heads, n_kv_heads, d_head, d_head**-0.5, q_norm, k_norm)
    return layer_norm(w, f"{at}.input_layernorm", eps), attn


FAMILIES = {
    "phi": Family(
        "Phi-1, Phi-1.5, Phi-2",
        _heads,
        plain_mlp("model.layers.{}", "input_layernorm", "mlp.fc1", "mlp.fc2", "hidden_act", "layer_norm_eps"),
        lambda config, w: layer_norm(w, "model.final_layernorm", config.layer_norm_eps),
        ("model.embed_tokens", "", "lm_head"),
        ("layers.{}.self_attn.dense.weight", "layers.{}.mlp.fc2.*"),
        about=lambda config, w: {"parallel": True},
    )
}
