"""Runs of a model in which each edge of its whole graph is kept, left out, or kept in part; and their gradients.

A receiver input reads

    corrupt residual + sum_s w_s (now_s - corrupt_s)

over its senders `s`: `w_s` is 1 where the edge is kept and carries what the sender writes in this run, and 0 where it
carries the corrupt term. With weights of 0 and 1 it is the run of a subgraph at every position, as in
`circuit_alone.py`, which does it for single positions as well. Here the terms of all senders lie side by side, so that
what all inputs of a layer read is one product of matrices, and a gradient by every weight costs two such runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, LOGITS, Node
from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.engine import runs as engine
from circuitdsl.engine.ends import tokens_of
from circuitdsl.engine.memory import refuse_more
from circuitdsl.engine.partial_runs import PartialRuns, copied
from circuitdsl.engine.terms import Terms
from circuitdsl.measurements.kept import Kept
from circuitdsl.models.parts import PORTS, Attention, Port, Transformer, Turns, attend

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Some:
    """Some prompts of one length, and the terms of their clean and corrupt runs.

    Attributes:
        places: which of all prompts they are.
    """

    places: Int[Tensor, " n"]
    tokens: Int[Tensor, "n T"]
    clean: Terms
    corrupt: Terms

    def rows(self, part: tuple[int, int]) -> Some:
        here = slice(*part)

        def cut(terms: Terms) -> Terms:
            return replace(terms, kept={node: value[here] for node, value in terms.kept.items()}, end=terms.end[here])

        return Some(self.places[here], self.tokens[here], cut(self.clean), cut(self.corrupt))


@dataclass(eq=False)
class WholeRuns(PartialRuns[Some]):
    """Prompts on which subgraphs of the whole graph are run.

    Raises:
        UserError: the model lies on several devices, or the terms of the prompts take more memory than is allowed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = [len(self.prompts.pairs[i].clean_tokens) for i in self.indices]
        refuse_more(self.model, lengths, self.prompts.max_memory)

    @cached_property
    def graph(self) -> WholeGraph:
        return WholeGraph(self.model.n_layers, self.model.n_heads, self.model.parallel)

    @property
    def many(self) -> int:
        return len(self.graph)

    @cached_property
    def groups(self) -> list[Some]:
        layers = range(self.model.n_layers)
        nodes = {EMBED, LOGITS, *(Node(kind, layer) for layer in layers for kind in ("head", "mlp"))}
        kept, found = Kept(frozenset(nodes), frozenset(nodes)), []
        for places, clean, pairs in self.by_length():
            made = engine.run(self.model, clean, tokens_of(pairs, "corrupt_tokens"), kept=kept)
            with torch.inference_mode(False):  # copied once, to where gradients can be taken
                found.append(Some(places, made.clean_tokens, copied(made.clean), copied(made.corrupt)))
        return found

    def with_part(self, kept: Bool[Array, " edges"], share: float, gradient: bool) -> tuple[Array, Array | None]:
        kept = kept if gradient else self.graph.connected(kept)
        some, matrix = acting(self.model, self.graph, kept), self.graph.matrix(share * kept.astype(np.float32))

        def work(part: Some) -> tuple[Tensor, Tensor | None]:
            weights = torch.tensor(matrix, device=self.model.device, dtype=self.model.dtype, requires_grad=gradient)
            end = WholeRun(self.model, part.tokens, part.corrupt, weights, some).end()
            return self.scored(end, part.places, weights if gradient else None)

        found, total = self.summed(work, gradient)
        return found, None if total is None else self.graph.of_matrix(total)

    def numbers(self, layers: int) -> int:
        model = self.model
        inside = max(block.mlp.width for block in model.blocks)
        inputs, senders = 3 * model.n_heads + 1, model.n_heads + 1
        a_layer = 2 * (inputs + senders) * model.d_model + 4 * inside + 10 * model.n_heads * model.d_head
        return layers * a_layer + model.n_layers * senders * model.d_model


# --- one run ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Acting:
    """Some heads of a layer, and perhaps its MLP."""

    heads: Int[Array, " heads"]
    mlp: bool


def acting(model: Transformer, graph: WholeGraph, kept: Bool[Array, " edges"]) -> tuple[Acting, ...]:
    """The nodes of each layer on a way of kept edges; all nodes where what one head writes depends on others."""
    there = np.zeros(len(graph.senders), bool)
    there[graph.ends[1][graph.connected(kept)]] = True
    there |= any(block.attn.post is not None or block.attn.distances is not None for block in model.blocks)
    layers = there[1:].reshape(model.n_layers, -1)
    return tuple(Acting(nodes[:-1].nonzero()[0], bool(nodes[-1])) for nodes in layers)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """How far the terms of some senders are from those of the corrupt run `[senders, n, T, d]`, and their numbers."""

    senders: Int[Tensor, " senders"]
    values: Float[Tensor, "senders n T d"]


@dataclass(eq=False)
class WholeRun:
    """One run of some prompts of one length.

    Attributes:
        corrupt: the terms of the corrupt run.
        weights: of every edge `[inputs, senders]`.
        acting: the nodes of each layer that take part; others write their corrupt terms.
    """

    model: Transformer
    tokens: Int[Tensor, "n T"]
    corrupt: Terms
    weights: Float[Tensor, "inputs senders"]
    acting: Sequence[Acting]
    changes: list[Change] = field(default_factory=list)

    def end(self) -> Float[Tensor, "n 1 d"]:
        """What the logits read at END."""
        model, corrupt, (_, length) = self.model, self.corrupt, self.tokens.shape
        every, last = model.turns(length), model.n_layers - 1
        base = corrupt.embed
        self._wrote([0], (model.embed(self.tokens) - base)[None])
        for layer, block in enumerate(model.blocks):
            z, mlp = corrupt.value(Node("head", layer)), corrupt.value(Node("mlp", layer))
            width = 1 if layer == last else length
            between = base if model.parallel else base + block.attn.write(z)
            before = len(self.changes)
            if len(self.acting[layer].heads):
                self._heads(layer, base, z, width, every[layer])
            if self.acting[layer].mlp:
                known = self.changes[:before] if model.parallel else self.changes
                source = self._reads([self._first(layer) + 3 * model.n_heads], between, width, known)[0]
                out = block.mlp(block.mlp_norm(source)) - mlp[:, -width:]
                self._wrote([self._sender(layer) + model.n_heads], out[None])
            base = base + block.attn.write(z) + mlp
        return self._reads([len(self.weights) - 1], base, 1, self.changes)[0]

    def _heads(self, layer: int, base: Tensor, z: Tensor, width: int, turns: Turns) -> None:
        block, length = self.model.blocks[layer], self.tokens.shape[1]
        heads = self.acting[layer].heads
        projected = []
        for number, port in enumerate(PORTS):
            wide = width if port == "q" else length
            inputs = (self._first(layer) + number * self.model.n_heads + heads).tolist()
            x = block.attn_norm(self._reads(inputs, base, wide, self.changes))
            projected.append(_projected(block.attn, port, heads, x, turns[length - wide :]))
        now = attend(block.attn, *projected)
        if block.attn.post is not None:
            now, _ = block.attn.written(now)
        values = terms_of(block.attn, heads, now - z[:, -width:, heads])
        self._wrote((self._sender(layer) + heads).tolist(), values)

    def _reads(
        self, inputs: list[int], base: Float[Tensor, "n T d"], width: int, known: Sequence[Change]
    ) -> Float[Tensor, "inputs n W d"]:
        """What some inputs read at the last positions."""
        rows, base = self.weights[inputs], base[:, -width:]
        total = base.reshape(1, -1).expand(len(inputs), -1)
        for change in known if self.weights.requires_grad else self._together(known):
            total = torch.addmm(total, rows[:, change.senders], change.values[:, :, -width:].flatten(1))
        return total.view(-1, *base.shape)

    def _together(self, known: Sequence[Change]) -> Iterator[Change]:
        """All changes as one, where no gradient needs them apart: they lie one after the other in one tensor."""
        if known:
            senders = torch.cat([change.senders for change in known])
            yield Change(senders, self._room[: len(senders)])

    @cached_property
    def _room(self) -> Float[Tensor, "senders n T d"]:
        many = 1 + sum(len(some.heads) + some.mlp for some in self.acting)
        return self.corrupt.embed.new_empty(many, *self.corrupt.embed.shape)

    def _wrote(self, senders: list[int], values: Float[Tensor, "senders n W d"]) -> None:
        if not self.weights.requires_grad:
            at = sum(len(change.senders) for change in self.changes)
            self._room[at : at + len(senders), :, -values.shape[2] :] = values
        self.changes.append(Change(torch.as_tensor(senders, device=values.device), values))

    def _first(self, layer: int) -> int:
        return layer * (3 * self.model.n_heads + 1)

    def _sender(self, layer: int) -> int:
        return 1 + layer * (self.model.n_heads + 1)


def _projected(
    attn: Attention, port: Port, heads: Int[Array, " heads"], x: Float[Tensor, "heads n W d"], turns: Turns
) -> Float[Tensor, "n heads W d_head"]:
    """Queries, keys or values of some query heads, of an input for each."""
    every = getattr(attn, port)
    which = heads if port == "q" else heads // attn.group
    if attn.norms_all(port):
        found = [attn.project_head(port, head, own, turns) for head, own in zip(heads.tolist(), x, strict=True)]
        return torch.stack(found, dim=1)
    weight = every.weight.unflatten(0, (-1, attn.d_head))[which]
    found = x.flatten(1, 2) @ weight.mT
    if every.bias is not None:
        found = found + every.bias.unflatten(0, (-1, attn.d_head))[which][:, None]
    return attn.turned(port, found.unflatten(1, x.shape[1:3]).permute(1, 2, 0, 3), turns).transpose(1, 2)


def terms_of(
    attn: Attention, heads: Int[Array, " heads"], z: Float[Tensor, "n W heads d_head"]
) -> Float[Tensor, "heads n W d"]:
    weight = attn.o.weight.unflatten(1, (-1, attn.d_head)).permute(1, 2, 0)[heads]
    found = (z.permute(2, 0, 1, 3).flatten(1, 2) @ weight).unflatten(1, z.shape[:2])
    return found if attn.post is None else (found * attn.post.gain).to(found.dtype)
