"""Exact patching that recomputes only what lies downstream.

A batch of experiments is one live pass that starts at their first receiver's layer and first patched position.
The entry layer is entered through the patched heads (or its MLP) alone; from the next layer on, all positions from
the start are recomputed, reading the keys and values of earlier positions from the clean cache. In the last layer
only END is followed. Every patched input is the live residual stream with, for each of its senders, the term that
the sender now writes taken out and that of the other run put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.claims import EMBED, Node
from circuitdsl.models.parts import Attention, Transformer
from circuitdsl.patching.count import Tally
from circuitdsl.patching.flow import Flows, flows, term, value, wanted
from circuitdsl.patching.patch import Experiment, PatchError, Positions, Readout, check
from circuitdsl.patching.runs import Runs, baseline, read
from circuitdsl.patching.tables import (
    Array,
    Batch,
    Entry,
    Jobs,
    Plan,
    Reads,
    Send,
    Sites,
    Where,
    entry,
    entry_jobs,
    plan,
)

Progress = Callable[[int, int], None]
#: bytes that one batch's activations may take on a CPU, and the share of free memory on a GPU
CPU_BYTES, GPU_SHARE = 256 * 2**20, 0.4


@torch.inference_mode()
def effects(
    model: Transformer,
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    readout: Readout,
    *,
    max_rows: int | None = None,
    progress: Progress | None = None,
    tally: Tally | None = None,
) -> Float[Tensor, "experiments n width"]:
    """What the readout gives on every patched run.

    Args:
        runs: the clean and corrupt run; denoising experiments swap them (and run the model again).
        experiments: may repeat; each distinct one is run once.
        positions: token indices of every position that they name, except `*`.
        max_rows: residual-stream vectors (experiments × prompts × positions) recomputed at once; by default what fits
            in a quarter of a gigabyte, or a share of a GPU's free memory. Halved and retried when memory runs out.
        progress: called with (runs done, runs in all), one run being an experiment on a prompt.
        tally: counts the work done.

    Returns:
        Float32, on the model's device: the readout's values, not differences from the clean run.

    Raises:
        PatchError: an experiment that the model or the prompts cannot hold.
    """
    tally = tally if tally is not None else Tally()
    distinct = list(dict.fromkeys(experiments))
    for experiment in distinct:
        check(model, experiment)
    tally.experiments += len(distinct)
    where = Where.of(positions, runs.n, runs.length)
    out = torch.empty(len(distinct), runs.n, readout.width, device=model.device)
    done = _Done(progress, len(distinct) * runs.n)
    for direction in ("noise", "denoise"):
        places = [i for i, experiment in enumerate(distinct) if experiment.direction == direction]
        if places:
            base = runs if direction == "noise" else runs.swapped()
            rows = max_rows or default_rows(model, runs.length)
            _run_all(model, base, [distinct[i] for i in places], places, where, readout, rows, out, done, tally)
    done.add(done.total - done.count)  # prompts in which an experiment changes no position
    index = {experiment: i for i, experiment in enumerate(distinct)}
    return out[[index[experiment] for experiment in experiments]]


def default_rows(model: Transformer, length: int) -> int:
    """How many residual-stream vectors a batch may hold at once, by memory."""
    size = torch.finfo(model.dtype).bits // 8
    heads = model.n_heads * (6 * model.d_head + 4 * length)
    per_row = size * (8 * model.d_model + 3 * model.d_mlp + heads)
    budget = CPU_BYTES
    if model.device.type == "cuda":
        budget = int(torch.cuda.mem_get_info(model.device)[0] * GPU_SHARE)
    return max(64, budget // per_row)


@dataclass
class _Done:
    """Counts finished runs for `progress`."""

    progress: Progress | None
    total: int
    count: int = 0

    def add(self, runs: int) -> None:
        self.count += runs
        if self.progress:
            self.progress(self.count, self.total)


# --- batches ----------------------------------------------------------------------------------------


def _run_all(
    model: Transformer,
    runs: Runs,
    experiments: list[Experiment],
    places: list[int],
    where: Where,
    readout: Readout,
    max_rows: int,
    out: Tensor,
    done: _Done,
    tally: Tally,
) -> None:
    plans = [plan(experiment, model) for experiment in experiments]
    if runs.means is None and any(e.ablate == "mean" and e.sites for e in experiments):
        raise PatchError("mean ablation needs the means: Runs.with_means(mean_terms(...), stratum)")
    flow = flows(model, runs, wanted(plans, model), where, max_rows, tally)
    out[places] = baseline(model, runs.clean, readout)
    for members, rows, start in _groups(plans, where, model.n_layers):
        batch = Batch(tuple(plans[i] for i in members), rows, start, where, model, flow.rows)
        target = torch.tensor([places[i] for i in members], device=model.device)
        _run_split(runs, batch, target, flow, readout, max_rows, out, done, tally)


def _groups(plans: list[Plan], where: Where, n_layers: int) -> Iterator[tuple[list[int], Array, int]]:
    """Experiments that enter at the same layer and start at the same positions, with the prompts of each start."""
    groups: dict[tuple[int, bool, bytes], list[int]] = {}
    starts: dict[bytes, Array] = {}
    for i, one in enumerate(plans):
        start = where.start(one, n_layers)
        starts[start.tobytes()] = start
        groups.setdefault((one.entry, one.from_embed, start.tobytes()), []).append(i)
    for (_, _, key), members in groups.items():
        members.sort(key=lambda i: min(((p, *sorted(h)[:1]) for p, h in plans[i].reads.items()), default=()))
        for start in np.unique(starts[key]):
            if start < where.length:
                yield members, (starts[key] == start).nonzero()[0], int(start)


def _run_split(
    runs: Runs,
    batch: Batch,
    target: Tensor,
    flow: Flows,
    readout: Readout,
    max_rows: int,
    out: Tensor,
    done: _Done,
    tally: Tally,
) -> None:
    """Run a batch in chunks that fit, first split by experiments, then by prompts."""
    experiments = max(1, max_rows // (len(batch.rows) * batch.steps))
    prompts = len(batch.rows) if experiments > 1 else max(1, max_rows // batch.steps)
    for e in range(0, len(batch.plans), experiments):
        for n in range(0, len(batch.rows), prompts):
            part = replace(batch, plans=batch.plans[e : e + experiments], rows=batch.rows[n : n + prompts])
            where_to = target[e : e + experiments]
            size = len(part.plans) * len(part.rows) * part.steps
            try:
                values = run_batch(runs, part, flow, readout, tally)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or len(part.plans) * len(part.rows) == 1:
                    raise
                values = None
            if values is None:  # outside the handler, whose traceback would keep the batch's tensors alive
                _run_split(runs, part, where_to, flow, readout, max(1, size // 2), out, done, tally)
            else:
                out[where_to[:, None], part.prompts[None, :]] = values.transpose(0, 1)
                done.add(len(part.plans) * len(part.rows))


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


# --- one live pass ----------------------------------------------------------------------------------


@dataclass
class Live:
    """A batch as it runs, with the terms that later patched inputs take out again.

    Attributes:
        z: of kept layers, `[N, E, W, heads, d_head]`.
        mlp: of kept layers, `[N, E, W, d]`.
        embed: `[N, E, W, d]`, where `embed` was knocked out.
    """

    runs: Runs
    batch: Batch
    flow: Flows
    tally: Tally
    z: dict[int, Tensor] = field(default_factory=dict)
    mlp: dict[int, Tensor] = field(default_factory=dict)
    embed: Tensor | None = None

    @property
    def model(self) -> Transformer:
        return self.batch.model

    def clean(self, tensor: Float[Tensor, "n T *rest"], width: int) -> Float[Tensor, "N E W *rest"]:
        """A cached activation at the last `width` positions, once for each run of the batch."""
        cut = tensor[self.batch.prompts, tensor.shape[1] - width :]
        return cut.unsqueeze(1).repeat(1, len(self.batch.plans), *[1] * (cut.ndim - 1))


def run_batch(runs: Runs, batch: Batch, flow: Flows, readout: Readout, tally: Tally) -> Float[Tensor, "N E width"]:
    """One live pass over the prompts and experiments of a batch."""
    live = Live(runs, batch, flow, tally)
    tally.batches += 1
    layers = batch.model.n_layers
    if batch.entry == layers:
        resid = live.clean(runs.clean.end[:, None], 1)
    elif batch.from_embed:
        resid = _replaced_embed(live)
    else:
        resid = _enter(live, batch.entry)
    for layer in range(batch.entry + (not batch.from_embed), layers):
        resid = _layer(live, layer, resid)
    reads = batch.reads(layers, "in", 1)
    if reads:
        flat = resid.view(-1, resid.shape[-1])
        flat[reads.points.flat] = _inputs(live, flat[reads.points.flat], reads)
    return read(batch.model, resid[:, :, 0], batch.prompts, readout)


def _replaced_embed(live: Live) -> Float[Tensor, "N E W d"]:
    """The residual stream before layer 0, with `embed` knocked out."""
    resid = live.clean(live.runs.clean.embed, live.batch.steps)
    _put(live, resid.view(-1, resid.shape[-1]), -1, "embed", live.batch.steps)
    if EMBED in live.batch.live_nodes:
        live.embed = resid.clone()
    return resid


def _layer(live: Live, layer: int, resid: Float[Tensor, "N E S d"]) -> Float[Tensor, "N E W d"]:
    """A layer recomputed at every position of the batch; in the last, only END goes on."""
    model, batch = live.model, live.batch
    block, width = model.blocks[layer], batch.width(layer)
    z = _all_heads(live, layer, resid)
    _put(live, z.view(-1, *z.shape[-2:]), layer, "z", width)
    if batch.keeps("head", layer):
        live.z[layer] = z
    resid = resid[:, :, resid.shape[2] - width :]
    mid = resid + block.attn.o(z.flatten(-2))
    source = (resid if model.parallel else mid).reshape(-1, model.d_model)
    x = block.mlp_norm(source)
    reads = batch.reads(layer, "in", width)
    if reads:
        x[reads.points.flat] = block.mlp_norm(_inputs(live, source[reads.points.flat], reads))
    out = block.mlp(x)
    live.tally.block_positions += len(x)
    _put(live, out, layer, "mlp", width)
    if batch.keeps("mlp", layer):
        live.mlp[layer] = out.view(mid.shape)
    return mid + out.view(mid.shape)


def _all_heads(live: Live, layer: int, resid: Float[Tensor, "N E S d"]) -> Float[Tensor, "N E W heads d_head"]:
    """`z` of every head of a layer, reading earlier positions' keys and values from the clean run."""
    batch, cache = live.batch, live.runs.clean
    attn, width, start = live.model.blocks[layer].attn, batch.width(layer), batch.start
    x = live.model.blocks[layer].attn_norm(resid)
    cos, sin = (None, None) if cache.cos is None or cache.sin is None else (cache.cos[start:], cache.sin[start:])
    q = attn.project("q", x[:, :, batch.steps - width :], _last(cos, width), _last(sin, width))
    k, v = (attn.project(port, x, cos, sin) for port in ("k", "v"))
    before = [tensor[layer][batch.prompts, :, :start] for tensor in (cache.k, cache.v)]
    key_reads, value_reads = (batch.reads(layer, port, batch.steps) for port in ("k", "v"))
    if attn.group > 1 and (key_reads or value_reads):  # a patched key or value is read by one query head alone
        k, v = (tensor.repeat_interleave(attn.group, dim=-2) for tensor in (k, v))
        before = [tensor.repeat_interleave(attn.group, dim=1) for tensor in before]
    for port, tensor, reads in (("q", q, batch.reads(layer, "q", width)), ("k", k, key_reads), ("v", v, value_reads)):
        if reads:
            flat = tensor.view(-1, *tensor.shape[-2:])
            old = resid.view(-1, resid.shape[-1])[_in_all_steps(batch, reads)]
            for head, a, b, new in _project(live, layer, port, reads, _inputs(live, old, reads)):
                flat[reads.points.flat[a:b], head] = new
    return attend_from(attn, q, k, v, *before)


def _last(table: Tensor | None, width: int) -> Tensor | None:
    return None if table is None else table[len(table) - width :]


def _in_all_steps(batch: Batch, reads: Reads) -> Tensor:
    """Rows of points in a residual stream that has all steps of the batch."""
    return batch.ship(batch.flat(reads.points.host, batch.steps))


def _project(
    live: Live, layer: int, port: str, reads: Reads, inputs: Float[Tensor, "points d"]
) -> Iterator[tuple[int, int, int, Tensor]]:
    """(head, first point, last + 1, its new queries, keys or values): only the patched heads' columns."""
    block, cache = live.model.blocks[layer], live.runs.clean
    x = block.attn_norm(inputs)
    for head, a, b in reads.heads:
        at = reads.points.pos[a:b]
        cos, sin = (None, None) if cache.cos is None or cache.sin is None else (cache.cos[at], cache.sin[at])
        yield head, a, b, block.attn.project_head(port, head, x[a:b], cos, sin)  # type: ignore[arg-type]


def attend_from(
    attn: Attention,
    q: Float[Tensor, "N E W heads d_head"],
    k: Float[Tensor, "N E S kv_heads d_head"],
    v: Float[Tensor, "N E S kv_heads d_head"],
    k_before: Float[Tensor, "N kv_heads P d_head"],
    v_before: Float[Tensor, "N kv_heads P d_head"],
) -> Float[Tensor, "N E W heads d_head"]:
    """Causal attention of the last `W` of `S` positions over `P` earlier ones, which all runs of a prompt share."""
    n, e, w, heads, d = q.shape
    steps, kv = k.shape[2], k.shape[3]
    if not k_before.shape[2] and w == steps:
        q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attn.scale, enable_gqa=heads > kv)
        return z.transpose(1, 2).contiguous().view(n, e, w, heads, d)
    g = heads // kv
    q = q.view(n, e, w, kv, g, d) * attn.scale
    shared = q.permute(0, 3, 4, 1, 2, 5).reshape(n, kv, g * e * w, d) @ k_before.transpose(2, 3)
    own = _own_scores(q, k)
    scores = torch.cat((shared.view(n, kv, g, e, w, -1), own.permute(0, 2, 3, 1, 4, 5)), dim=-1)
    pattern = scores.float().softmax(dim=-1).to(v.dtype)
    before, after = pattern.split((k_before.shape[2], steps), dim=-1)
    z = (before.reshape(n, kv, g * e * w, -1) @ v_before).view(n, kv, g, e, w, d).permute(0, 3, 4, 1, 2, 5)
    return (z + _own_values(after, v)).contiguous().view(n, e, w, heads, d)


def _own_scores(q: Float[Tensor, "N E W kv g d"], k: Float[Tensor, "N E S kv d"]) -> Float[Tensor, "N E kv g W S"]:
    """Scores against the recomputed positions."""
    n, e, w, kv, g, d = q.shape
    steps = k.shape[2]
    if steps == 1:
        return (q * k.unsqueeze(4)).sum(-1).permute(0, 1, 3, 4, 2).unsqueeze(-1)
    own = q.permute(0, 1, 3, 4, 2, 5).reshape(n, e, kv, g * w, d) @ k.permute(0, 1, 3, 4, 2)
    own = own.view(n, e, kv, g, w, steps)
    if w > 1:
        hidden = torch.ones(w, steps, dtype=torch.bool, device=q.device).triu(1 + steps - w)
        own = own.masked_fill(hidden, float("-inf"))
    return own


def _own_values(
    pattern: Float[Tensor, "N kv g E W S"], v: Float[Tensor, "N E S kv d"]
) -> Float[Tensor, "N E W kv g d"]:
    """What is read from the recomputed positions."""
    n, kv, g, e, w, steps = pattern.shape
    if steps == 1:
        return pattern.permute(0, 3, 4, 1, 2, 5) * v.unsqueeze(4)
    own = pattern.permute(0, 3, 1, 2, 4, 5).reshape(n, e, kv, g * w, steps) @ v.permute(0, 1, 3, 2, 4)
    return own.view(n, e, kv, g, w, -1).permute(0, 1, 4, 2, 3, 5)


# --- the entry layer --------------------------------------------------------------------------------


def _enter(live: Live, layer: int) -> Float[Tensor, "N E W d"]:
    """The residual stream after the entry layer: clean, but for what its patched heads and MLP change."""
    model, batch, cache = live.model, live.batch, live.runs.clean
    width = batch.width(layer)
    reads = {port: batch.reads(layer, port, width if port == "q" else batch.steps) for port in ("q", "k", "v")}
    sites = batch.sites(layer, "z", width)
    mlp_reads = batch.reads(layer, "in", width)
    jobs = entry_jobs(batch, layer, reads, sites)
    at = entry(batch, layer, jobs, mlp_reads, batch.sites(layer, "mlp", width))
    prompt, pos = at.touched.prompt, at.touched.pos
    delta = torch.zeros(len(prompt), model.d_model, dtype=model.dtype, device=model.device)
    if jobs:
        delta.index_add_(0, at.job_rows, _head_changes(live, layer, jobs, reads, sites))
    elif batch.keeps("head", layer):
        live.z[layer] = live.clean(cache.z[layer], width)
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


def _head_changes(
    live: Live, layer: int, jobs: Jobs, reads: dict[str, Reads | None], sites: tuple[Sites, ...]
) -> Float[Tensor, "points d"]:
    """What the recomputed heads of the entry layer write, minus what they wrote, at the jobs' points."""
    model, batch, cache = live.model, live.batch, live.runs.clean
    attn, width = model.blocks[layer].attn, batch.width(layer)
    z = _job_heads(live, layer, jobs, reads)
    for site in sites:
        n, e, s = site.points.host.T
        numbers = batch.ship([jobs.number[int(h), int(i)] for h, i in zip(site.head.tolist(), e, strict=True)])
        step = batch.ship(s - (batch.steps - width))
        z[numbers, batch.ship(n), step] = _replacement(live, layer, "z", site)
    if batch.keeps("head", layer):
        kept = live.clean(cache.z[layer], width)
        kept.view(-1, *kept.shape[-2:])[jobs.points.flat, jobs.of_point] = z[jobs.job]
        live.z[layer] = kept
    change = z[jobs.job] - cache.z[layer][jobs.points.prompt, jobs.points.pos, jobs.of_point]
    return torch.cat([attn.out_head(head, change[a:b]) for head, a, b in jobs.heads])


def _job_heads(live: Live, layer: int, jobs: Jobs, reads: dict[str, Reads | None]) -> Float[Tensor, "J N W d_head"]:
    """`z` of the entry layer's recomputed heads: clean queries, keys and values but for the patched ones."""
    model, batch, cache = live.model, live.batch, live.runs.clean
    attn, width, length = model.blocks[layer].attn, batch.width(layer), live.runs.length
    rows, heads = batch.prompts[None, :], jobs.head[:, None]
    q = cache.q[layer][rows, heads, length - width :]
    k, v = (tensor[layer][rows, heads // attn.group] for tensor in (cache.k, cache.v))
    for port, tensor, first in (("q", q, length - width), ("k", k, 0), ("v", v, 0)):
        table = reads[port]
        if table:
            points = table.points
            number = np.array([jobs.number[head, int(e)] for head, a, b in table.heads for e in points.host[a:b, 1]])
            job, n = batch.ship(number), batch.ship(points.host[:, 0])
            old = cache.resid_pre[layer][points.prompt, points.pos]
            for _, a, b, new in _project(live, layer, port, table, _inputs(live, old, table)):
                tensor[job[a:b], n[a:b], points.pos[a:b] - first] = new
    scores = (q @ k.transpose(2, 3)).float() * attn.scale
    if width > 1:
        hidden = torch.ones(width, length, dtype=torch.bool, device=model.device).triu(1 + length - width)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


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
    out = old.clone()
    if at.n_through_mlp:
        source = source[at.through_mlp]
        x = block.mlp_norm(source)
        if reads:
            x[at.read_rows] = block.mlp_norm(_inputs(live, source[at.read_rows], reads))
        out[at.through_mlp] = block.mlp(x)
        live.tally.block_positions += at.n_through_mlp
    for site in live.batch.sites(layer, "mlp", live.batch.width(layer)):
        rows = torch.searchsorted(at.touched.flat, site.points.flat)
        out[rows] = _replacement(live, layer, "mlp", site)
    return out


# --- patched inputs and knocked-out terms -----------------------------------------------------------


def _inputs(live: Live, resid: Float[Tensor, "points d"], reads: Reads) -> Float[Tensor, "points d"]:
    """Patched inputs: `resid` with each sender's term as it now is taken out, and that of the other run put in."""
    out = resid.clone()
    for send in reads.sends:
        then = value(live.runs.corrupt, send.sender, send.prompt, send.pos)
        out.index_add_(0, send.into, term(live.model, send.sender, then - _now(live, send)))
    for flow in reads.flows:
        out.index_add_(0, flow.into, live.flow.added[flow.key][flow.rows])
    return out


def _now(live: Live, send: Send) -> Float[Tensor, "points _"]:
    """A sender's term in this pass; a head's as its `z`."""
    sender = send.sender
    if not send.live:
        return value(live.runs.clean, sender, send.prompt, send.pos)
    match sender.kind:
        case "head":
            z = live.z[sender.layer]
            return z.view(-1, *z.shape[-2:])[send.flat, sender.head]
        case "mlp":
            mlp = live.mlp[sender.layer]
            return mlp.view(-1, mlp.shape[-1])[send.flat]
    assert live.embed is not None
    return live.embed.view(-1, live.embed.shape[-1])[send.flat]


def _put(live: Live, flat: Float[Tensor, "... term"], layer: int, kind: str, width: int) -> None:
    """Replace the knocked-out terms of a place."""
    for site in live.batch.sites(layer, kind, width):
        rows = (site.points.flat, site.head) if kind == "z" else (site.points.flat,)
        flat[rows] = _replacement(live, layer, kind, site)


def _replacement(live: Live, layer: int, kind: str, site: Sites) -> Tensor | float:
    """What knocked-out terms become."""
    if site.ablate == "zero":
        return 0.0
    runs, rows = live.runs, site.points.prompt
    terms = runs.corrupt
    if site.ablate == "mean":
        assert runs.means is not None and runs.stratum is not None
        terms, rows = runs.means, runs.stratum[rows]
    if kind == "z":
        return terms.z[layer][rows, site.points.pos, site.head]
    return value(terms, Node("mlp", layer) if kind == "mlp" else EMBED, rows, site.points.pos)
