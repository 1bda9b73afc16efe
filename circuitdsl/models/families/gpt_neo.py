"""GPT-Neo (TinyStories): learned positions, scores that are not scaled, windows in some layers."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Family, Weights, layer_norm, linear, plain_mlp
from circuitdsl.models.parts import Attention, Norm


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"transformer.h.{layer}"
    q, k, v, o = (linear(w, f"{at}.attn.attention.{x}_proj") for x in ("q", "k", "v", "out"))
    n_heads = config.num_attention_heads
    window = config.window_size if config.attention_layers[layer] == "local" else None
    attn = Attention(q, k, v, o, n_heads, n_heads, config.hidden_size // n_heads, scale=1.0, window=window)
    return layer_norm(w, f"{at}.ln_1", config.layer_norm_epsilon), attn


FAMILIES = {
    "gpt_neo": Family(
        "GPT-Neo, TinyStories",
        _heads,
        plain_mlp(
            "transformer.h.{}", "ln_2", "mlp.c_fc", "mlp.c_proj", "activation_function", eps="layer_norm_epsilon"
        ),
        lambda config, w: layer_norm(w, "transformer.ln_f", config.layer_norm_epsilon),
        ("transformer.wte", "transformer.wpe", "lm_head"),
        ("h.{}.attn.attention.out_proj.weight", "h.{}.mlp.c_proj.*"),
        rotary=lambda config: False,
    )
}
