"""A mixture of experts: MLPs of which each position has a few, chosen by what it reads (Shazeer et al. 2017).

To the rest of the package it is an MLP: a function of what one position reads, and one term of the residual stream.
Which experts a position has is part of that function, and changes with what is patched into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from circuitdsl.models.parts import Linear, Mlp, Norm, Part


class _Inseparable(Part):
    """An MLP whose neurons have no numbers: none of them is a part of what other positions have."""

    __slots__ = ()
    neurons = 0

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        raise NotImplementedError

    def written(
        self, x: Float[Tensor, "*rows d"], neurons: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "*rows d"], tuple[Float[Tensor, "*rows"], ...]]:
        """The term, and the activations of neurons, of which there are none (see `Mlp.written`)."""
        assert not neurons, "no experiment names a neuron of such an MLP (`experiment.check_node`)"
        return self(x), ()


@dataclass(frozen=True, slots=True, eq=False)
class Experts(_Inseparable):
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


@dataclass(frozen=True, slots=True, eq=False)
class Whole(_Inseparable):
    """An MLP as its library computes it, at one position as at any other.

    Attributes:
        module: the library's; what it is made of is not looked into.
        names, tensors: of its numbers, which take the place of those that it holds itself.
        active: the share of them that one position uses, about.
        post: the norm through which the output goes into the residual stream.
    """

    module: Any
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    active: float
    post: Norm | None = None

    @property
    def products(self) -> int:
        """Multiplications at one position, about."""
        return int(self.active * sum(each.numel() for each in self.tensors))

    @property
    def width(self) -> int:
        """Numbers inside at one position, about: every matrix has one side that is the residual stream's."""
        return int(self.active * sum(each.numel() // min(each.shape[-2:]) for each in self.tensors if each.ndim > 1))

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        numbers, rows = dict(zip(self.names, self.tensors, strict=True)), x.reshape(1, -1, x.shape[-1])
        own = dict((*self.module.named_parameters(), *self.module.named_buffers()))
        same = all(own[name].data_ptr() == each.data_ptr() for name, each in numbers.items())
        # `functional_call` writes to the module, which other threads are calling
        found = self.module(rows) if same else functional_call(self.module, numbers, (rows,))
        out = (found[0] if isinstance(found, tuple) else found).view(x.shape)
        return out if self.post is None else self.post(out)
