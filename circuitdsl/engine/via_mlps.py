"""Edges via MLPs: how a sender's change reaches a receiver through the MLPs between, attention frozen to clean.

The protocol of Wang et al. 2022 (path patching, step 2): the senders of one receiver are replaced together, every
other head keeps its clean output, MLPs are recomputed. An MLP acts on one position at a time, so a change at a
position stays there. What is computed here is the part of the receiver's change that MLPs add to the senders' own.

An MLP that is patched or knocked out in the same experiment keeps its clean output here, at the positions at which it
is: what it changes, the receivers above it read live, and would else read twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.batch_index import Array, Held, Names, Plan, Route, Senders, Where, all_names, sent_at, ship
from circuitdsl.engine.count import Tally
from circuitdsl.engine.neurons import component, neuron_term, neurons
from circuitdsl.engine.runs import Runs, Terms
from circuitdsl.models.parts import Transformer

Key = tuple[Route, float]


@dataclass(frozen=True, eq=False)
class Flows:
    """Changes that MLPs add, for every route and stage at which a receiver reads them.

    Attributes:
        added: for each of these, `[points, d]`.
        rows: for each set of senders, the row of a (prompt, position) in `added`, or -1: `[n, T]`.
    """

    added: Mapping[Key, Float[Tensor, "points d"]]
    rows: Mapping[Senders, Array]


@dataclass(frozen=True, eq=False)
class _Group:
    """One route: its points `start:end` of all points, and what is needed of it."""

    route: Route
    start: int
    end: int
    stages: frozenset[float]
    first: float

    @property
    def senders(self) -> Senders:
        return self.route[0]

    @property
    def held(self) -> Held:
        return self.route[1]


def wanted(plans: Iterable[Plan], model: Transformer) -> dict[Route, frozenset[float]]:
    """The routes whose flow is needed, with the stages at which it is read."""
    out: dict[Route, frozenset[float]] = {}
    for plan in plans:
        if plan.experiment.via_mlps:
            for (layer, port), heads in plan.reads.items():
                node = Node("logits") if layer == model.n_layers else Node("mlp" if port == "in" else "head", layer)
                stage = node.stage(model.parallel)
                for senders in heads.values():
                    route = plan.route(senders, stage, model.parallel)
                    out[route] = out.get(route, frozenset()) | {stage}
    return out


def passing(where: Where, route: Route, mlp: Node) -> Bool[np.ndarray, "n T"]:
    """Where the change of a route's senders goes through an MLP."""
    return where.mask(all_names(route[0])) & ~stops(where, route, mlp)


def stops(where: Where, route: Route, node: Node) -> Bool[np.ndarray, "n T"]:
    """Where an MLP or neuron passes nothing on: it is held, or a sender itself, whose term is replaced as a whole."""
    senders, held = route
    out = np.zeros((where.n, where.length), dtype=bool)
    for sender, names in senders:
        if sender == node:
            out |= sent_at(where, names, senders, node, fixed=True)
    for other, names in held:
        if other == node:
            out |= where.mask(names)
    return out


def flows(model: Transformer, runs: Runs, plans: Sequence[Plan], where: Where, max_rows: int, tally: Tally) -> Flows:
    """The changes that MLPs add, for each route of some plans, at most `max_rows` points at a time."""
    fixed = any(plan.fixed for plan in plans)
    need = wanted(plans, model)
    added: dict[Key, list[Tensor]] = {}
    rows: dict[Senders, Array] = {}
    pieces: list[tuple[Route, Array]] = []
    for senders, held in need:
        host = np.argwhere(where.mask(all_names(senders), fixed))
        rows[senders] = np.full((where.n, where.length), -1)
        rows[senders][host[:, 0], host[:, 1]] = np.arange(len(host))
        parts = range(0, max(1, len(host)), max_rows)
        pieces += [((senders, held), host[start : start + max_rows]) for start in parts]
    for chunk in _chunks(pieces, max_rows):
        for key, part in _flow(model, runs, chunk, need, where, tally).items():
            added.setdefault(key, []).append(part)
    return Flows({key: torch.cat(parts) for key, parts in added.items()}, rows)


def _chunks(pieces: Iterable[tuple[Route, Array]], max_rows: int) -> Iterator[list[tuple[Route, Array]]]:
    """Pieces together as long as they have `max_rows` points at most; never two of the same route."""
    chunk: list[tuple[Route, Array]] = []
    for piece in pieces:
        if chunk and sum(len(host) for _, host in chunk) + len(piece[1]) > max_rows:
            yield chunk
            chunk = []
        chunk.append(piece)
    if chunk:
        yield chunk


def _flow(
    model: Transformer,
    runs: Runs,
    chunk: list[tuple[Route, Array]],
    need: Mapping[Route, frozenset[float]],
    where: Where,
    tally: Tally,
) -> dict[Key, Tensor]:
    ends = np.cumsum([0] + [len(host) for _, host in chunk])
    groups = [
        _Group(route, int(a), int(b), need[route], min(sender.stage(model.parallel) for sender, _ in route[0]))
        for (route, _), a, b in zip(chunk, ends, ends[1:], strict=False)
    ]
    host = np.concatenate([host for _, host in chunk])
    prompt, pos = (ship(column, model.device) for column in host.T)
    direct = torch.zeros(len(host), model.d_model, dtype=model.dtype, device=model.device)
    mediated = torch.zeros_like(direct)
    out: dict[Key, Tensor] = {}

    def join(kind: str, layer: int) -> None:
        """Add the change of the senders of a stage to what the next MLPs read."""
        for group in groups:
            at = slice(group.start, group.end)
            for sender, names in group.senders:
                if sender.kind == kind and sender.layer == layer:
                    delta = change(model, sender, runs.clean, runs.corrupt, prompt[at], pos[at])
                    direct[at] += delta * _mask(where, names, group.senders, sender, host[at], delta)

    def record(stage: float) -> None:
        for group in groups:
            if stage in group.stages:
                out[group.route, stage] = mediated[group.start : group.end].clone()

    def through_mlp(layer: int, stage: float) -> None:
        mlp = Node("mlp", layer)
        active = [g for g in groups if g.first < stage and max(g.stages) > stage]
        rows = [g.start + passing(where, g.route, mlp)[_columns(host[g.start : g.end])].nonzero()[0] for g in active]
        if not sum(map(len, rows)):
            return
        at = ship(np.concatenate(rows), model.device)
        block, n, t = model.blocks[layer], prompt[at], pos[at]
        x = block.mlp_norm(runs.clean.mlp_in[layer][n, t] + direct[at] + mediated[at])
        watched = neurons(node for g in active for node, _ in (*g.senders, *g.held) if node.layer == layer)
        term, activations = block.mlp.written(x, [node.index for node in watched])
        added = term - runs.clean.mlp[layer][n, t]
        for node, activation in zip(watched, activations, strict=True):
            stopped = [stops(where, g.route, node)[_columns(host[own])] for g, own in zip(active, rows, strict=True)]
            mask = ship(np.concatenate(stopped)[:, None], model.device).to(added.dtype)
            added -= neuron_term(model, node, activation - runs.clean.neuron(node)[n, t]) * mask
        mediated[at] += added
        tally.flow_positions += len(at)

    join("embed", -1)
    for layer in range(model.n_layers):
        heads, mlp = Node("head", layer).stage(model.parallel), Node("mlp", layer).stage(model.parallel)
        record(heads)
        if not model.parallel:
            join("head", layer)
            record(mlp)
        through_mlp(layer, mlp)
        if model.parallel:
            join("head", layer)
        join("mlp", layer)
    record(float("inf"))
    return out


def _columns(host: Array) -> tuple[Array, Array]:
    """The prompts and the positions of points `[points, 2]`."""
    return host[:, 0], host[:, 1]


def _mask(where: Where, names: Names, senders: Senders, node: Node, host: Array, like: Tensor) -> Tensor:
    mask = sent_at(where, names, senders, node, fixed=True)[_columns(host)][:, None]
    return ship(mask, like.device).to(like.dtype)


def change(
    model: Transformer, sender: Node, now: Terms, then: Terms, prompt: Tensor, pos: Tensor
) -> Float[Tensor, "points d"]:
    """What a sender's term becomes in another run, minus what it is now, at points."""
    return term(model, sender, value(then, sender, prompt, pos) - value(now, sender, prompt, pos))


def value(terms: Terms, node: Node, prompt: Tensor, pos: Tensor) -> Float[Tensor, "points _"]:
    """A node's term at points; a head's (or its component's) as the head's `z`, a neuron's as its activation."""
    match node.kind:
        case "head":
            return terms.z[node.layer][prompt, pos, node.head]
        case "mlp" if node.is_part:
            return terms.neuron(node)[prompt, pos, None]
        case "mlp":
            return terms.mlp[node.layer][prompt, pos]
    return terms.embed[prompt, pos]


def term(model: Transformer, node: Node, x: Float[Tensor, "points _"]) -> Float[Tensor, "points d"]:
    """The term that `value` stands for."""
    if node.kind == "head":
        return model.blocks[node.layer].attn.out_head(node.head, component(model, node, x))
    return neuron_term(model, node, x[..., 0]) if node.is_part else x
