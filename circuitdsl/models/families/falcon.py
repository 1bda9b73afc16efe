"""Falcon: heads and MLP beside each other behind one norm or two, or after each other; rotary positions or ALiBi."""

from __future__ import annotations

from typing import Any

from circuitdsl.models.distances import Distances, slopes
from circuitdsl.models.families._family import Family, Weights, activation, layer_norm, linear
from circuitdsl.models.parts import Attention, Linear, Mlp, Norm


def _parallel(config: Any) -> bool:
    return bool(config.new_decoder_architecture or config.parallel_attn)


def _norm(config: Any, w: Weights, layer: int, of_mlp: bool) -> Norm:
    name = "input_layernorm"
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn in (None, 2):
        name = "ln_mlp" if of_mlp else "ln_attn"
    elif of_mlp and not _parallel(config):
        name = "post_attention_layernorm"
    return layer_norm(w, f"transformer.h.{layer}.{name}", config.layer_norm_epsilon)


def _kv_heads(config: Any) -> int:
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def _heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at, n_heads, n_kv_heads = f"transformer.h.{layer}.self_attention", config.num_attention_heads, _kv_heads(config)
    d_head = config.hidden_size // n_heads
    qkv = linear(w, f"{at}.query_key_value")

    def of(start: int, end: int) -> Linear:
        """The matrix holds, for each key and value head, the queries that read it, then its key and its value."""
        parts = [
            None if each is None else each.unflatten(0, (n_kv_heads, -1, d_head)) for each in (qkv.weight, qkv.bias)
        ]
        weight, bias = (None if each is None else each[:, start:end].flatten(0, 2) for each in parts)
        assert weight is not None
        return Linear(weight, bias)

    group = n_heads // n_kv_heads
    q, k, v = of(0, group), of(group, group + 1), of(group + 1, group + 2)
    distances = Distances(slopes(n_heads), rounded=True, scale=d_head**-0.5) if config.alibi else None
    o = linear(w, f"{at}.dense")
    attn = Attention(q, k, v, o, n_heads, n_kv_heads, d_head, d_head**-0.5, distances=distances)
    return _norm(config, w, layer, of_mlp=False), attn


def _mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"transformer.h.{layer}.mlp"
    mlp = Mlp(linear(w, f"{at}.dense_h_to_4h"), linear(w, f"{at}.dense_4h_to_h"), activation(config.activation))
    return _norm(config, w, layer, of_mlp=True), mlp


FAMILIES = {
    "falcon": Family(
        "Falcon",
        _heads,
        _mlp,
        lambda config, w: layer_norm(w, "transformer.ln_f", config.layer_norm_epsilon),
        ("transformer.word_embeddings", "", "lm_head"),
        ("h.{}.self_attention.dense.weight", "h.{}.mlp.dense_4h_to_h.*"),
        rotary=lambda config: not config.alibi,
        about=lambda config, w: {"parallel": _parallel(config)},
    )
}
