"""Qwen 3 with experts: a Qwen 3 with a mixture of experts in all layers, or in some."""

from __future__ import annotations

from functools import partial
from typing import Any

from circuitdsl.models.experts import Experts
from circuitdsl.models.families import llama
from circuitdsl.models.families._experts import WRITES, experts
from circuitdsl.models.families._family import Weights
from circuitdsl.models.parts import Mlp, Norm


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp | Experts]:
    sparse = config.num_experts > 0 and (layer + 1) % config.decoder_sparse_step == 0
    if sparse and layer not in config.mlp_only_layers:
        return experts(config, w, layer, config.norm_topk_prob)
    return llama.mlp(config, w, layer)


FAMILIES = {
    "qwen3_moe": llama.LLAMA._replace(
        title="Qwen 3 with experts",
        heads=partial(llama.heads, window=llama.everywhere),
        mlp=_mlp,
        writes=(*llama.LLAMA.writes, *WRITES),
    )
}
