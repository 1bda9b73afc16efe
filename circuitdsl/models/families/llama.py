"""Llama, and what others share with it: rotary positions, RMSNorm, a gated MLP, grouped keys and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from circuitdsl.models.families._family import Family, NormReader, Weights, activation, linear, rms_norm
from circuitdsl.models.parts import Attention, Mlp, Norm

#: from a configuration and a layer: how far back its heads see
Window = Callable[[Any, int], int | None]


def everything(config: Any, layer: int) -> int | None:
    return None


def typed(config: Any, layer: int) -> int | None:
    """`layer_types` follows from `use_sliding_window` and `max_window_layers` where it is not given."""
    return config.sliding_window if config.layer_types[layer] == "sliding_attention" else None


def everywhere(config: Any, layer: int) -> int | None:
    return config.sliding_window


def attention(config: Any, w: Weights, layer: int, window: Window = everything) -> Attention:
    """The heads, whatever goes before them."""
    n_heads = config.num_attention_heads
    n_kv_heads = config.num_key_value_heads or n_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    q, k, v, o = (linear(w, f"model.layers.{layer}.self_attn.{x}_proj") for x in "qkvo")
    return Attention(q, k, v, o, n_heads, n_kv_heads, d_head, d_head**-0.5, window=window(config, layer))


def heads(
    config: Any, w: Weights, layer: int, norm: NormReader = rms_norm, window: Window = everything
) -> tuple[Norm, Attention]:
    at, eps = f"model.layers.{layer}", config.rms_norm_eps
    q_norm, k_norm = (
        norm(w, f"{at}.self_attn.{x}_norm", eps) if f"{at}.self_attn.{x}_norm.weight" in w else None for x in "qk"
    )
    attn = replace(attention(config, w, layer, window), q_norm=q_norm, k_norm=k_norm)
    return norm(w, f"{at}.input_layernorm", eps), attn


def gated(w: Weights, layer: int, act: str) -> Mlp:
    gate, up, down = (linear(w, f"model.layers.{layer}.mlp.{x}_proj") for x in ("gate", "up", "down"))
    return Mlp(up, down, activation(act), gate)


def mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    norm = rms_norm(w, f"model.layers.{layer}.post_attention_layernorm", config.rms_norm_eps)
    return norm, gated(w, layer, config.hidden_act)


LLAMA = Family(
    "Llama 1 to 3",
    heads,
    mlp,
    lambda config, w: rms_norm(w, "model.norm", config.rms_norm_eps),
    ("model.embed_tokens", "", "lm_head"),
    ("layers.{}.self_attn.o_proj.weight", "layers.{}.mlp.down_proj.*"),
)
FAMILIES = {"llama": LLAMA}
