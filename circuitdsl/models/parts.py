"""One view of every family: what reads the residual stream, and what writes which term of it.

The residual stream is a sum of terms (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"). A `Transformer` names its parts so that each term can be computed alone: per-head query, key,
value and output matrices, the MLP as a function of one position, the norms with their scale recomputed.
Weights are those that were published; nothing is folded, centred or copied where a view will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

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


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU with its normal distribution by a tanh."""
    return F.gelu(x, approximate="tanh")


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
        if self.act is F.gelu or self.act is gelu_tanh:
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
