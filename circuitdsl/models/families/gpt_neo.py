"""GPT-Neo (TinyStories): learned positions, scores that are not scaled, windows in some layers."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Family, Weights, activation, layer_norm, linear
from circuitdsl.models.parts import Attention, Mlp, Norm


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"transformer.h.{layer}"
    q, k, v, o = (linear(w, f"{at}.attn.attention.{x}_proj") for x in ("q", "k", "v", "out"))
    n_heads = config.num_attention_heads
    window = config.window_size if config.attention_layers[layer] == "local" else None
    attn = Attention(q, k, v, o, n_heads, n_heads, config.hidden_size // n_heads, scale=1.0, window=window)
    return layer_norm(w, f"{at}.ln_1", config.layer_norm_epsilon), attn


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"transformer.h.{layer}"
    mlp = Mlp(linear(w, f"{at}.mlp.c_fc"), linear(w, f"{at}.mlp.c_proj"), activation(config.activation_function))
    return layer_norm(w, f"{at}.ln_2", config.layer_norm_epsilon), mlp


FAMILIES = {
    "gpt_neo": Family(
        "GPT-Neo, TinyStories",
        _heads,
        _mlp,
        lambda config, w: layer_norm(w, "transformer.ln_f", config.layer_norm_epsilon),
        ("transformer.wte", "transformer.wpe", "lm_head"),
        ("h.{}.attn.attention.out_proj.weight", "h.{}.mlp.c_proj.*"),
        rotary=lambda config: False,
    )
}
