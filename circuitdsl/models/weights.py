"""The attention weights of a model, straight from its safetensors: no model is built and nothing is run.

What channels and traces read: per layer the norm before the heads and the heads themselves, as in `parts`. Here, and
only here, weights are folded: the norm's gain goes into W_Q, W_K and W_V, and what heads write is centred under
LayerNorm, which takes the mean out of whatever it reads (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"; `fold_ln` and `center_writing_weights` of TransformerLens).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.models.errors import BrokenWeights, UnsupportedModel
from circuitdsl.models.families import BRIDGED, FAMILIES, Family, refuse, rotary_by_layer
from circuitdsl.models.files import ModelFiles, files_of
from circuitdsl.models.load import load_model, locate, rotary_of
from circuitdsl.models.parts import PORTS, Attention, Block, Norm, Port, Rotary, Transformer, Turns
from circuitdsl.models.pretrained import (
    configuration,
    refuse_more_layers,
    refuse_whole_numbers,
    shapes_alone,
    stored_tensors,
)

#: what Hugging Face's files leave out where they hold the model without its unembedding, as the one of `gpt2` does
PREFIXES = ("transformer.", "gpt_neox.", "model.")
#: singular components under this share of the head's largest are noise of its null space (semantics: channels)
NEGLIGIBLE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The heads of one layer, gain folded in and writes centred, in double precision; grouped keys are repeated.

    So is the gain of a norm that queries and keys go through, whose scale belongs to each run.

    A head's W_QK is `W_Q W_K^T`, its W_OV is `W_V W_O`, for row vectors: `x W_OV` is what it writes for input `x`.
    """

    W_Q: Float[Tensor, "heads d d_head"]
    W_K: Float[Tensor, "heads d d_head"]
    W_V: Float[Tensor, "heads d d_head"]
    W_O: Float[Tensor, "heads d_head d"]
    b_Q: Float[Tensor, "heads d_head"]
    b_K: Float[Tensor, "heads d_head"]
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """The singular value decomposition of every W_OV of one layer: `W_OV = reads^T diag(values) writes`.

    Component `i` of head `h` writes along `writes[h, i]` what it reads along `reads[h, i]`; values fall.
    """

    values: Float[Tensor, "heads d_head"]
    reads: Float[Tensor, "heads d_head d"]
    writes: Float[Tensor, "heads d_head d"]

    @property
    def kept(self) -> Tensor:
        """Which components are more than noise [heads, d_head]."""
        return (self.values > 0) & (self.values >= NEGLIGIBLE * self.values[:, :1])


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """The attention of a whole model.

    Attributes:
        layers: of every layer, the norm that its heads read through, and the heads.
        rotary: positions turn queries and keys, so that W_QK depends on the distance.
        turning: gives how they are turned in each layer.
        sha256, config_sha256: of the files that they were read from.
        dtype: as stored, for the report.
    """

    name: str
    family: str
    layers: tuple[tuple[Norm, Attention], ...]
    rotary: bool
    turning: Callable[[], Sequence[Rotary | None]]
    sha256: str = ""
    config_sha256: str = ""
    dtype: str = "float32"
    _components: dict[int, Components] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        return self.layers[0][1].n_heads

    def factors(self, layer: int) -> Factors:
        """The folded matrices of one layer; made anew at every call, for all layers together need much memory."""
        return fold(*self.layers[layer])

    def turned(self, layer: int, distance: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Maps to queries [..., d_head], and to keys, such that `q kᵀ` is what it is at a distance.

        A query at position i and a key at j are turned by R(i) and R(j), and `R(i)ᵀ R(j)` depends on i − j alone: the
        query stands here at the distance, and the key at 0.
        """
        if (rotary := self.turning()[layer]) is None:
            return q, k
        at = [rotary.turns(1, torch.float64, start)[0] for start in (distance, 0)]
        turned = [Turns(turns.cos.to(x), turns.sin.to(x))(x) for turns, x in zip(at, (q, k), strict=True)]
        return turned[0], turned[1]

    def components(self, layer: int) -> Components:
        """The singular components of one layer's heads, kept in single precision once they are known."""
        if layer not in self._components:
            self._components[layer] = decompose(self.factors(layer))
        return self._components[layer]


def fold(norm: Norm, attn: Attention) -> Factors:
    """The heads as they read and write the residual stream, but for the norms' scales.

    The norm's bias goes with the gain into the biases of queries and keys. The gain of a post-norm goes into W_O.
    """

    def by_head(stored: Float[Tensor, "out ..."]) -> Float[Tensor, "heads d_head ..."]:
        found = stored.double().unflatten(0, (-1, attn.d_head))
        return found.repeat_interleave(attn.n_heads // found.shape[0], 0)

    def bias(port: Port) -> Float[Tensor, "heads d_head"]:
        own, weight = getattr(attn, port).bias, weights[port]
        found = weight.new_zeros(weight.shape[:2]) if own is None else by_head(own)
        return found if norm.bias is None else found + weight @ norm.bias.double()

    def through(inner: Norm | None, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        if inner is None:
            return weight, bias
        gain = by_head(inner.gain) if inner.gain.numel() > attn.d_head else inner.gain.double()[None]
        return inner.centred(weight) * gain[:, None], inner.centred(bias) * gain

    weights = {port: by_head(getattr(attn, port).weight) for port in PORTS}
    reads = {port: (weight * norm.gain.double()).transpose(1, 2) for port, weight in weights.items()}
    out = attn.o.weight.double().T.unflatten(0, (attn.n_heads, attn.d_head))
    if attn.post is not None:
        out = out * attn.post.gain.double()
    w_q, b_q = through(attn.q_norm, reads["q"], bias("q"))
    w_k, b_k = through(attn.k_norm, reads["k"], bias("k"))
    return Factors(w_q, w_k, reads["v"], norm.centred(out), b_q, b_k, attn.scale)


def decompose(factors: Factors) -> Components:
    """The singular value decomposition of every W_OV, from factors of d_model × d_head.

    With `W_V = Q R` and `W_O^T = Q' R'`, that of the small `R R'^T` gives it.
    """
    q_in, r_in = torch.linalg.qr(factors.W_V)
    q_out, r_out = torch.linalg.qr(factors.W_O.transpose(1, 2))
    u, values, vh = torch.linalg.svd(r_in @ r_out.transpose(1, 2))
    reads = (q_in @ u).transpose(1, 2)
    writes = vh @ q_out.transpose(1, 2)
    return Components(values.float(), reads.float(), writes.float())


def component_factors(
    W_V: Float[Tensor, "*heads d d_head"], W_O: Float[Tensor, "*heads d_head d"]
) -> tuple[Float[Tensor, "*heads d_head d_head"], Float[Tensor, "*heads d_head d_head"]]:
    """`W_O v` and `W_O^+ v` of every singular component of heads, which writes along its `v`.

    `W_V` has the norm's gain folded in and `W_O` is centred, as `fold` gives them. `v` lies in the row space of this
    `W_O`, so that the outer product of the two, `P = W_O v (W_O^+ v)^T` with the pseudo-inverse, picks one singular
    component of a head's output out of its `z`: `z P W_O = z W_O v v^T`.
    """
    _, r = torch.linalg.qr(W_V)
    _, _, vh = torch.linalg.svd(r @ W_O, full_matrices=False)
    return vh @ W_O.mT, vh @ torch.linalg.pinv(W_O)


def component_of(
    block: Block, head: int, index: int, z: Float[Tensor, "*rows d_head"]
) -> Float[Tensor, "*rows d_head"]:
    """The part of a head's `z` that writes one singular component of its output: `z P`."""
    if "components" not in block.known:
        folded = fold(block.attn_norm, block.attn)
        found = component_factors(folded.W_V, folded.W_O)
        block.known["components"] = tuple(each.to(block.attn.o.weight) for each in found)
    reads, writes = block.known["components"]
    return (z @ reads[head, index])[..., None] * writes[head, index]


def weights_of(model: Transformer) -> AttentionWeights:
    layers = tuple((block.attn_norm, block.attn) for block in model.blocks)
    turning, dtype = [attn.rotary for _, attn in layers], str(model.dtype).removeprefix("torch.")
    rotary = any(each is not None for each in turning)
    return AttentionWeights(
        model.name, model.family, layers, rotary, lambda: turning, model.sha256, model.config_sha256, dtype
    )


def read_weights(name_or_dir: str | Path, revision: str | None = None) -> AttentionWeights:
    """Read the attention weights of a model from its files; other tensors may be missing.

    Raises:
        ModelUnavailable: there are no such files, or they cannot be read.
        UnsupportedModel: the family is not known.
        BrokenWeights: attention weights are missing, of the wrong shape, or not finite; the message names them.
    """
    files = files_of(locate(name_or_dir, revision))
    refuse(str(name_or_dir), files.config.get("model_type"))
    if files.config.get("model_type") in BRIDGED:
        return weights_of(load_model(name_or_dir, "cpu", revision=revision))
    return files.unchanged(partial(_read, str(name_or_dir), files))


def _read(name: str, files: ModelFiles) -> AttentionWeights:
    directory, config = files.directory, configuration(files)
    family = FAMILIES[config.model_type]
    tensors = _Tensors(files)
    refuse_more_layers(directory, sorted(tensors), config)
    layers = tuple(_layer(directory, family, config, tensors, layer) for layer in range(config.num_hidden_layers))
    if not layers:
        raise UnsupportedModel(f"{name} has no layers (see its config.json)")
    rotary = family.rotary(config)
    dtype = str(tensors.dtype).removeprefix("torch.")
    known = files.hashes
    own = [attn.rotary for _, attn in layers]
    turning = cache(partial(_turning, name, config, own)) if rotary else lambda: own
    return AttentionWeights(
        name, config.model_type, layers, rotary, turning, known["sha256"], known["config_sha256"], dtype
    )


def _turning(name: str, config: Any, known: Sequence[Rotary | None]) -> Sequence[Rotary | None]:
    """How positions turn queries and keys in each layer, as transformers reads it from the configuration."""
    modules = shapes_alone(config, torch.float32).modules()
    turning = [each for each in modules if any("inv_freq" in key for key, _ in each.named_buffers(recurse=False))]
    anew = torch.nn.ModuleList([type(each)(config) for each in turning])  # with numbers, which the shapes lack
    found = rotary_by_layer(name, config, rotary_of(anew))
    return [own or other for own, other in zip(known, found, strict=True)]


def _layer(directory: Path, family: Family, config: Any, tensors: _Tensors, layer: int) -> tuple[Norm, Attention]:
    """A layer, once the rows and columns of every matrix are those that the configuration gives."""
    try:
        norm, attn = family.heads(config, tensors, layer)
    except KeyError as error:
        raise BrokenWeights(
            f"the weights in {directory} lack {error.args[0]}, which channels are computed from",
            "point --model at a directory whose safetensors hold every layer's attention and its norm",
        ) from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BrokenWeights(f"layer {layer} in {directory} has not the shape that config.json gives: {error}") from None
    d, inner, grouped = norm.gain.shape[0], attn.n_heads * attn.d_head, attn.n_kv_heads * attn.d_head
    wanted = {"q": (inner, d), "k": (grouped, d), "v": (grouped, d), "o": (d, inner)}
    for port, shape in wanted.items():
        linear = getattr(attn, port)
        if tuple(linear.weight.shape) != shape:
            has = " × ".join(map(str, linear.weight.shape))
            wants = f"config.json makes it {shape[0]} × {shape[1]}"
            raise BrokenWeights(f"W_{port.upper()} of layer {layer} in {directory} is {has}; {wants}")
        for tensor in (linear.weight, linear.bias, norm.gain, norm.bias):
            if tensor is not None and not bool(tensor.isfinite().all()):
                raise BrokenWeights(f"the attention of layer {layer} in {directory} holds NaN or infinity")
    return norm, attn


class _Tensors(Mapping[str, Tensor]):
    """The tensors of a model's files, each read when it is asked for, in single precision."""

    def __init__(self, files: ModelFiles) -> None:
        self.directory, self.stored = files.directory, stored_tensors(files)
        self.dtype = torch.float32

    def __getitem__(self, name: str) -> Tensor:
        stored = self._stored(name)
        if stored is None:
            raise KeyError(name)
        refuse_whole_numbers(self.directory, stored, self.stored[stored])
        found = self.stored[stored][...]
        self.dtype = found.dtype
        return found.float()

    def __contains__(self, name: object) -> bool:
        return self._stored(str(name)) is not None

    def _stored(self, name: str) -> str | None:
        """The name in the files: as it is, or without the prefix of the model's body."""
        short = next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name)
        return next((each for each in (name, short) if each in self.stored), None)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)
