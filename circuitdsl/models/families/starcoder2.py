"""StarCoder 2: a Llama with LayerNorm, a plain MLP, biases, and a window for all heads, where it has one."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Weights, activation, layer_norm, linear
from circuitdsl.models.families.llama import LLAMA, attention, everywhere
from circuitdsl.models.parts import Attention, Mlp, Norm


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    norm = layer_norm(w, f"model.layers.{layer}.input_layernorm", config.norm_epsilon)
    return norm, attention(config, w, layer, everywhere)


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"model.layers.{layer}"
    mlp = Mlp(linear(w, f"{at}.mlp.c_fc"), linear(w, f"{at}.mlp.c_proj"), activation(config.hidden_act))
    return layer_norm(w, f"{at}.post_attention_layernorm", config.norm_epsilon), mlp


FAMILIES = {
    "starcoder2": LLAMA._replace(
        title="StarCoder 2",
        heads=_heads,
        mlp=_mlp,
        final_norm=lambda config, w: layer_norm(w, "model.norm", config.norm_epsilon),
        writes=("layers.{}.self_attn.o_proj.weight", "layers.{}.mlp.c_proj.*"),
    )
}
