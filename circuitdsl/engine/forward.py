"""One live pass: from the entry layer and first patched position of a batch onwards.

The entry layer is entered through the patched heads (or its MLP) alone; from the next layer on, all positions from
the start are recomputed, reading the keys and values of earlier positions from the clean cache. In the last layer
only END is followed. Every patched input is the live residual stream with, for each of its senders, the term that
the sender now writes taken out and that of the other run put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, Node
from circuitdsl.engine.attend import attend_from, pattern_of
from circuitdsl.engine.batch_index import Batch, Entry, Jobs, Reads, Send, Sites, entry, entry_jobs
from circuitdsl.engine.count import Tally
from circuitdsl.engine.neurons import component, neuron_term
from circuitdsl.engine.runs import Runs, Terms
from circuitdsl.engine.via_mlps import Flows, term, value
from circuitdsl.models.parts import PORTS, Port, Transformer


@dataclass
class Live:
    """A batch as it runs, with the terms that later patched inputs take out again.

    Attributes:
        z: of kept layers, `[N, E, W, heads, d_head]`.
        mlp: of kept layers, `[N, E, W, d]`.
        embed: `[N, E, W, d]`, where `embed` was knocked out.
        neurons: activations of those neurons that are replaced or read later, `[N, E, W]`.
    """

    runs: Runs
    batch: Batch
    flow: Flows
    tally: Tally
    z: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    embed: Tensor | None = None
    neurons: dict[Node, Tensor] = field(default_factory=dict)

    @property
    def model(self) -> Transformer:
        return self.batch.model

    def clean(self, tensor: Float[Tensor, "n T *rest"], width: int) -> Float[Tensor, "N E W *rest"]:
        """A cached activation at the last `width` positions, once for each run of the batch."""
        cut = tensor[self.batch.prompts, tensor.shape[1] - width :]
        return cut.unsqueeze(1).repeat(1, len(self.batch.plans), *[1] * (cut.ndim - 1))


def first_residual(live: Live) -> Float[Tensor, "N E W d"]:
    """The residual stream that the first layer with live heads reads."""
    return _replaced_embed(live) if live.batch.from_embed else enter(live, live.batch.entry)


def next_layer(batch: Batch) -> int:
    """The first layer that is recomputed whole."""
    return batch.entry if batch.from_embed else batch.entry + 1


def _replaced_embed(live: Live) -> Float[Tensor, "N E W d"]:
    """The residual stream before layer 0, with `embed` knocked out."""
    resid = _put(live, -1, "embed", live.clean(live.runs.clean.embed, live.batch.steps))
    if EMBED in live.batch.live_nodes:
        live.embed = resid.clone()
    return resid


# --- a layer that is recomputed whole ---------------------------------------------------------------


def layer_after(live: Live, layer: int, resid: Float[Tensor, "N E S d"]) -> Float[Tensor, "N E W d"]:
    """A layer recomputed at every position of the batch; in the last, only END goes on."""
    model, batch = live.model, live.batch
    block, width = model.blocks[layer], batch.width(layer)
    gathered = attend_from(block.attn, *queries_keys_values(live, layer, resid, width))
    z, attended = block.attn.written(gathered, partial(_put, live, layer, "z"))
    if batch.keeps("head", layer):
        live.z[layer] = z
    resid = resid[:, :, resid.shape[2] - width :]
    mid = resid + attended
    source = (resid if model.parallel else mid).reshape(-1, model.d_model)
    x = block.mlp_norm(source)
    reads = batch.reads(layer, "in", width)
    if reads:
        x[reads.points.flat] = block.mlp_norm(patched_inputs(live, source[reads.points.flat], reads))
    neurons = batch.neurons(layer)
    out, activations = block.mlp.written(x, [node.index for node in neurons])
    live.tally.block_positions += len(x)
    live.neurons |= zip(neurons, (each.view(mid.shape[:-1]) for each in activations), strict=True)
    out = _put(live, layer, "mlp", out.view(mid.shape))
    if batch.keeps("mlp", layer):
        live.mlp[layer] = out
    return mid + out


def queries_keys_values(
    live: Live, layer: int, resid: Float[Tensor, "N E S d"], width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries (of the last `width` positions), keys and values, then keys and values before the batch's start."""
    batch, cache, start = live.batch, live.runs.clean, live.batch.start
    attn, turns = live.model.blocks[layer].attn, cache.turns[layer]
    x = live.model.blocks[layer].attn_norm(resid)
    q = attn.project("q", x[:, :, batch.steps - width :], turns[live.runs.length - width :])
    k, v = (attn.project(port, x, turns[start:]) for port in PORTS[1:])
    k_before, v_before = (tensor[layer][batch.prompts, :, :start] for tensor in (cache.k, cache.v))
    key_reads, value_reads = batch.reads(layer, "k", batch.steps), batch.reads(layer, "v", batch.steps)
    if attn.group > 1 and (key_reads or value_reads):  # a patched key or value is read by one query head alone
        k, v = (tensor.repeat_interleave(attn.group, dim=-2) for tensor in (k, v))
        k_before, v_before = (tensor.repeat_interleave(attn.group, dim=1) for tensor in (k_before, v_before))
    flat_resid = resid.view(-1, resid.shape[-1])
    all_reads = (batch.reads(layer, "q", width), key_reads, value_reads)
    for port, tensor, reads in zip(PORTS, (q, k, v), all_reads, strict=True):
        if reads:
            flat = tensor.view(-1, *tensor.shape[-2:])
            inputs = patched_inputs(live, flat_resid[_in_all_steps(batch, reads)], reads)
            for head, a, b, new in _project(live, layer, port, reads, inputs):
                flat[reads.points.flat[a:b], head] = new
    return q, k, v, k_before, v_before


def _in_all_steps(batch: Batch, reads: Reads) -> Tensor:
    """Rows of points in a residual stream that has all steps of the batch."""
    return batch.ship(batch.flat(reads.points.host, batch.steps))


def _project(
    live: Live, layer: int, port: Port, reads: Reads, inputs: Float[Tensor, "points d"]
) -> Iterator[tuple[int, int, int, Tensor]]:
    """(head, first point, last + 1, its new queries, keys or values): only the patched heads' columns."""
    block, turns = live.model.blocks[layer], live.runs.clean.turns[layer]
    x = block.attn_norm(inputs)
    for head, a, b in reads.heads:
        yield head, a, b, block.attn.project_head(port, head, x[a:b], turns[reads.points.pos[a:b]])


# --- the entry layer --------------------------------------------------------------------------------


def enter(live: Live, layer: int) -> Float[Tensor, "N E W d"]:
    """The residual stream after the entry layer: clean, but for what its patched heads and MLP change."""
    model, batch, cache = live.model, live.batch, live.runs.clean
    width = batch.width(layer)
    reads = {port: batch.reads(layer, port, width if port == "q" else batch.steps) for port in PORTS}
    sites = batch.sites(layer, "z", width)
    mlp_reads = batch.reads(layer, "in", width)
    jobs = entry_jobs(batch, layer, reads, sites)
    at = entry(batch, layer, jobs, mlp_reads, batch.sites(layer, "mlp", width))
    prompt, pos = at.touched.prompt, at.touched.pos
    delta = _attention_changes(live, layer, at, reads, sites)
    source = cache.mlp_in[layer][prompt, pos]
    old = cache.mlp[layer][prompt, pos]
    out = _entry_mlp(live, layer, source if model.parallel else source + delta, old, at, mlp_reads)
    resid = live.clean(cache.resid_pre[layer + 1] if layer + 1 < model.n_layers else cache.end[:, None], width)
    resid.view(-1, model.d_model)[at.touched.flat] += delta + out - old
    if batch.keeps("mlp", layer):
        kept = live.clean(cache.mlp[layer], width)
        kept.view(-1, model.d_model)[at.touched.flat] = out
        live.mlp[layer] = kept
    return resid


def _attention_changes(
    live: Live, layer: int, at: Entry, reads: Mapping[Port, Reads | None], sites: tuple[Sites, ...]
) -> Float[Tensor, "touched d"]:
    """What the heads of the entry layer write at the touched points, minus what they wrote."""
    model, batch, jobs = live.model, live.batch, at.jobs
    change = torch.zeros(len(at.touched.pos), model.d_model, dtype=model.dtype, device=model.device)
    if not jobs:
        if batch.keeps("head", layer):
            live.z[layer] = live.clean(live.runs.clean.z[layer], batch.width(layer))
        return change
    q, k, v = job_inputs(live, layer, jobs, reads, batch.width(layer))
    z = pattern_of(model.blocks[layer].attn, q, k).to(v.dtype) @ v
    if model.blocks[layer].attn.post is not None:
        return _rescaled_changes(live, layer, at, z[jobs.job], sites)
    heads = _head_changes(live, layer, jobs, z, sites)
    for _, a, b in jobs.heads:  # no head writes twice at a point: they are added in order, on a GPU as well
        change.index_add_(0, at.job_rows[a:b], heads[a:b])
    return change


def _rescaled_changes(
    live: Live, layer: int, at: Entry, z: Float[Tensor, "points d_head"], sites: tuple[Sites, ...]
) -> Float[Tensor, "touched d"]:
    """In a post-norm model a head that changes changes the scale of its whole layer: all heads are written anew."""
    batch, cache, jobs = live.batch, live.runs.clean, at.jobs
    prompt, pos, flat = at.touched.prompt, at.touched.pos, at.touched.flat
    assert jobs is not None
    gathered = cache.gathered[layer][prompt, pos]
    gathered[at.job_rows, jobs.of_point] = z

    def replaced(z: Float[Tensor, "touched heads d_head"]) -> Float[Tensor, "touched heads d_head"]:
        out = z.clone() if sites else z
        for site in sites:
            place = torch.searchsorted(flat, site.points.flat), site.head
            out[place] = _replaced(live, layer, "z", site, out[place])
        return out

    written, attended = live.model.blocks[layer].attn.written(gathered, replaced)
    if batch.keeps("head", layer):
        live.z[layer] = live.clean(cache.z[layer], batch.width(layer))
        live.z[layer].view(-1, *written.shape[1:])[flat] = written
    return cache.resid_pre[layer][prompt, pos] + attended - cache.mlp_in[layer][prompt, pos]


def _head_changes(
    live: Live, layer: int, jobs: Jobs, z: Float[Tensor, "J N W d_head"], sites: tuple[Sites, ...]
) -> Float[Tensor, "points d"]:
    """What the recomputed heads of the entry layer write, minus what they wrote, at the jobs' points."""
    batch, cache = live.batch, live.runs.clean
    attn, width = live.model.blocks[layer].attn, batch.width(layer)
    for site in sites:
        n, _, s = site.points.host.T
        numbers = batch.ship(np.concatenate([np.full(b - a, jobs.number[head, e]) for head, e, a, b in site.nodes]))
        at = numbers, batch.ship(n), batch.ship(s - (batch.steps - width))
        z[at] = _replaced(live, layer, "z", site, z[at])
    if batch.keeps("head", layer):
        kept = live.clean(cache.z[layer], width)
        kept.view(-1, *kept.shape[-2:])[jobs.points.flat, jobs.of_point] = z[jobs.job]
        live.z[layer] = kept
    change = z[jobs.job] - cache.z[layer][jobs.points.prompt, jobs.points.pos, jobs.of_point]
    return torch.cat([attn.out_head(head, change[a:b]) for head, a, b in jobs.heads])


def job_inputs(
    live: Live, layer: int, jobs: Jobs, reads: Mapping[Port, Reads | None], width: int
) -> tuple[Float[Tensor, "J N W d_head"], Float[Tensor, "J N T d_head"], Float[Tensor, "J N T d_head"]]:
    """The entry layer's recomputed heads: clean queries, keys and values but for the patched ones."""
    batch, cache, first = live.batch, live.runs.clean, live.runs.length - width
    group = live.model.blocks[layer].attn.group
    rows, heads = batch.prompts[None, :], jobs.head[:, None]
    q = cache.q[layer][rows, heads, first:]
    k, v = (tensor[layer][rows, heads // group] for tensor in (cache.k, cache.v))
    for port, tensor, skipped in zip(PORTS, (q, k, v), (first, 0, 0), strict=True):
        table = reads[port]
        if table:
            points = table.points
            number = [jobs.number[head, e] for head, a, b in table.heads for e in points.host[a:b, 1].tolist()]
            job, n = batch.ship(number), batch.ship(points.host[:, 0])
            old = cache.resid_pre[layer][points.prompt, points.pos]
            for _, a, b, new in _project(live, layer, port, table, patched_inputs(live, old, table)):
                tensor[job[a:b], n[a:b], points.pos[a:b] - skipped] = new
    return q, k, v


def _entry_mlp(
    live: Live,
    layer: int,
    source: Float[Tensor, "points d"],
    old: Float[Tensor, "points d"],
    at: Entry,
    reads: Reads | None,
) -> Float[Tensor, "points d"]:
    """The MLP's term at the touched points, recomputed where it reads something else."""
    block = live.model.blocks[layer]
    out, neurons = old.clone(), live.batch.neurons(layer)
    for node in neurons:
        live.neurons[node] = live.clean(live.runs.clean.neuron(node), live.batch.width(layer))
    if at.n_through_mlp:
        source = source[at.through_mlp]
        x = block.mlp_norm(source)
        if reads:
            x[at.read_rows] = block.mlp_norm(patched_inputs(live, source[at.read_rows], reads))
        out[at.through_mlp], activations = block.mlp.written(x, [node.index for node in neurons])
        for node, activation in zip(neurons, activations, strict=True):
            live.neurons[node].view(-1)[at.touched.flat[at.through_mlp]] = activation
        live.tally.block_positions += at.n_through_mlp
    for site in live.batch.sites(layer, "mlp", live.batch.width(layer)):
        rows = torch.searchsorted(at.touched.flat, site.points.flat)
        out[rows] = _replaced(live, layer, "mlp", site, out[rows])
    return out


# --- patched inputs and knocked-out terms -----------------------------------------------------------


def patched_inputs(live: Live, resid: Float[Tensor, "points d"], reads: Reads) -> Float[Tensor, "points d"]:
    """Patched inputs: `resid` with each sender's term as it now is taken out, and that of the other run put in."""
    change = resid.new_zeros(reads.n_changes, resid.shape[-1])
    for send in reads.sends:
        then = value(live.runs.corrupt, send.sender, send.prompt, send.pos)
        change.index_add_(0, send.into, term(live.model, send.sender, then - _now(live, send)))
    for flow in reads.flows:
        change.index_add_(0, flow.into, live.flow.added[flow.key][flow.rows])
    return resid + change[reads.change]


def _now(live: Live, send: Send) -> Float[Tensor, "points _"]:
    """A sender's term in this pass; a head's as its `z`."""
    sender = send.sender
    if not send.live:
        return value(live.runs.clean, sender, send.prompt, send.pos)
    match sender.kind:
        case "head":
            z = live.z[sender.layer]
            return z.view(-1, *z.shape[-2:])[send.flat, sender.head]
        case "mlp" if sender.is_part:
            return live.neurons[sender].view(-1)[send.flat, None]
        case "mlp":
            mlp = live.mlp[sender.layer]
            return mlp.view(-1, mlp.shape[-1])[send.flat]
    assert live.embed is not None
    return live.embed.view(-1, live.embed.shape[-1])[send.flat]


def _put(live: Live, layer: int, kind: str, terms: Float[Tensor, "N E W *term"]) -> Float[Tensor, "N E W *term"]:
    """The terms of a place, with those that are knocked out replaced."""
    sites = live.batch.sites(layer, kind, terms.shape[2])
    out = terms.clone() if sites else terms
    flat = out.view(-1, *terms.shape[3:])
    for site in sites:
        rows = (site.points.flat, site.head) if kind == "z" else (site.points.flat,)
        flat[rows] = _replaced(live, layer, kind, site, flat[rows])
    return out


def _replaced(live: Live, layer: int, kind: str, site: Sites, now: Float[Tensor, "points _"]) -> Tensor | float:
    """Knocked-out terms after the replacement of their nodes, or of a part of them; heads' as their `z`."""
    if kind == "z":
        other = _replacement(live, layer, kind, site)
        return other if site.part is None else now + component(live.model, site.part, other - now)
    if kind == "mlp":
        change = _replaced_neurons(live, layer, site)
        if site.part is not None:
            return now + neuron_term(live.model, site.part, change)
    return _replacement(live, layer, kind, site)


def _replaced_neurons(live: Live, layer: int, site: Sites) -> Float[Tensor, " points"]:
    """Note the activations of neurons that are replaced, alone or with their MLP; by how much the last one changes."""
    change = live.runs.clean.end.new_zeros(len(site.points.flat))
    for node in live.batch.neurons(layer) if site.part is None else (site.part,):
        flat = live.neurons[node].view(-1)
        other = _other(live, site, partial(_activation, node, site.points.pos))
        change = other - flat[site.points.flat]
        flat[site.points.flat] = other
    return change


def _activation(node: Node, pos: Tensor, terms: Terms, rows: Tensor) -> Float[Tensor, " points"]:
    return terms.neuron(node)[rows, pos]


def _replacement(live: Live, layer: int, kind: str, site: Sites) -> Tensor | float:
    """What knocked-out terms become."""
    if kind == "z":
        return _other(live, site, lambda terms, rows: terms.z[layer][rows, site.points.pos, site.head])
    node = Node("mlp", layer) if kind == "mlp" else EMBED
    return _other(live, site, lambda terms, rows: value(terms, node, rows, site.points.pos))


def _other(live: Live, site: Sites, read: Callable[[Terms, Tensor], Tensor]) -> Tensor | float:
    """What stands in for terms: those of the other run, the means, or zero."""
    if site.ablate == "zero":
        return 0.0
    runs, rows = live.runs, site.points.prompt
    if site.ablate == "corrupt":
        return read(runs.corrupt, rows)
    assert runs.means is not None and runs.stratum is not None
    return read(runs.means, runs.stratum[rows])
