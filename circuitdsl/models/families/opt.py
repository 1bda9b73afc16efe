"""OPT: learned positions, of which the first two belong to none; norms with or without gains and biases."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.families._family import Family, Refusal, Weights, activation, layer_norm, linear, plain_norm
from circuitdsl.models.parts import Attention, Mlp, Norm

#: rows of the table of positions that stand before the first position
BEFORE = 2
#: of every norm; no configuration says it
EPS = 1e-5


def _norm(config: Any, w: Weights, name: str) -> Norm:
    if config.layer_norm_elementwise_affine:
        return layer_norm(w, name, EPS)
    return plain_norm(w["model.decoder.layers.0.self_attn.q_proj.weight"], EPS)


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"model.decoder.layers.{layer}"
    n_heads = config.num_attention_heads
    d_head = config.hidden_size // n_heads
    q, k, v, o = (linear(w, f"{at}.self_attn.{x}_proj") for x in ("q", "k", "v", "out"))
    norm = _norm(config, w, f"{at}.self_attn_layer_norm")
    return norm, Attention(q, k, v, o, n_heads, n_heads, d_head, d_head**-0.5)


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"model.decoder.layers.{layer}"
    mlp = Mlp(linear(w, f"{at}.fc1"), linear(w, f"{at}.fc2"), activation(config.activation_function))
    return _norm(config, w, f"{at}.final_layer_norm"), mlp


FAMILIES = {
    "opt": Family(
        "OPT, but for OPT-350M",
        _heads,
        _mlp,
        lambda config, w: _norm(config, w, "model.decoder.final_layer_norm"),
        ("model.decoder.embed_tokens", "", "lm_head"),
        ("layers.{}.self_attn.out_proj.weight", "layers.{}.fc2.*"),
        rotary=lambda config: False,
        refused=(
            Refusal(
                lambda config: not config.do_layer_norm_before,
                "norms the whole residual stream behind its heads and MLPs, which then is no sum of terms",
            ),
            Refusal(
                lambda config: config.word_embed_proj_dim != config.hidden_size,
                "maps its embeddings to another width, which is not known",
            ),
            Refusal(
                lambda config: config._remove_final_layer_norm, "has no norm before its logits, which is not known"
            ),
        ),
        about=lambda config, w: {"W_pos": w["model.decoder.embed_positions.weight"][BEFORE:]},
    )
}
