"""Forward passes over batches, each from its entry layer and first patched position onwards.

In the entry layer only the patched heads and the MLP are recomputed. From the next layer on, all positions from the
start are recomputed; keys and values of earlier positions come from the clean cache. In the last layer only END is
computed. A patched input is the residual stream of this pass; for each of its senders, the term that the sender
writes in this pass is subtracted and its term of the other run is added.

Batches go through the layers side by side, since products of small matrices are slow. What acts on one position at a
time (norms, projections, MLPs) is computed for all of them at once, attention for one after the other.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, Node, is_inside, is_number
from circuitdsl.engine import narrow
from circuitdsl.engine.batch_index import Batch, Jobs, Points, Reads, Sites, entry_jobs, touched
from circuitdsl.engine.memory import LONG
from circuitdsl.engine.runs import Runs
from circuitdsl.engine.side_by_side import apart, in_a_row, last
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.via_mlps import Flows
from circuitdsl.models.features import of_heads, of_stream
from circuitdsl.models.parts import PORTS, Attention, Port, Transformer, attend
from circuitdsl.models.writers import Written, in_whole, is_head_along, layer_of, term, written_inside


@dataclass
class PatchedRun:
    """A forward pass over a batch.

    Attributes:
        group: which of the prompts that are measured together it is a pass over.
        flow: the changes that arrive via MLPs.
        now: the values, `[N, E, W, ...]`, that later patched inputs subtract or that are read at the end.
    """

    group: int
    runs: Runs
    batch: Batch
    flow: Flows
    tally: Tally
    now: Written = field(init=False, default_factory=lambda: Written({}))

    @property
    def model(self) -> Transformer:
        return self.batch.model

    def clean(self, tensor: Float[Tensor, "n T *rest"], width: int) -> Float[Tensor, "N E W *rest"]:
        """What was read of the clean run, at the last `width` places of axis 1, once for each run of the batch."""
        cut = tensor[self.batch.prompts, tensor.shape[1] - width :]
        return cut.unsqueeze(1).repeat(1, len(self.batch.plans), *[1] * (cut.ndim - 1))


#: passes that go through the layers side by side
Passes = Sequence[PatchedRun]


def residuals_after(runs: Passes, until: int) -> list[Float[Tensor, "N E W d"]]:
    """The residual streams after a layer; a pass that enters above it has its clean stream at END."""
    found: dict[int, Tensor] = {}
    for layer in range(min(run.batch.entry for run in runs), until + 1):
        going, entering = list(found), [i for i, run in enumerate(runs) if run.batch.entry == layer]
        if going:
            found = dict(zip(going, layer_after([runs[i] for i in going], layer, list(found.values())), strict=True))
        if entering:
            found |= zip(entering, first_residuals([runs[i] for i in entering]), strict=True)
    return [found[i] if i in found else run.clean(run.runs.clean.end[:, None], 1) for i, run in enumerate(runs)]


def first_residuals(runs: Passes) -> list[Float[Tensor, "N E W d"]]:
    """The residual streams that the first layer to be recomputed whole reads; all enter at the same layer."""
    if runs[0].batch.entry >= 0:
        return _streams(runs, runs[0].batch.entry + 1, enter(runs))
    return [_put(run, EMBED, run.clean(run.runs.clean.embed, run.batch.steps)) for run in runs]


# --- a layer that is recomputed whole ---------------------------------------------------------------


def layer_after(runs: Passes, layer: int, resids: Sequence[Float[Tensor, "N E S d"]]) -> list[Float[Tensor, "N E W d"]]:
    """A layer recomputed at every position of the batches; in the last, only END goes on."""
    model, batches = runs[0].model, [run.batch for run in runs]
    block, widths = model.blocks[layer], [batch.width(layer) for batch in batches]
    resids = [block.entered(resid) for resid in resids]
    gathered = in_a_row([attend_from(block.attn, *each) for each in queries_keys_values(runs, layer, resids, widths)])
    z, attended = block.attn.written(gathered, partial(_put_all, runs, Node("head", layer), widths))
    apart_from = (apart(each, batches, widths) for each in (z, attended))
    for run, width, values, sums in zip(runs, widths, *apart_from, strict=True):
        for site in run.batch.sites(Node("head", layer), width):
            if is_head_along(site.part):
                rows = site.points.flat
                change = _change_along(run, site, values.flatten(0, 2)[rows, site.points.head])
                sums.view(-1, model.d_model).index_add_(0, rows, change)
    resid = in_a_row([last(each, width) for each, width in zip(resids, widths, strict=True)])
    sums = Node("attn", layer)
    for run, own, out in zip(runs, *(apart(each, batches, widths) for each in (gathered, attended)), strict=True):
        _put_parts(run, sums, out, of_heads(model, run.batch.inside(sums), own, out))
    mid, behind = resid + attended, Node("mid", layer)
    for run, own in zip(runs, apart(mid, batches, widths), strict=True):
        _put_parts(run, behind, own, _encoded(run, behind, own))
    source = resid if model.parallel else mid
    mlp = Node("mlp", layer)
    into = [batch.reads(layer, "in", width) for batch, width in zip(batches, widths, strict=True)]
    x = source.clone() if any(into) else source
    for run, reads, own, read in zip(runs, into, *(apart(each, batches, widths) for each in (source, x)), strict=True):
        if reads:
            at = reads.points.flat
            read.view(-1, model.d_model)[at] = patched_inputs(run, own.flatten(0, 2)[at], reads)
    inside = [run.batch.reads_inside(mlp, width) for run, width in zip(runs, widths, strict=True)]
    at_sources = zip(runs, apart(source, batches, widths), inside, strict=True)
    more = [_read_inside(run, own.flatten(0, 2), reads, reads.points.flat) for run, own, reads in at_sources if reads]
    (out, activations), *received = _mlp(runs, layer, [x, *more])
    for node, values in activations.items():
        for run, own in zip(runs, apart(values, batches, widths), strict=True):
            if node in run.batch.inside(mlp):
                run.now.kept[node] = own
                _as_wide_as_written(run, node)
    for run, own, reads in zip(runs, apart(out, batches, widths), inside, strict=True):
        if reads:
            _receive(run, mlp, reads, received.pop(0)[1], own.flatten(0, 2), reads.points.flat)
        run.tally.block_positions += own.shape[:3].numel() + (reads.n_changes if reads else 0)
    after = mid + _put_all(runs, mlp, widths, out)
    return _streams(runs, layer + 1, apart(after, batches, widths))


def _mlp(
    runs: Passes, layer: int, inputs: list[Float[Tensor, "_ d"]]
) -> list[tuple[Float[Tensor, "_ d"], dict[Node, Tensor]]]:
    """For some inputs: what the MLP writes, and the values of the neurons and features that any of the passes needs.

    Args:
        inputs: what it reads, before its norm.
    """
    model, asked = runs[0].model, {node for run in runs for node in run.batch.inside(Node("mlp", layer))}
    source = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
    out, values = written_inside(model, layer, asked, model.blocks[layer].mlp_norm(source), source)
    if len(inputs) == 1:
        return [(out, values)]
    sizes = [len(x) for x in inputs]
    parts = {node: value.split(sizes) for node, value in values.items()}
    return [(own, {node: each[i] for node, each in parts.items()}) for i, own in enumerate(out.split(sizes))]


def _as_wide_as_written(run: PatchedRun, node: Node) -> None:
    """The value of a feature that writes into a later layer: a copy, at the positions that are computed there."""
    if node.crosses:
        run.now.kept[node] = run.now.kept[node][:, :, -run.batch.width(node.layer) :].clone()


def _read_inside(
    run: PatchedRun, source: Float[Tensor, "rows d"], reads: Reads, at: Int[Tensor, " points"]
) -> Float[Tensor, "n_changes d"]:
    """What neurons and features of an MLP or a stream read, before any norm; `at` are the rows of their points."""
    return patched_inputs(run, source[at], reads)[reads.distinct]


def _receive(
    run: PatchedRun,
    of: Node,
    reads: Reads,
    new: Mapping[Node, Float[Tensor, " n_changes"]],
    whole: Float[Tensor, "rows d"],
    at: Int[Tensor, " points"],
) -> None:
    """Put in what neurons and features of an MLP or a stream write that something was sent to; it is kept.

    Args:
        new: their values, given what they read.
        whole: what all of it writes; `at` are the rows of their points.
    """
    readers = run.batch.readers(of)
    for number, a, b in reads.points.heads:
        node, rows = readers[number], reads.points.flat[a:b]
        kept, values = run.now.kept[node].flatten(0, 2), new[node][reads.change[a:b]]
        whole[at[a:b]] += in_whole(run.model, node, (values - kept[rows])[:, None])
        kept[rows] = values


def queries_keys_values(
    runs: Passes, layer: int, resids: Sequence[Float[Tensor, "N E S d"]], widths: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """For each pass queries (of the last `W` positions), keys and values, then keys and values before its start."""
    block, batches = runs[0].model.blocks[layer], [run.batch for run in runs]
    x, steps = block.attn_norm(in_a_row(resids)), [batch.steps for batch in batches]
    ends = [last(own, width) for own, width in zip(apart(x, batches, steps), widths, strict=True)]
    found = block.attn.unturned(x, None if steps == widths else in_a_row(ends))
    each = zip(*(apart(part, batches, at) for part, at in zip(found, (widths, steps, steps), strict=True)), strict=True)
    for run, resid, own in zip(runs, resids, each, strict=True):
        yield _with_reads(run, layer, resid, *own)


def _with_reads(
    run: PatchedRun, layer: int, resid: Float[Tensor, "N E S d"], q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same of one pass: turned, its patched queries, keys and values put in."""
    batch, cache, start, width = run.batch, run.runs.clean, run.batch.start, q.shape[2]
    attn, turns = run.model.blocks[layer].attn, cache.turns[layer]
    q, k = attn.turned("q", q, turns[run.runs.length - width :]), attn.turned("k", k, turns[start:])
    k_before, v_before = (tensor[layer][batch.prompts, :, :start] for tensor in (cache.k, cache.v))
    all_reads = (
        batch.reads(layer, "q", width),
        batch.reads(layer, "k", batch.steps),
        batch.reads(layer, "v", batch.steps),
    )
    if attn.group > 1 and any(all_reads[1:]):  # a patched key or value is read by one query head alone
        k, v = (tensor.repeat_interleave(attn.group, dim=-2) for tensor in (k, v))
        k_before, v_before = (tensor.repeat_interleave(attn.group, dim=1) for tensor in (k_before, v_before))
    flat_resid = resid.flatten(0, 2)
    for port, tensor, reads in zip(PORTS, (q, k, v), all_reads, strict=True):
        if reads:
            flat = tensor.view(-1, *tensor.shape[-2:])
            in_all_steps = batch.ship(reads.points.rows_of(batch.steps))
            for head, a, b, new in _project(run, layer, port, reads, flat_resid[in_all_steps]):
                flat[reads.points.flat[a:b], head] = new
    return q, k, v, k_before, v_before


def _put_all(
    runs: Passes, of: Node, widths: Sequence[int], rows: Float[Tensor, "rows ..."]
) -> Float[Tensor, "rows ..."]:
    """The values of a layer's heads or its MLP after `_put`; the same tensor where none is replaced."""
    own = apart(rows, [run.batch for run in runs], widths)
    put = [_put(run, of, values) for run, values in zip(runs, own, strict=True)]
    return rows if all(new is old for new, old in zip(put, own, strict=True)) else in_a_row(put)


def _project(
    run: PatchedRun, layer: int, port: Port, reads: Reads, resid: Float[Tensor, "points d"]
) -> Iterator[tuple[int, int, int, Tensor]]:
    """(head, first point, last + 1, its new queries, keys or values): only the patched heads' columns."""
    block, turns = run.model.blocks[layer], run.runs.clean.turns[layer]
    x = block.attn_norm(patched_inputs(run, resid, reads))
    for head, a, b in reads.points.heads:
        yield head, a, b, block.attn.project_head(port, head, x[a:b], turns[reads.points.pos[a:b]])


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
        z = attend(attn, *(x.flatten(0, 1).transpose(1, 2) for x in (q, k, v)))
        return z.contiguous().view(n, e, w, heads, d)
    if steps == w >= LONG and attn.softcap is None:
        return _attend_long(attn, q, k, v, k_before, v_before)
    g, before = heads // kv, k_before.shape[2]
    q = q.view(n, e, w, kv, g, d)
    rows = q.permute(0, 3, 4, 1, 2, 5).reshape(n, kv, g * e * w, d)
    products = (rows @ F.pad(k_before, (0, 0, 0, steps)).mT).view(n, kv, g, e, w, -1)
    products[..., before:] = _own_products(q, k).permute(0, 2, 3, 1, 4, 5)
    pattern = attn.pattern(products).to(v.dtype)
    z = (pattern[..., :before].flatten(2, 4) @ v_before).view(n, kv, g, e, w, d).permute(0, 3, 4, 1, 2, 5)
    return torch.add(z, _own_values(pattern[..., before:], v), out=q.new_empty(z.shape)).view(n, e, w, heads, d)


def _attend_long(
    attn: Attention, q: Tensor, k: Tensor, v: Tensor, k_before: Tensor, v_before: Tensor
) -> Float[Tensor, "N E W heads d_head"]:
    """The same where no matrix of all scores is made. The keys that runs share are repeated for each."""
    n, e, w, heads, d = q.shape
    earlier = k_before.shape[2]
    keys, values = (
        torch.cat((before.unsqueeze(1).expand(-1, e, -1, -1, -1), own.transpose(2, 3)), dim=3).flatten(0, 1)
        for before, own in ((k_before, k), (v_before, v))
    )
    queries = q.flatten(0, 1).transpose(1, 2)
    if 3 * earlier <= w:  # a square is masked faster than a rectangle: some queries that nobody asked for go before
        queries = F.pad(queries, (0, 0, earlier, 0))
    return attend(attn, queries, keys, values)[:, -w:].contiguous().view(n, e, w, heads, d)


def _own_products(q: Float[Tensor, "N E W kv g d"], k: Float[Tensor, "N E S kv d"]) -> Float[Tensor, "N E kv g W S"]:
    """Products with the keys of the recomputed positions."""
    n, e, w, kv, g, d = q.shape
    steps = k.shape[2]
    if steps == 1:
        return (q * k.unsqueeze(4)).sum(-1).permute(0, 1, 3, 4, 2).unsqueeze(-1)
    own = q.permute(0, 1, 3, 4, 2, 5).reshape(n, e, kv, g * w, d) @ k.permute(0, 1, 3, 4, 2)
    return own.view(n, e, kv, g, w, steps)


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


def enter(runs: Passes) -> list[Float[Tensor, "N E W d"]]:
    """The residual streams after the entry layer, the same for all: clean, but for what patched heads and MLP change.

    The MLP is recomputed at those points at which its input changes.
    """
    entering = [_entering(run) for run in runs]
    inputs = [next(each) for each in entering]
    written = iter(_mlp(runs, runs[0].batch.entry, [x for each in inputs for x in each]))
    found = [each.send(list(islice(written, len(own)))) for each, own in zip(entering, inputs, strict=True)]
    return [resid for (resid,) in found]


def _entering(run: PatchedRun) -> Generator[list[Tensor], list[tuple[Tensor, dict[Node, Tensor]]], None]:
    """A pass through its entry layer: gives the MLP's inputs, takes what it writes, gives the residual stream."""
    model, batch, cache, layer = run.model, run.batch, run.runs.clean, run.batch.entry
    heads, mlp, width = Node("head", layer), Node("mlp", layer), batch.width(layer)
    jobs, reads = entry_jobs(batch, width, batch.sites(heads, width)), batch.reads(layer, "in", width)
    block, sites, own = model.blocks[layer], batch.sites(mlp, width), batch.inside(mlp)
    inside = batch.reads_inside(mlp, width)
    points, through = touched(batch, jobs, reads, (*sites, *([inside] if inside else [])))
    delta, moved = _attention_changes(run, points, jobs)
    source = cache.mlp_in[layer][points.prompt, points.pos]
    behind = Node("mid", layer)
    if not model.parallel:
        source += delta
        delta = delta + _put_at(run, behind, points, source, of_stream(batch.inside(behind), source))
    everywhere = len(through) == len(points.host)
    out = torch.empty_like(source) if everywhere else cache.value(mlp)[points.prompt, points.pos]
    for node in own:
        value = cache.value(node)
        run.now.kept[node] = run.clean(value[..., 0] if is_number(node) else value, width)
    run.tally.block_positions += len(through)
    plain = not (
        reads or own or batch.inside(behind) or model.parallel or any(is_head_along(site.part) for site in jobs.sites)
    )
    if moved is not None and plain and narrow.pays(model, jobs.points, moved):
        rows = torch.searchsorted(points.flat, jobs.points.flat)
        out[rows] = narrow.mlp_of_heads(model, cache, jobs.points, moved, block.mlp_norm.scale(source)[rows])
        through = through[:0]
    at, flat = (source, points.flat) if len(through) == len(source) else (source[through], points.flat[through])
    x = at.clone() if reads else at
    if reads:
        rows = torch.searchsorted(flat, reads.points.flat)
        x[rows] = patched_inputs(run, at[rows], reads)
    if inside:
        run.tally.block_positions += inside.n_changes
        changed = torch.searchsorted(points.flat, inside.points.flat)
        (written, activations), (_, received) = yield [x, _read_inside(run, source, inside, changed)]
    else:
        ((written, activations),) = yield [x]
    out[through] = written
    for node in own:
        run.now.kept[node].flatten(0, 2)[flat] = activations[node]
        _as_wide_as_written(run, node)
    if inside:
        _receive(run, mlp, inside, received, out, changed)
    for site in sites:
        rows = torch.searchsorted(points.flat, site.points.flat)
        out[rows] = _replaced(run, mlp, site, out[rows])
    _keep(run, mlp, points.flat, out)
    shape = len(batch.rows), len(batch.plans), width, model.d_model
    if not model.parallel and len(out) == np.prod(shape[:3]):
        yield [source.add_(out).view(shape)]
        return
    resid = run.clean(cache.resid_pre[layer + 1] if layer + 1 < model.n_layers else cache.end[:, None], width)
    resid.view(-1, model.d_model)[points.flat] += delta + out - cache.value(mlp)[points.prompt, points.pos]
    yield [resid]


def _put_at(
    run: PatchedRun, of: Node, points: Points, whole: Float[Tensor, "points d"], values: Mapping[Node, Tensor]
) -> Float[Tensor, "points d"]:
    """`_put_parts` at some points of the entry layer, beside which all is clean; how the sum changes.

    What features of the stream behind the heads read is put in as well.
    """
    before = whole.clone() if values else whole
    for node, own in values.items():
        value = run.runs.clean.value(node)
        run.now.kept[node] = run.clean(value[..., 0] if is_number(node) else value, points.width)
        run.now.kept[node].flatten(0, 2)[points.flat] = own
    if reads := run.batch.reads_inside(of, points.width):
        _receive_there(run, of, reads, whole, torch.searchsorted(points.flat, reads.points.flat))
    for site in run.batch.sites(of, points.width) if values else ():
        rows = torch.searchsorted(points.flat, site.points.flat)
        whole[rows] = _replaced(run, of, site, whole[rows])
    return whole - before


def _keep(run: PatchedRun, of: Node, at: Tensor | tuple[Tensor, Tensor], values: Tensor) -> None:
    """Keep the values of a layer's heads or MLP, if they are read later: the clean ones, with some of them replaced."""
    if of in run.batch.kept_layers:
        kept = run.clean(run.runs.clean.value(of), run.batch.width(of.layer))
        kept.flatten(0, 2)[at] = values
        run.now.kept[of] = kept


def _attention_changes(
    run: PatchedRun, at: Points, jobs: Jobs
) -> tuple[Float[Tensor, "points d"], Float[Tensor, "job_points d_head"] | None]:
    """The change of what the heads of the entry layer write, at some points; and of their `z`, where it is known."""
    model, batch, points, heads = run.model, run.batch, jobs.points, Node("head", run.batch.entry)
    attn = model.blocks[batch.entry].attn
    z = _job_values(run, jobs)
    if batch.inside(Node("attn", batch.entry)) or (attn.post is not None and len(jobs.head)):
        return _rescaled_changes(run, at, jobs, z[jobs.job]), None
    changes = []
    for site in jobs.sites:
        n, _, s, _ = site.points.host.T
        place = jobs.numbers(site.points), batch.ship(n), batch.ship(s - (batch.steps - points.width))
        if is_head_along(site.part):
            changes.append((site.points.flat, _change_along(run, site, z[place])))
        else:
            z[place] = _replaced(run, heads, site, z[place])
    new = z[jobs.job]
    _keep(run, heads, (points.flat, points.head), new)
    moved = new - run.runs.clean.value(heads)[points.prompt, points.pos, points.head]
    rows = torch.searchsorted(at.flat, points.flat)
    change = moved.new_zeros(len(at.host), model.d_model)
    for head, a, b in points.heads:  # no head writes twice at a point: they are added in order, on a GPU as well
        change.index_add_(0, rows[a:b], attn.out_head(head, moved[a:b]))
    for flat, along in changes:
        change.index_add_(0, torch.searchsorted(at.flat, flat), along)
    return change, moved


def _rescaled_changes(
    run: PatchedRun, at: Points, jobs: Jobs, new: Float[Tensor, "jobs d_head"]
) -> Float[Tensor, "points d"]:
    """All heads of the layer together: in a post-norm model a changed one changes the scale of all of them.

    Features of what they write together are computed of all of them as well.
    """
    cache, layer, attn = run.runs.clean, run.batch.entry, run.model.blocks[run.batch.entry].attn
    clean = cache.value(Node("head", layer))[at.prompt, at.pos]
    gathered = clean.clone() if attn.post is None else cache.gathered[layer][at.prompt, at.pos]
    gathered[torch.searchsorted(at.flat, jobs.points.flat), jobs.points.head] = new

    def replaced(z: Float[Tensor, "points heads d_head"]) -> Float[Tensor, "points heads d_head"]:
        out = z.clone() if jobs.sites else z
        for site in jobs.sites:
            if is_head_along(site.part):
                continue
            place = torch.searchsorted(at.flat, site.points.flat), site.points.head
            out[place] = _replaced(run, Node("head", layer), site, out[place])
        return out

    written, attended = attn.written(gathered, replaced)
    _keep(run, Node("head", layer), at.flat, written)
    for site in jobs.sites:
        if is_head_along(site.part):
            rows = torch.searchsorted(at.flat, site.points.flat)
            attended = attended.index_add(0, rows, _change_along(run, site, written[rows, site.points.head]))
    sums = Node("attn", layer)
    _put_at(run, sums, at, attended, of_heads(run.model, run.batch.inside(sums), gathered, attended))
    return attended - attn.write(clean)


def _job_values(run: PatchedRun, jobs: Jobs) -> Float[Tensor, "J N W d_head"]:
    """What the entry layer's recomputed heads gather."""
    attn = run.model.blocks[run.batch.entry].attn
    q, k, v = job_inputs(run, jobs)
    z = torch.empty_like(q)
    for head, a, b in jobs.by_head:
        own = (each[a:b].transpose(0, 1).unsqueeze(3) for each in (q, k, v))
        before = (keys_before(run, port, head // attn.group).unsqueeze(1) for port in PORTS[1:])
        z[a:b] = attend_from(attn.alone(head), *own, *before)[:, :, :, 0].transpose(0, 1)
    return z


def keys_before(run: PatchedRun, port: Port, head: int) -> Float[Tensor, "N P d_head"]:
    """The keys or values of a key and value head of the entry layer before the batch's start."""
    batch, cache = run.batch, run.runs.clean
    return (cache.k if port == "k" else cache.v)[batch.entry][batch.prompts, head, : batch.start]


def job_inputs(
    run: PatchedRun, jobs: Jobs
) -> tuple[Float[Tensor, "J N W d_head"], Float[Tensor, "J N S d_head"], Float[Tensor, "J N S d_head"]]:
    """The entry layer's recomputed heads: clean queries, keys and values but for the patched ones.

    Keys and values are those from the batch's start on.
    """
    batch, cache, layer, first = run.batch, run.runs.clean, run.batch.entry, run.runs.length - jobs.points.width
    rows, heads, group = batch.prompts[None, :], jobs.head[:, None], run.model.blocks[layer].attn.group
    q = cache.q[layer][rows, heads, first:]
    k, v = (tensor[layer][rows, heads // group, batch.start :] for tensor in (cache.k, cache.v))
    for port, tensor, skipped in zip(PORTS, (q, k, v), (first, batch.start, batch.start), strict=True):
        if table := jobs.reads[port]:
            points = table.points
            job, n = jobs.numbers(points), batch.ship(points.host[:, 0])
            old = cache.resid_pre[layer][points.prompt, points.pos]
            for _, a, b, new in _project(run, layer, port, table, old):
                tensor[job[a:b], n[a:b], points.pos[a:b] - skipped] = new
    return q, k, v


# --- patched inputs and knocked-out terms -----------------------------------------------------------


def patched_inputs(run: PatchedRun, resid: Float[Tensor, "points d"], reads: Reads) -> Float[Tensor, "points d"]:
    """Patched inputs: `resid` minus the current term of each sender, plus its term of the other run."""
    change = resid.new_zeros(reads.n_changes, resid.shape[-1])
    for sender, changed, ablate, into, points in reads.sends:
        then = run.runs.substitute(ablate, sender, points.prompt, points.pos)
        if changed and sender in run.now:  # of those below its entry a pass holds none that no stream has replaced yet
            now = run.now.value(sender).flatten(0, 2)[points.flat]
        else:
            now = run.runs.clean.value(sender)[points.prompt, points.pos]
        change.index_add_(0, into, term(run.model, sender, then - now))
    for flow, into, rows in reads.flows:
        change.index_add_(0, into, run.flow.added[flow][rows].to(change.device))
    return resid + (change if reads.n_changes == len(resid) else change[reads.change])


def _put(run: PatchedRun, of: Node, values: Float[Tensor, "N E W *rest"]) -> Float[Tensor, "N E W *rest"]:
    """The values of a layer's heads, its MLP or `embed`, knocked-out ones replaced; kept where they are read later."""
    sites = run.batch.sites(of, values.shape[2])
    out = values.clone() if sites else values
    flat = out.view(-1, *values.shape[3:])
    for site in sites:
        if is_head_along(site.part):
            continue
        rows = (site.points.flat, site.points.head) if of.kind == "head" else (site.points.flat,)
        flat[rows] = _replaced(run, of, site, flat[rows])
    if of in run.batch.kept_layers:
        run.now.kept[of] = out
    return out


def _streams(runs: Passes, layer: int, resids: Iterable[Float[Tensor, "N E W d"]]) -> list[Float[Tensor, "N E W d"]]:
    """The residual streams that enter a layer, replaced where they are knocked out, with all terms in them."""
    of, found = Node("resid", layer), []
    for run, resid in zip(runs, resids, strict=True):
        run.now.kept.update(_encoded(run, of, resid))
        found.append(_put(run, of, resid))
        below = sorted(node for node in run.batch.kept_nodes if of.holds(node))
        for site in run.batch.sites(of, resid.shape[2]) if below else ():
            if site.part is None:
                _replace_below(run, site, dict.fromkeys(node if is_inside(node) else layer_of(node) for node in below))
    return found


def _encoded(run: PatchedRun, of: Node, resid: Float[Tensor, "N E W d"]) -> Mapping[Node, Tensor]:
    """The values of features of a stream; those that something is sent to are put in, in place."""
    values = of_stream(run.batch.inside(of), resid)
    if reads := run.batch.reads_inside(of, resid.shape[2]):
        run.now.kept.update(values)
        _receive_there(run, of, reads, resid.flatten(0, 2), reads.points.flat)
    return values


def _receive_there(
    run: PatchedRun, of: Node, reads: Reads, whole: Float[Tensor, "rows d"], at: Int[Tensor, " points"]
) -> None:
    """`_receive` of features that encode the stream in which they are."""
    read = of_stream(run.batch.inside(of), _read_inside(run, whole, reads, at))
    _receive(run, of, reads, read, whole, at)


def _put_parts(run: PatchedRun, of: Node, whole: Float[Tensor, "N E W d"], values: Mapping[Node, Tensor]) -> None:
    """Replace features of a sum where they are knocked out, in place; the values of those that are needed are kept."""
    run.now.kept.update(values)
    whole.copy_(_put(run, of, whole)) if values else None


def _replace_below(run: PatchedRun, site: Sites, nodes: Iterable[Node]) -> None:
    """Where a stream is replaced, what nodes have written before is in it no more, but what stands in its place."""
    for node in nodes:
        width = run.batch.width(node.known_after)
        now = run.now.value(node) if node in run.now else run.clean(run.runs.clean.value(node), width)
        now = now.clone()
        other = run.runs.substitute(site.ablate, node, site.points.prompt, site.points.pos)
        now.flatten(0, 2)[run.batch.ship(site.points.rows_of(width))] = other
        run.now.kept[node] = now[..., 0] if is_number(node) else now


def _change_along(run: PatchedRun, site: Sites, now: Float[Tensor, "points d_head"]) -> Float[Tensor, "points d"]:
    """How what the heads of a layer write together changes where the part of one along a direction is replaced."""
    assert site.part is not None
    other = run.runs.substitute(site.ablate, site.part.whole, site.points.prompt, site.points.pos)
    return term(run.model, site.part, other - now)


def _replaced(run: PatchedRun, of: Node, site: Sites, now: Float[Tensor, "points _"]) -> Float[Tensor, "points _"]:
    """Knocked-out values after the replacement of their nodes, or of a part of them.

    The new values of neurons and features that are replaced, alone or with all of it, are kept.
    """
    at = site.points.prompt, site.points.pos
    if site.part is not None and site.part.along:
        return now + in_whole(run.model, site.part, run.runs.substitute(site.ablate, of, *at) - now)
    change = now[:0]
    own = [node for node in run.batch.inside(of) if not node.crosses] if site.part is None else [site.part]
    for node in () if of.kind == "head" else own:
        kept, other = run.now.kept[node], run.runs.substitute(site.ablate, node, *at)
        flat = (kept[..., None] if is_number(node) else kept).flatten(0, 2)
        change = other - flat[site.points.flat]
        flat[site.points.flat] = other
    if site.part is None or of.kind == "head":
        other = run.runs.substitute(site.ablate, of, *at, *([site.points.head] if of.kind == "head" else []))
        if site.part is None:
            return other
        change = other - now
    return now + in_whole(run.model, site.part, change)
