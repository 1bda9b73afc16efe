"""Runs in which each head and MLP at each place is kept, left out, or kept in part; and their gradients.

What a node writes at a token is

    mean + w (now - mean)

where `mean` is what mean ablation puts there, and `w` the share to which the node is kept at that token. With shares of
0 and 1 it is the run of a circuit of nodes alone, as in `circuit_alone.py`. A gradient by all shares costs two runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import Node, Position, Site
from circuitdsl.engine.partial_runs import PartialRuns, copied
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.terms import Terms
from circuitdsl.models.parts import PORTS, Transformer, attend
from circuitdsl.tasks.dataset import PromptPair

Array = np.ndarray
#: of a site that is kept in every run
ALWAYS = -1


@dataclass(frozen=True, eq=False)
class Standing:
    """Some prompts of one length.

    Attributes:
        where: which tokens each place stands for.
        means: what mean ablation puts in, for each stratum, with the stratum of each prompt.
    """

    places: Int[Tensor, " n"]
    tokens: Int[Tensor, "n T"]
    where: Float[Tensor, "places n T"]
    means: Terms
    stratum: Int[Tensor, " n"]

    def rows(self, part: tuple[int, int]) -> Standing:
        here = slice(*part)
        return Standing(self.places[here], self.tokens[here], self.where[:, here], self.means, self.stratum[here])

    def mean(self, node: Node) -> Tensor:
        """What mean ablation puts in the place of a node."""
        return self.means.value(node)[self.stratum]


@dataclass(eq=False)
class SiteRuns(PartialRuns[Standing]):
    """Prompts on which circuits of nodes at places are run.

    Attributes:
        sites: heads and MLPs that may be kept, each at a place; all others are left out.
        units: for each site the part that it belongs to, from 0; sites of one part are kept together.
        means: for a length of prompts, the mean terms of its strata, and every prompt's stratum.
    """

    sites: Sequence[Site] = ()
    units: Int[Array, " sites"] = field(default_factory=lambda: np.zeros(0, int))
    means: Callable[[int], tuple[Terms, Array]] = field(kw_only=True)

    @property
    def many(self) -> int:
        return int(self.units.max(initial=ALWAYS)) + 1

    @cached_property
    def positions(self) -> dict[Position, int]:
        """The places of the sites, numbered."""
        return {place: i for i, place in enumerate(dict.fromkeys(site.position for site in self.sites))}

    @cached_property
    def groups(self) -> list[Standing]:
        with torch.inference_mode(False):  # to where gradients can be taken
            return [self._standing(*some) for some in self.by_length()]

    def _standing(self, places: Int[Tensor, " n"], tokens: Int[Tensor, "n T"], pairs: Sequence[PromptPair]) -> Standing:
        device, where = self.model.device, np.zeros((len(self.positions), *tokens.shape), np.float32)
        for number, place in enumerate(self.positions):
            for row, pair in enumerate(pairs):
                where[number, row, list(indices_of(pair, place))] = 1
        means, stratum = self.means(tokens.shape[1])
        return Standing(
            places,
            tokens.to(device),
            torch.as_tensor(where).to(device, self.model.dtype),
            copied(means),
            torch.as_tensor(stratum[self.indices[places.numpy()]]).to(device),
        )

    @cached_property
    def _flat(self) -> Int[Array, " sites"]:
        """Where each site stands among all `[layers, heads + 1, places]`; MLPs come after the heads of their layer."""
        heads, places = self.model.n_heads, len(self.positions)
        slots = (heads if site.node.kind == "mlp" else site.node.head for site in self.sites)
        numbers = [
            (site.node.layer * (heads + 1) + slot) * places + self.positions[site.position]
            for site, slot in zip(self.sites, slots, strict=True)
        ]
        return np.asarray(numbers, int)

    def with_part(self, kept: Bool[Array, " units"], share: float, gradient: bool) -> tuple[Array, Array | None]:
        model, shape = self.model, (self.model.n_layers, self.model.n_heads + 1, len(self.positions))
        shares = np.zeros(shape, np.float32)
        shares.flat[self._flat] = np.append(share * kept, 1.0)[self.units]  # the last is ALWAYS

        def work(some: Standing) -> tuple[Tensor, Tensor | None]:
            weights = torch.tensor(shares, device=model.device, dtype=model.dtype, requires_grad=gradient)
            return self.scored(end(model, some, weights), some.places, weights if gradient else None)

        found, total = self.summed(work, gradient)
        if total is None:
            return found, None
        by_unit, own = np.zeros(self.many), self.units != ALWAYS
        np.add.at(by_unit, self.units[own], total.flat[self._flat[own]])
        return found, by_unit

    def numbers(self, layers: int) -> int:
        model = self.model
        inside = max(block.mlp.width for block in model.blocks)
        length = max(len(self.prompts.pairs[i].clean_tokens) for i in self.indices)
        return layers * (6 * model.d_model + 4 * inside + model.n_heads * (10 * model.d_head + 3 * length))


def end(model: Transformer, some: Standing, weights: Float[Tensor, "layers nodes places"]) -> Float[Tensor, "n 1 d"]:
    """What the logits read at END, with every node kept to its share."""
    length, last = some.tokens.shape[1], model.n_layers - 1
    resid, every = model.embed(some.tokens), model.turns(length)
    for layer, block in enumerate(model.blocks):
        width, resid = 1 if layer == last else length, block.entered(resid)
        share = torch.einsum("hp,pnt->nth", weights[layer], some.where).clamp(max=1)[:, -width:]
        x, turns = block.attn_norm(resid), every[layer]
        q = block.attn.project("q", x[:, -width:], turns[length - width :])
        k, v = (block.attn.project(port, x, turns) for port in PORTS[1:])
        z = attend(block.attn, *(each.transpose(1, 2) for each in (q, k, v)))
        mean = some.mean(Node("head", layer))[:, -width:]
        resid = resid[:, -width:]
        mid = resid + block.attn.written(z, partial(_mixed, mean, share[..., :-1, None]))[1]
        out = block.mlp(block.mlp_norm(resid if model.parallel else mid))
        resid = mid + _mixed(some.mean(Node("mlp", layer))[:, -width:], share[..., -1:], out)
    return resid[:, -1:]


def _mixed(mean: Float[Tensor, "*rows d"], share: Float[Tensor, "*rows 1"], now: Tensor) -> Float[Tensor, "*rows d"]:
    """What a node writes that is kept to a share."""
    return mean + share * (now - mean)
