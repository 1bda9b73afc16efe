"""GPT-2: learned positions; maps are stored as `[in, out]`, queries, keys and values as one."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Family, Refusal, Weights, activation, layer_norm
from circuitdsl.models.parts import Attention, Linear, Mlp, Norm


def _conv1d(weights: Weights, name: str) -> Linear:
    return Linear(weights[f"{name}.weight"].T, weights[f"{name}.bias"])


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"transformer.h.{layer}"
    d_head = config.n_embd // config.n_head
    qkv = _conv1d(w, f"{at}.attn.c_attn")
    q, k, v = (qkv.outputs(i * config.n_embd, (i + 1) * config.n_embd) for i in range(3))
    scale = d_head**-0.5 if config.scale_attn_weights else 1.0
    if config.scale_attn_by_inverse_layer_idx:
        scale /= layer + 1
    norm = layer_norm(w, f"{at}.ln_1", config.layer_norm_epsilon)
    return norm, Attention(q, k, v, _conv1d(w, f"{at}.attn.c_proj"), config.n_head, config.n_head, d_head, scale)


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"transformer.h.{layer}"
    mlp = Mlp(_conv1d(w, f"{at}.mlp.c_fc"), _conv1d(w, f"{at}.mlp.c_proj"), activation(config.activation_function))
    return layer_norm(w, f"{at}.ln_2", config.layer_norm_epsilon), mlp


FAMILIES = {
    "gpt2": Family(
        "GPT-2, DistilGPT-2",
        _heads,
        _mlp,
        lambda config, w: layer_norm(w, "transformer.ln_f", config.layer_norm_epsilon),
        ("transformer.wte", "transformer.wpe", "lm_head"),
        ("h.{}.attn.c_proj.weight", "h.{}.mlp.c_proj.*"),
        rotary=lambda config: False,
        refused=(
            Refusal(
                lambda config: config.add_cross_attention,
                "has cross-attention; only decoder-only models can be verified",
            ),
        ),
    )
}
