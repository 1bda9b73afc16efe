"""StarCoder 2: a Llama with LayerNorm, a plain MLP, biases, and a window for all heads, where it has one."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Weights, layer_norm, plain_mlp
from circuitdsl.models.families.llama import LLAMA, attention, everywhere
from circuitdsl.models.parts import Attention, Norm


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    norm = layer_norm(w, f"model.layers.{layer}.input_layernorm", config.norm_epsilon)
    return norm, attention(config, w, layer, everywhere)


FAMILIES = {
    "starcoder2": LLAMA._replace(
        title="StarCoder 2",
        heads=_heads,
        mlp=plain_mlp(
            "model.layers.{}", "post_attention_layernorm", "mlp.c_fc", "mlp.c_proj", "hidden_act", eps="norm_epsilon"
        ),
        final_norm=lambda config, w: layer_norm(w, "model.norm", config.norm_epsilon),
        writes=("layers.{}.self_attn.o_proj.weight", "layers.{}.mlp.c_proj.*"),
    )
}
