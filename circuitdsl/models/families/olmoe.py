"""OLMoE: a mixture of experts in every layer, one norm for the queries of all heads together, clipped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from circuitdsl.models.experts import Experts
from circuitdsl.models.families._experts import WRITES, experts
from circuitdsl.models.families._family import Weights
from circuitdsl.models.families.llama import LLAMA, heads
from circuitdsl.models.parts import Attention, Norm


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    norm, attn = heads(config, w, layer)
    return norm, replace(attn, clip=config.clip_qkv)


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Experts]:
    return experts(config, w, layer, config.norm_topk_prob)


FAMILIES = {"olmoe": LLAMA._replace(title="OLMoE", heads=_heads, mlp=_mlp, writes=(LLAMA.writes[0], *WRITES))}
