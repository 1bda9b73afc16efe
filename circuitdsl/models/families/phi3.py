"""Phi-3 and Phi-4: a Llama with queries, keys and values in one matrix, and the MLP's gate and input in another."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Weights, activation, linear, rms_norm
from circuitdsl.models.families.llama import LLAMA
from circuitdsl.models.parts import Attention, Mlp, Norm


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"model.layers.{layer}"
    n_heads = config.num_attention_heads
    n_kv_heads = config.num_key_value_heads or n_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    qkv = linear(w, f"{at}.self_attn.qkv_proj")
    ends = n_heads * d_head, (n_heads + n_kv_heads) * d_head, (n_heads + 2 * n_kv_heads) * d_head
    q, k, v = (qkv.outputs(start, end) for start, end in zip((0, *ends), ends, strict=False))
    o, window = linear(w, f"{at}.self_attn.o_proj"), config.sliding_window
    attn = Attention(q, k, v, o, n_heads, n_kv_heads, d_head, d_head**-0.5, window=window)
    return rms_norm(w, f"{at}.input_layernorm", config.rms_norm_eps), attn


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"model.layers.{layer}"
    both, width = linear(w, f"{at}.mlp.gate_up_proj"), config.intermediate_size
    gate, up = both.outputs(0, width), both.outputs(width, 2 * width)
    mlp = Mlp(up, linear(w, f"{at}.mlp.down_proj"), activation(config.hidden_act), gate)
    return rms_norm(w, f"{at}.post_attention_layernorm", config.rms_norm_eps), mlp


FAMILIES = {"phi3": LLAMA._replace(title="Phi-3, Phi-4", heads=_heads, mlp=_mlp)}
