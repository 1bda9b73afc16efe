"""Edges via MLPs: how a sender's change reaches a receiver through the MLPs between, attention frozen to clean.

The protocol of Wang et al. 2022 (path patching, step 2): the senders of one receiver are replaced together, every
other head keeps its clean output, MLPs are recomputed. An MLP acts on one position at a time, so a change at a
position stays there. The part of the receiver's change that MLPs add to the senders' own is called a *flow* here.

An MLP that is patched or knocked out in the same experiment keeps its clean output here, at the positions of the
patch. The forward pass already carries its change to the receivers above, which must not read it twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node, is_number
from circuitdsl.engine.batch_index import Array, Carried, Flow, Plan, Route, Where, all_names, sent_at, ship
from circuitdsl.engine.runs import Runs
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.workers import each, unit_rows
from circuitdsl.models.writers import term, written_inside


@dataclass(frozen=True, eq=False)
class Flows:
    """Changes that MLPs add, and those that come along paths.

    Attributes:
        added: for every way and every stage at which a receiver reads it, `[points, d]`.
        rows: for the senders of each route and for each path, the row of a (prompt, position) in `added`, or -1:
            `[n, T]`.
    """

    added: Mapping[Flow, Float[Tensor, "points d"]]
    rows: Mapping[Hashable, Array]

    def __or__(self, other: Flows) -> Flows:
        return Flows({**self.added, **other.added}, {**self.rows, **other.rows})


@dataclass(frozen=True, eq=False)
class _Group:
    """The points of one route.

    Attributes:
        host: their prompts and positions, `[points, 2]`.
        at: their place among all points that are computed together.
        stages: at which the route is read.
    """

    route: Route
    host: Array
    at: slice
    stages: frozenset[float]

    def pick(self, mask: Bool[np.ndarray, "n T"]) -> Bool[np.ndarray, " points"]:
        """A mask over all tokens, at these points."""
        return mask[self.host[:, 0], self.host[:, 1]]


def wanted(plans: Iterable[Plan]) -> dict[Route, frozenset[float]]:
    """The routes whose flow is needed, with the stages at which it is read."""
    out: dict[Route, frozenset[float]] = {}
    for route, stage in (flow for plan in plans for flow in plan.flows.values()):
        if isinstance(route, Carried):
            continue
        out[route] = out.get(route, frozenset()) | {stage}
    return out


def passing(where: Where, route: Route, mlp: Node) -> Bool[np.ndarray, "n T"]:
    """Where the change of a route's senders goes through an MLP."""
    return where.mask(all_names(route.senders)) & ~stops(where, route, mlp)


def stops(where: Where, route: Route, node: Node) -> Bool[np.ndarray, "n T"]:
    """Where an MLP or neuron passes nothing on: it is held, or a sender itself, whose term is replaced as a whole."""
    sent = [sent_at(where, names, route.senders, node, fixed=True) for each, names in route.senders if each == node]
    held = [where.mask(names) for each, names in route.held if each == node]
    return np.logical_or.reduce([np.zeros((where.n, where.length), dtype=bool), *sent, *held])


def flows(runs: Runs, plans: Sequence[Plan], where: Where, max_rows: int, tally: Tally) -> Flows:
    """The changes that MLPs add, for each route of some plans, at most `max_rows` points at a time."""
    fixed = any(plan.fixed for plan in plans)
    added = defaultdict[Flow, list[Tensor]](list)
    rows: dict[Hashable, Array] = {}
    chunks: list[list[_Group]] = []
    room, most = 0, min(max_rows, unit_rows(runs.model))
    for route, stages in wanted(plans).items():
        senders = route.senders
        host = np.argwhere(where.mask(all_names(senders), fixed))
        rows[senders] = np.full((where.n, where.length), -1)
        rows[senders][host[:, 0], host[:, 1]] = np.arange(len(host))
        for piece in (host[i : i + most] for i in range(0, max(1, len(host)), most)):
            if not chunks or len(piece) > room:
                chunks, room = [*chunks, []], most
            start = most - room
            chunks[-1].append(_Group(route, piece, slice(start, start + len(piece)), stages))
            room -= len(piece)

    def work(chunk: list[_Group]) -> tuple[dict[Flow, Tensor], Tally]:
        own = Tally()
        return _flow(runs, chunk, where, own), own

    sizes = [sum(len(group.host) for group in chunk) for chunk in chunks]
    for parts, own in each(runs.model, work, chunks, sizes, max_rows):
        tally += own
        for key, part in parts.items():
            added[key].append(part)
    return Flows({key: torch.cat(parts) for key, parts in added.items()}, rows)


def _flow(runs: Runs, groups: Sequence[_Group], where: Where, tally: Tally) -> dict[Flow, Float[Tensor, "points d"]]:
    """The changes that MLPs add at the points of some groups, by route and stage."""
    model = runs.model
    prompt, pos = (ship(column, model.device) for column in np.concatenate([group.host for group in groups]).T)
    direct = torch.zeros(len(prompt), model.d_model, dtype=model.dtype, device=model.device)
    mediated = torch.zeros_like(direct)
    found: dict[Flow, Tensor] = {}

    def join(kind: str, layer: int) -> None:
        """Add the changes of a layer's senders of one kind to what the next MLPs read."""
        for group in groups:
            for sender, names in group.route.senders:
                if sender.kind == kind and sender.layer == layer:
                    points = prompt[group.at], pos[group.at]
                    moved = delta = term(model, sender, _change(runs, sender, points))
                    for stream, at in group.route.held:
                        if stream.kind == "resid" and sender.whole.holds(stream):  # what it holds is replaced already
                            replaced = ship(group.pick(where.mask(at))[:, None], model.device)
                            same = stream._replace(index=sender.index, along=sender.along)
                            delta = torch.where(
                                replaced, moved - term(model, same, _change(runs, stream, points)), delta
                            )
                    sent = group.pick(sent_at(where, names, group.route.senders, sender, fixed=True))
                    direct[group.at] += delta * ship(sent[:, None], model.device).to(delta.dtype)

    def cut(layer: int) -> None:
        """Where a stream is knocked out, the changes below go no further."""
        for group in groups:
            for node, names in group.route.held:
                if node == Node("resid", layer):
                    goes_on = ship(~group.pick(where.mask(names))[:, None], model.device).to(direct.dtype)
                    direct[group.at] *= goes_on
                    mediated[group.at] *= goes_on

    def record(stage: float) -> None:
        for group in groups:
            if stage in group.stages:
                found[group.route, stage] = mediated[group.at].clone()

    def through_mlp(layer: int, stage: float) -> None:
        nonlocal direct, mediated
        direct, mediated = model.blocks[layer].entered(direct), model.blocks[layer].entered(mediated)
        mlp = Node("mlp", layer)
        active = [g for g in groups if g.route.first < stage and max(g.stages) > stage]
        rows = [g.pick(passing(where, g.route, mlp)).nonzero()[0] for g in active]
        if not sum(map(len, rows)):
            return
        at = ship(np.concatenate([g.at.start + own for g, own in zip(active, rows, strict=True)]), model.device)
        block, n, t = model.blocks[layer], prompt[at], pos[at]
        x = block.mlp_norm(runs.clean.mlp_in[layer][n, t] + direct[at] + mediated[at])
        named = (node for g in active for node, _ in (*g.route.senders, *g.route.held))
        out, activations = written_inside(model, layer, named, x)
        added = out - runs.clean.value(mlp)[n, t]
        for node, activation in activations.items():
            stopped = [g.pick(stops(where, g.route, node))[own] for g, own in zip(active, rows, strict=True)]
            mask = ship(np.concatenate(stopped)[:, None], model.device).to(added.dtype)
            value = activation[..., None] if is_number(node) else activation
            added -= term(model, node, value - runs.clean.value(node)[n, t]) * mask
        for part in {n for g in active for n, _ in (*g.route.senders, *g.route.held) if n.whole == mlp and n.along}:
            stopped = [g.pick(stops(where, g.route, part))[own] for g, own in zip(active, rows, strict=True)]
            mask = ship(np.concatenate(stopped)[:, None], model.device).to(added.dtype)
            added -= term(model, part, added) * mask
        mediated[at] += added
        tally.flow_positions += len(at)

    join("embed", -1)
    for layer in range(model.n_layers):
        heads, mlp = Node("head", layer).stage(model.parallel), Node("mlp", layer).stage(model.parallel)
        record(Node("resid", layer).stage(model.parallel))
        join("resid", layer)
        cut(layer)
        record(heads)
        if not model.parallel:
            for kind in ("head", "attn", "mid"):
                join(kind, layer)
            record(Node("mid", layer).stage())
            record(mlp)
        through_mlp(layer, mlp)
        if model.parallel:
            join("head", layer)
            join("attn", layer)
        join("mlp", layer)
    record(Node("resid", model.n_layers).stage(model.parallel))
    join("resid", model.n_layers)
    cut(model.n_layers)
    record(float("inf"))
    return found


def _change(runs: Runs, node: Node, points: tuple[Tensor, Tensor]) -> Float[Tensor, "points _"]:
    """How a node's value differs between the two runs."""
    return runs.corrupt.value(node)[points] - runs.clean.value(node)[points]
