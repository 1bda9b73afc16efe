"""A mixture of experts: MLPs of which each position has a few, chosen by what it reads (Shazeer et al. 2017).

To the rest of the package it is an MLP: a function of what one position reads, and one term of the residual stream.
Which experts a position has is part of that function, and changes with what is patched into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.models.parts import Linear, Mlp, Part


@dataclass(frozen=True, slots=True, eq=False)
class Experts(Part):
    """The experts of a layer, as a function of the normed residual at one position.

    Attributes:
        router: from what is read to a number for each expert, whose softmax is what it counts for.
        chosen: how many experts a position has: those that count for most.
        to_one: what the chosen count for is divided by its sum.
    """

    router: Linear
    experts: tuple[Mlp, ...]
    chosen: int
    to_one: bool

    @property
    def neurons(self) -> int:
        """None has a number: a neuron of an expert is no part of what other positions have."""
        return 0

    @property
    def width(self) -> int:
        """Numbers inside at one position."""
        return self.chosen * self.experts[0].width

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        flat = x.reshape(-1, x.shape[-1])
        counts, which = self.router(flat).float().softmax(-1).topk(self.chosen)
        if self.to_one:
            counts = counts / counts.sum(-1, keepdim=True)
        order = which.flatten().argsort(stable=True)
        rows, counts = order // self.chosen, counts.to(x.dtype).flatten()[order, None]
        sizes = torch.bincount(which.flatten(), minlength=len(self.experts)).tolist()
        out = torch.zeros_like(flat)
        for expert, own, share in zip(self.experts, rows.split(sizes), counts.split(sizes), strict=True):
            if len(own):
                out.index_add_(0, own, expert(flat[own]) * share)
        return out.view(x.shape)

    def written(
        self, x: Float[Tensor, "*rows d"], neurons: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "*rows d"], tuple[Float[Tensor, "*rows"], ...]]:
        """The term, and the activations of neurons, of which there are none (see `Mlp.written`)."""
        assert not neurons, "no experiment names a neuron of a mixture of experts (`experiment.check_node`)"
        return self(x), ()
