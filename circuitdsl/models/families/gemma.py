"""Gemma 1, 2 and 3: scaled embeddings; from 2 on, what heads and MLPs write goes through a norm of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from circuitdsl.models.families._family import BIAS_IN_POST_NORM, Refusal, Weights
from circuitdsl.models.families.llama import LLAMA, gated, heads, typed
from circuitdsl.models.parts import Attention, Mlp, Norm


def _norm(weights: Weights, name: str, eps: float) -> Norm:
    """Gemma stores gains less one, and multiplies by them in single precision."""
    return Norm("rms", 1 + weights[f"{name}.weight"].float(), None, eps)


def _scale(config: Any, w: Weights) -> float:
    """What embeddings are multiplied by, rounded as transformers stores it."""
    return float(torch.tensor(config.hidden_size**0.5, dtype=w["model.embed_tokens.weight"].dtype))


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    norm = _norm(w, f"model.layers.{layer}.post_attention_layernorm", config.rms_norm_eps)
    return norm, gated(w, layer, config.hidden_act)


def _post_norm_heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    norm, attn = heads(config, w, layer, _norm, typed)
    post = _norm(w, f"model.layers.{layer}.post_attention_layernorm", config.rms_norm_eps)
    softcap = config.attn_logit_softcapping
    return norm, replace(attn, scale=config.query_pre_attn_scalar**-0.5, softcap=softcap, post=post)


def _post_norm_mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    pre, post = (
        _norm(w, f"model.layers.{layer}.{x}_feedforward_layernorm", config.rms_norm_eps) for x in ("pre", "post")
    )
    return pre, replace(gated(w, layer, config.hidden_activation), post=post)


_GEMMA = LLAMA._replace(
    title="Gemma 1",
    heads=partial(heads, norm=_norm),
    mlp=_mlp,
    final_norm=lambda config, w: _norm(w, "model.norm", config.rms_norm_eps),
    about=lambda config, w: {"embed_scale": _scale(config, w)},
)
_GEMMA2 = _GEMMA._replace(
    title="Gemma 2",
    heads=_post_norm_heads,
    mlp=_post_norm_mlp,
    refused=(
        Refusal(
            lambda config: config.use_bidirectional_attention,
            "attends to later tokens too; only decoder-only models can be verified",
        ),
        BIAS_IN_POST_NORM,
    ),
    about=lambda config, w: {"embed_scale": _scale(config, w), "softcap": config.final_logit_softcapping},
)
_GEMMA3 = _GEMMA2._replace(
    title="Gemma 3 (text)",
    refused=(
        *_GEMMA2.refused,
        Refusal(
            lambda config: config.attn_logit_softcapping is not None,
            "asks for capped attention scores, which transformers leaves out in Gemma 3",
        ),
    ),
)
FAMILIES = {"gemma": _GEMMA, "gemma2": _GEMMA2, "gemma3_text": _GEMMA3}
