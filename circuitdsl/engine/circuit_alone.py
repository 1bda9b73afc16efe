"""Runs in which everything outside a circuit is ablated, in one forward pass each.

The complement of a circuit is nearly the whole model: every node at most positions, or tens of thousands of edges. It
is never listed here. Of nodes, whatever is not kept is overwritten. Of edges, an input reads what stands in for *all*
its senders, but for the few kept ones,

    input = sum_s other_s + sum_{kept s} (now_s - other_s),

and the first sum is a second residual stream beside the one that is written. A pass costs about one plain forward
pass, however many edges are patched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, LOGITS, Input, Node
from circuitdsl.engine.batch_index import Array, Names, Where, by_input, by_node, ship
from circuitdsl.engine.batches import Limits
from circuitdsl.engine.count import Tally
from circuitdsl.engine.experiment import Experiment, Positions, Readout, check, check_node
from circuitdsl.engine.memory import all_terms, batch_rows, in_halves
from circuitdsl.engine.runs import Runs, read
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.parts import PORTS, Port, Transformer, attend
from circuitdsl.models.writers import Written, in_whole, layer_of, term


@torch.inference_mode()
def subgraph_effects(
    model: Transformer,
    runs: Runs,
    subgraphs: Sequence[Subgraph],
    positions: Positions,
    readout: Readout,
    **limits: Unpack[Limits],
) -> Float[Tensor, "subgraphs n width"]:
    """What the readout gives on the runs of subgraphs of the model on the clean prompts.

    Args:
        subgraphs: may repeat; each distinct one is run once.
        positions: token indices of every position that they name, except `*`.

    Returns:
        Float32, on the model's device.

    Raises:
        PatchError: a node, edge or position that the model or the prompts do not have.
        OutOfMemory: there is not enough for one run.
    """
    readout, where = readout.on(model.device), Where.of(positions, runs.n, runs.length)
    distinct = list(dict.fromkeys(subgraphs))
    for one in distinct:
        for site in one.sites:
            check_node(model, site.node)
        check(model, Experiment(edges=one.edges))
    found: dict[Subgraph, Tensor] = {}
    for kind in dict.fromkeys(one.kind for one in distinct):
        group = [one for one in distinct if one.kind == kind]
        found |= zip(group, _group(runs, where, group, readout, **limits), strict=True)
    return torch.stack([found[one] for one in subgraphs])


def _group(
    runs: Runs, where: Where, group: Sequence[Subgraph], readout: Readout, **limits: Unpack[Limits]
) -> Float[Tensor, "subgraphs n width"]:
    """Subgraphs of one kind, as many runs at once as fit."""
    model, tally = runs.model, limits.get("tally") or Tally()
    nodes, senders = [by_node(one.sites) for one in group], [by_input(one.edges) for one in group]
    values = torch.empty(len(group) * runs.n, readout.width, device=model.device)

    def work(start: int, end: int) -> None:
        graph, prompt = np.divmod(np.arange(start, end), runs.n)
        values[start:end] = _pass(_Batch(model, runs, where, group[0], nodes, senders, graph, prompt), readout)
        tally.batches += 1
        tally.block_positions += (end - start) * ((model.n_layers - 1) * runs.length + 1)

    held = all_terms(model) if group[0].keep == "edges" else 0
    rows = limits.get("max_rows") or batch_rows(model, runs.length, limits.get("max_memory"), held)
    at_once = max(1, rows // runs.length)
    for start in range(0, len(values), at_once):
        end = min(start + at_once, len(values))
        in_halves(work, start, end, lambda i: f"running a circuit alone on one prompt of {runs.length} tokens")
    tally.experiments += len(group)
    return values.view(len(group), runs.n, -1)


# --- what is kept -----------------------------------------------------------------------------------


@dataclass(eq=False)
class _Batch:
    """Some runs, each of one subgraph on one prompt, and what they have written so far.

    Attributes:
        kind: one of the subgraphs, which are all of a kind.
        nodes, senders: of each, the nodes that it keeps with their positions, and the senders that it keeps of each
            receiver input with theirs; or those that it ablates, where it is inverted.
        graph, prompts: of each run, on the host, `[B]`.
        change: the values `[B, T, ...]` that stand in, minus those now written; of neurons `[B, W]`.
        others: the residual stream as an input reads it into which every edge is patched, `[B, T, d]`.
    """

    model: Transformer
    runs: Runs
    where: Where
    kind: Subgraph
    nodes: Sequence[Mapping[Node, Names]]
    senders: Sequence[Mapping[Input, Mapping[Node, Names]]]
    graph: Array
    prompts: Array
    change: Written = field(default_factory=lambda: Written({}))
    others: Tensor | None = None
    _rows: dict[int, Tensor] = field(default_factory=dict)
    _masks: dict[tuple[Names, int], Tensor] = field(default_factory=dict)

    @cached_property
    def prompt(self) -> Int[Tensor, " B"]:
        """The prompt of each run, on the device."""
        return ship(self.prompts, self.model.device)

    @property
    def whole(self) -> bool:
        """Whether nodes are kept, and not edges."""
        return self.kind.keep == "nodes"

    def rows(self, number: int) -> Int[Tensor, " rows"]:
        """The runs of a subgraph."""
        if number not in self._rows:
            self._rows[number] = ship(np.flatnonzero(self.graph == number), self.model.device)
        return self._rows[number]

    def mask(self, at: Names, number: int) -> Bool[Tensor, "rows T"]:
        """Where some positions are in the runs of a subgraph."""
        if (at, number) not in self._masks:
            where = self.where.mask(at)[self.prompts[self.graph == number]]
            self._masks[at, number] = ship(where, self.model.device)
        return self._masks[at, number]

    def written(self, of: Node, now: Float[Tensor, "B W *rest"]) -> Tensor:
        """What stands in the place of the values that `embed` or a layer's heads or MLP write at the last positions.

        Nodes that are not kept are overwritten. Of edges, it is noted what a patched input would read instead.
        """
        stays = of.kind != "head" and not self.kind.mlps
        other = now if stays else self._other(of, now.shape[1])
        if self.whole:
            return now if stays else self._overwritten(of, now, other)
        if not stays:
            self.change.kept[of] = other - now
        if not self.kind.inverted:  # only the last positions of the stream of those that stand in are read any more
            term = self.model.blocks[of.layer].attn.write(other) if of.kind == "head" else other
            self.others = term if self.others is None else self.others[:, -term.shape[1] :] + term
        return now

    def _other(self, of: Node, width: int) -> Float[Tensor, "B W *rest"]:
        """The values that stand in for what is not kept, at the last positions."""
        return self.runs.substitute(self.kind.ablate, of, self.prompt)[:, -width:]

    def _overwritten(
        self, of: Node, now: Float[Tensor, "B W *rest"], other: Float[Tensor, "B W *rest"]
    ) -> Float[Tensor, "B W *rest"]:
        """The values that stand in for those that are not kept, and those that are."""
        now, other = (other.clone(), now.clone()) if self.kind.inverted else (now, other)
        sign = 1 if self.kind.inverted else -1
        for number, nodes in enumerate(self.nodes):
            here = [node for node in nodes if layer_of(node) == of]
            for node in sorted(here, key=lambda node: not node.is_part):  # a whole node overrides its parts
                if len(rows := self.rows(number)):
                    keep = self.mask(nodes[node], number)[:, -now.shape[1] :, None]
                    place = (rows, slice(None), node.head) if of.kind == "head" else (rows,)
                    own = now[place]
                    if node.is_part:  # the other value with the node's part of this one in it
                        change = own - other[place] if of.kind == "head" else sign * self.change.value(node)[rows]
                        own = other[place] + in_whole(self.model, node, change)
                    other[place] = torch.where(keep, own, other[place])
        return other

    def mlp(self, layer: int, x: Float[Tensor, "B W d"]) -> Float[Tensor, "B W d"]:
        """The term of an MLP that reads `x`; takes note of its neurons."""
        watched = [node for node in self.runs.clean.neurons if self.kind.mlps and node.layer == layer]
        out, activations = self.model.blocks[layer].mlp.written(x, [node.index for node in watched])
        for node, now in zip(watched, activations, strict=True):
            self.change.kept[node] = self._other(node, now.shape[1])[..., 0] - now
        return out

    def patched(self, resid: Float[Tensor, "B W d"]) -> Float[Tensor, "B W d"]:
        """An input into which every edge is patched, or none where the edges to patch are listed."""
        return resid if self.others is None else self.others[:, -resid.shape[1] :]

    def spared(self, receiver: Input, patched: Tensor) -> Iterator[tuple[Tensor, Float[Tensor, "rows W d"]]]:
        """(runs, their input with the listed edges put right), for the subgraphs that list an edge into a receiver."""
        width, sign = patched.shape[1], 1 if self.kind.inverted else -1
        for number, inputs in enumerate(self.senders):
            senders = inputs.get(receiver, {})
            if senders and len(rows := self.rows(number)):
                out = patched[rows]
                for sender, at in senders.items():
                    if sender in self.change:  # edges of other senders are never patched
                        mask = sign * self.mask(at, number)[:, -width:, None]
                        if sender.is_part and sender.whole in senders:
                            mask = mask * ~self.mask(senders[sender.whole], number)[:, -width:, None]
                        out += term(self.model, sender, self.change.value(sender)[rows, -width:]) * mask
                yield rows, out

    def read_by(self, node: Node, resid: Float[Tensor, "B W d"]) -> Float[Tensor, "B W d"]:
        """What an MLP or the logits read."""
        if self.whole:
            return resid
        inputs = self.patched(resid).clone()
        for rows, own in self.spared(Input(node, "in"), inputs):
            inputs[rows] = own
        return inputs


# --- the pass ---------------------------------------------------------------------------------------


def _pass(batch: _Batch, readout: Readout) -> Float[Tensor, "B width"]:
    """The runs of a batch, from the tokens to END; the last layer is followed at END alone."""
    model, length = batch.model, batch.runs.length
    resid = batch.runs.clean.embed[batch.prompt]
    if not batch.whole:
        batch.written(EMBED, resid)
    for layer, block in enumerate(model.blocks):
        width = 1 if layer == model.n_layers - 1 else length
        before = batch.others
        gathered = _heads(batch, layer, resid, width)
        resid = resid[:, length - width :]
        mid = resid + block.attn.written(gathered, partial(batch.written, Node("head", layer)))[1]
        after = batch.others
        if model.parallel:  # the MLP reads what the heads of its layer read
            batch.others = before
        node, source = Node("mlp", layer), resid if model.parallel else mid
        out = batch.mlp(layer, block.mlp_norm(batch.read_by(node, source) if batch.kind.mlps else source))
        batch.others = after
        resid = mid + batch.written(node, out)
    return read(model, batch.read_by(LOGITS, resid), batch.prompt, readout)[:, 0]


def _heads(batch: _Batch, layer: int, resid: Float[Tensor, "B T d"], width: int) -> Float[Tensor, "B W heads d_head"]:
    """`z` of every head at the last `width` positions."""
    attn = batch.model.blocks[layer].attn
    q, k, v = (_projected(batch, layer, port, resid, width if port == "q" else resid.shape[1]) for port in PORTS)
    most = max(k.shape[2], v.shape[2])
    return attend(attn, *(x.repeat_interleave(max(1, most // x.shape[2]), dim=2).transpose(1, 2) for x in (q, k, v)))


def _projected(
    batch: _Batch, layer: int, port: Port, resid: Float[Tensor, "B T d"], width: int
) -> Float[Tensor, "B W heads d_head"]:
    """Queries, keys or values at the last `width` positions, each of what its own input reads."""
    block, first = batch.model.blocks[layer], resid.shape[1] - width
    turns = batch.runs.clean.turns[layer][first:]
    inputs = resid[:, first:] if batch.whole else batch.patched(resid[:, first:])
    out = block.attn.project(port, block.attn_norm(inputs), turns)
    if batch.whole:
        return out
    here = (receiver for by_receiver in batch.senders for receiver in by_receiver if receiver.port == port)
    heads = {receiver.node.head for receiver in here if receiver.node.layer == layer}
    if heads and port != "q" and block.attn.group > 1:  # a patched key or value is read by one query head alone
        out = out.repeat_interleave(block.attn.group, dim=-2)
    for head in sorted(heads):
        for rows, own in batch.spared(Input(Node("head", layer, head), port), inputs):
            out[rows, :, head] = block.attn.project_head(port, head, block.attn_norm(own), turns)
    return out
