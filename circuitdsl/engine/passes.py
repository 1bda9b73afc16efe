"""Whole runs on their way through the layers. What is kept is written down; where nothing is left to keep, they end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, Node
from circuitdsl.engine.terms import Cache, Rows, Terms
from circuitdsl.models.features import of_heads, of_stream
from circuitdsl.models.parts import PORTS, Attention, Port, Transformer, Turns, attend
from circuitdsl.models.writers import inside, written_inside


class Edits:
    """Changes of a forward pass, for some rows of the prompts. The methods of this class change nothing."""

    def stream(self, layer: int, resid: Tensor, rows: Rows) -> Tensor:
        """The residual stream as it enters a layer, or after the last one [m, T, d]; at layer 0 it is the embedding."""
        return resid

    def attend(self, layer: int, attn: Attention, q: Tensor, k: Tensor, v: Tensor, rows: Rows) -> Tensor:
        """`z` of every head [m, T, heads, d_head]; arguments as for `parts.attend`."""
        return attend(attn, q, k, v)

    def heads(self, layer: int, z: Tensor, rows: Rows) -> Tensor:
        """The values of the heads of a layer [m, T, heads, d_head]."""
        return z

    def attn_out(self, layer: int, out: Tensor, rows: Rows) -> Tensor:
        """What the heads of a layer write together, `b_O` included [m, T, d]."""
        return out

    def mlp(self, layer: int, term: Tensor, rows: Rows) -> Tensor:
        """What the MLP of a layer writes [m, T, d]."""
        return term

    def inside(self, whole: Tensor, parts: dict[Node, Tensor], rows: Rows) -> Tensor:
        """What an MLP or the heads of a layer write, or a stream, given the values of parts of it, changed in place.

        Args:
            parts: those that are kept [m, T, ...].
        """
        return whole


PLAIN = Edits()


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What a run has in a layer: keys and values, and what nodes have written `[m, T, ...]`."""

    k: Float[Tensor, "m kv_heads T d_head"]
    v: Float[Tensor, "m kv_heads T d_head"]
    written: Mapping[Node, Tensor]

    def before(self, rows: Rows, start: int) -> Layer:
        """The same before a position, of some of the rows."""
        written = {node: value[:, :start][rows] for node, value in self.written.items()}
        return Layer(self.k[:, :, :start][rows], self.v[:, :, :start][rows], written)


@dataclass(eq=False)
class Pass:
    """Some prompts on their way through the layers.

    Attributes:
        tokens: theirs.
        out: takes their activations, as far as it has room, in `rows`.
        steps: how many steps are made (see `Kept.clean_steps`).
        start: the first position that is run.
        resid: the residual stream there, which the next layer reads.
    """

    model: Transformer
    tokens: Int[Tensor, "m T"]
    out: Terms
    rows: Rows
    steps: float
    edits: Edits = PLAIN
    start: int = 0
    turns: tuple[Turns, ...] = ()
    resid: Float[Tensor, "m W d"] = field(init=False)

    def __post_init__(self) -> None:
        every = self.edits.stream(0, self.model.embed(self.tokens), self.rows)
        self.turns = self.turns or self.model.turns(self.tokens.shape[1])
        if EMBED in self.out:
            self.out.kept[EMBED][self.rows] = every
        self.resid = every[:, self.start :]

    def layer(self, layer: int, before: Layer | None = None) -> Layer | None:
        """Go through a layer; None where the run ends there, or earlier.

        Args:
            before: what stands before `start`.
        """
        model, block = self.model, self.model.blocks[layer]
        self.resid = block.entered(self.resid)
        self._keep("resid_pre", layer, self.resid)
        if self.steps <= 3 * layer:
            return None
        ends = self.steps <= 3 * layer + 1
        width = 1 if self._reads_end_alone(layer) else self.resid.shape[1]
        x, turns = block.attn_norm(self.resid), self.turns[layer]
        parts: dict[Port, Tensor] = {}
        for port in PORTS:
            if not ends or self._has_room(port, layer):
                some, at = (x[:, -width:], turns[-width:]) if port == "q" else (x, turns[self.start :])
                parts[port] = block.attn.project(port, some, at).transpose(1, 2)
                if before is not None and port != "q":
                    parts[port] = torch.cat((getattr(before, port), parts[port]), dim=2)
                self._keep(port, layer, parts[port])
        if ends:
            return None
        q, k, v = parts.values()
        heads, mlp, written = Node("head", layer), Node("mlp", layer), dict[Node, Tensor]()
        gathered = self.edits.attend(layer, block.attn, q, k, v, self.rows)
        self._keep("gathered", layer, gathered)
        z, attended = block.attn.written(gathered, partial(self.edits.heads, layer, rows=self.rows))
        written[heads] = self._wrote(heads, z, before)
        resid = self.resid[:, -width:]
        attended = self.edits.attn_out(layer, attended, self.rows)
        sums, behind = Node("attn", layer), Node("mid", layer)
        within = of_heads(model, inside(self.out.kept, sums), gathered, attended)
        attended = self.edits.inside(attended, within, self.rows)
        mid = resid + attended
        of_mid = of_stream(inside(self.out.kept, behind), mid)
        mid = self.edits.inside(mid, of_mid, self.rows)
        for node, value in (within | of_mid | {sums: attended, behind: mid}).items():
            if node in self.out.kept:
                written[node] = self._wrote(node, value, before)
        self._keep("mlp_in", layer, resid if model.parallel else mid)
        if self.steps <= 3 * layer + 2:
            return Layer(k, v, written)
        source = resid if model.parallel else mid
        term, values = written_inside(model, layer, self.out.kept, block.mlp_norm(source), source)
        term = self.edits.inside(self.edits.mlp(layer, term, self.rows), values, self.rows)
        self.resid = self.edits.stream(layer + 1, mid + term, self.rows)
        stream = Node("resid", layer + 1)
        of_resid = of_stream(inside(self.out.kept, stream), self.resid)
        self.resid = self.edits.inside(self.resid, of_resid, self.rows)
        values |= of_resid | {mlp: term}
        values |= {stream: self.resid} if stream in self.out.kept else {}
        for node, value in values.items():
            written[node] = self._wrote(node, value, before)
        if layer == model.n_layers - 1 and len(self.out.end):
            self.out.end[self.rows] = self.resid[:, -1]
        return Layer(k, v, written)

    def _wrote(self, node: Node, value: Tensor, before: Layer | None) -> Tensor:
        """What a node has written; it is kept where there is room, with what stands before."""
        if node in self.out.kept:
            if before is not None:
                value = torch.cat((before.written[node], value), dim=1)
            self.out.kept[node][self.rows] = value
        return value

    def _has_room(self, what: str, layer: int) -> bool:
        return isinstance(self.out, Cache) and layer in getattr(self.out, what)

    def _keep(self, what: str, layer: int, value: Tensor) -> None:
        if self._has_room(what, layer):
            getattr(self.out, what)[layer][self.rows] = value

    def _reads_end_alone(self, layer: int) -> bool:
        """Whether nothing but END is kept of the last layer, beside its keys and values."""
        kept = any(node.known_after == layer for node in self.out.kept)
        kept |= any(self._has_room(what, layer) for what in ("q", "mlp_in"))
        return layer == self.model.n_layers - 1 and not kept and self.edits is PLAIN
