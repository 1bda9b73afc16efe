"""ALiBi: attention scores fall with the distance, in each head at another rate (Press et al. 2022).

A softmax does not change where all scores of a row change alike. So what is added depends on where the key stands
alone: the slope of the head times its position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdsl.models.parts import Part


def slopes(heads: int) -> tuple[float, ...]:
    """Those of ALiBi: a geometric sequence for a power of two, with every other term of the next one for more heads."""
    whole = 2 ** math.floor(math.log2(heads))
    found = [2 ** (-8 * i / whole) for i in range(1, whole + 1)]
    between = [2 ** (-4 * i / whole) for i in range(1, 2 * whole + 1, 2)]
    return tuple((found + between)[:heads])


@dataclass(frozen=True, slots=True)
class Distances(Part):
    """What is added to the scores of a layer's heads, or of one of them.

    Attributes:
        slopes: of each head.
        rounded: slopes, and slopes times positions, are those of bfloat16, as Falcon was trained with.
        scale: of all of it.
    """

    slopes: tuple[float, ...]
    rounded: bool = False
    scale: float = 1.0

    def of(self, head: int) -> Distances:
        return replace(self, slopes=self.slopes[head : head + 1])

    def beside(self, scores: Float[Tensor, "*runs W T"]) -> Float[Tensor, "*#runs #W T"]:
        """The same, to be added to scores: of one head, or of all, which stand in axes 1 and 2."""
        found = added(self, scores.shape[-1], scores.device)
        if len(found) == 1:
            return found[0]
        return found.view(*scores.shape[1:3], *[1] * (scores.ndim - 4), -1)

    def mask(self, keys: Tensor, hidden: Bool[Tensor, "*#n W T"] | None) -> Float[Tensor, "*n heads W T"]:
        """The same for keys `[n, kv_heads, T, d_head]`, and minus infinity where something is hidden."""
        found = added(self, keys.shape[2], keys.device)[:, None]
        return (found if hidden is None else torch.where(hidden, float("-inf"), found)).to(keys.dtype)


@lru_cache(maxsize=64)
def added(distances: Distances, length: int, device: torch.device) -> Float[Tensor, "heads T"]:
    """What is added to the score of each key."""
    # made there: a GPU is waited for where numbers are copied to it
    each = torch.cat([torch.full((1, 1), slope, device=device) for slope in distances.slopes])
    if distances.rounded:
        return (each.bfloat16() * torch.arange(length, device=device)).float() * distances.scale
    return each * torch.arange(1 - length, 1, device=device) * distances.scale  # exact where most attention is
