"""What families of mixtures of experts share: all experts of a layer stand in two tensors."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.experts import Experts
from circuitdsl.models.families._family import Weights, activation, rms_norm
from circuitdsl.models.parts import Linear, Mlp, Norm

#: how the names of tensors end that MLPs write with, in files that hold each expert alone, and in others
WRITES = ("layers.{}.*.experts.*.down_proj.weight", "layers.{}.*.experts.*.w2.weight", "layers.{}.*.experts.down_proj")


def experts(config: Any, w: Weights, layer: int, to_one: bool = True) -> tuple[Norm, Experts]:
    at = f"model.layers.{layer}"
    act = activation(config.hidden_act)
    each = zip(w[f"{at}.mlp.experts.gate_up_proj"], w[f"{at}.mlp.experts.down_proj"], strict=True)
    mlps = []
    for both, down in each:
        gate, up = both.chunk(2)
        mlps.append(Mlp(Linear(up), Linear(down), act, Linear(gate)))
    router = Linear(w[f"{at}.mlp.gate.weight"])
    norm = rms_norm(w, f"{at}.post_attention_layernorm", config.rms_norm_eps)
    return norm, Experts(router, tuple(mlps), config.num_experts_per_tok, to_one)
