"""From experiments to index tables: which rows, positions and heads a batch touches, layer by layer.

A batch holds `N` prompts times `E` experiments that all enter at the same layer and start at the same position.
Its residual stream is `[N, E, W, d]`: `W` positions from the start on, or END alone once the last layer's heads
have read. A patched input is a list of *points* (prompt, experiment, position), since norms, projections and MLPs
act on one position at a time. Tables are made on the host and shipped whole, so that nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, Edge, Node, Position
from circuitdsl.engine.experiment import Experiment, PatchError
from circuitdsl.models.parts import PORTS, Port, Transformer

Names = frozenset[Position]
#: the senders of one receiver input, in order, each with the positions at which it is patched
Senders = tuple[tuple[Node, Names], ...]
#: MLPs and neurons through which no change flows, in order, each with the positions at which none does
Held = tuple[tuple[Node, Names], ...]
#: the way of a change via MLPs: from which senders, past which MLPs
Route = tuple[Senders, Held]
Array = np.ndarray
#: (layer, port): the inputs of one kind in one layer; `in` at the number of layers is the logits
Place = tuple[int, str]


@dataclass(frozen=True)
class Plan:
    """One experiment, sorted by where it acts.

    Attributes:
        reads: patched inputs of each place: head (-1 for an MLP or the logits) -> its senders.
        sites: knocked-out nodes of each place (`z`, `mlp` or `embed`): (head, index of its part or -1) -> positions.
        patched_mlps: MLPs and neurons that are patched or knocked out themselves. What a change of what they read does
            to them arrives live, or not at all: beside that it does not flow through them once more.
    """

    experiment: Experiment
    reads: Mapping[Place, Mapping[int, Senders]]
    sites: Mapping[Place, Mapping[tuple[int, int], Names]]
    entry: int
    first_stage: float
    patched_mlps: Held = ()

    def route(self, senders: Senders, stage: float, parallel: bool) -> Route:
        """The way of some senders' change via MLPs to a receiver of a stage."""
        first = min(sender.stage(parallel) for sender, _ in senders)
        return senders, tuple((m, names) for m, names in self.patched_mlps if first <= m.stage(parallel) < stage)

    @property
    def from_embed(self) -> bool:
        """Whether it changes what layer 0 reads, so that no layer can be entered through a few heads alone."""
        return (-1, "embed") in self.sites

    @property
    def fixed(self) -> bool:
        """Whether it puts in values that do not come from the other run, so that they differ at any position."""
        return bool(self.experiment.sites) and self.experiment.ablate != "corrupt"

    def live(self, sender: Node, parallel: bool) -> bool:
        """Whether a sender's own term can have changed in this experiment."""
        return sender.stage(parallel) >= self.first_stage


def plan(experiment: Experiment, model: Transformer) -> Plan:
    """Sort an experiment's edges and sites by the layer at which they act.

    Sets are gone through in order: sums of terms would else be rounded otherwise from one process to the next.
    """
    senders: dict[Place, dict[int, dict[Node, set[Position]]]] = {}
    for edge in sorted(experiment.edges):
        heads = senders.setdefault(_place(edge, model.n_layers), {})
        heads.setdefault(edge.receiver.node.head, {}).setdefault(edge.sender, set()).add(edge.position)
    sites: dict[Place, dict[tuple[int, int], set[Position]]] = {}
    for site in sorted(experiment.sites):
        kind = "z" if site.node.kind == "head" else site.node.kind
        nodes_at = sites.setdefault((site.node.layer, kind), {})
        nodes_at.setdefault((site.node.head, site.node.index), set()).add(site.position)
    nodes = [edge.receiver.node for edge in experiment.edges] + [site.node for site in experiment.sites]
    first = min((node.stage(model.parallel) for node in nodes), default=float("inf"))
    entry = min((place[0] for place in (*senders, *sites)), default=model.n_layers)
    held: dict[Node, set[Position]] = {}
    for edge in experiment.edges:
        if edge.receiver.node.kind == "mlp":
            held.setdefault(edge.receiver.node, set()).add(edge.position)
    for site in experiment.sites:
        if site.node.kind == "mlp":
            held.setdefault(site.node, set()).add(site.position)
    return Plan(
        experiment,
        {
            place: {head: tuple((s, frozenset(at)) for s, at in by.items()) for head, by in heads.items()}
            for place, heads in senders.items()
        },
        {place: {node: frozenset(at) for node, at in nodes.items()} for place, nodes in sites.items()},
        max(entry, 0),
        first,
        tuple((node, frozenset(held[node])) for node in sorted(held)),
    )


def _place(edge: Edge, n_layers: int) -> Place:
    return (n_layers if edge.receiver.node.kind == "logits" else edge.receiver.node.layer), edge.receiver.port


# --- where positions are ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Where:
    """Positions as masks over the tokens of all prompts of a `Runs`.

    Attributes:
        first: the first token at which a prompt and its partner differ: before it, all terms of the two are equal, so
            that putting in those of the other run changes nothing. `None` takes every position as one that may differ.
    """

    index: Mapping[Position, Array]
    n: int
    length: int
    first: Array | None = None
    _masks: dict[tuple[Names, bool], Array] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, positions: Mapping[Position, Tensor], n: int, length: int, first: Array | None = None) -> Where:
        """Raises `PatchError` where an index lies outside a prompt or not every prompt has its indices."""
        index = {name: _checked(name, tensor.cpu().numpy(), n, length) for name, tensor in positions.items()}
        return cls(index, n, length, first)

    def mask(self, names: Names, fixed: bool = True) -> Array:
        """`[n, length]`: where any of these positions is; unless `fixed`, only where the two runs can differ."""
        if (names, fixed) not in self._masks:
            out = np.zeros((self.n, self.length), dtype=bool)
            for name in names:
                if name == EVERYWHERE:
                    out[:] = True
                else:
                    row, column = (self._index(name) >= 0).nonzero()
                    out[row, self._index(name)[row, column]] = True
            if self.first is not None and not fixed:
                out &= np.arange(self.length) >= self.first[:, None]
            self._masks[names, fixed] = out
        return self._masks[names, fixed]

    def _index(self, name: Position) -> Array:
        if name not in self.index:
            known = ", ".join(str(n) for n in self.index) or "none"
            raise PatchError(f"no token indices were given for position {name} (given: {known})")
        return self.index[name]

    def start(self, plan: Plan, n_layers: int) -> Array:
        """`[n]`: the first position that an experiment changes in each prompt; `length` where it changes none."""
        out = np.full(self.n, self.length)
        inner = [names for heads in plan.sites.values() for names in heads.values()]
        for (layer, _), heads in plan.reads.items():
            names = [all_names(senders) for senders in heads.values()]
            if layer < n_layers:
                inner += names
            else:
                self._check_end(plan)
                out[self.mask(frozenset().union(*names), plan.fixed)[:, -1]] = self.length - 1
        for one in set(inner):
            mask = self.mask(one, plan.fixed)
            out = np.minimum(out, np.where(mask.any(axis=1), mask.argmax(axis=1), self.length))
        return out

    def _check_end(self, plan: Plan) -> None:
        for edge in plan.experiment.edges:
            if edge.receiver.node.kind == "logits" and edge.position != EVERYWHERE:
                wrong = self.mask(frozenset([edge.position]), fixed=True)[:, :-1].any(axis=1)
                if wrong.any():
                    raise PatchError(
                        f"{edge}: logits are read at END only, and in prompt {int(wrong.argmax()) + 1} "
                        f"{edge.position} is not the last token"
                    )


def _checked(name: Position, index: Array, n: int, length: int) -> Array:
    if index.ndim != 2 or len(index) != n:
        raise PatchError(f"position {name} needs token indices [{n}, k], not {list(index.shape)}")
    outside = (index >= length).any(axis=1)
    if outside.any():
        raise PatchError(
            f"position {name} is token {int(index[outside].max())} of prompt {int(outside.argmax()) + 1}, "
            f"which has {length} tokens"
        )
    return index


def all_names(senders: Senders) -> Names:
    """The positions of some senders, together."""
    return frozenset(name for _, names in senders for name in names)


def sent_at(where: Where, names: Names, senders: Senders, sender: Node, fixed: bool) -> Array:
    """`[n, length]`: where a sender's term is replaced; a part's only where its whole is not."""
    mask = where.mask(names, fixed)
    for other, places in senders if sender.is_part else ():
        if other == sender.whole:
            mask = mask & ~where.mask(places, fixed)
    return mask


def ship(array: Array | Sequence[int], device: torch.device) -> Tensor:
    """Indices or a mask on a device; does not wait for what the device is doing."""
    host = np.asarray(array)
    tensor = torch.from_numpy(np.ascontiguousarray(host, dtype=bool if host.dtype == bool else np.int64))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


# --- a batch ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Send:
    """One sender's share of some changes: which rows of the changes it adds to, and where its term stands."""

    sender: Node
    live: bool
    into: Tensor
    prompt: Tensor
    pos: Tensor
    flat: Tensor


@dataclass(frozen=True, eq=False)
class Flow:
    """Rows of the changes that a flow through the MLPs adds to, and the rows of that flow."""

    key: tuple[Route, float]
    into: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the residual stream: their prompt, experiment and step on the host; the rest on the device."""

    host: Array
    prompt: Tensor
    pos: Tensor
    flat: Tensor


@dataclass(frozen=True, eq=False)
class Reads:
    """The patched inputs of one place, sorted by head.

    Attributes:
        heads: (head, first point, last point + 1).
        change: each point's row among `n_changes` changes; inputs with the same senders share theirs.
        sends, flows: what the changes are made of.
    """

    points: Points
    heads: tuple[tuple[int, int, int], ...]
    change: Tensor
    n_changes: int
    sends: tuple[Send, ...]
    flows: tuple[Flow, ...]


@dataclass(frozen=True, eq=False)
class Sites:
    """Knocked-out terms of one place that become the same thing; `part` where only that part of them does."""

    ablate: str
    part: Node | None
    points: Points
    head: Tensor
    nodes: tuple[tuple[int, int, int, int], ...]

    def by_node(self) -> Iterable[tuple[int, int, Array]]:
        """(head, experiment, its points)."""
        return ((head, e, self.points.host[a:b]) for head, e, a, b in self.nodes)


@dataclass(frozen=True, eq=False)
class Batch:
    """Experiments on prompts that share an entry layer and a first position."""

    plans: tuple[Plan, ...]
    rows: Array
    start: int
    where: Where
    model: Transformer
    flow_rows: Mapping[Senders, Array] = field(default_factory=dict)
    #: nodes whose terms are looked at afterwards
    kept: frozenset[Node] = frozenset()

    @property
    def entry(self) -> int:
        return min(plan.entry for plan in self.plans)

    @property
    def from_embed(self) -> bool:
        return self.plans[0].from_embed

    @property
    def steps(self) -> int:
        """Positions from the start on."""
        return self.where.length - self.start

    @cached_property
    def prompts(self) -> Tensor:
        return self.ship(self.rows)

    def ship(self, array: Array | Sequence[int]) -> Tensor:
        """Indices, on the model's device."""
        return ship(array, self.model.device)

    def width(self, layer: int) -> int:
        """Positions of the residual stream that are still followed after a layer's heads have read."""
        return 1 if layer >= self.model.n_layers - 1 else self.steps

    @cached_property
    def live_nodes(self) -> frozenset[Node]:
        """Nodes whose terms must be kept as this batch runs: senders that are read later, and what is looked at."""
        parallel = self.model.parallel
        return self.kept | frozenset(
            sender
            for plan in self.plans
            for heads in plan.reads.values()
            for senders in heads.values()
            for sender, _ in senders
            if plan.live(sender, parallel)
        )

    def keeps(self, kind: str, layer: int) -> bool:
        """Whether the terms of a layer's heads or MLP are read again by a later patched input."""
        return any(n.kind == kind and n.layer == layer and not _is_neuron(n) for n in self.live_nodes)

    def neurons(self, layer: int) -> tuple[Node, ...]:
        """The neurons of a layer whose activations are needed: to be replaced, or read by a later patched input."""
        out = {Node("mlp", layer, index=i) for p in self.plans for _, i in p.sites.get((layer, "mlp"), ()) if i >= 0}
        return tuple(sorted(out | {node for node in self.live_nodes if node.layer == layer and _is_neuron(node)}))

    # --- points

    def points(self, host: Array, width: int) -> Points:
        """`host` is `[points, 3]`: prompt (in the batch), experiment, step (from the batch's start on)."""
        n, _, s = host.T
        return Points(host, self.ship(self.rows[n]), self.ship(s + self.start), self.ship(self.flat(host, width)))

    def flat(self, host: Array, width: int) -> Array:
        """Rows in the residual stream laid out as `[N * E * width, d]`."""
        n, e, s = host.T
        return (n * len(self.plans) + e) * width + s - (self.steps - width)

    def steps_of(self, plan: Plan, names: Names, width: int) -> tuple[Array, Array]:
        """(prompt in the batch, step) where a plan changes any of these positions, among the last `width` steps."""
        first = self.where.length - width
        n, t = self.where.mask(names, plan.fixed)[self.rows][:, first:].nonzero()
        return n, t + first - self.start

    def reads(self, layer: int, port: str, width: int) -> Reads | None:
        """The patched inputs of a place, or `None` where there is none."""
        found = [(h, e, s) for e, plan in enumerate(self.plans) for h, s in plan.reads.get((layer, port), {}).items()]
        table = _ReadTable(self, layer, port, width)
        for head, e, senders in sorted(found, key=lambda item: item[:2]):
            table.add(head, e, senders)
        return table.done()

    def sites(self, layer: int, kind: str, width: int) -> tuple[Sites, ...]:
        """The knocked-out terms of a place, parts of nodes before whole ones."""
        groups: dict[tuple[str, Node | None], list[tuple[int, int, Names]]] = {}
        for e, plan in enumerate(self.plans):
            for (head, index), names in plan.sites.get((layer, kind), {}).items():
                part = None if index < 0 else Node("head" if kind == "z" else "mlp", layer, head, index)
                groups.setdefault((plan.experiment.ablate, part), []).append((head, e, names))
        out = []
        for (ablate, part), items in sorted(groups.items(), key=lambda group: group[0][1] is None):
            hosts = [_host(*self.steps_of(self.plans[e], names, width), e) for _, e, names in items]
            ends = np.cumsum([0] + [len(h) for h in hosts])
            nodes = tuple((item[0], item[1], int(ends[i]), int(ends[i + 1])) for i, item in enumerate(items))
            heads = np.concatenate([np.full(b - a, head) for head, _, a, b in nodes])
            if len(heads):
                out.append(Sites(ablate, part, self.points(np.concatenate(hosts), width), self.ship(heads), nodes))
        return tuple(out)


def _is_neuron(node: Node) -> bool:
    return node.kind == "mlp" and node.is_part


def _host(n: Array, s: Array, e: int) -> Array:
    return np.stack((n, np.full(len(n), e), s), axis=1)


class _ReadTable:
    """Gathers the patched inputs of one place, read by read."""

    def __init__(self, batch: Batch, layer: int, port: str, width: int) -> None:
        self.batch, self.width = batch, width
        is_logits = layer == batch.model.n_layers
        self.stage = (
            float("inf") if is_logits else Node("mlp" if port == "in" else "head", layer).stage(batch.model.parallel)
        )
        self.size = self.n_changes = 0
        self.hosts: list[Array] = []
        self.changes: list[Array] = []
        self.known: dict[tuple[int, Senders], Array] = {}
        self.heads: list[tuple[int, int, int]] = []
        self.sends: dict[tuple[Node, bool], list[tuple[Array, Array]]] = {}
        self.flows: dict[Route, list[tuple[Array, Array]]] = {}

    def add(self, head: int, e: int, senders: Senders) -> None:
        """One receiver input of one experiment, with its senders."""
        batch = self.batch
        n, s = batch.steps_of(batch.plans[e], all_names(senders), self.width)
        if not len(n):
            return
        start = self.heads.pop()[1] if self.heads and self.heads[-1][0] == head else self.size
        self.size += len(n)
        self.heads.append((head, start, self.size))
        self.hosts.append(_host(n, s, e))
        if (e, senders) not in self.known:
            self.known[e, senders] = np.arange(self.n_changes, self.n_changes + len(n))
            self.n_changes += len(n)
            self._change(self.known[e, senders], self.hosts[-1], e, senders)
        self.changes.append(self.known[e, senders])

    def _change(self, rows: Array, host: Array, e: int, senders: Senders) -> None:
        """Note what the changes at some points are made of."""
        batch, everywhere = self.batch, all_names(senders)
        prompt, pos = batch.rows[host[:, 0]], host[:, 2] + batch.start
        for sender, names in senders:
            key = sender, batch.plans[e].live(sender, batch.model.parallel)
            everywhere_sent = names == everywhere and not sender.is_part
            sent = sent_at(batch.where, names, senders, sender, batch.plans[e].fixed)
            keep = slice(None) if everywhere_sent else sent[prompt, pos]
            self.sends.setdefault(key, []).append((rows[keep], host[keep]))
        if batch.plans[e].experiment.via_mlps:
            route = batch.plans[e].route(senders, self.stage, batch.model.parallel)
            self.flows.setdefault(route, []).append((rows, batch.flow_rows[senders][prompt, pos]))

    def done(self) -> Reads | None:
        if not self.size:
            return None
        batch = self.batch
        sends = tuple(self._send(*key, parts) for key, parts in self.sends.items())
        flows = tuple(
            Flow((route, self.stage), *(batch.ship(np.concatenate(column)) for column in zip(*parts, strict=True)))
            for route, parts in self.flows.items()
        )
        points = batch.points(np.concatenate(self.hosts), self.width)
        change = batch.ship(np.concatenate(self.changes))
        return Reads(points, tuple(self.heads), change, self.n_changes, sends, flows)

    def _send(self, sender: Node, live: bool, parts: list[tuple[Array, Array]]) -> Send:
        batch = self.batch
        into, host = (np.concatenate(column) for column in zip(*parts, strict=True))
        width = batch.steps if sender == EMBED else batch.width(sender.layer)
        n, _, s = host.T
        flat = batch.ship(batch.flat(host, width) if live else np.empty(0))
        return Send(sender, live, batch.ship(into), batch.ship(batch.rows[n]), batch.ship(s + batch.start), flat)


# --- entering a layer through a few of its heads ----------------------------------------------------


@dataclass(frozen=True, eq=False)
class Jobs:
    """Heads of the entry layer that are recomputed, one job for each head of each experiment, sorted by head.

    Attributes:
        head, experiment: of each job.
        job: points at which a job's `z` changes, as (job, prompt, step), sorted by job.
        heads: (head, first of those points, last + 1).
        points: the same points; `rows` are theirs among the touched ones.
    """

    head: Tensor
    experiment: Tensor
    number: Mapping[tuple[int, int], int]
    job: tuple[Tensor, Tensor, Tensor]
    heads: tuple[tuple[int, int, int], ...]
    points: Points
    of_point: Tensor


@dataclass(frozen=True, eq=False)
class Entry:
    """What the entry layer changes.

    Attributes:
        touched: every point at which the layer's output changes.
        jobs: the heads behind that, and the rows of `touched` that each of their points adds to.
        through_mlp: rows of `touched` at which the MLP is recomputed.
    """

    touched: Points
    jobs: Jobs | None
    job_rows: Tensor
    through_mlp: Tensor
    n_through_mlp: int
    read_rows: Tensor


def seen_from(keys: Array, window: int | None) -> Array:
    """`[n, length]`: the queries that see any of some keys or values, which go back `window` tokens at most."""
    count = keys.cumsum(axis=1)
    if window is not None and window < keys.shape[1]:
        count[:, window:] -= count[:, :-window].copy()
    return count > 0


def entry_jobs(batch: Batch, layer: int, reads: Mapping[Port, Reads | None], sites: Iterable[Sites]) -> Jobs | None:
    """The heads that a batch enters through; `reads` have all steps, `sites` the layer's width."""
    n_rows, steps, width = len(batch.rows), batch.steps, batch.width(layer)
    masks: dict[tuple[int, int], Array] = {}

    def mask(head: int, e: int) -> Array:
        return masks.setdefault((head, e), np.zeros((n_rows, steps), dtype=bool))

    for port in PORTS:
        table = reads.get(port)
        for head, a, b in table.heads if table else ():
            n, e, s = table.points.host[a:b].T  # type: ignore[union-attr]
            for one in np.unique(e):
                read = np.zeros((n_rows, steps), dtype=bool)
                read[n[e == one], s[e == one]] = True
                seen = mask(head, int(one))
                seen |= read if port == "q" else seen_from(read, batch.model.blocks[layer].attn.window)
    for site in sites:
        for head, e, part in site.by_node():
            mask(head, e)[part[:, 0], part[:, 2]] = True
    if not masks:
        return None
    keys = sorted(masks)
    every = np.stack([masks[key] for key in keys])[:, :, steps - width :]
    j, n, s = every.nonzero()
    experiments = np.array([e for _, e in keys])
    counts = every.sum(axis=(1, 2))
    ends = np.concatenate(([0], counts.cumsum()))
    heads_of = [head for head, _ in keys]
    slices = [
        (head, int(ends[heads_of.index(head)]), int(ends[len(heads_of) - heads_of[::-1].index(head)]))
        for head in dict.fromkeys(heads_of)
    ]
    points = batch.points(np.stack((n, experiments[j], s + steps - width), axis=1), width)
    return Jobs(
        head=batch.ship(heads_of),
        experiment=batch.ship(experiments),
        number={(head, int(e)): i for i, (head, e) in enumerate(keys)},
        job=(batch.ship(j), batch.ship(n), batch.ship(s)),
        heads=tuple(slices),
        points=points,
        of_point=batch.ship(np.array(heads_of)[j]),
    )


def entry(batch: Batch, layer: int, jobs: Jobs | None, mlp_reads: Reads | None, mlp_sites: Iterable[Sites]) -> Entry:
    """The points that an entry layer touches, and which of them pass through its MLP."""
    width = batch.width(layer)
    size = len(batch.rows) * len(batch.plans) * width
    by_heads, by_reads, by_sites = (np.zeros(size, dtype=bool) for _ in range(3))
    if jobs:
        by_heads[batch.flat(jobs.points.host, width)] = True
    if mlp_reads:
        by_reads[batch.flat(mlp_reads.points.host, width)] = True
    for site in mlp_sites:
        by_sites[batch.flat(site.points.host, width)] = True
    touched = by_heads | by_reads | by_sites
    through = by_reads if batch.model.parallel else by_heads | by_reads
    flat = touched.nonzero()[0]
    row = np.full(size, -1)
    row[flat] = np.arange(len(flat))
    n, rest = np.divmod(flat, len(batch.plans) * width)
    e, s = np.divmod(rest, width)
    at_mlp = row[through.nonzero()[0]]
    place = np.full(max(len(flat), 1), -1)
    place[at_mlp] = np.arange(len(at_mlp))

    def rows_of(points: Points | None) -> Array:
        return np.empty(0) if points is None else row[batch.flat(points.host, width)]

    read_rows = rows_of(mlp_reads.points if mlp_reads else None)
    return Entry(
        touched=batch.points(np.stack((n, e, s + batch.steps - width), axis=1), width),
        jobs=jobs,
        job_rows=batch.ship(rows_of(jobs.points if jobs else None)),
        through_mlp=batch.ship(at_mlp),
        n_through_mlp=len(at_mlp),
        read_rows=batch.ship(place[read_rows.astype(int)] if len(read_rows) else read_rows),
    )
