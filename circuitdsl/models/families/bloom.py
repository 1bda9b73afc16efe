"""BLOOM: ALiBi in the place of positions, a norm behind the embedding."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.distances import Distances, slopes
from circuitdsl.models.families._family import Family, Refusal, Weights, layer_norm, linear
from circuitdsl.models.families.gpt_neox import by_head
from circuitdsl.models.parts import Attention, Mlp, Norm, gelu_tanh

#: tokens that models were trained on, where a configuration does not say it
CONTEXT = 2048


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at, n_heads = f"transformer.h.{layer}", config.num_attention_heads
    d_head = config.hidden_size // n_heads
    q, k, v = by_head(linear(w, f"{at}.self_attention.query_key_value"), n_heads)
    o, distances = linear(w, f"{at}.self_attention.dense"), Distances(slopes(n_heads))
    attn = Attention(q, k, v, o, n_heads, n_heads, d_head, d_head**-0.5, distances=distances)
    return layer_norm(w, f"{at}.input_layernorm", config.layer_norm_epsilon), attn


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"transformer.h.{layer}"
    mlp = Mlp(linear(w, f"{at}.mlp.dense_h_to_4h"), linear(w, f"{at}.mlp.dense_4h_to_h"), gelu_tanh)
    return layer_norm(w, f"{at}.post_attention_layernorm", config.layer_norm_epsilon), mlp


def _about(config: Any, w: Weights) -> dict[str, Any]:
    norm = layer_norm(w, "transformer.word_embeddings_layernorm", config.layer_norm_epsilon)
    return {"embed_norm": norm, "n_ctx": getattr(config, "seq_length", None) or CONTEXT}


FAMILIES = {
    "bloom": Family(
        "BLOOM, BLOOMZ",
        _heads,
        _mlp,
        lambda config, w: layer_norm(w, "transformer.ln_f", config.layer_norm_epsilon),
        ("transformer.word_embeddings", "", "lm_head"),
        ("h.{}.self_attention.dense.weight", "h.{}.mlp.dense_4h_to_h.*"),
        rotary=lambda config: False,
        refused=(
            Refusal(
                lambda config: config.apply_residual_connection_post_layernorm,
                "carries normed residuals on, so that its stream is no sum of terms",
            ),
        ),
        about=_about,
    )
}
