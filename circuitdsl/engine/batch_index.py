"""From experiments to index tables: which rows, positions and heads a batch changes, layer by layer.

A batch holds `N` prompts times `E` experiments that all enter at the same layer and start at the same position.
Its residual stream is `[N, E, W, d]`: `W` positions from the start on, or END alone once the last layer's heads
have read. A patched input is a list of *points* (prompt, experiment, position), since norms, projections and MLPs
act on one position at a time. Tables are made on the host and copied to the device whole, so that the host never
waits for the device.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitdsl.circuit.crossing import written_at, written_before
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Ablation, Edge, Input, Node, Position, Site, is_inside
from circuitdsl.engine.experiment import Before, Experiment, PatchError
from circuitdsl.models.parts import PORTS, Port, Transformer
from circuitdsl.models.writers import inside, layer_of

Names = frozenset[Position]
#: the senders of one receiver input, in order, each with the positions at which it is patched
Senders = tuple[tuple[Node, Names], ...]
Array = np.ndarray
#: (layer, port): the inputs of one kind in one layer; `in` at the number of layers is the logits. Neurons and
#: features have the kind of their node as port, and as layer the one after which they are known.
Place = tuple[int, str]


class Route(NamedTuple):
    """The way of a change via MLPs.

    Attributes:
        senders: where it starts.
        first: the stage of its first sender.
        held: MLPs, neurons and residual streams that it does not go through, each with the positions at which it does
            not. They are patched or knocked out themselves: the forward pass already carries their changes.
    """

    senders: Senders
    first: float
    held: Senders


class Carried(NamedTuple):
    """What comes to the readers of a path's last arrow.

    Attributes:
        before: the arrows before.
        senders: the nodes that the last of these ends at, with the positions at which they are read.
    """

    before: Before
    senders: Senders


#: points that follow each other: (the first of them, its row of changes, how many)
Stretch = tuple[int, int, int]
#: a way, and the stage of a receiver that reads what has come along it
Flow = tuple[Route | Carried, float]


@dataclass(frozen=True)
class Plan:
    """One experiment, sorted by where it acts.

    Attributes:
        reads: patched inputs of each place: the node that reads -> its senders.
        flows: of edges via MLPs and of paths, the way to each place from the senders of each input there.
        sites: knocked-out nodes with their positions, by `layer_of` them.
        entry: the first layer in which anything changes; -1 where the embedding does.
        changing: the senders whose own terms can have changed when they are read.
        fixed: it puts in values that are not those of the other run: they can differ at any position.
    """

    experiment: Experiment
    reads: Mapping[Place, Mapping[Node, Senders]]
    flows: Mapping[tuple[Place, Senders], Flow]
    sites: Mapping[Node, Mapping[Node, Names]]
    entry: int
    changing: frozenset[Node]
    fixed: bool

    @cached_property
    def shape(self) -> Hashable:
        """The places and positions that it changes: where these are equal, so are the start and the least work."""
        reads = frozenset((place, all_names(one)) for place, nodes in self.reads.items() for one in nodes.values())
        sites = frozenset((at, names) for at, nodes in self.sites.items() for names in nodes.values())
        return self.entry, self.fixed, reads, sites


def plan(experiment: Experiment, model: Transformer) -> Plan:
    """Sort an experiment's edges and sites by the layer at which they act; each experiment is sorted once.

    Sets are read in sorted order, so that sums of terms are rounded in the same way in every process.
    """
    return _sorted_out(experiment, model.n_layers, model.parallel)


@lru_cache(maxsize=2**14)
def _sorted_out(experiment: Experiment, n_layers: int, parallel: bool) -> Plan:
    edges, knocked_out = written_before(experiment.edges, parallel), written_at(experiment.sites)
    patched = [Site(edge.receiver.node, edge.position) for edge in edges] + knocked_out
    between = by_node(site for site in patched if site.node.kind in ("mlp", "resid"))
    reads: dict[Place, dict[Node, Senders]] = {}
    flows: dict[tuple[Place, Senders], Flow] = {}
    for receiver, by_sender in by_input(edges).items():
        node, senders = receiver.node, tuple(by_sender.items())
        place = (n_layers if node == LOGITS else node.known_after, node.kind if node.is_part else receiver.port)
        reads.setdefault(place, {})[node] = senders
        if experiment.before:
            flows[place, senders] = Carried(experiment.before, senders), node.stage(parallel)
        elif experiment.via_mlps:
            first, stage = min(sender.stage(parallel) for sender in by_sender), node.stage(parallel)
            own = [node for node in between if node.kind == "resid" and any(s.whole.holds(node) for s in by_sender)]
            held = tuple((n, names) for n, names in between.items() if n in own or first <= n.stage(parallel) < stage)
            flows[place, senders] = Route(senders, first, held), stage
    sites: dict[Node, dict[Node, Names]] = {}
    for node, names in by_node(knocked_out).items():
        sites.setdefault(layer_of(node), {})[node] = names
    first = min((site.node.stage(parallel) for site in patched), default=float("inf"))
    streams = [node for node in sites if node.kind == "resid"]
    changing = frozenset(
        edge.sender
        for edge in edges
        if edge.sender.stage(parallel) >= first or any(stream.holds(edge.sender) for stream in streams)
    )
    changing = frozenset() if experiment.before else changing
    entry = min((*(layer for layer, _ in reads), *(node.known_after for node in sites)), default=n_layers)
    fixed = experiment.sent != "corrupt" or (bool(sites) and experiment.ablate != "corrupt")
    return Plan(experiment, reads, flows, sites, entry, changing, fixed)


def by_input(edges: Iterable[Edge]) -> dict[Input, dict[Node, Names]]:
    """The senders of each receiver input, in order, with the positions at which each is patched."""
    found: dict[Input, list[Site]] = {}
    for edge in sorted(edges):
        found.setdefault(edge.receiver, []).append(Site(edge.sender, edge.position))
    return {receiver: by_node(sites) for receiver, sites in found.items()}


def by_node(sites: Iterable[Site]) -> dict[Node, Names]:
    """The positions of each node, nodes in order."""
    found: dict[Node, set[Position]] = {}
    for site in sorted(sites):
        found.setdefault(site.node, set()).add(site.position)
    return {node: frozenset(names) for node, names in found.items()}


# --- where positions are ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Where:
    """Positions as masks over the tokens of all prompts of a `Runs`.

    Attributes:
        first: the first token at which a prompt and its partner differ. Before it, all terms of the two are equal, so
            that patching changes nothing. With `None`, every position may differ.
    """

    index: Mapping[Position, Array]
    n: int
    length: int
    first: Array | None = None
    _masks: dict[tuple[Names, bool], Array] = field(default_factory=dict, repr=False)
    _starts: dict[tuple[Hashable, int], Array] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, positions: Mapping[Position, Tensor], n: int, length: int, first: Array | None = None) -> Where:
        """Raises `PatchError` where an index lies outside a prompt or not every prompt has its indices."""
        where = {name: tensor.cpu().numpy() for name, tensor in positions.items()}
        for name, index in where.items():
            if index.ndim != 2 or len(index) != n:
                raise PatchError(f"position {name} needs token indices [{n}, k], not {list(index.shape)}")
            outside = (index >= length).any(axis=1)
            if outside.any():
                raise PatchError(
                    f"position {name} is token {int(index[outside].max())} of prompt {int(outside.argmax()) + 1}, "
                    f"which has {length} tokens"
                )
        return cls(where, n, length, first)

    def mask(self, names: Names, fixed: bool = True) -> Bool[np.ndarray, "n length"]:
        """Where any of these positions is; unless `fixed`, only where the two runs can differ."""
        if (names, fixed) not in self._masks:
            out = np.full((self.n, self.length), EVERYWHERE in names)
            for name in names - {EVERYWHERE}:
                if name not in self.index:
                    known = ", ".join(map(str, self.index)) or "none"
                    raise PatchError(f"no token indices were given for position {name} (given: {known})")
                row, column = (self.index[name] >= 0).nonzero()
                out[row, self.index[name][row, column]] = True
            if self.first is not None and not fixed:
                out &= np.arange(self.length) >= self.first[:, None]
            self._masks[names, fixed] = out
        return self._masks[names, fixed]

    def start(self, plan: Plan, n_layers: int) -> Int[np.ndarray, " n"]:
        """The first position that an experiment changes in each prompt; `length` where it changes none."""
        if (known := (plan.shape, n_layers)) not in self._starts:
            self._starts[known] = self._start(plan, n_layers)
        return self._starts[known]

    def _start(self, plan: Plan, n_layers: int) -> Int[np.ndarray, " n"]:
        out = np.full(self.n, self.length)
        inner = {names for heads in plan.sites.values() for names in heads.values()}
        for (layer, _), nodes in plan.reads.items():
            names = {all_names(senders) for senders in nodes.values()}
            if layer < n_layers:
                inner |= names
            else:
                out[self.mask(frozenset().union(*names), plan.fixed)[:, -1]] = self.length - 1
        for edge in plan.experiment.edges if (n_layers, "in") in plan.reads else ():
            if edge.receiver.node == LOGITS and edge.position != EVERYWHERE:
                wrong = self.mask(frozenset([edge.position]))[:, :-1].any(axis=1)
                if wrong.any():
                    raise PatchError(
                        f"{edge}: logits are read at END only, and in prompt {int(wrong.argmax()) + 1} "
                        f"{edge.position} is not the last token"
                    )
        for one in inner:
            mask = self.mask(one, plan.fixed)
            out = np.minimum(out, np.where(mask.any(axis=1), mask.argmax(axis=1), self.length))
        return out


@lru_cache(maxsize=2**12)
def all_names(senders: Senders) -> Names:
    """The positions of some senders, together."""
    return frozenset(name for _, names in senders for name in names)


def sent_at(where: Where, names: Names, senders: Senders, sender: Node, fixed: bool) -> Bool[np.ndarray, "n length"]:
    """Where a sender's term is replaced; where what it is in is replaced as well, its whole or a stream, it is not."""
    mask, whole = where.mask(names, fixed), sender.whole if sender.is_part else None
    for other, there in senders:
        if other == whole or other.holds(sender):
            mask = mask & ~where.mask(there, fixed)
    return mask


def ship(array: Array | Sequence[int], device: torch.device) -> Tensor:
    """Indices or a mask on a device; the host does not wait for the copy."""
    host = np.asarray(array)
    tensor = torch.from_numpy(np.ascontiguousarray(host, dtype=bool if host.dtype == bool else np.int64))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


# --- a batch ----------------------------------------------------------------------------------------


def runs_of(numbers: Int[np.ndarray, " n"]) -> tuple[tuple[int, int, int], ...]:
    """(number, first place, last place + 1) of each number, where they are sorted."""
    found, first = np.unique(numbers, return_index=True)
    ends = pairwise([*first.tolist(), len(numbers)])
    return tuple((number, *end) for number, end in zip(found.tolist(), ends, strict=True))


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the residual stream.

    Attributes:
        host: `[points, 4]`: prompt (in the batch), experiment, step (from the batch's start on), and the head that
            reads or writes there, or -1; of neurons and features that read, their number among `Batch.readers`.
        width: how many of the last steps the tensor has that `flat` indexes.
    """

    batch: Batch
    host: Array
    width: int

    @cached_property
    def prompt(self) -> Int[Tensor, " points"]:
        """Rows of the prompts in whole runs."""
        return self.batch.ship(self.batch.rows[self.host[:, 0]])

    @cached_property
    def pos(self) -> Int[Tensor, " points"]:
        return self.batch.ship(self.host[:, 2] + self.batch.start)

    @cached_property
    def head(self) -> Int[Tensor, " points"]:
        return self.batch.ship(self.host[:, 3])

    @cached_property
    def flat(self) -> Int[Tensor, " points"]:
        """Rows in a tensor `[N, E, width, ...]` with its first three axes flattened."""
        return self.batch.ship(self.rows_of(self.width))

    def rows_of(self, width: int) -> Int[np.ndarray, " points"]:
        """`flat` for another width, on the host."""
        n, e, s, _ = self.host.T
        return (n * len(self.batch.plans) + e) * width + s - (self.batch.steps - width)

    @cached_property
    def heads(self) -> tuple[tuple[int, int, int], ...]:
        """(head, first point, last point + 1), where the points are sorted by head."""
        return runs_of(self.host[:, 3])

    @cached_property
    def clean_rows(self) -> Int[np.ndarray, " points"]:
        """Rows in a tensor `[n, T, ...]` of whole runs with its first two axes flattened, on the host."""
        return self.batch.rows[self.host[:, 0]] * self.batch.where.length + self.host[:, 2] + self.batch.start


@dataclass(frozen=True, eq=False)
class Reads:
    """The patched inputs of one place, sorted by head.

    Attributes:
        of_change: each point's row among `n_changes` changes; inputs with the same senders share theirs.
        sends: the senders' shares of the changes: (sender, whether its term in this run can differ from the clean one,
            what stands in for it, rows of the changes, where its term stands).
        flows: what comes via MLPs or along a path: (its way, rows of the changes, rows of what comes, see
            `via_mlps.Flows`).
    """

    points: Points
    of_change: Array
    n_changes: int
    sends: tuple[tuple[Node, bool, Ablation, Tensor, Points], ...]
    flows: tuple[tuple[Flow, Tensor, Tensor], ...]

    @cached_property
    def change(self) -> Int[Tensor, " points"]:
        """`of_change` on the device."""
        return self.points.batch.ship(self.of_change)

    @cached_property
    def distinct(self) -> Int[Tensor, " n_changes"]:
        """A point of each change: those that share one read the same."""
        return self.points.batch.ship(np.unique(self.of_change, return_index=True)[1])


@dataclass(frozen=True, eq=False)
class Sites:
    """Knocked-out terms of the same kind in one layer that become the same thing.

    Attributes:
        part: the component or neuron that is knocked out, or `None` for whole nodes.
    """

    ablate: Ablation
    part: Node | None
    points: Points


@dataclass(frozen=True, eq=False)
class Batch:
    """Experiments on prompts that share an entry layer and a first position."""

    plans: tuple[Plan, ...]
    rows: Array
    start: int
    where: Where
    model: Transformer
    #: where what comes along a way stands: by its senders of a route, by itself of a path (see `via_mlps.Flows`)
    flow_rows: Mapping[Hashable, Array] = field(default_factory=dict)
    #: nodes whose values are read afterwards
    kept: frozenset[Node] = frozenset()
    _changed: dict[tuple[Names, bool, int], Array] = field(default_factory=dict, init=False, repr=False)

    @property
    def entry(self) -> int:
        return self.plans[0].entry

    @property
    def steps(self) -> int:
        """Positions from the start on."""
        return self.where.length - self.start

    @property
    def rows_run(self) -> int:
        """Residual-stream vectors that run at once."""
        return len(self.plans) * len(self.rows) * self.steps

    @cached_property
    def prompts(self) -> Tensor:
        return self.ship(self.rows)

    def ship(self, array: Array | Sequence[int]) -> Tensor:
        return ship(array, self.model.device)

    def width(self, layer: int) -> int:
        """Positions of the residual stream that are still computed after a layer's heads have read."""
        return 1 if layer >= self.model.n_layers - 1 else self.steps

    @cached_property
    def kept_nodes(self) -> frozenset[Node]:
        """Nodes whose values are kept while this batch runs: senders that are read later, and `kept`."""
        return self.kept.union(*(plan.changing for plan in self.plans))

    @cached_property
    def kept_layers(self) -> frozenset[Node]:
        """What stands for the heads of a layer, its MLP or `embed` (see `layer_of`) where their values are kept."""
        return frozenset(layer_of(node) for node in self.kept_nodes if not is_inside(node))

    def inside(self, of: Node) -> tuple[Node, ...]:
        """The neurons and features of an MLP or a stream that are needed: to be replaced, or read by a later input.

        Of those that write into later layers as well, what they write there is among them.
        """
        replaced = (node for plan in self.plans for nodes in plan.sites.values() for node in nodes)
        return inside((*replaced, *self.readers(of), *self.kept_nodes), of)

    def readers(self, of: Node) -> tuple[Node, ...]:
        """The neurons and features of an MLP or a stream that something is sent to."""
        place = of.known_after, of.kind
        return tuple(sorted({node for plan in self.plans for node in plan.reads.get(place, ())}))

    def changed_at(self, names: Names, fixed: bool, width: int) -> Int[np.ndarray, "points 2"]:
        """Where any of these positions is, among the last `width` steps: (prompt, step), as in `Points.host`."""
        if (key := (names, fixed, width)) not in self._changed:
            first = self.where.length - width
            n, t = self.where.mask(names, fixed)[self.rows][:, first:].nonzero()
            self._changed[key] = np.stack((n, t + first - self.start), axis=1)
        return self._changed[key]

    @cached_property
    def _reads(self) -> Mapping[Place, list[tuple[int, int, Senders]]]:
        """The patched inputs of each place, by head and experiment: (head, experiment, senders)."""
        found: dict[Place, list[tuple[int, int, Senders]]] = {}
        for e, plan in enumerate(self.plans):
            for place, nodes in plan.reads.items():
                for node, senders in nodes.items():
                    number = self.readers(layer_of(node)).index(node) if node.is_part else node.head
                    found.setdefault(place, []).append((number, e, senders))
        return {place: sorted(inputs, key=lambda item: item[:2]) for place, inputs in found.items()}

    def reads(self, layer: int, port: str, width: int) -> Reads | None:
        """The patched inputs of a place, or `None` where there is none."""
        place, n_changes, end = (layer, port), 0, 0
        inputs: list[tuple[Array, int, int, int]] = []  # (where, experiment, head, first change) of each input
        known: dict[tuple[int, Senders], int] = {}
        sends: dict[tuple[Node, bool, Ablation], list[Stretch]] = {}
        flows: dict[Flow, list[tuple[Array, Array]]] = {}
        for head, e, senders in self._reads.get(place, ()):
            plan, everywhere = self.plans[e], all_names(senders)
            where = self.changed_at(everywhere, plan.fixed, width)
            if not (count := len(where)):
                continue
            if (e, senders) not in known:
                first = known[e, senders] = n_changes
                n_changes += count
                at = self.rows[where[:, 0]], where[:, 1] + self.start
                for sender, names in () if plan.experiment.before else senders:
                    stretches = sends.setdefault((sender, sender in plan.changing, plan.experiment.sent), [])
                    if names == everywhere and not sender.is_part and not any(s.holds(sender) for s, _ in senders):
                        stretches.append((end, first, count))
                    else:
                        sent = sent_at(self.where, names, senders, sender, plan.fixed)[at]
                        stretches += [(end + i, first + i, 1) for i in np.flatnonzero(sent).tolist()]
                if plan.flows:
                    flow = plan.flows[place, senders]
                    way = flow[0] if plan.experiment.before else senders
                    flows.setdefault(flow, []).append((np.arange(first, n_changes), self.flow_rows[way][at]))
            inputs.append((where, e, head, known[e, senders]))
            end += count
        if not inputs:
            return None
        wheres, experiments, heads, firsts = zip(*inputs, strict=True)
        counts = np.asarray([len(where) for where in wheres])
        n, s = np.concatenate(wheres).T
        host = np.stack((n, np.repeat(experiments, counts), s, np.repeat(heads, counts)), axis=1)
        come_by = {flow: _joined(parts) for flow, parts in flows.items()}
        sent_by = {key: _counted_off(stretches) for key, stretches in sends.items() if stretches}
        return Reads(
            Points(self, host, width),
            _ranges(np.asarray(firsts), counts),
            n_changes,
            tuple(
                (*by, self.ship(rows), Points(self, host[at], self.width(by[0].known_after)))
                for by, (at, rows) in sent_by.items()
            ),
            tuple((flow, self.ship(a), self.ship(b)) for flow, (a, b) in come_by.items()),
        )

    def reads_inside(self, of: Node, width: int) -> Reads | None:
        """The patched inputs of neurons and features of an MLP or a stream, or `None` where there is none."""
        return self.reads(of.known_after, of.kind, width)

    def sites(self, of: Node, width: int) -> tuple[Sites, ...]:
        """The knocked-out nodes of a layer (see `layer_of`), parts of nodes before whole ones."""
        groups: dict[tuple[Ablation, Node | None], list[tuple[int, int, Names]]] = {}
        for e, plan in enumerate(self.plans):
            for node, names in plan.sites.get(of, {}).items():
                key = plan.experiment.ablate, node if node.is_part else None
                groups.setdefault(key, []).append((node.head, e, names))
        out = []
        for (ablate, part), items in sorted(groups.items(), key=lambda group: group[0][1] is None):
            wheres = [self.changed_at(names, self.plans[e].fixed, width) for _, e, names in items]
            counts = [len(where) for where in wheres]
            n, s = np.concatenate(wheres).T
            heads, experiments, _ = zip(*items, strict=True)
            host = np.stack((n, np.repeat(experiments, counts), s, np.repeat(heads, counts)), axis=1)
            if len(host):
                out.append(Sites(ablate, part, Points(self, host, width)))
        return tuple(out)


def _ranges(first: Array, counts: Array) -> Array:
    """From each of some numbers, as many as there are to count: `[5, 2], [2, 3]` gives `5 6 2 3 4`."""
    return np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())


def _counted_off(stretches: Sequence[Stretch]) -> tuple[Array, Array]:
    """The points of some stretches, and their rows of changes."""
    at, first, counts = np.asarray(stretches).T
    return _ranges(at, counts), _ranges(first, counts)


def _joined(parts: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Pairs of arrays, end to end."""
    first, second = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second)


# --- entering a layer through a few of its heads ----------------------------------------------------


@dataclass(frozen=True, eq=False)
class Jobs:
    """Heads of the entry layer that are recomputed, one job for each head of each experiment, sorted by head.

    Attributes:
        head: the head of each job.
        by_head: (head, first job, last job + 1).
        number: the job of each head of each experiment, or -1: `[heads, experiments]`.
        job, points: where the jobs' `z` change, sorted by job; `job` are indices (job, prompt, step).
        reads: the layer's patched inputs: of queries at the steps that are computed, of keys and values at all.
        sites: its knocked-out heads.
    """

    head: Tensor
    by_head: tuple[tuple[int, int, int], ...]
    number: Array
    job: tuple[Tensor, Tensor, Tensor]
    points: Points
    reads: Mapping[Port, Reads | None]
    sites: tuple[Sites, ...]

    def numbers(self, points: Points) -> Int[Tensor, " points"]:
        """The jobs of the heads at some points."""
        _, e, _, head = points.host.T
        return points.batch.ship(self.number[head, e])


def seen_from(keys: Bool[np.ndarray, "*n length"], window: int | None) -> Bool[np.ndarray, "*n length"]:
    """The queries that see any of some keys or values, which go back `window` tokens at most."""
    count = keys.cumsum(axis=-1)
    if window is not None and window < keys.shape[-1]:
        count[..., window:] -= count[..., :-window].copy()
    return count > 0


def entry_jobs(batch: Batch, width: int, sites: tuple[Sites, ...] = ()) -> Jobs:
    """The heads that a batch enters through, at the last `width` steps."""
    steps, layer = batch.steps, batch.entry
    reads = {port: batch.reads(layer, port, width if port == "q" else steps) for port in PORTS}
    changed = np.zeros((batch.model.n_heads, len(batch.plans), len(batch.rows), steps), dtype=bool)
    for port in PORTS:
        if table := reads[port]:
            n, e, s, head = table.points.host.T
            read = np.zeros_like(changed)
            read[head, e, n, s] = True
            changed |= read if port == "q" else seen_from(read, batch.model.blocks[layer].attn.window)
    for site in sites:
        n, e, s, head = site.points.host.T
        changed[head, e, n, s] = True
    heads, experiments = np.nonzero(changed.any(axis=(2, 3)))
    number = np.full(changed.shape[:2], -1)
    number[heads, experiments] = np.arange(len(heads))
    every = changed[heads, experiments]
    j, n, s = every[:, :, steps - width :].nonzero()
    host = np.stack((n, experiments[j], s + steps - width, heads[j]), axis=1)
    job, points = (batch.ship(j), batch.ship(n), batch.ship(s)), Points(batch, host, width)
    return Jobs(batch.ship(heads), runs_of(heads), number, job, points, reads, sites)


def touched(
    batch: Batch, jobs: Jobs, mlp_reads: Reads | None, changed: Iterable[Sites | Reads]
) -> tuple[Points, Int[Tensor, " through"]]:
    """The points at which an entry layer's output changes, and at which of them its MLP is recomputed.

    Args:
        changed: where the MLP writes something else, whatever it reads.
    """
    width = jobs.points.width
    behind = Node("mid", batch.entry)
    sums: list[Sites | Reads] = [each for of in (Node("attn", batch.entry), behind) for each in batch.sites(of, width)]
    sums += [reads] if (reads := batch.reads_inside(behind, width)) else []
    job_rows = np.concatenate([points.rows_of(width) for points in (jobs.points, *(each.points for each in sums))])
    site_rows = [each.points.rows_of(width) for each in changed]
    read_rows = mlp_reads.points.rows_of(width) if mlp_reads else job_rows[:0]
    through = np.unique(read_rows if batch.model.parallel else np.concatenate((job_rows, read_rows)))
    flat = np.unique(np.concatenate((job_rows, read_rows, *site_rows)))
    n, rest = np.divmod(flat, len(batch.plans) * width)
    e, s = np.divmod(rest, width)
    host = np.stack((n, e, s + batch.steps - width, np.full(len(n), -1)), axis=1)
    return Points(batch, host, width), batch.ship(np.searchsorted(flat, through))
