"""Paths: what arrives at a path's last readers, when nothing else of the run changes (semantics §8).

A node on the way reads the change that has come to it, and everything else clean. The change of its term goes on, at
the positions at which the next arrow reads it. All nodes that an arrow ends at are computed from clean runs, so that
they do not read each other. Only the last readers see a run in which something has changed (`forward`).

What is asked for again is computed once: experiments that begin alike share the way that they have in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import Edge, Input, Node, is_number
from circuitdsl.engine.batch_index import (
    Array,
    Carried,
    Flow,
    Names,
    Plan,
    Senders,
    Where,
    all_names,
    by_input,
    seen_from,
    sent_at,
    ship,
)
from circuitdsl.engine.experiment import Before
from circuitdsl.engine.runs import Runs
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.via_mlps import Flows
from circuitdsl.engine.workers import in_equal_parts
from circuitdsl.models.features import of_stream
from circuitdsl.models.parts import Transformer
from circuitdsl.models.writers import layer_of, term, written_inside


class Stop(NamedTuple):
    """The heads of a layer, its MLP or a residual stream with parts of it, on the way.

    Attributes:
        before: the arrows up to the one that ends there.
        of: what stands for them (see `layer_of`).
        names: the positions at which the next arrow reads what they write.
    """

    before: Before
    of: Node
    names: Names


@dataclass(frozen=True, eq=False)
class Change:
    """A change at some points of the prompts.

    Attributes:
        host: prompt and position of each point [points, 2].
        rows: the row of a (prompt, position), or -1 [n, T].
        values: of a reader's input `[points, d]`; of each node of a stop its value's, as `writers` has it.
    """

    host: Int[np.ndarray, "points 2"]
    rows: Int[np.ndarray, "n T"]
    values: Mapping[Node | None, Float[Tensor, "points _"]]

    def at(self, host: Int[np.ndarray, "some 2"]) -> Float[Tensor, "some d"]:
        """What comes to a reader at some of its points."""
        values = self.values[None]
        return values[ship(self.rows[host[:, 0], host[:, 1]], values.device)]


@lru_cache(maxsize=2**12)
def inputs(arrow: frozenset[Edge], of: Node) -> tuple[tuple[Input, Senders], ...]:
    """The inputs of a layer's heads, its MLP or a stream at which an arrow ends, each with its senders."""
    found = by_input(arrow).items()
    return tuple((read, tuple(senders.items())) for read, senders in found if layer_of(read.node) == of)


def stops_of(ways: Iterable[Carried]) -> list[tuple[set[Carried], dict[Stop, tuple[tuple[Input, Senders], ...]]]]:
    """What must be known of the way, from its start on: what comes along some arrows, then the stops that it comes to.

    The stops of a step have the inputs that are patched there.
    """
    steps = []
    wanted = defaultdict[int, set[Carried]](set)
    for way in ways:
        wanted[len(way.before)].add(way)
    for arrows in range(max(wanted, default=0), -1, -1):
        read = defaultdict[tuple[Before, Node], Names](frozenset)
        for before, senders in wanted[arrows] if arrows else ():
            for sender, names in senders:
                read[before, layer_of(sender)] |= names
        found = {Stop(before, of, names): inputs(before[-1], of) for (before, of), names in read.items()}
        for stop, own in found.items():
            wanted[arrows - 1] |= {Carried(stop.before[:-1], senders) for _, senders in own}
        steps.append((wanted[arrows], found))
    return steps[::-1]


def mlp_positions(plans: Iterable[Plan], where: Where) -> int:
    """At how many positions MLPs are computed on the way of some plans."""
    ways = {way for plan in plans for way, _ in plan.flows.values() if isinstance(way, Carried)}
    stops = ((stop, own) for _, found in stops_of(ways) for stop, own in found.items() if stop.of.kind == "mlp")
    coming = ((stop.names, all_names(senders)) for stop, own in stops for senders in {senders for _, senders in own})
    return sum(int((where.mask(read, False) & where.mask(arriving, False)).sum()) for read, arriving in coming)


def lets_through(model: Transformer, where: Where, arrows: Sequence[Iterable[Edge]]) -> Bool[np.ndarray, " n"]:
    """On which prompts the positions of a path let a change through: no node reads what stands behind it."""
    came: dict[Node, Array] = {}
    for number, arrow in enumerate(arrows):
        coming = [(edge.receiver, where.mask(frozenset([edge.position]), False), edge.sender) for edge in arrow]
        arrived = [(read, mask & came[sender] if number else mask) for read, mask, sender in coming]
        came = {}
        for read, mask in arrived:
            if read.port in ("k", "v"):
                mask = seen_from(mask, model.blocks[read.node.layer].attn.window)
            came[read.node] = came[read.node] | mask if read.node in came else mask
    return np.logical_or.reduce([mask.any(axis=1) for _, mask in arrived])


def carried(runs: Runs, plans: Sequence[Plan], where: Where, max_rows: int, tally: Tally) -> Flows:
    """What arrives at the last readers of the paths among some plans.

    Args:
        max_rows: residual-stream vectors that are computed at once, if possible.
    """
    flows = {(way, at) for plan in plans for way, at in plan.flows.values() if isinstance(way, Carried)}
    ways = {way for way, _ in flows}
    work, arrived = _Way(runs, where, max_rows, tally), dict[Carried, Change]()
    written: dict[tuple[Before, Node], Change] = {}
    for coming, stops in stops_of(ways):
        # a step's stops stand before what comes from them
        written = {(stop.before, stop.of): change for stop, change in work.written(stops, arrived)}
        arrived = {way: work.arriving(way, written) for way in coming} | {w: c for w, c in arrived.items() if w in ways}
    added: dict[Flow, Tensor] = {flow: arrived[flow[0]].values[None] for flow in flows}
    rows: dict[Hashable, Array] = {way: arrived[way].rows for way in ways}
    return Flows(added, rows)


@dataclass(frozen=True, eq=False)
class _Way:
    """Computes changes on runs of some prompts."""

    runs: Runs
    where: Where
    max_rows: int
    tally: Tally

    def change(self, host: Array, values: Mapping[Node | None, Tensor]) -> Change:
        rows = np.full((self.where.n, self.where.length), -1)
        rows[host[:, 0], host[:, 1]] = np.arange(len(host))
        return Change(host, rows, values)

    def at(self, host: Array) -> tuple[Tensor, Tensor]:
        """Prompts and positions of some points."""
        prompt, pos = (ship(column, self.runs.model.device) for column in host.T)
        return prompt, pos

    def arriving(self, way: Carried, written: Mapping[tuple[Before, Node], Change]) -> Change:
        """The change of what is read: the sum of those of the senders' terms."""
        model, where, senders = self.runs.model, self.where, way.senders
        host = np.argwhere(where.mask(all_names(senders), False))
        total = torch.zeros(len(host), model.d_model, dtype=model.dtype, device=model.device)
        for sender, names in senders:
            sent = sent_at(where, names, senders, sender, False)[host[:, 0], host[:, 1]]
            if way.before:
                known = written[way.before, layer_of(sender)]
                row = known.rows[host[:, 0], host[:, 1]]
                sent &= row >= 0
                value = known.values[sender][ship(row[sent], model.device)]
            else:
                points = self.at(host[sent])
                value = self.runs.corrupt.value(sender)[points] - self.runs.clean.value(sender)[points]
            into = ship(np.flatnonzero(sent), model.device)
            total.index_add_(0, into, term(model, sender, value).to(total.device))
        return self.change(host, {None: total})

    def written(
        self, stops: Mapping[Stop, tuple[tuple[Input, Senders], ...]], arrived: Mapping[Carried, Change]
    ) -> Iterator[tuple[Stop, Change]]:
        """The changes of what the nodes of some stops write; those of one layer are computed together."""
        by_layer = defaultdict[Node, list[_Reads]](list)
        for stop, own in stops.items():
            come = [(read, arrived[Carried(stop.before[:-1], senders)]) for read, senders in own]
            by_layer[stop.of].append(_Reads(stop, tuple(come)))
        for of, reads in by_layer.items():
            yield from (self._heads if of.kind == "head" else self._at_positions)(of, reads)

    def _at_positions(self, of: Node, reads: Sequence[_Reads]) -> Iterator[tuple[Stop, Change]]:
        """An MLP, or neurons and features of it or of a stream: what comes to a position changes nothing elsewhere."""
        clean, model = self.runs.clean, self.runs.model
        asked = [(each, come, nodes) for each in reads for come, nodes in each.by_change.items()]
        hosts = [np.argwhere(self.where.mask(each.stop.names, False) & (come.rows >= 0)) for each, come, _ in asked]
        sizes, parts = [len(host) for host in hosts], {node for *_, nodes in asked for node in nodes}
        prompt, pos = self.at(np.concatenate(hosts))
        x = torch.cat([come.at(host) for host, (_, come, _) in zip(hosts, asked, strict=True)])
        if of.kind == "mlp":
            block = model.blocks[of.layer]
            x = block.mlp_norm(clean.mlp_in[of.layer][prompt, pos] + block.entered(x))
            written = [written_inside(model, of.layer, parts, some) for some in x.split(max(1, self.max_rows))]
            found = [values | {of: term} for term, values in written]
            self.tally.flow_positions += len(x)
        else:
            whole = (clean.mlp_in[of.layer] if of.kind == "mid" else clean.value(of))[prompt, pos]
            found = [of_stream(parts, some) for some in (whole + x.to(whole.device)).split(max(1, self.max_rows))]
        changes = dict[tuple[Stop, Node], tuple[Array, Tensor]]()
        for node in parts:
            new = torch.cat([values[node] for values in found])
            new = (new[:, None] if is_number(node) else new) - clean.value(node)[prompt, pos]
            for (each, _, nodes), host, own in zip(asked, hosts, new.split(sizes), strict=True):
                if node in nodes:
                    changes[each.stop, node] = host, own
        for each in reads:
            yield each.stop, self._side_by_side({read.node: changes[each.stop, read.node] for read, _ in each.come})

    def _side_by_side(self, changes: Mapping[Node, tuple[Array, Tensor]]) -> Change:
        """Changes of several nodes, each at its own points, as one."""
        first, *rest = changes.values()
        if all(host is first[0] for host, _ in rest):
            return self.change(first[0], {node: values for node, (_, values) in changes.items()})
        every = self.change(np.unique(np.concatenate([host for host, _ in changes.values()]), axis=0), {})
        put = dict[Node | None, Tensor]()
        for node, (host, values) in changes.items():
            rows = ship(every.rows[host[:, 0], host[:, 1]], values.device)
            put[node] = values.new_zeros(len(every.host), values.shape[1]).index_copy_(0, rows, values)
        return Change(every.host, every.rows, put)

    def _heads(self, of: Node, reads: Sequence[_Reads]) -> Iterator[tuple[Stop, Change]]:
        clean, attn = self.runs.clean, self.runs.model.blocks[of.layer].attn
        hosts = [np.argwhere(self.where.mask(each.stop.names, False)) for each in reads]
        heads = sorted({read.node.head for each in reads for read, _ in each.come})
        gathered: dict[int, dict[int, Tensor]] = {place: {} for place in range(len(reads))}
        for head in heads:
            mine = [i for i, each in enumerate(reads) if any(read.node.head == head for read, _ in each.come)]
            most = max(1, self.max_rows // (self.where.n * self.where.length))
            for places in (mine[a:b] for a, b in in_equal_parts(len(mine), most)):
                z = self._gathered(of.layer, head, [reads[i] for i in places], [hosts[i] for i in places])
                for place, own in zip(places, z.split([len(hosts[i]) for i in places]), strict=True):
                    gathered[place][head] = own
        for place, (each, host) in enumerate(zip(reads, hosts, strict=True)):
            at, own = self.at(host), gathered[place]
            if attn.post is not None:  # the heads that an arrow ends at change the scale of their layer together
                every = clean.gathered[of.layer][at]
                for head, z in own.items():
                    every[:, head] = z
                written, _ = attn.written(every)
                own = {head: written[:, head] for head in own}
            nodes = {Node("head", of.layer, head): z for head, z in own.items()}
            yield each.stop, self.change(host, {node: z - clean.value(node)[at] for node, z in nodes.items()})

    def _gathered(
        self, layer: int, head: int, reads: Sequence[_Reads], hosts: Sequence[Array]
    ) -> Float[Tensor, "points d_head"]:
        """What a head gathers at some points, given what comes to its inputs; see `parts.attend`."""
        model, clean, length = self.runs.model, self.runs.clean, self.where.length
        block, kv = model.blocks[layer], head // model.blocks[layer].attn.group
        attn, n = block.attn, self.where.n
        # a row for each prompt of each stop: in it the keys and values are those of the prompt, but for what comes
        rows = np.concatenate([host[:, 0] + i * n for i, host in enumerate(hosts)])
        pos = np.concatenate([host[:, 1] for host in hosts])
        distinct, row = np.unique(rows, return_inverse=True)
        prompts = ship(distinct % n, model.device)
        q = clean.q[layer][ship(rows % n, model.device), head, ship(pos, model.device)]
        k, v = (each[layer][prompts, kv] for each in (clean.k, clean.v))
        place = np.full(len(reads) * n, -1)
        place[distinct] = np.arange(len(distinct))
        query = np.full((len(reads) * n, length), -1)
        query[rows, pos] = np.arange(len(rows))
        for i, each in enumerate(reads):
            for read, come in each.come:
                if read.node.head != head:
                    continue
                at = come.host[:, 0] + i * n, come.host[:, 1]
                into = query[at] if read.port == "q" else place[at[0]]
                used = np.flatnonzero(into >= 0)
                points, some = self.at(come.host[used]), ship(used, model.device)
                x = block.attn_norm(clean.resid_pre[layer][points] + block.entered(come.values[None][some]))
                new = attn.project_head(read.port, head, x, clean.turns[layer][points[1]])  # type: ignore[arg-type]
                where = ship(into[used], model.device)
                if read.port == "q":
                    q[where] = new
                else:
                    (k if read.port == "k" else v)[where, points[1]] = new
        one, out = attn.alone(head), []
        at_row, at_pos = ship(row, model.device), ship(pos, model.device)
        for some in torch.arange(len(rows), device=q.device).split(max(1, self.max_rows // length)):
            products = q[some].unsqueeze(1) @ k[at_row[some]].mT
            pattern = one.pattern(products, one.hidden_from(at_pos[some][:, None], length)).to(v.dtype)
            out.append((pattern @ v[at_row[some]])[:, 0])
        return torch.cat(out) if out else q


@dataclass(frozen=True, eq=False)
class _Reads:
    """A stop, and what comes to each of its inputs."""

    stop: Stop
    come: tuple[tuple[Input, Change], ...]

    @property
    def by_change(self) -> Mapping[Change, list[Node]]:
        """The nodes that read what comes, by that."""
        found = defaultdict[Change, list[Node]](list)
        for read, come in self.come:
            found[come].append(read.node)
        return found
