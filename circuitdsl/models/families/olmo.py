"""OLMo 1: a Llama whose norms have no gains and biases, and whose queries, keys and values may be clipped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from circuitdsl.models.families import llama
from circuitdsl.models.families._family import Weights, plain_norm
from circuitdsl.models.parts import Attention, Mlp, Norm

#: of every norm; no configuration says it
EPS = 1e-5


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    attn = llama.attention(config, w, layer)
    return plain_norm(attn.q.weight, EPS), replace(attn, clip=config.clip_qkv)


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    mlp = llama.gated(w, layer, config.hidden_act)
    return plain_norm(mlp.up.weight, EPS), mlp


FAMILIES = {
    "olmo": llama.LLAMA._replace(
        title="OLMo 1",
        heads=_heads,
        mlp=_mlp,
        final_norm=lambda config, w: plain_norm(w["model.embed_tokens.weight"], EPS),
    )
}
