"""The families that are known: where each keeps its parts, under the names that Hugging Face gives its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.original import Original
from circuitdsl.models.parts import Activation, Attention, Block, Linear, Mlp, Norm, Rotary, Transformer, gelu_tanh

Weights = Mapping[str, Tensor]
NormReader = Callable[[Weights, str, float], Norm]


class Family(NamedTuple):
    """Where models of a family keep their parts.

    Attributes:
        heads, mlp: from a configuration, the weights and a layer: what is read through which norm. `heads` needs the
            attention weights alone.
        norm, eps: of the final norm: its reader, and the name of its epsilon in configurations.
        names: of the final norm, the token embeddings, the learned positions ("" for none) and the unembedding.
        writes: how the names of the tensors end with which heads and MLPs write, `{}` being the layer: of the heads'
            W_O, and of the MLP's last weight and bias (up to `.weight` and `.bias`).
        about: from a model's name and its configuration, what else is to be said of it.
    """

    heads: Callable[[Any, Weights, int], tuple[Norm, Attention]]
    mlp: Callable[[Any, Weights, int], tuple[Norm, Mlp]]
    norm: NormReader
    eps: str
    names: tuple[str, str, str, str]
    writes: tuple[str, str]
    about: Callable[[str, Any], dict[str, Any]] = lambda name, config: {}


def family_of(name: str, config: Any) -> Family:
    """The family that a model's configuration names.

    Raises:
        UnsupportedModel: it is not known.
    """
    if config.model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModel(f"{name} is a {config.model_type} model; the families known are {known}")
    return FAMILIES[config.model_type]


def read_parts(
    name: str,
    config: Any,
    weights: Weights,
    rotary: Mapping[str, Rotary],
    tokenizer: Any = None,
    original: Original | None = None,
    hashes: Mapping[str, Any] | None = None,
) -> Transformer:
    """The view of a Hugging Face model.

    Args:
        config: its configuration.
        weights: its parameters under their published names.
        rotary: its rotary frequencies by kind of layer (see `config.layer_types`), or under "" those of all layers.
        original: the model itself.
        hashes: of the files that it is read from, as `ModelFiles.hashes` has them.

    Raises:
        UnsupportedModel: the family is not known, or the model uses something that the view cannot express.
    """
    family = family_of(name, config)
    about: dict[str, Any] = {"parallel": False, **family.about(name, config)}
    final_norm, embed, positions, unembed = family.names
    given = (getattr(config, "rope_parameters", None) if rotary else None) or {}
    kinds = [each.get("rope_type", "default") for each in (given, *given.values()) if isinstance(each, dict)]
    if changing := [kind for kind in kinds if kind in ("dynamic", "longrope")]:  # they would make cached keys wrong
        raise UnsupportedModel(
            f"{name} scales its rotary positions with the prompt's length ({changing[0]}), which is not known"
        )
    blocks = []
    for layer in range(config.num_hidden_layers):
        norm, attn = family.heads(config, weights, layer)
        turns = rotary.get("" if "" in rotary or not rotary else config.layer_types[layer])
        blocks.append(Block(norm, replace(attn, rotary=turns), *family.mlp(config, weights, layer)))
    if not blocks:
        raise UnsupportedModel(f"{name} has no layers (see its config.json)")
    return Transformer(
        name=name,
        family=config.model_type,
        n_ctx=config.max_position_embeddings,
        blocks=tuple(blocks),
        final_norm=family.norm(weights, final_norm, getattr(config, family.eps)),
        W_E=weights[f"{embed}.weight"],
        W_pos=weights[f"{positions}.weight"] if positions else None,
        W_U=weights[f"{unembed}.weight" if f"{unembed}.weight" in weights else "lm_head.weight"],
        tokenizer=tokenizer,
        original=original,
        **(hashes or {}),
        **about,
    )


#: by torch itself, without importing transformers
_PLAIN: dict[str, Activation] = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


def activation(name: str) -> Activation:
    """The function behind Hugging Face's name for it."""
    if name in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"):
        return gelu_tanh
    if name in _PLAIN:
        return _PLAIN[name]
    from transformers.activations import ACT2FN

    return ACT2FN[name]


def _linear(weights: Weights, name: str) -> Linear:
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _conv1d(weights: Weights, name: str) -> Linear:
    """GPT-2 stores its maps as `[in, out]`."""
    return Linear(weights[f"{name}.weight"].T, weights[f"{name}.bias"])


def _layer_norm(weights: Weights, name: str, eps: float) -> Norm:
    return Norm("layer", weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def _rms_norm(weights: Weights, name: str, eps: float) -> Norm:
    return Norm("rms", weights[f"{name}.weight"], None, eps)


def _gemma_norm(weights: Weights, name: str, eps: float) -> Norm:
    """Gemma stores gains less one, and multiplies by them in single precision."""
    return Norm("rms", 1 + weights[f"{name}.weight"].float(), None, eps)


def _gpt2_heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    at = f"transformer.h.{layer}"
    d_head = config.n_embd // config.n_head
    qkv = _conv1d(w, f"{at}.attn.c_attn")
    q, k, v = (qkv.outputs(i * config.n_embd, (i + 1) * config.n_embd) for i in range(3))
    scale = d_head**-0.5 if config.scale_attn_weights else 1.0
    if config.scale_attn_by_inverse_layer_idx:
        scale /= layer + 1
    norm = _layer_norm(w, f"{at}.ln_1", config.layer_norm_epsilon)
    return norm, Attention(q, k, v, _conv1d(w, f"{at}.attn.c_proj"), config.n_head, config.n_head, d_head, scale)


def _gpt2_mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"transformer.h.{layer}"
    mlp = Mlp(_conv1d(w, f"{at}.mlp.c_fc"), _conv1d(w, f"{at}.mlp.c_proj"), activation(config.activation_function))
    return _layer_norm(w, f"{at}.ln_2", config.layer_norm_epsilon), mlp


def _about_gpt2(name: str, config: Any) -> dict[str, Any]:
    if config.add_cross_attention:
        raise UnsupportedModel(f"{name} has cross-attention; only decoder-only models can be verified")
    return {}


def _gpt_neox_heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    n_heads, d_model = config.num_attention_heads, config.hidden_size
    d_head = d_model // n_heads
    at = f"gpt_neox.layers.{layer}"
    # the published matrix holds query, key and value of head 0, then those of head 1, and so on
    qkv = _linear(w, f"{at}.attention.query_key_value")
    weight = qkv.weight.view(n_heads, 3, d_head, d_model)
    bias = None if qkv.bias is None else qkv.bias.view(n_heads, 3, d_head)
    q, k, v = (
        Linear(weight[:, i].reshape(-1, d_model), None if bias is None else bias[:, i].reshape(-1)) for i in range(3)
    )
    norm = _layer_norm(w, f"{at}.input_layernorm", config.layer_norm_eps)
    return norm, Attention(q, k, v, _linear(w, f"{at}.attention.dense"), n_heads, n_heads, d_head, d_head**-0.5)


def _gpt_neox_mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    at = f"gpt_neox.layers.{layer}"
    up, down = _linear(w, f"{at}.mlp.dense_h_to_4h"), _linear(w, f"{at}.mlp.dense_4h_to_h")
    norm = _layer_norm(w, f"{at}.post_attention_layernorm", config.layer_norm_eps)
    return norm, Mlp(up, down, activation(config.hidden_act))


def _llama_heads(config: Any, w: Weights, layer: int, norm: NormReader = _rms_norm) -> tuple[Norm, Attention]:
    n_heads = config.num_attention_heads
    n_kv_heads = config.num_key_value_heads or n_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    eps = config.rms_norm_eps
    at = f"model.layers.{layer}"
    q, k, v, o = (_linear(w, f"{at}.self_attn.{x}_proj") for x in "qkvo")
    q_norm, k_norm = (
        norm(w, f"{at}.self_attn.{x}_norm", eps) if f"{at}.self_attn.{x}_norm.weight" in w else None for x in "qk"
    )
    attn = Attention(q, k, v, o, n_heads, n_kv_heads, d_head, d_head**-0.5, q_norm, k_norm, _window(config, layer))
    return norm(w, f"{at}.input_layernorm", eps), attn


def _llama_mlp(config: Any, w: Weights, layer: int, norm: NormReader = _rms_norm) -> tuple[Norm, Mlp]:
    at = f"model.layers.{layer}"
    gate, up, down = (_linear(w, f"{at}.mlp.{x}_proj") for x in ("gate", "up", "down"))
    act = activation(config.hidden_activation if config.model_type in ("gemma2", "gemma3_text") else config.hidden_act)
    return norm(w, f"{at}.post_attention_layernorm", config.rms_norm_eps), Mlp(up, down, act, gate)


def _gemma2_heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    norm, attn = _llama_heads(config, w, layer, _gemma_norm)
    post = _gemma_norm(w, f"model.layers.{layer}.post_attention_layernorm", config.rms_norm_eps)
    softcap = config.attn_logit_softcapping
    return norm, replace(attn, scale=config.query_pre_attn_scalar**-0.5, softcap=softcap, post=post)


def _gemma2_mlp(config: Any, w: Weights, layer: int) -> tuple[Norm, Mlp]:
    pre, post = (
        _gemma_norm(w, f"model.layers.{layer}.{x}_feedforward_layernorm", config.rms_norm_eps) for x in ("pre", "post")
    )
    return pre, replace(_llama_mlp(config, w, layer, _gemma_norm)[1], post=post)


def _about_gemma2(name: str, config: Any) -> dict[str, Any]:
    """Gemma 2 and the text models of Gemma 3: what heads and MLPs write goes through a norm of its own."""
    if config.use_bidirectional_attention:
        raise UnsupportedModel(f"{name} attends to later tokens too; only decoder-only models can be verified")
    if config.attention_bias:
        raise UnsupportedModel(f"{name} has an output bias inside its post-norm, whose share belongs to no node")
    if config.model_type == "gemma3_text" and config.attn_logit_softcapping is not None:
        raise UnsupportedModel(f"{name} asks for capped attention scores, which transformers leaves out in Gemma 3")
    return {"embed_scale": config.hidden_size**0.5, "softcap": config.final_logit_softcapping}


def _window(config: Any, layer: int) -> int | None:
    """How far back a layer's heads can see, where that is limited.

    Mistral limits all layers, some families those that `layer_types` names; the others limit none, whatever their
    configuration says. `layer_types` follows from `use_sliding_window` and `max_window_layers` where it is not given.
    """
    typed = config.model_type in ("gemma2", "gemma3_text", "qwen2", "qwen3")
    limited = config.layer_types[layer] == "sliding_attention" if typed else config.model_type == "mistral"
    return config.sliding_window if limited else None


_LLAMA = Family(
    _llama_heads,
    _llama_mlp,
    _rms_norm,
    "rms_norm_eps",
    ("model.norm", "model.embed_tokens", "", "lm_head"),
    ("layers.{}.self_attn.o_proj.weight", "layers.{}.mlp.down_proj"),
)
_GEMMA = _LLAMA._replace(
    heads=partial(_llama_heads, norm=_gemma_norm),
    mlp=partial(_llama_mlp, norm=_gemma_norm),
    norm=_gemma_norm,
    about=lambda name, config: {"embed_scale": config.hidden_size**0.5},
)
_GEMMA2 = _GEMMA._replace(heads=_gemma2_heads, mlp=_gemma2_mlp, about=_about_gemma2)
FAMILIES: dict[str, Family] = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "gpt2": Family(
        _gpt2_heads,
        _gpt2_mlp,
        _layer_norm,
        "layer_norm_epsilon",
        ("transformer.ln_f", "transformer.wte", "transformer.wpe", "lm_head"),
        ("h.{}.attn.c_proj.weight", "h.{}.mlp.c_proj"),
        _about_gpt2,
    ),
    "gpt_neox": Family(
        _gpt_neox_heads,
        _gpt_neox_mlp,
        _layer_norm,
        "layer_norm_eps",
        ("gpt_neox.final_layer_norm", "gpt_neox.embed_in", "", "embed_out"),
        ("layers.{}.attention.dense.weight", "layers.{}.mlp.dense_4h_to_h"),
        lambda name, config: {"parallel": config.use_parallel_residual},
    ),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
}
