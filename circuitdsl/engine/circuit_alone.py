"""Runs in which everything outside a circuit is ablated, in one forward pass each.

The complement of a circuit is nearly the whole model: every node at most positions, or tens of thousands of edges. It
is never listed here. Where nodes are kept, all others are overwritten (`kept_nodes.py`). Where edges are kept, an
input reads the replacements `other_s` of *all* its senders, corrected for the few kept ones:

    input = sum_s other_s + sum_{kept s} (now_s - other_s)

The first sum is a second residual stream, computed beside the first. A pass costs about one plain forward pass,
however many edges are patched.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from typing import NamedTuple, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, LOGITS, Input, Node, is_number
from circuitdsl.engine.batch_index import Array, Names, Where, by_input, runs_of, ship
from circuitdsl.engine.batches import Limits
from circuitdsl.engine.experiment import Experiment, Positions, Readout, check, check_node
from circuitdsl.engine.kept_nodes import Group, KeptNodes, together
from circuitdsl.engine.memory import all_terms, batch_rows, in_halves
from circuitdsl.engine.runs import Runs, read
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.workers import each, in_equal_parts, measuring, unit_rows
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.parts import PORTS, Port, Transformer, attend
from circuitdsl.models.writers import Written, term, written_inside


@measuring()
def subgraph_effects(
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
    where = Where.of(positions, runs.n, runs.length)
    distinct = list(dict.fromkeys(subgraphs))
    for node in {site.node for one in distinct for site in one.sites}:
        check_node(runs.model, node)
    check(runs.model, Experiment(edges=frozenset().union(*(one.edges for one in distinct))))
    found: dict[Subgraph, Tensor] = {}
    for group in grouped(distinct):
        found |= zip(group, _group(runs, where, group, readout, **limits), strict=True)
    return torch.stack([found[one] for one in subgraphs])


def grouped(subgraphs: Iterable[Subgraph]) -> list[tuple[Subgraph, ...]]:
    """Subgraphs that run together: those of one kind, and where nodes are kept those that differ at the same places."""
    found: dict[Hashable, list[Subgraph]] = {}
    for one in subgraphs:
        found.setdefault((one.kind, one.keep == "nodes" and together(one)), []).append(one)
    return list(map(tuple, found.values()))


def work(model: Transformer, where: Where, kind: Subgraph) -> Int[np.ndarray, " n"]:
    """Blocks at one position that one run of each prompt computes, for a subgraph and those that run with it."""
    if kind.keep == "nodes":
        return Group(where, (kind,), model.n_layers, model.n_heads).block_positions()
    return np.full(where.n, (model.n_layers - 1) * where.length + 1)


def _group(
    runs: Runs, where: Where, group: tuple[Subgraph, ...], readout: Readout, **limits: Unpack[Limits]
) -> Float[Tensor, "subgraphs n width"]:
    """Subgraphs that run together, as many runs at once as fit."""
    model, length, tally = runs.model, runs.length, limits.get("tally") or Tally()
    nodes = Group(where, group, model.n_layers, model.n_heads) if group[0].keep == "nodes" else None
    senders = [by_input(one.edges) for one in group]
    positions = work(model, where, group[0])

    def run(found: list[_Found], start: int, end: int) -> None:
        prompt, graph = np.divmod(np.arange(start, end), len(group))  # units share what is run once for a prompt
        order = np.argsort(graph, kind="stable")
        graph, prompt = graph[order], prompt[order]
        alone = (
            KeptNodes(runs, nodes, graph, prompt) if nodes else _Batch(runs, where, group[0], senders, graph, prompt)
        )
        found.append(_Found(graph, prompt, alone.run(readout)))

    def unit(part: tuple[int, int]) -> list[_Found]:
        found: list[_Found] = []
        in_halves(partial(run, found), *part, lambda i: f"running a circuit alone on one prompt of {length} tokens")
        return found

    held = all_terms(model) if group[0].keep == "edges" else 0
    rows = limits.get("max_rows") or batch_rows(model, length, limits.get("max_memory"), held)
    at_once = max(1, min(rows, unit_rows(model)) // length)
    parts = list(in_equal_parts(len(group) * runs.n, at_once))
    found = list(chain.from_iterable(each(model, unit, parts, [(b - a) * length for a, b in parts], rows)))
    graph, prompt = (np.concatenate([getattr(one, name) for one in found]) for name in ("graph", "prompt"))
    tally.batches += len(found)
    tally.block_positions += int(positions[prompt].sum())
    values = torch.cat([one.values for one in found])
    return values[ship(np.lexsort((prompt, graph)), model.device)].view(len(group), runs.n, -1)


class _Found(NamedTuple):
    """What the readout gives on some runs of subgraphs `[B, width]`, and the subgraph and prompt of each."""

    graph: Array
    prompt: Array
    values: Tensor


@dataclass(eq=False)
class _Batch:
    """Some runs, each of one subgraph of edges on one prompt, and what they have written so far.

    Attributes:
        kind: one of the subgraphs, which are all of a kind.
        senders: for each subgraph and receiver input, the senders of the edges that it keeps (that it ablates, where
            it is inverted).
        graph, prompts: the subgraph and the prompt of each run, on the host, `[B]`; sorted by subgraph.
        change: replacements minus the values now written, `[B, T, ...]`; of neurons `[B, W]`.
        others: the residual stream `[B, T, d]` that an input reads if all edges into it are patched.
    """

    runs: Runs
    where: Where
    kind: Subgraph
    senders: Sequence[Mapping[Input, Mapping[Node, Names]]]
    graph: Array
    prompts: Array
    change: Written = field(default_factory=lambda: Written({}))
    others: Tensor | None = None
    _masks: dict[tuple[Names, int], Tensor] = field(default_factory=dict)

    @cached_property
    def prompt(self) -> Int[Tensor, " B"]:
        """The prompt of each run, on the device."""
        return ship(self.prompts, self.runs.model.device)

    @cached_property
    def rows(self) -> dict[int, slice]:
        """The runs of each subgraph that has some here."""
        return {number: slice(first, end) for number, first, end in runs_of(self.graph)}

    def mask(self, at: Names, number: int) -> Bool[Tensor, "rows T"]:
        """Where some positions are in the runs of a subgraph."""
        if (at, number) not in self._masks:
            self._masks[at, number] = ship(self.where.mask(at)[self.prompts[self.rows[number]]], self.runs.model.device)
        return self._masks[at, number]

    def written(self, of: Node, now: Float[Tensor, "B W *rest"]) -> Tensor:
        """The values of `embed`, a layer's heads or its MLP; their replacements are stored for those who read them."""
        stays = of.kind != "head" and not self.kind.mlps
        other = now if stays else self._other(of, now.shape[1])
        if not stays:
            self.change.kept[of] = other - now
        if not self.kind.inverted:  # only the last positions of the stream of those that stand in are read any more
            term = self.runs.model.blocks[of.layer].attn.write(other) if of.kind == "head" else other
            self.others = term if self.others is None else self.others[:, -term.shape[1] :] + term
        return now

    def _other(self, of: Node, width: int) -> Float[Tensor, "B W *rest"]:
        """The replacements of the values that are not kept, at the last positions."""
        return self.runs.substitute(self.kind.ablate, of, self.prompt)[:, -width:]

    def mlp(self, layer: int, source: Float[Tensor, "B W d"]) -> Float[Tensor, "B W d"]:
        """The term of an MLP; the changes of its neurons are stored."""
        block = self.runs.model.blocks[layer]
        watched = self.runs.clean.kept if self.kind.mlps else ()
        x = block.mlp_norm(self.read_by(Node("mlp", layer), source) if self.kind.mlps else source)
        out, values = written_inside(self.runs.model, layer, watched, x)
        for node, now in values.items():
            other = self._other(node, now.shape[1])
            self.change.kept[node] = (other[..., 0] if is_number(node) else other) - now
        return out

    def patched(self, resid: Float[Tensor, "B W d"]) -> Float[Tensor, "B W d"]:
        """An input with every edge into it patched, or with none, where nodes are kept or the edges are listed."""
        return resid if self.others is None else self.others[:, -resid.shape[1] :]

    def corrected(self, receiver: Input, patched: Tensor) -> Iterator[tuple[slice, Float[Tensor, "rows W d"]]]:
        """(runs, their input with the listed edges corrected), for the subgraphs that list an edge into a receiver."""
        width, sign = patched.shape[1], 1 if self.kind.inverted else -1
        for number, rows in self.rows.items():
            if senders := self.senders[number].get(receiver):
                out = patched[rows].clone()
                for sender, at in senders.items():
                    if sender in self.change:  # edges of other senders are never patched
                        mask = sign * self.mask(at, number)[:, -width:, None]
                        if sender.is_part and sender.whole in senders:
                            mask = mask * ~self.mask(senders[sender.whole], number)[:, -width:, None]
                        out += term(self.runs.model, sender, self.change.value(sender)[rows, -width:]) * mask
                yield rows, out

    def read_by(self, node: Node, resid: Float[Tensor, "B W d"]) -> Float[Tensor, "B W d"]:
        """What an MLP or the logits read."""
        inputs = self.patched(resid).clone()
        for rows, own in self.corrected(Input(node, "in"), inputs):
            inputs[rows] = own
        return inputs

    def run(self, readout: Readout) -> Float[Tensor, "B width"]:
        """The runs, up to END in the last layer."""
        model, length = self.runs.model, self.runs.length
        resid = self.runs.clean.embed[self.prompt]
        self.written(EMBED, resid)
        for layer, block in enumerate(model.blocks):
            width, resid = 1 if layer == model.n_layers - 1 else length, block.entered(resid)
            before = self.others
            widths = (width, length, length)
            q, k, v = (self._projected(layer, *each, resid) for each in zip(PORTS, widths, strict=True))
            most = max(k.shape[2], v.shape[2])  # patched keys or values have one head for each query head
            parts = (x.repeat_interleave(max(1, most // x.shape[2]), dim=2).transpose(1, 2) for x in (q, k, v))
            gathered = attend(block.attn, *parts)
            resid = resid[:, length - width :]
            mid = resid + block.attn.written(gathered, partial(self.written, Node("head", layer)))[1]
            after = self.others
            if model.parallel:  # the MLP reads what the heads of its layer read
                self.others = before
            out = self.mlp(layer, resid if model.parallel else mid)
            self.others = after
            resid = mid + self.written(Node("mlp", layer), out)
        return read(model, self.read_by(LOGITS, resid), self.prompt, readout)[:, 0]

    def _projected(
        self, layer: int, port: Port, width: int, resid: Float[Tensor, "B T d"]
    ) -> Float[Tensor, "B W heads d_head"]:
        """Queries, keys or values at the last `width` positions, each of what its own input reads."""
        block, first = self.runs.model.blocks[layer], resid.shape[1] - width
        turns = self.runs.clean.turns[layer][first:]
        inputs = self.patched(resid[:, first:])
        out = block.attn.project(port, block.attn_norm(inputs), turns)
        heads = {
            to.node.head for by_input in self.senders for to in by_input if (to.node.layer, to.port) == (layer, port)
        }
        if heads and port != "q" and block.attn.group > 1:  # a patched key or value is read by one query head alone
            out = out.repeat_interleave(block.attn.group, dim=-2)
        for head in sorted(heads):
            for rows, own in self.corrected(Input(Node("head", layer, head), port), inputs):
                out[rows, :, head] = block.attn.project_head(port, head, block.attn_norm(own), turns)
        return out
