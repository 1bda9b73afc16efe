"""A dictionary, or some of its features, in memory: the encoder and the decoder, as SAELens 6 computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.dictionaries.record import Dictionary, Encoding, Held

#: by which SAELens keeps a division from one by 0
_EPS = 1e-5
#: rows of a decoder whose lengths are taken together
_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Coder:
    """Some features of a dictionary, in the order in which they were asked for.

    Attributes:
        lengths: of the decoder's rows, where activations are multiplied by them.
        transcoder: what is written is not what is read, and its size is not that of the input.
        chosen: where the encoder has more features than these, the places of these among them.
        d: what a feature of activation 1 writes; of a cross-layer transcoder, into each of the layers.
    """

    encoding: Encoding
    W_enc: Float[Tensor, "all d_in"]
    d: Float[Tensor, "m *writes d_out"]
    b_dec: Float[Tensor, " d_out"]
    b_enc: Float[Tensor, " all"] | None = None
    threshold: Float[Tensor, " all"] | None = None
    b_gate: Float[Tensor, " all"] | None = None
    b_mag: Float[Tensor, " all"] | None = None
    r_mag: Float[Tensor, " all"] | None = None
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    lengths: Float[Tensor, " all"] | None = None
    transcoder: bool = False
    chosen: tuple[int, ...] | None = None

    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows m"]:
        """The activations of the features."""
        kind = self.encoding.activation
        x = self.normed(x)[0]
        if self.encoding.subtracts:
            x = x - self.b_dec
        before = x @ self.W_enc.T
        if kind == "gated":
            assert self.b_gate is not None and self.b_mag is not None and self.r_mag is not None
            open_ones = before + self.b_gate > 0
            return self._of_chosen(open_ones * (before * self.r_mag.exp() + self.b_mag).relu())
        assert self.b_enc is not None
        before = before + self.b_enc
        if self.lengths is not None:
            before = before * self.lengths
        active = before if self.encoding.signed else before.relu()
        if kind == "jumprelu":
            assert self.threshold is not None
            active = active * (before > self.threshold)
        if kind == "topk":
            places = before.topk(self.encoding.k, dim=-1, sorted=False).indices
            active = torch.zeros_like(active).scatter(-1, places, active.gather(-1, places))
        return self._of_chosen(active)

    def added(self, f: Float[Tensor, "*rows m"], x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """What the features write together, and nothing else; `x` is what they were encoded from.

        A cross-layer transcoder's features write into the first of their layers here.
        """
        made = f @ (self.d if self.d.ndim == 2 else self.d[:, 0])
        return made if self.transcoder else made * self.normed(x)[1]

    def decode(self, f: Float[Tensor, "*rows m"], x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """What the features write together, with what belongs to none of them: `b_dec`, and what skips the features.

        Args:
            x: what they were encoded from.
        """
        rest = self.b_dec if self.W_skip is None else self.b_dec + x @ self.W_skip.T
        if self.transcoder:
            return self.added(f, x) + rest
        _, size, shift = self.normed(x)
        return self.added(f, x) + rest * size + shift

    def normed(
        self, x: Float[Tensor, "*rows d_in"]
    ) -> tuple[Float[Tensor, "*rows d_in"], Float[Tensor, "*rows _"], Float[Tensor, "*rows _"]]:
        """The input as the encoder reads it; by what to multiply what it writes, and what to add to it."""
        one, none = x.new_ones(1), x.new_zeros(1)
        if self.encoding.norm == "constant":
            size = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
            return x / size, size, none
        if self.encoding.norm == "layer":
            mean = x.mean(-1, keepdim=True)
            deviation = (x - mean).std(-1, keepdim=True)
            return (x - mean) / (deviation + _EPS), deviation, mean
        return x, one, none

    def _of_chosen(self, f: Float[Tensor, "*rows all"]) -> Float[Tensor, "*rows m"]:
        return f if self.chosen is None else f[..., list(self.chosen)]


def load(found: Dictionary, features: Sequence[int] | None = None, device: str | torch.device = "cpu") -> Coder:
    """Read a dictionary into memory, in single precision.

    Args:
        features: those that are needed; rows of others are not read, but for those of the encoder where what is kept
            depends on all of them (`topk`).

    Raises:
        DictionaryError: there is no such feature, a tensor cannot be read, or it is not finite.
    """
    for index in features or ():
        found.check_feature(index)
    some = features if features is None or isinstance(features, range) else list(features)
    encoding = found.encoding
    depends = encoding.activation == "topk" and some is not None
    of_encoder = None if depends else some

    def needed(name: str, rows: Sequence[int] | None) -> Tensor:
        held, place = found.tensors[name], torch.device(device)
        return _whole(held, place) if depends and rows is None else held.read(rows).to(place)

    def tensor(name: str, rows: Sequence[int] | None) -> Tensor | None:
        return needed(name, rows) if name in found.tensors else None

    d, lengths = needed("W_dec", some), None
    if encoding.rescaled:
        lengths = row_lengths(found.tensors["W_dec"], of_encoder, found.d_sae).to(device)
        d = d / d.norm(dim=-1, keepdim=True)
    biases = {name: tensor(name, of_encoder) for name in ("b_enc", "threshold", "b_gate", "b_mag", "r_mag")}
    return Coder(
        encoding,
        needed("W_enc", of_encoder),
        d,
        needed("b_dec", None),
        **biases,
        W_skip=tensor("W_skip", None),
        lengths=lengths,
        transcoder=found.is_transcoder,
        chosen=tuple(some) if depends and some is not None else None,
    )


@lru_cache(maxsize=16)
def _whole(held: Held, device: torch.device) -> Tensor:
    """What every set of features of one encoder needs: it is held once for all of them."""
    return held.read().to(device)


def row_lengths(held: Held, rows: Sequence[int] | None, many: int) -> Float[Tensor, " rows"]:
    """The lengths of a decoder's rows, a few thousand of which are in memory at a time."""
    if rows is not None:
        return held.read(rows).norm(dim=-1)
    return _every_length(held, many)


@lru_cache(maxsize=4)
def _every_length(held: Held, many: int) -> Float[Tensor, " many"]:
    return torch.cat([held.read(range(i, min(i + _ROWS, many))).norm(dim=-1) for i in range(0, many, _ROWS)])
