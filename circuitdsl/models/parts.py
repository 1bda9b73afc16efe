"""One view of every family: what reads the residual stream, and what writes which term of it.

The residual stream is a sum of terms (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"). A `Transformer` names its parts so that each term can be computed alone: per-head query, key,
value and output matrices, the MLP as a function of one position, the norms with their scale recomputed.
Weights are those that were published; nothing is folded, centred or copied where a view will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.models.products import linear, linear_gelu

if TYPE_CHECKING:
    from circuitdsl.models.distances import Distances
    from circuitdsl.models.experts import Experts, Whole
    from circuitdsl.models.original import Original

Port = Literal["q", "k", "v"]
PORTS: tuple[Port, ...] = ("q", "k", "v")
Activation = Callable[[Tensor], Tensor]
#: numbers inside an MLP that are made at once on a CPU: they stay in its cache until they are read
AT_ONCE = 2**20


class Part:
    """A piece of a model: it is made of tensors, of numbers, and of other pieces."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Linear(Part):
    """`x W^T + b`."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None = None

    def __repr__(self) -> str:
        return f"<Linear {self.weight.shape[1]} -> {self.weight.shape[0]}>"

    def __call__(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        return linear(x, self.weight, self.bias)

    def outputs(self, start: int, end: int) -> Linear:
        """The map onto outputs `start:end` alone."""
        return Linear(self.weight[start:end], None if self.bias is None else self.bias[start:end])


def joined(*maps: Linear) -> Linear | None:
    """Maps of the same inputs whose weights follow each other in one tensor, as one map; `None` where they do not."""
    weights, biases = [each.weight for each in maps], [each.bias for each in maps if each.bias is not None]
    for one, other in pairwise(weights):
        same = one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() and one.stride() == other.stride()
        if not same or other.storage_offset() != one.storage_offset() + one.shape[0] * one.stride(0):
            return None
    if len(biases) not in (0, len(maps)):
        return None
    weight = weights[0].as_strided((sum(map(len, weights)), weights[0].shape[1]), weights[0].stride())
    return Linear(weight, torch.cat(biases) if biases else None)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Norm(Part):
    """LayerNorm, RMSNorm, or none at all; its scale is recomputed at every call."""

    kind: Literal["layer", "rms", "none"]
    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"] | None
    eps: float

    def __repr__(self) -> str:
        return f"<Norm {self.kind}, {self.gain.shape[0]} wide>"

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        if self.kind == "none":
            return (self.gain * x).to(x.dtype)
        if self.kind == "layer":
            bias, kind = self.bias, self.gain.dtype  # gains may be in single precision alone
            return F.layer_norm(
                x.to(kind), self.gain.shape, self.gain, None if bias is None else bias.to(kind), self.eps
            ).to(x.dtype)
        return (self.gain * (x.float() * self.scale(x))).to(x.dtype)

    def exactly(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """What the norm gives in float32, whatever its own number format is."""
        bias = None if self.bias is None else self.bias.float()
        return Norm(self.kind, self.gain.float(), bias, self.eps)(x.float())

    def centred(self, x: Tensor, dim: int = -1) -> Tensor:
        """What the norm leaves of the residual stream's dimension: LayerNorm takes the mean out."""
        return x - x.mean(dim, keepdim=True) if self.kind == "layer" else x

    def scale(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows 1"]:
        """What the norm multiplies centred inputs by, beside its gain, in float32."""
        if self.kind == "none":
            return torch.ones_like(x[..., :1], dtype=torch.float32)
        if self.kind == "layer":
            return torch.native_layer_norm(x.float(), self.gain.shape, None, None, self.eps)[2]
        return torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rotary(Part):
    """Rotary position embedding of the first `2 * len(inv_freq)` dimensions of queries and keys."""

    inv_freq: Float[Tensor, " half"]
    scaling: float = 1.0

    def __repr__(self) -> str:
        return f"<Rotary {2 * self.inv_freq.shape[0]} dimensions>"

    def turns(self, length: int, dtype: torch.dtype, start: int = 0) -> Turns:
        """Of `length` positions from `start` on."""
        positions = torch.arange(start, start + length, device=self.inv_freq.device)
        angles = positions.float()[:, None] * self.inv_freq.float()
        both = torch.cat((angles, angles), dim=-1)
        return Turns((both.cos() * self.scaling).to(dtype), (both.sin() * self.scaling).to(dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """Cosines and sines by which positions turn queries and keys; of width 0 where positions turn nothing."""

    cos: Float[Tensor, "*positions rot"]
    sin: Float[Tensor, "*positions rot"]

    def __getitem__(self, index: Any) -> Turns:
        return Turns(self.cos[index], self.sin[index])

    def __call__(self, x: Float[Tensor, "*rows d_head"]) -> Float[Tensor, "*rows d_head"]:
        """Queries or keys, turned; the positions broadcast against the rows."""
        width = self.cos.shape[-1]
        if not width:
            return x
        turned, rest = x[..., :width], x[..., width:]
        first, second = turned.chunk(2, dim=-1)
        turned = turned * self.cos + torch.cat((-second, first), dim=-1) * self.sin
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


@dataclass(frozen=True, slots=True, eq=False)
class Attention(Part):
    """The heads of one layer. Query head `h` reads key and value head `h // group` (grouped-query attention).

    Attributes:
        scale: of the products of queries and keys.
        q_norm, k_norm: through which each head's queries and keys go, or those of all heads together: then a head's are
            its share of what the norm gives.
        window: how many tokens back a head sees, its own included; `None` for all.
        softcap: what no score exceeds: scores `s` become `softcap * tanh(s / softcap)`.
        distances: what is added to scores for the distance, instead of turned queries and keys.
        clip: the most that a number of a query, key or value is, either way, before positions turn it.
        rotary: how positions turn queries and keys.
        post: the RMSNorm through which the sum of the heads goes into the residual stream (post-norm models).
    """

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
    softcap: float | None = None
    rotary: Rotary | None = None
    post: Norm | None = None
    clip: float | None = None
    distances: Distances | None = None

    @property
    def group(self) -> int:
        """Query heads to a key and value head."""
        return self.n_heads // self.n_kv_heads

    def project(self, port: Port, x: Float[Tensor, "*rows d"], turns: Turns) -> Float[Tensor, "*rows heads d_head"]:
        """Queries, keys or values of all heads from normed inputs; the positions broadcast to `[*rows]`."""
        return self.turned(port, getattr(self, port)(x).unflatten(-1, (-1, self.d_head)), turns)

    def turned(
        self, port: Port, unturned: Float[Tensor, "*rows heads d_head"], turns: Turns
    ) -> Float[Tensor, "*rows heads d_head"]:
        """Queries, keys or values of what `unturned` gives."""
        return self._positioned(port, self._normed(port, unturned), turns[..., None, :])

    def unturned(
        self, x: Float[Tensor, "*rows d"], of_queries: Float[Tensor, "*others d"] | None = None
    ) -> tuple[Float[Tensor, "*others heads d_head"], Float[Tensor, "*rows kv_heads d_head"], Tensor]:
        """Queries, keys and values of all heads before positions matter; `turned` takes each of them further.

        Args:
            of_queries: the inputs of the queries, where they are others.
        """
        whole = joined(self.q, self.k, self.v) if of_queries is None else None
        if whole is None:
            inputs = zip(PORTS, (x if of_queries is None else of_queries, x, x), strict=True)
            q, k, v = (getattr(self, port)(each).unflatten(-1, (-1, self.d_head)) for port, each in inputs)
        else:
            found = whole(x).unflatten(-1, (-1, self.d_head))
            q, k, v = found.split((self.n_heads, self.n_kv_heads, self.n_kv_heads), -2)
        return q, k, self._clipped(v)

    def project_head(
        self, port: Port, head: int, x: Float[Tensor, "*rows d"], turns: Turns
    ) -> Float[Tensor, "*rows d_head"]:
        """What query head `head` has as its query, key or value: only that head's `d_head` columns are computed."""
        index, every = head if port == "q" else head // self.group, getattr(self, port)
        if self.norms_all(port):
            normed = self._normed(port, every(x).unflatten(-1, (-1, self.d_head)))[..., index, :]
        else:
            normed = self._normed(port, every.outputs(index * self.d_head, (index + 1) * self.d_head)(x))
        return self._positioned(port, normed, turns)

    def _norm(self, port: Port) -> Norm | None:
        return {"q": self.q_norm, "k": self.k_norm}.get(port)

    def norms_all(self, port: Port) -> bool:
        """Whether a norm is of the queries or keys of all heads together."""
        norm = self._norm(port)
        return norm is not None and len(norm.gain) != self.d_head

    def _normed(self, port: Port, x: Float[Tensor, "*rows d_head"]) -> Float[Tensor, "*rows d_head"]:
        """Queries, keys or values behind their norm, those of all heads where that is a norm of all."""
        norm = self._norm(port)
        if norm is None:
            return x
        return norm(x.flatten(-2)).unflatten(-1, (-1, self.d_head)) if self.norms_all(port) else norm(x)

    def _positioned(self, port: Port, normed: Tensor, turns: Turns) -> Tensor:
        found = self._clipped(normed)
        return found if port == "v" else turns(found)

    def _clipped(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def alone(self, head: int) -> Attention:
        """The same for the scores of one query head: what is added for the distance differs between heads."""
        return self if self.distances is None else replace(self, distances=self.distances.of(head))

    def hidden(self, width: int, length: int, device: torch.device) -> Bool[Tensor, "W T"] | None:
        """What the last `width` of `length` positions do not see; `None` where they see everything."""
        windowed = self.window is not None and length > self.window
        if width == 1 and not windowed:
            return None
        return self.hidden_from(torch.arange(length - width, length, device=device), length)

    def hidden_from(self, at: Int[Tensor, "*runs W"], length: int) -> Bool[Tensor, "*runs W T"]:
        """What some positions do not see, of `length`."""
        every, own = torch.arange(length, device=at.device), at[..., None]
        return every > own if self.window is None else (every > own) | (every <= own - self.window)

    def pattern(
        self, products: Float[Tensor, "*runs W T"], hidden: Bool[Tensor, "*runs W T"] | None = None
    ) -> Float[Tensor, "*runs W T"]:
        """Where positions attend, in float32, given their queries' products with the keys.

        Where something is added for the distance, that is of one head (`alone`), or of all in axes 1 and 2 of the runs.

        Args:
            hidden: what each of them does not see; by default they are the last `W` of `T`.
        """
        scores = products.float() * self.scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if self.distances is not None:
            scores = scores + self.distances.beside(scores)
        if hidden is None:
            hidden = self.hidden(scores.shape[-2], scores.shape[-1], scores.device)
        return (scores if hidden is None else scores.masked_fill_(hidden, float("-inf"))).softmax(dim=-1)

    def written(
        self, z: Float[Tensor, "*rows heads d_head"], replaced: Callable[[Tensor], Tensor] = lambda z: z
    ) -> tuple[Float[Tensor, "*rows heads d_head"], Float[Tensor, "*rows d"]]:
        """What the heads write, as `z` that `out_head` maps onto their terms, and what the layer's heads add up to.

        A post-norm divides by the size of the whole sum. Each `z` contains that factor, which belongs to its own run.

        Args:
            z: the values that each head has gathered.
            replaced: exchanges what some heads write.
        """
        if self.post is None:
            z = replaced(z)
            return z, self.write(z)
        total = self.o(z.flatten(-2))
        scale = self.post.scale(total)
        z = (z.float() * scale[..., None]).to(z.dtype)
        other = replaced(z)
        if other is not z:
            return other, self.write(other)
        return z, self.post(total)

    def write(self, z: Float[Tensor, "*rows heads d_head"]) -> Float[Tensor, "*rows d"]:
        """The sum of the heads' terms, and the output bias `b_O`, which belongs to no node."""
        return self._gained(self.o(z.flatten(-2)))

    def out_head(self, head: int, z: Float[Tensor, "*rows d_head"]) -> Float[Tensor, "*rows d"]:
        """The term that a head writes: `z W_O`, times the post-norm's gain where there is one."""
        return self._gained(linear(z, self.o.weight[:, head * self.d_head : (head + 1) * self.d_head]))

    def _gained(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return x if self.post is None else (x * self.post.gain).to(x.dtype)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU with its normal distribution by a tanh."""
    return F.gelu(x, approximate="tanh")


@dataclass(frozen=True, slots=True, eq=False)
class Mlp(Part):
    """A plain or a gated MLP, as a function of the normed residual at one position; the output bias is included.

    Attributes:
        post: the RMSNorm through which the output goes into the residual stream (post-norm models).
    """

    up: Linear
    down: Linear
    act: Activation
    gate: Linear | None = None
    post: Norm | None = None

    @property
    def neurons(self) -> int:
        """How many have a number."""
        return self.up.weight.shape[0]

    @property
    def width(self) -> int:
        """Numbers inside at one position."""
        return self.up.weight.shape[0]

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return self.written(x)[0]

    def written(
        self, x: Float[Tensor, "*rows d"], neurons: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "*rows d"], tuple[Float[Tensor, "*rows"], ...]]:
        """The MLP's term, and the activations of some neurons, which `out_neuron` maps onto theirs.

        A post-norm divides by the size of the whole output. Each activation contains that factor.
        """
        out = self._out(x)
        single = ((self.up.outputs(i, i + 1), self.gate and self.gate.outputs(i, i + 1)) for i in neurons)
        active = tuple(self._hidden(x, *maps)[..., 0] for maps in single)
        if self.post is None:
            return out, active
        scale = self.post.scale(out)[..., 0]
        scaled = tuple((each.float() * scale).to(each.dtype) for each in active)
        return self.post(out), scaled

    def _out(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """The output, on a CPU some rows at a time."""
        flat, size = x.reshape(-1, x.shape[-1]), AT_ONCE // self.up.weight.shape[0]
        if x.device.type != "cpu" or len(flat) < 2 * size:
            return self.down(self._hidden(x, self.up, self.gate))
        parts = [self.down(self._hidden(some, self.up, self.gate)) for some in flat.split(max(1, size))]
        return torch.cat(parts).view(*x.shape[:-1], -1)

    def _hidden(self, x: Float[Tensor, "*rows d"], up: Linear, gate: Linear | None) -> Float[Tensor, "*rows d_mlp"]:
        if gate is not None:
            return self.act(gate(x)).mul_(up(x))
        if self.act is F.gelu or self.act is gelu_tanh:
            return linear_gelu(x, up.weight, up.bias, "none" if self.act is F.gelu else "tanh")
        return self.act(up(x))

    def along(self, norm: Norm, directions: Float[Tensor, "k d"]) -> Mlp:
        """The MLP as a function of `c norm.scale(c D)`, where the residual is `c D`: a sum of `k` directions.

        Products with `k` columns then take the place of those with `d`.
        """
        seen = norm.centred(directions) * norm.gain

        def reads(of: Linear) -> Linear:
            shift = None if norm.bias is None else linear(norm.bias, of.weight)
            biases = [each for each in (shift, of.bias) if each is not None]
            return Linear(linear(seen, of.weight).T, sum(biases[1:], biases[0]) if biases else None)

        return replace(self, up=reads(self.up), gate=self.gate and reads(self.gate))

    def out_neuron(self, index: int, activation: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows d"]:
        """The term that a neuron writes: its activation times its output weights."""
        weight = self.down.weight[:, index]
        return activation[..., None] * (weight if self.post is None else (weight * self.post.gain).to(weight.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Block(Part):
    """One layer: heads, then (or beside them, in parallel-attention models) the MLP."""

    attn_norm: Norm
    attn: Attention
    mlp_norm: Norm
    mlp: Mlp | Experts | Whole
    #: what was worked out from the weights (see `weights.component_factors`); a changed block works it out anew
    known: dict[str, Any] = field(init=False, default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the layer lies, which may be elsewhere than others (see `devices`)."""
        return self.attn.o.weight.device

    def entered(self, resid: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """The residual stream where the layer lies."""
        return resid.to(self.device)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Transformer(Part):
    """A decoder-only transformer, seen as terms of one residual stream.

    Attributes:
        name: as the user gave it.
        family: Hugging Face's `model_type`.
        parallel: the MLP reads what the heads of its layer read, and not what they write.
        n_ctx: the longest prompt, in tokens.
        embed_scale: what token embeddings are multiplied by.
        embed_norm: through which they go.
        softcap: what no logit exceeds, as for attention scores.
        b_U: added to the logits.
        sha256, config_sha256, tokenizer_sha256: of the files that it was read from.
        tokenizer: a Hugging Face tokenizer, or `None` for a model that has none.
        original: the model as its library runs it, on the same weights. What is measured is compared with it first;
            `None` for a model that the library does not have, such as one whose parts were exchanged.
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
    embed_scale: float = 1.0
    softcap: float | None = None
    b_U: Float[Tensor, " vocab"] | None = None
    embed_norm: Norm | None = None
    sha256: str = ""
    config_sha256: str = ""
    tokenizer_sha256: str = ""
    tokenizer: Any = None
    original: Original | None = None

    def __repr__(self) -> str:
        """One line: the fields are all of the weights."""
        shape = f"{self.n_layers} layers × {self.n_heads} heads, d_model {self.d_model}"
        where = f"{str(self.dtype).removeprefix('torch.')} on {self.device}"
        return f"<Transformer {self.name} ({self.family}): {shape}, {where}>"

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        return self.blocks[0].attn.n_heads

    @property
    def d_model(self) -> int:
        return self.W_E.shape[1]

    @property
    def d_head(self) -> int:
        return self.blocks[0].attn.d_head

    @property
    def d_mlp(self) -> int:
        """Neurons of an MLP; 0 where all layers are mixtures of experts."""
        return max(block.mlp.neurons for block in self.blocks)

    @property
    def n_vocab(self) -> int:
        return self.W_U.shape[0]

    @property
    def device(self) -> torch.device:
        """Where tokens go in."""
        return self.W_E.device

    def device_of(self, layer: int) -> torch.device:
        """Where a layer lies, or the embeddings (−1)."""
        return self.device if layer < 0 else self.blocks[layer].device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_E.dtype

    def embed(self, tokens: Int[Tensor, "n T"], start: int = 0) -> Float[Tensor, "n T d"]:
        """The term of the node `embed`: token embedding, scaled or normed, plus learned positions from `start` on."""
        resid = self.W_E[tokens]
        if self.embed_scale != 1.0:
            resid = resid * torch.tensor(self.embed_scale, dtype=self.dtype)  # rounded like the weights
        if self.embed_norm is not None:
            resid = self.embed_norm(resid)
        return resid if self.W_pos is None else resid + self.W_pos[start : start + tokens.shape[1]]

    def turns(self, length: int, start: int = 0) -> tuple[Turns, ...]:
        """How `length` positions from `start` on turn the queries and keys of each layer."""
        rotaries = [block.attn.rotary for block in self.blocks]
        nothing = torch.empty(length, 0, dtype=self.dtype, device=self.device)
        made = {r: Turns(nothing, nothing) if r is None else r.turns(length, self.dtype, start) for r in set(rotaries)}
        return tuple(made[rotary] for rotary in rotaries)

    def logits(self, resid: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows vocab"]:
        """Through the final norm and the unembedding."""
        return self.capped(linear(self.final_norm(resid), self.W_U, self.b_U))

    def logits_of(self, resid: Float[Tensor, "n m d"], tokens: Int[Tensor, "n k"]) -> Float[Tensor, "n m k"]:
        """The logits of some tokens, each prompt's own, in `m` runs of it.

        They are in float32: half precision has coarse steps at the size of logits, and metrics are small differences.
        """
        found = self.final_norm.exactly(resid) @ self.W_U[tokens].float().mT
        return self.capped(found if self.b_U is None else found + self.b_U[tokens].float().unsqueeze(1))

    def capped(self, logits: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Logits as the model gives them out."""
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def changed(part: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A part of a model, or all of it, with every tensor changed."""
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, tuple):
        return tuple(changed(inner, change) for inner in part)
    if isinstance(part, Part):
        whole: Any = part
        inside = {each.name: getattr(whole, each.name) for each in fields(whole) if each.init}
        return replace(whole, **{name: changed(value, change) for name, value in inside.items()})
    return part


def attend(
    attn: Attention,
    q: Float[Tensor, "n heads W d_head"],
    k: Float[Tensor, "n kv_heads T d_head"],
    v: Float[Tensor, "n kv_heads T d_head"],
    hidden: Bool[Tensor, "n W T"] | None = None,
) -> Float[Tensor, "n W heads d_head"]:
    """`z` of every head at `W` positions: causal attention, grouped keys and values.

    Args:
        hidden: what each position does not see; by default they are the last `W` of `T`.
    """
    group = q.shape[1] // k.shape[1]
    if attn.softcap is not None:
        products = q.unflatten(1, (-1, group)) @ k.unsqueeze(2).transpose(-1, -2)
        masked = None if hidden is None else hidden[:, None, None]
        z = (attn.pattern(products, masked).to(v.dtype) @ v.unsqueeze(2)).flatten(1, 2)
    else:
        width, length = q.shape[2], k.shape[2]
        plain = hidden is None and width == length and (attn.window is None or length <= attn.window)
        plain = plain and attn.distances is None
        own = hidden[:, None] if hidden is not None else None if plain else attn.hidden(width, length, q.device)
        seen = None if own is None else ~own
        if attn.distances is not None:
            seen = attn.distances.mask(k, own)
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=plain, scale=attn.scale, enable_gqa=group > 1
        )
    return z.transpose(1, 2)
