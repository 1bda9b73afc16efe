"""Composition scores: how strongly one head writes what another reads, from weights alone (semantics: channels).

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits") measure the composition of sender A with a
receiver input M as `‖W_OV(A) M‖ / (‖W_OV(A)‖ ‖M‖)`, Frobenius norms; Merullo et al. 2024 (arXiv:2406.09519) put one
singular component of A in the place of W_OV. With `M = L R` of rank d_head and `R^T = Q C`, `‖X M‖ = ‖X L C^T‖` for any
X: no matrix of d_model × d_model is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.errors import UserError
from circuitdsl.models.weights import AttentionWeights, Components

#: chance is the share of all upstream senders below it
CHANCE = 0.95
#: no share of 5 % can be told among fewer senders than these
FEWEST = 20


class NotComposed(UserError):
    """A composition that weights alone do not have."""


@dataclass(frozen=True, slots=True, eq=False)
class Compositions:
    """The composition of everything upstream with one receiver input.

    Attributes:
        heads: of whole heads [layers, heads].
        components: of their singular components [layers, heads, d_head]; NaN for those that are noise.
    """

    receiver: Input
    heads: NDArray[np.float64]
    components: NDArray[np.float64]

    def population(self, sender: Node) -> NDArray[np.float64]:
        """What a sender is compared with, itself among them: all heads, or all components that are not noise."""
        found = self.heads if sender.index < 0 else self.components
        return found[np.isfinite(found)]

    def senders(self, components: bool) -> list[Node]:
        """All upstream heads, or all of their components that are not noise."""
        if not components:
            return [Node("head", layer, head) for layer, head in np.ndindex(self.heads.shape)]
        return [Node("head", *map(int, place)) for place in np.argwhere(np.isfinite(self.components))]

    def standing(self, sender: Node) -> Standing:
        """Where a sender stands among all upstream.

        Raises:
            NotComposed: the component does not exist, or is noise.
        """
        score = self.heads[sender.layer, sender.head] if sender.index < 0 else self._component(sender)
        everything = self.population(sender)
        spread = float(everything.std())
        return Standing(
            composition=float(score),
            rank=1 + int(np.count_nonzero(everything > score)),
            of=len(everything),
            z=float((score - everything.mean()) / spread) if spread > 0 else 0.0,
            chance=float(np.quantile(everything, CHANCE)) if len(everything) >= FEWEST else None,
        )

    def _component(self, sender: Node) -> float:
        found = self.components[sender.layer, sender.head]
        if sender.index >= len(found):
            head = Node("head", sender.layer, sender.head)
            raise NotComposed(f"{sender} does not exist: {head} has components 0 to {len(found) - 1}")
        if not np.isfinite(found[sender.index]):
            raise NotComposed(
                f"the singular value of {sender} is under 1 % of its head's largest: it writes next to nothing"
            )
        return float(found[sender.index])


@dataclass(frozen=True, slots=True)
class Standing:
    """A composition score among those of all upstream heads, or of all components of all upstream heads.

    `rank` is 1 plus the number of larger ones; `z` is in standard deviations from their mean; `chance` is their 95th
    percentile, None where there are too few for one.
    """

    composition: float
    rank: int
    of: int
    z: float
    chance: float | None


def compositions(weights: AttentionWeights, receiver: Input) -> Compositions:
    """The composition of every upstream head, and of each of its components, with a receiver input.

    Raises:
        NotComposed: queries and keys turn with the position, or nothing is upstream.
    """
    node, port = receiver.node, receiver.port
    if weights.rotary and port in ("q", "k"):
        raise NotComposed(
            f"{weights.name} turns queries and keys with the position (rotary), so that the {port} composition "
            "depends on the distance between sender and reader",
            "channels into .v have no such trouble",
        )
    if node.layer == 0:
        raise NotComposed(f"nothing is upstream of {node}")
    reads = reading(weights, receiver)
    layers = [weights.components(layer) for layer in range(node.layer)]
    found = [_scores(components, reads) for components in layers]
    return Compositions(receiver, np.stack([heads for heads, _ in found]), np.stack([parts for _, parts in found]))


def reading(weights: AttentionWeights, receiver: Input) -> Float[Tensor, "d d_head"]:
    """`L C^T` of a receiver input `M = L R`, `R^T = Q C`: what it reads, up to a rotation of what comes out."""
    factors, head = weights.factors(receiver.node.layer), receiver.node.head
    match receiver.port:
        case "q":
            left, right = factors.W_Q[head], factors.W_K[head]
        case "k":
            left, right = factors.W_K[head], factors.W_Q[head]
        case _:
            left, right = factors.W_V[head], factors.W_O[head].T
    return (left @ torch.linalg.qr(right)[1].T).float()


def _scores(components: Components, reads: Float[Tensor, "d k"]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the heads of one layer [heads], and of their components [heads, d_head]."""
    whole = reads.norm().double()
    if not bool(whole > 0):
        raise NotComposed("the receiver reads nothing: its weights are zero")
    each = (components.writes @ reads).norm(dim=-1).double() / whole
    values = components.values.double()
    size = values.norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
    heads = (each * values).norm(dim=-1) / size
    return heads.cpu().numpy(), each.masked_fill(~components.kept, torch.nan).cpu().numpy()
