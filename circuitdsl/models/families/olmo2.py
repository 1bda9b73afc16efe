"""OLMo 2 and 3: no norms before heads and MLPs but after them, and one norm for the queries of all heads together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from circuitdsl.models.families import llama
from circuitdsl.models.families._family import BIAS_IN_POST_NORM, Weights, no_norm, rms_norm
from circuitdsl.models.parts import Attention, Mlp, Norm


def _heads(config: Any, w: Weights, layer: int, window: llama.Window = llama.everything) -> tuple[Norm, Attention]:
    attn, at, eps = llama.attention(config, w, layer, window), f"model.layers.{layer}", config.rms_norm_eps
    q_norm, k_norm = (rms_norm(w, f"{at}.self_attn.{x}_norm", eps) for x in "qk")
    post = rms_norm(w, f"{at}.post_attention_layernorm", eps)
    return no_norm(attn.q.weight), replace(attn, q_norm=q_norm, k_norm=k_norm, post=post)


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    mlp = llama.gated(w, layer, config.hidden_act)
    post = rms_norm(w, f"model.layers.{layer}.post_feedforward_layernorm", config.rms_norm_eps)
    return no_norm(mlp.up.weight), replace(mlp, post=post)


_OLMO2 = llama.LLAMA._replace(title="OLMo 2", heads=_heads, mlp=_mlp, refused=(BIAS_IN_POST_NORM,))
FAMILIES = {"olmo2": _OLMO2, "olmo3": _OLMO2._replace(title="OLMo 3", heads=partial(_heads, window=llama.typed))}
