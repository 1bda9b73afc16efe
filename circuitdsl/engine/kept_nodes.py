"""Runs in which whole nodes are kept or ablated, computed only where they can differ from a run without the circuit.

Each run has a base on the same prompt: where nodes are kept, the run in which all are ablated; where nodes are
ablated, the clean run. The two are equal before the first position that the circuit names. Where nodes are kept they
are equal at every position that it does not name: what is written there is constants. So only the other positions of
a run are computed; their heads see the keys and values of the base at the rest. Layers in which all heads are ablated
attend to nothing, and no MLP is computed that is ablated in all runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import Node, Position, Site
from circuitdsl.engine.batch_index import Array, Names, Where, by_node, runs_of, ship
from circuitdsl.engine.experiment import Readout
from circuitdsl.engine.runs import Runs, read
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.parts import Attention, Block, Port, attend
from circuitdsl.models.writers import Written, in_whole, is_number, layer_of, written_inside


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """What the subgraphs of a group name of the heads of a layer, or of its MLP, at some positions.

    Attributes:
        whole: for each subgraph, which heads it names whole; an MLP counts as one head.
        parts: (number of the subgraph, node), of those that it names only in part.
    """

    whole: Bool[np.ndarray, "subgraphs heads"]
    parts: list[tuple[int, Node]] = field(default_factory=list)


@lru_cache(maxsize=2**13)
def by_layer(sites: frozenset[Site]) -> Mapping[Node, Mapping[Node, Names]]:
    """Nodes with their positions, by `layer_of` them."""
    found: dict[Node, dict[Node, Names]] = {}
    for node, names in by_node(sites).items():
        found.setdefault(layer_of(node), {})[node] = names
    return found


@lru_cache(maxsize=2**7)
def named(subgraphs: tuple[Subgraph, ...], heads: int) -> Mapping[Node, Mapping[Names, Named]]:
    """What subgraphs name, by layer and positions; asked for again with every part of the prompts."""
    found: dict[Node, dict[Names, Named]] = {}
    for number, one in enumerate(subgraphs):
        for of, nodes in by_layer(one.sites).items():
            into = found.setdefault(of, {})
            for node, names in nodes.items():
                if names not in into:
                    into[names] = Named(np.zeros((len(subgraphs), heads if of.kind == "head" else 1), bool))
                if node.is_part:
                    into[names].parts.append((number, node))
                else:
                    into[names].whole[number, max(node.head, 0)] = True
    return found


@lru_cache(maxsize=2**13)
def together(one: Subgraph) -> tuple[frozenset[Position], int]:
    """Which subgraphs of a kind run together: where their nodes are, and the first layer that they change."""
    first = min((site.node.layer for site in one.sites), default=-1) if one.inverted else 0
    return frozenset(site.position for site in one.sites), first


@dataclass(eq=False)
class Group:
    """Subgraphs that run together, on some prompts.

    Attributes:
        kind: the first of them.
        first_layer: the first layer in which a run differs from the clean one.
    """

    where: Where
    subgraphs: tuple[Subgraph, ...]
    n_layers: int
    n_heads: int

    def __post_init__(self) -> None:
        self.kind = self.subgraphs[0]
        self.places, first = together(self.kind)
        self.first_layer = first if first >= 0 else self.n_layers - 1
        self.named = named(self.subgraphs, self.n_heads)

    @cached_property
    def active(self) -> Bool[np.ndarray, "n T"]:
        """Where runs may differ from their base; END is among these."""
        found = self.where.mask(self.places).copy()
        if self.kind.inverted:
            np.logical_or.accumulate(found, axis=1, out=found)
        found[:, -1] = True
        return found

    @cached_property
    def columns(self) -> Int[np.ndarray, "n W"]:
        """These positions in order; where a prompt has fewer of them, END is repeated."""
        count = self.active.sum(axis=1)
        order = np.argsort(~self.active, axis=1, kind="stable")[:, : count.max()]
        return np.where(np.arange(count.max()) < count[:, None], order, self.where.length - 1)

    def block_positions(self) -> Int[np.ndarray, " n"]:
        """Blocks at one position that one run of each prompt computes; in the last layer that is END alone."""
        return (self.n_layers - 1 - self.first_layer) * self.active.sum(axis=1) + 1


@dataclass(eq=False)
class _Base:
    """The run of some prompts in which every node is ablated that can be, layer by layer.

    Attributes:
        kind: one of the subgraphs.
        prompts: which prompts, on the device `[m]`.
        resid: the residual stream that the heads of the next layer read.
    """

    runs: Runs
    kind: Subgraph
    prompts: Int[Tensor, " m"]
    resid: Float[Tensor, "m T d"]

    def seen(self, layer: int, port: Port) -> Float[Tensor, "m kv_heads T d_head"]:
        """Keys or values."""
        block = self.runs.model.blocks[layer]
        return block.attn.project(port, block.attn_norm(self.resid), self.runs.clean.turns[layer]).transpose(1, 2)

    def pass_layer(self, layer: int) -> None:
        """Go on to the next layer."""
        model, other = self.runs.model, partial(self.runs.substitute, self.kind.ablate)
        block = model.blocks[layer]
        self.resid = block.entered(self.resid)
        mid = self.resid + block.attn.write(other(Node("head", layer), self.prompts))
        if self.kind.mlps:
            self.resid = mid + other(Node("mlp", layer), self.prompts)
        else:
            self.resid = mid + block.mlp(block.mlp_norm(self.resid if model.parallel else mid))


@dataclass(eq=False)
class KeptNodes:
    """Some runs, each of one subgraph of a group on one prompt.

    Attributes:
        graph, prompts: the subgraph and the prompt of each run, on the host, `[B]`; sorted by subgraph.
        change: replacements minus the activations now, of neurons `[B, W]`.
    """

    runs: Runs
    group: Group
    graph: Array
    prompts: Array
    change: Written = field(default_factory=lambda: Written({}))
    _hidden: dict[int | None, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kind, self.device = self.group.kind, self.runs.model.device
        self.columns: Int[np.ndarray, "B W"] = self.group.columns[self.prompts]
        self.at, self.prompt = ship(self.columns, self.device), ship(self.prompts, self.device)

    @cached_property
    def rows(self) -> dict[int, slice]:
        """The runs of each subgraph that has some here."""
        return {number: slice(first, end) for number, first, end in runs_of(self.graph)}

    def mask(self, names: Names, rows: slice, width: int) -> Bool[np.ndarray, "rows W"]:
        """Where some positions are among the last columns of some runs."""
        return self.group.where.mask(names)[self.prompts[rows, None], self.columns[rows, -width:]]

    # --- what is written

    def other(self, of: Node, width: int) -> Float[Tensor, "B W *rest"]:
        """What stands in for the values of a node that is ablated, at the last columns."""
        return self.runs.substitute(self.kind.ablate, of, self.prompt[:, None], self.at[:, -width:])

    def written(self, of: Node, now: Float[Tensor, "B W *rest"]) -> Float[Tensor, "B W *rest"]:
        """The values of a layer's heads or MLP at the last columns, with those that are ablated replaced."""
        named, inverted = self.group.named.get(of, {}), self.kind.inverted
        if (of.kind != "head" and not self.kind.mlps) or (inverted and not named):
            return now
        width, heads = now.shape[1], now.shape[2] if of.kind == "head" else 1
        other = self.other(of, width)
        now, other = (other, now) if inverted else (now, other)
        other = self._with_parts(of, now, other)
        keep = torch.zeros(len(now), width, heads, dtype=torch.bool, device=self.device)  # of whole nodes
        for names, nodes in named.items():
            where = ship(self.mask(names, slice(None), width), self.device)
            keep |= where[..., None] & ship(nodes.whole[self.graph], self.device)[:, None]
        return torch.where(keep[..., None] if of.kind == "head" else keep, now, other)

    def _with_parts(self, of: Node, now: Tensor, other: Tensor) -> Float[Tensor, "B W *rest"]:
        """The other values with those parts in them that are listed by themselves; whole nodes override their parts."""
        sign, width, cloned = 1 if self.kind.inverted else -1, now.shape[1], False
        for names, nodes in self.group.named.get(of, {}).items():
            for number, node in nodes.parts:
                if number not in self.rows:
                    continue
                other, cloned = other if cloned else other.clone(), True
                rows = self.rows[number]
                place = (rows, slice(None), node.head) if of.kind == "head" else (rows,)
                # the other value with the node's part of this one in it
                change = now[place] - other[place] if of.kind == "head" else sign * self.change.value(node)[rows]
                own = other[place] + in_whole(self.runs.model, node, change)
                here = ship(self.mask(names, rows, width), self.device)[..., None]
                other[place] = torch.where(here, own, other[place])
        return other

    def mlp(self, layer: int, source: Float[Tensor, "B W d"]) -> Float[Tensor, "B W d"]:
        """The term of an MLP at the last columns, with what is ablated replaced."""
        of, width = Node("mlp", layer), source.shape[1]
        if self.kind.mlps and not self.kind.inverted and of not in self.group.named:
            return self.other(of, width)
        block = self.runs.model.blocks[layer]
        watched = self.runs.clean.kept if self.kind.mlps else ()
        out, values = written_inside(self.runs.model, layer, watched, block.mlp_norm(source))
        for node, now in values.items():
            other = self.other(node, width)
            self.change.kept[node] = (other[..., 0] if is_number(node) else other) - now
        return self.written(of, out)

    # --- the pass

    def run(self, readout: Readout) -> Float[Tensor, "B width"]:
        """The runs, up to END in the last layer."""
        model, clean, start = self.runs.model, self.runs.clean, self.group.first_layer
        distinct, which = np.unique(self.prompts, return_inverse=True)
        here = ship(distinct, self.device)
        base = None if self.kind.inverted else _Base(self.runs, self.kind, here, clean.resid_pre[0][here])
        own = self.prompt if base is None else ship(which, self.device)
        resid = clean.resid_pre[start][self.prompt[:, None], self.at]
        for layer in range(start, model.n_layers):
            block, width = model.blocks[layer], 1 if layer == model.n_layers - 1 else resid.shape[1]
            of, resid = Node("head", layer), block.entered(resid)
            if base is None or of in self.group.named:
                k, v = (clean.k[layer], clean.v[layer]) if base is None else (base.seen(layer, p) for p in ("k", "v"))
                gathered = self._gathered(block, layer, resid, width, k[own], v[own])
                attended = block.attn.written(gathered, partial(self.written, of))[1]
            else:
                attended = block.attn.write(self.other(of, width))
            resid = resid[:, -width:]
            mid = resid + attended
            resid = mid + self.mlp(layer, resid if model.parallel else mid)
            if base is not None and layer < model.n_layers - 1:
                base.pass_layer(layer)
        return read(model, resid, self.prompt, readout)[:, 0]

    def _gathered(
        self,
        block: Block,
        layer: int,
        resid: Float[Tensor, "B W d"],
        width: int,
        k: Float[Tensor, "B kv_heads T d_head"],
        v: Float[Tensor, "B kv_heads T d_head"],
    ) -> Float[Tensor, "B W heads d_head"]:
        """What the heads gather at the last columns; keys and values are those of the base, and are overwritten."""
        x, turns = block.attn_norm(resid), self.runs.clean.turns[layer][self.at]
        runs = torch.arange(len(x), device=self.device)[:, None]
        k[runs, :, self.at], v[runs, :, self.at] = block.attn.project("k", x, turns), block.attn.project("v", x, turns)
        q = block.attn.project("q", x[:, -width:], turns[:, -width:])
        return attend(block.attn, q.transpose(1, 2), k, v, self.hidden(block.attn)[:, -width:])

    def hidden(self, attn: Attention) -> Bool[Tensor, "B W T"]:
        """What the columns do not see."""
        if attn.window not in self._hidden:
            self._hidden[attn.window] = attn.hidden_from(self.at, self.runs.length)
        return self._hidden[attn.window]
