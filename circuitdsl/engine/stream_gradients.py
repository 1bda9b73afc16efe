"""How fast the metric grows with what stands in the residual stream, at every layer and token of the clean runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.engine.partial_runs import PartialRuns
from circuitdsl.models.parts import PORTS, attend


@dataclass(frozen=True, eq=False)
class Clean:
    """Some prompts of one length."""

    places: Int[Tensor, " n"]
    tokens: Int[Tensor, "n T"]

    def rows(self, part: tuple[int, int]) -> Clean:
        """Some of them."""
        return Clean(self.places[slice(*part)], self.tokens[slice(*part)])


@dataclass(eq=False)
class StreamGradients(PartialRuns[Clean]):
    """Clean runs with gradients.

    Attributes:
        layers: the streams that are asked for, as they enter these layers; after the last one it is the last stream.
    """

    layers: Sequence[int] = ()

    @cached_property
    def groups(self) -> list[Clean]:
        return [Clean(places, tokens.to(self.model.device)) for places, tokens, _ in self.by_length()]

    def found(self) -> Iterator[tuple[Int[Tensor, " n"], dict[int, Float[Tensor, "n T d"]]]]:
        """Places in `indices`, and the gradients of each prompt's own metric, by layer."""
        return ((some.places, gradients) for some, gradients in self.each(self._of, gradient=True))

    def _of(self, some: Clean) -> dict[int, Tensor]:
        model, length = self.model, some.tokens.shape[1]
        resid, every, streams = model.embed(some.tokens).requires_grad_(), model.turns(length), list[Tensor]()
        for layer, block in enumerate(model.blocks):
            streams.append(resid)
            x = block.attn_norm(resid)
            q, k, v = (block.attn.project(port, x, every[layer]).transpose(1, 2) for port in PORTS)
            mid = resid + block.attn.written(attend(block.attn, q, k, v), lambda z: z)[1]
            resid = mid + block.mlp(block.mlp_norm(resid if model.parallel else mid))
        streams.append(resid)
        score = self.score(resid[:, -1:], some.places).sum()
        wanted = sorted(set(self.layers))
        return dict(zip(wanted, torch.autograd.grad(score, [streams[layer] for layer in wanted]), strict=True))

    def numbers(self, layers: int) -> int:
        model = self.model
        inside = max(block.mlp.width for block in model.blocks)
        length = max(len(self.prompts.pairs[i].clean_tokens) for i in self.indices)
        return layers * (6 * model.d_model + 4 * inside + model.n_heads * (10 * model.d_head + 3 * length))
