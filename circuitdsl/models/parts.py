"""One view of every family: what reads the residual stream, and what writes which term of it.

The residual stream is a sum of terms (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"). A `Transformer` names its parts so that each term can be computed alone: per-head query, key,
value and output matrices, the MLP as a function of one position, the norms with their scale recomputed.
Weights are those that were published; nothing is folded, centred or copied where a view will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.products import linear, linear_gelu

Port = Literal["q", "k", "v"]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """`x W^T + b`."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None = None

    def __call__(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        return linear(x, self.weight, self.bias)

    def outputs(self, start: int, end: int) -> Linear:
        """The map onto outputs `start:end` alone."""
        return Linear(self.weight[start:end], None if self.bias is None else self.bias[start:end])


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """LayerNorm or RMSNorm; its scale is recomputed at every call."""

    kind: Literal["layer", "rms"]
    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"] | None
    eps: float

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        if self.kind == "layer":
            return F.layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps)
        wide = x.float()
        return self.gain * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Rotary:
    """Rotary position embedding of the first `2 * len(inv_freq)` dimensions of queries and keys."""

    inv_freq: Float[Tensor, " half"]
    scaling: float = 1.0

    def table(self, length: int, dtype: torch.dtype) -> tuple[Float[Tensor, "T rot"], Float[Tensor, "T rot"]]:
        """Cosines and sines of positions 0 to `length` - 1."""
        angles = torch.arange(length, device=self.inv_freq.device).float()[:, None] * self.inv_freq.float()
        both = torch.cat((angles, angles), dim=-1)
        return (both.cos() * self.scaling).to(dtype), (both.sin() * self.scaling).to(dtype)


Table = tuple[Float[Tensor, "T rot"], Float[Tensor, "T rot"]]


def rotate(x: Float[Tensor, "*rows d_head"], cos: Tensor, sin: Tensor) -> Float[Tensor, "*rows d_head"]:
    """Turn queries or keys by the angles of their positions; `cos` and `sin` broadcast against `x`."""
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """The heads of one layer. Query head `h` reads key and value head `h // group` (grouped-query attention)."""

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    n_heads: int
    n_kv_heads: int
    d_head: int
    scale: float
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int | None = None

    @property
    def group(self) -> int:
        """Query heads to a key and value head."""
        return self.n_heads // self.n_kv_heads

    def project(
        self, port: Port, x: Float[Tensor, "*rows d"], cos: Tensor | None, sin: Tensor | None
    ) -> Float[Tensor, "*rows heads d_head"]:
        """Queries, keys or values of all heads from normed inputs; `cos`, `sin` broadcast to `[*rows, rot]`."""
        out = getattr(self, port)(x)
        out = out.unflatten(-1, (-1, self.d_head))
        return self._positioned(
            port, out, None if cos is None else cos.unsqueeze(-2), None if sin is None else sin.unsqueeze(-2)
        )

    def project_head(
        self, port: Port, head: int, x: Float[Tensor, "*rows d"], cos: Tensor | None, sin: Tensor | None
    ) -> Float[Tensor, "*rows d_head"]:
        """What query head `head` has as its query, key or value: only that head's `d_head` columns are computed."""
        index = head if port == "q" else head // self.group
        linear: Linear = getattr(self, port)
        out = linear.outputs(index * self.d_head, (index + 1) * self.d_head)(x)
        return self._positioned(port, out, cos, sin)

    def _positioned(self, port: Port, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        norm = {"q": self.q_norm, "k": self.k_norm, "v": None}[port]
        if norm is not None:
            x = norm(x)
        return x if port == "v" or cos is None or sin is None else rotate(x, cos, sin)

    def out_head(self, head: int, z: Float[Tensor, "*rows d_head"]) -> Float[Tensor, "*rows d"]:
        """The term that a head writes: `z W_O`, without `b_O`, which belongs to no node."""
        return linear(z, self.o.weight[:, head * self.d_head : (head + 1) * self.d_head])


@dataclass(frozen=True, slots=True, eq=False)
class Mlp:
    """A plain or a gated MLP, as a function of the normed residual at one position; the output bias is included."""

    up: Linear
    down: Linear
    act: Activation
    gate: Linear | None = None

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return self.down(self._hidden(x))

    def _hidden(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d_mlp"]:
        if self.gate is not None:
            return self.act(self.gate(x)).mul_(self.up(x))
        if self.act is F.gelu or self.act is _gelu_tanh:
            return linear_gelu(x, self.up.weight, self.up.bias, "none" if self.act is F.gelu else "tanh")
        return self.act(self.up(x))

    def neuron(self, index: int, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows"]:
        """The activation of one neuron; its term is that times its output weights."""
        up = self.up.outputs(index, index + 1)(x)
        if self.gate is None:
            return self.act(up)[..., 0]
        return (self.act(self.gate.outputs(index, index + 1)(x)) * up)[..., 0]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One layer: heads, then (or beside them, in parallel-attention models) the MLP."""

    attn_norm: Norm
    attn: Attention
    mlp_norm: Norm
    mlp: Mlp
    #: what was worked out from the weights (see `weights.component_factors`); a changed block works it out anew
    known: dict[str, Any] = field(init=False, default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Transformer:
    """A decoder-only transformer, seen as terms of one residual stream.

    Attributes:
        name: as the user gave it.
        family: Hugging Face's `model_type`.
        parallel: the MLP reads what the heads of its layer read, and not what they write.
        n_ctx: the longest prompt, in tokens.
        sha256: of the weight files.
        tokenizer: a Hugging Face tokenizer, or `None` for a model that has none.
    """

    name: str
    family: str
    parallel: bool
    n_ctx: int
    blocks: tuple[Block, ...]
    final_norm: Norm
    W_E: Float[Tensor, "vocab d"]
    W_pos: Float[Tensor, "n_ctx d"] | None
    W_U: Float[Tensor, "vocab d"]
    b_U: Float[Tensor, " vocab"] | None
    rotary: Rotary | None
    sha256: str = ""
    tokenizer: Any = field(default=None, repr=False)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        return self.blocks[0].attn.n_heads

    @property
    def longest(self) -> int:
        """Tokens up to which every head sees the whole prompt."""
        return min([self.n_ctx, *(block.attn.window for block in self.blocks if block.attn.window is not None)])

    @property
    def d_model(self) -> int:
        return self.W_E.shape[1]

    @property
    def d_head(self) -> int:
        return self.blocks[0].attn.d_head

    @property
    def d_mlp(self) -> int:
        return self.blocks[0].mlp.up.weight.shape[0]

    @property
    def n_vocab(self) -> int:
        return self.W_U.shape[0]

    @property
    def device(self) -> torch.device:
        return self.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_E.dtype

    def embed(self, tokens: Int[Tensor, "n T"]) -> Float[Tensor, "n T d"]:
        """The term of the node `embed`: token plus learned position embedding."""
        resid = self.W_E[tokens]
        return resid if self.W_pos is None else resid + self.W_pos[: tokens.shape[1]]

    def table(self, length: int) -> Table | tuple[None, None]:
        """Rotary cosines and sines, or a pair of `None` without rotary positions."""
        return (None, None) if self.rotary is None else self.rotary.table(length, self.dtype)

    def logits(self, resid: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows vocab"]:
        """Through the final norm and the unembedding."""
        return linear(self.final_norm(resid), self.W_U, self.b_U)


def attend(
    attn: Attention,
    q: Float[Tensor, "n heads T d_head"],
    k: Float[Tensor, "n kv_heads T d_head"],
    v: Float[Tensor, "n kv_heads T d_head"],
) -> Float[Tensor, "n T heads d_head"]:
    """`z` of every head over whole prompts: causal attention, grouped keys and values."""
    z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attn.scale, enable_gqa=attn.group > 1)
    return z.transpose(1, 2)


# --- families ---------------------------------------------------------------------------------------


Weights = Mapping[str, Tensor]


def read_parts(
    name: str, config: Any, weights: Weights, rotary: Rotary | None, sha256: str = "", tokenizer: Any = None
) -> Transformer:
    """The view of a Hugging Face model.

    Args:
        config: its configuration.
        weights: its parameters under their published names.
        rotary: its rotary frequencies, where it has them.

    Raises:
        UnsupportedModel: the family is not known, or the model uses something that the view cannot express.
    """
    if config.model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModel(f"{name} is a {config.model_type} model; the families known are {known}")
    parts = FAMILIES[config.model_type](name, config, weights)
    _refuse_changing_rotary(name, config)
    if not parts["blocks"]:
        raise UnsupportedModel(f"{name} has no layers (see its config.json)")
    return Transformer(name=name, family=config.model_type, rotary=rotary, sha256=sha256, tokenizer=tokenizer, **parts)


def activation(name: str) -> Activation:
    """The function behind Hugging Face's name for it."""
    match name:
        case "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh":
            return _gelu_tanh
        case "gelu":
            return F.gelu
        case "silu" | "swish":
            return F.silu
        case "relu":
            return F.relu
    from transformers.activations import ACT2FN

    return ACT2FN[name]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _linear(weights: Weights, name: str) -> Linear:
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _conv1d(weights: Weights, name: str) -> Linear:
    """GPT-2 stores its maps as `[in, out]`."""
    return Linear(weights[f"{name}.weight"].T, weights[f"{name}.bias"])


def _layer_norm(weights: Weights, name: str, eps: float) -> Norm:
    return Norm("layer", weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def _rms_norm(weights: Weights, name: str, eps: float) -> Norm:
    return Norm("rms", weights[f"{name}.weight"], None, eps)


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


def _gpt2(name: str, config: Any, w: Weights) -> dict[str, Any]:
    if config.add_cross_attention:
        raise UnsupportedModel(f"{name} has cross-attention; only decoder-only models can be verified")

    def block(layer: int) -> Block:
        at = f"transformer.h.{layer}"
        mlp = Mlp(_conv1d(w, f"{at}.mlp.c_fc"), _conv1d(w, f"{at}.mlp.c_proj"), activation(config.activation_function))
        return Block(*_gpt2_heads(config, w, layer), _layer_norm(w, f"{at}.ln_2", config.layer_norm_epsilon), mlp)

    return {
        "parallel": False,
        "n_ctx": config.n_positions,
        "blocks": tuple(block(layer) for layer in range(config.n_layer)),
        "final_norm": _layer_norm(w, "transformer.ln_f", config.layer_norm_epsilon),
        "W_E": w["transformer.wte.weight"],
        "W_pos": w["transformer.wpe.weight"],
        "W_U": w["lm_head.weight"],
        "b_U": None,
    }


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


def _gpt_neox(name: str, config: Any, w: Weights) -> dict[str, Any]:
    def block(layer: int) -> Block:
        at = f"gpt_neox.layers.{layer}"
        up, down = _linear(w, f"{at}.mlp.dense_h_to_4h"), _linear(w, f"{at}.mlp.dense_4h_to_h")
        norm = _layer_norm(w, f"{at}.post_attention_layernorm", config.layer_norm_eps)
        return Block(*_gpt_neox_heads(config, w, layer), norm, Mlp(up, down, activation(config.hidden_act)))

    return {
        "parallel": config.use_parallel_residual,
        "n_ctx": config.max_position_embeddings,
        "blocks": tuple(block(layer) for layer in range(config.num_hidden_layers)),
        "final_norm": _layer_norm(w, "gpt_neox.final_layer_norm", config.layer_norm_eps),
        "W_E": w["gpt_neox.embed_in.weight"],
        "W_pos": None,
        "W_U": w["embed_out.weight"] if "embed_out.weight" in w else w["lm_head.weight"],
        "b_U": None,
    }


def _llama_heads(config: Any, w: Weights, layer: int) -> tuple[Norm, Attention]:
    n_heads = config.num_attention_heads
    n_kv_heads = config.num_key_value_heads or n_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    eps = config.rms_norm_eps
    at = f"model.layers.{layer}"
    q, k, v, o = (_linear(w, f"{at}.self_attn.{x}_proj") for x in "qkvo")
    q_norm, k_norm = (
        _rms_norm(w, f"{at}.self_attn.{x}_norm", eps) if f"{at}.self_attn.{x}_norm.weight" in w else None for x in "qk"
    )
    attn = Attention(q, k, v, o, n_heads, n_kv_heads, d_head, d_head**-0.5, q_norm, k_norm, _window(config, layer))
    return _rms_norm(w, f"{at}.input_layernorm", eps), attn


def _llama(name: str, config: Any, w: Weights) -> dict[str, Any]:
    def block(layer: int) -> Block:
        at = f"model.layers.{layer}"
        gate, up, down = (_linear(w, f"{at}.mlp.{x}_proj") for x in ("gate", "up", "down"))
        norm = _rms_norm(w, f"{at}.post_attention_layernorm", config.rms_norm_eps)
        return Block(*_llama_heads(config, w, layer), norm, Mlp(up, down, activation(config.hidden_act), gate))

    return {
        "parallel": False,
        "n_ctx": config.max_position_embeddings,
        "blocks": tuple(block(layer) for layer in range(config.num_hidden_layers)),
        "final_norm": _rms_norm(w, "model.norm", config.rms_norm_eps),
        "W_E": w["model.embed_tokens.weight"],
        "W_pos": None,
        "W_U": w["lm_head.weight"],
        "b_U": None,
    }


def _window(config: Any, layer: int) -> int | None:
    """How far back a layer's heads can see, where that is limited."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] != "sliding_attention":
        return None
    if kinds is None and not getattr(config, "use_sliding_window", True):
        return None
    return getattr(config, "sliding_window", None)


def _refuse_changing_rotary(name: str, config: Any) -> None:
    """Rotary frequencies that depend on the prompt's length would make cached keys wrong."""
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind in ("dynamic", "longrope"):
        raise UnsupportedModel(
            f"{name} scales its rotary positions with the prompt's length ({kind}), which is not known"
        )


#: a layer's norm and heads, from the configuration and the attention weights alone
HEADS: dict[str, Callable[[Any, Weights, int], tuple[Norm, Attention]]] = {
    "gpt2": _gpt2_heads,
    "gpt_neox": _gpt_neox_heads,
    "llama": _llama_heads,
    "mistral": _llama_heads,
    "qwen2": _llama_heads,
    "qwen3": _llama_heads,
}

FAMILIES: dict[str, Callable[[str, Any, Weights], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
}
