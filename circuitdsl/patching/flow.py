"""Edges via MLPs: how a sender's change reaches a receiver through the MLPs between, attention frozen to clean.

The protocol of Wang et al. 2022 (path patching, step 2): the senders of one receiver are replaced together, every
other head keeps its clean output, MLPs are recomputed. An MLP acts on one position at a time, so a change at a
position stays there. What is computed here is the part of the receiver's change that MLPs add to the senders' own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.models.parts import Transformer
from circuitdsl.patching.count import Tally
from circuitdsl.patching.parts import component, neuron_term, neurons
from circuitdsl.patching.runs import Runs, Terms
from circuitdsl.patching.tables import Array, Names, Plan, Senders, Where, all_names, sent_at, ship

Key = tuple[Senders, float]


@dataclass(frozen=True, eq=False)
class Flows:
    """Changes that MLPs add, for every set of senders and stage at which a receiver reads them.

    Attributes:
        added: for each of these, `[points, d]`.
        rows: for each set of senders, the row of a (prompt, position) in `added`, or -1: `[n, T]`.
    """

    added: Mapping[Key, Float[Tensor, "points d"]]
    rows: Mapping[Senders, Array]


@dataclass(frozen=True, eq=False)
class _Group:
    """One set of senders: its points `start:end` of all points, and what is needed of it."""

    senders: Senders
    start: int
    end: int
    stages: frozenset[float]
    first: float


def wanted(plans: Iterable[Plan], model: Transformer) -> dict[Senders, frozenset[float]]:
    """The sets of senders whose flow is needed, with the stages at which it is read."""
    out: dict[Senders, frozenset[float]] = {}
    for plan in plans:
        if plan.experiment.via_mlps:
            for (layer, port), heads in plan.reads.items():
                node = Node("logits") if layer == model.n_layers else Node("mlp" if port == "in" else "head", layer)
                for senders in heads.values():
                    out[senders] = out.get(senders, frozenset()) | {node.stage(model.parallel)}
    return out


def flows(model: Transformer, runs: Runs, plans: Sequence[Plan], where: Where, max_rows: int, tally: Tally) -> Flows:
    """The changes that MLPs add, for each set of senders of some plans, at most `max_rows` points at a time."""
    fixed = any(plan.fixed for plan in plans)
    need = wanted(plans, model)
    added: dict[Key, list[Tensor]] = {}
    rows: dict[Senders, Array] = {}
    pieces: list[tuple[Senders, Array]] = []
    for senders in need:
        host = np.argwhere(where.mask(all_names(senders), fixed))
        rows[senders] = np.full((where.n, where.length), -1)
        rows[senders][host[:, 0], host[:, 1]] = np.arange(len(host))
        pieces += [(senders, host[start : start + max_rows]) for start in range(0, max(1, len(host)), max_rows)]
    for chunk in _chunks(pieces, max_rows):
        for key, part in _flow(model, runs, chunk, need, where, tally).items():
            added.setdefault(key, []).append(part)
    return Flows({key: torch.cat(parts) for key, parts in added.items()}, rows)


def _chunks(pieces: Iterable[tuple[Senders, Array]], max_rows: int) -> Iterator[list[tuple[Senders, Array]]]:
    """Pieces together as long as they have `max_rows` points at most; never two of the same senders."""
    chunk: list[tuple[Senders, Array]] = []
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
    chunk: list[tuple[Senders, Array]],
    need: Mapping[Senders, frozenset[float]],
    where: Where,
    tally: Tally,
) -> dict[Key, Tensor]:
    ends = np.cumsum([0] + [len(host) for _, host in chunk])
    groups = [
        _Group(s, int(a), int(b), need[s], min(sender.stage(model.parallel) for sender, _ in s))
        for (s, _), a, b in zip(chunk, ends, ends[1:], strict=False)
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
                out[group.senders, stage] = mediated[group.start : group.end].clone()

    def through_mlp(layer: int, stage: float) -> None:
        active = [g for g in groups if g.first < stage and max(g.stages) > stage]
        if not active:
            return
        at = ship(np.concatenate([np.arange(g.start, g.end) for g in active]), model.device)
        block, n, t = model.blocks[layer], prompt[at], pos[at]
        x = block.mlp_norm(runs.clean.mlp_in[layer][n, t] + direct[at] + mediated[at])
        watched = neurons(sender for g in active for sender, _ in g.senders if sender.layer == layer)
        term, activations = block.mlp.written(x, [node.index for node in watched])
        added = term - runs.clean.mlp[layer][n, t]
        for node, activation in zip(watched, activations, strict=True):
            sent = torch.cat([1 - _unless_sent(g, node) for g in active])
            added -= neuron_term(model, node, activation - runs.clean.neuron(node)[n, t]) * sent
        mediated[at] += added * torch.cat([_unless_sent(g, Node("mlp", layer)) for g in active])
        tally.flow_positions += len(at)

    def _unless_sent(group: _Group, node: Node) -> Tensor:
        """0 where an MLP or neuron is itself a sender, whose term is replaced as a whole."""
        names = next((names for s, names in group.senders if s == node), None)
        size = group.end - group.start
        if names is None:
            return torch.ones(size, 1, dtype=model.dtype, device=model.device)
        return 1 - _mask(where, names, group.senders, node, host[group.start : group.end], mediated)

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


def _mask(where: Where, names: Names, senders: Senders, node: Node, host: Array, like: Tensor) -> Tensor:
    mask = sent_at(where, names, senders, node, fixed=True)[host[:, 0], host[:, 1]][:, None]
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
