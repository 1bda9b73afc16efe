"""Exact patching that recomputes only what lies downstream.

Three things are read of patched runs: logits (`effects`), attention patterns, and the terms that nodes write at END.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.circuit.overlaps import clash
from circuitdsl.engine.batch_index import entry_jobs
from circuitdsl.engine.batches import Group, Limits, in_batches
from circuitdsl.engine.experiment import Experiment, PatchError, Positions, Readout, check_node
from circuitdsl.engine.forward import (
    Passes,
    PatchedRun,
    first_residuals,
    job_inputs,
    keys_before,
    layer_after,
    patched_inputs,
    queries_keys_values,
    residuals_after,
)
from circuitdsl.engine.runs import Runs, baseline, patterns, read
from circuitdsl.engine.terms import Terms
from circuitdsl.engine.workers import measuring
from circuitdsl.models.parts import Transformer
from circuitdsl.models.writers import term


@measuring()
def effects(
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    readout: Readout,
    **limits: Unpack[Limits],
) -> Float[Tensor, "experiments n width"]:
    """What the readout gives on every patched run.

    Args:
        runs: the clean and corrupt run; denoising experiments swap them (and run the model again).
        experiments: may repeat; each distinct one is run once.
        positions: token indices of every position that they name, except `*`.

    Returns:
        Float32, on the model's device: the readout's values, not differences from the clean run.

    Raises:
        PatchError: an experiment that the model or the prompts cannot hold.
    """
    return effects_side_by_side([Group(runs, positions)], experiments, [readout], **limits)[0]


@measuring()
def effects_side_by_side(
    groups: Sequence[Group], experiments: Sequence[Experiment], readouts: Sequence[Readout], **limits: Unpack[Limits]
) -> list[Float[Tensor, "experiments n width"]]:
    """`effects` on several groups of prompts, each with its readout. Where groups are small, this is faster."""
    model = groups[0].runs.model
    layers = model.n_layers

    def patched(runs: Passes) -> Iterator[Float[Tensor, "N E width"]]:
        for run, resid in zip(runs, residuals_after(runs, layers - 1), strict=True):
            if reads := run.batch.reads(layers, "in", 1):
                flat = resid.view(-1, resid.shape[-1])
                flat[reads.points.flat] = patched_inputs(run, flat[reads.points.flat], reads)
            yield read(model, resid[:, :, 0], run.batch.prompts, readouts[run.group])

    clean = [lambda base, of=readout: baseline(model, base.clean, of) for readout in readouts]
    return in_batches(groups, experiments, clean, patched, **limits)


def terms_at_end(model: Transformer, terms: Terms, nodes: Sequence[Node]) -> Float[Tensor, "n nodes d"]:
    """The terms that nodes write at END; raises `PatchError` where the model has no such node."""
    for node in nodes:
        check_node(model, node)
    return torch.stack([term(model, node, terms.value(node)[:, -1]) for node in nodes], dim=1)


@measuring()
def patched_terms(
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    nodes: Sequence[Node],
    **limits: Unpack[Limits],
) -> Float[Tensor, "experiments n nodes d"]:
    """The terms that nodes write at END in every patched run; a replaced node's is its replacement.

    Recomputes no further than the last of the nodes. Arguments and errors are those of `effects`.
    """
    for experiment in experiments:
        if message := clash((), {site.node for site in experiment.sites}, nodes):
            raise PatchError(message, "read another node")
    model, until = runs.model, min(max(node.layer for node in nodes), runs.model.n_layers - 1)

    def unpatched(base: Runs) -> Float[Tensor, "n nodes d"]:
        return terms_at_end(model, base.clean, nodes)

    def patched(run: PatchedRun) -> Float[Tensor, "N E nodes d"]:
        if run.batch.entry <= until:
            residuals_after([run], until)
        out = run.clean(unpatched(run.runs), len(nodes))
        for i, node in enumerate(nodes):
            if node in run.now:
                out[:, :, i] = term(model, node, run.now.value(node)[:, :, -1])
        return out

    groups = [Group(runs, positions)]
    return in_batches(groups, experiments, [unpatched], partial(map, patched), kept=frozenset(nodes), **limits)[0]


@measuring()
def patched_attention(
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    heads: Sequence[Node],
    **limits: Unpack[Limits],
) -> Float[Tensor, "experiments n heads T T"]:
    """Attention patterns of heads in every patched run: from each position (axis 3) to each (axis 4).

    Recomputes no further than the last of the heads. Arguments and errors are those of `effects`.
    """

    def unpatched(base: Runs) -> Float[Tensor, "n heads T T"]:
        return torch.stack([patterns(base.model, base.clean, head) for head in heads], dim=1)

    def patched(run: PatchedRun) -> Float[Tensor, "N E heads T T"]:
        out, resid = run.clean(unpatched(run.runs), len(heads)), None
        for layer in range(max(run.batch.entry, 0), max(head.layer for head in heads) + 1):
            watched = [(i, head.head) for i, head in enumerate(heads) if head.layer == layer]
            if layer == run.batch.entry:
                _watch_jobs(run, watched, out)
            else:
                (resid,) = first_residuals([run]) if resid is None else layer_after([run], layer - 1, [resid])
                if watched:
                    _watch_all(run, layer, resid, watched, out)
        return out

    return in_batches([Group(runs, positions)], experiments, [unpatched], partial(map, patched), **limits)[0]


def _watch_jobs(run: PatchedRun, watched: Sequence[tuple[int, int]], out: Tensor) -> None:
    """Write the patterns of watched heads, (place in `out`, head), among those that the entry layer recomputes."""
    batch = run.batch
    jobs = entry_jobs(batch, batch.steps)
    if (jobs.number[[head for _, head in watched]] >= 0).any():
        q, k, _ = job_inputs(run, jobs)
        attn = run.model.blocks[batch.entry].attn
        for i, head in watched:
            before = keys_before(run, "k", head // attn.group)
            for e in np.flatnonzero(jobs.number[head] >= 0):
                job = jobs.number[head, e]
                out[:, e, i, batch.start :] = attn.alone(head).pattern(q[job] @ torch.cat((before, k[job]), dim=1).mT)


def _watch_all(run: PatchedRun, layer: int, resid: Tensor, watched: Sequence[tuple[int, int]], out: Tensor) -> None:
    """Write the patterns of watched heads of a layer that is recomputed whole."""
    attn = run.model.blocks[layer].attn
    ((q, k, _, k_before, _),) = queries_keys_values([run], layer, [resid], [run.batch.steps])
    group = attn.n_heads // k.shape[3]
    for i, head in watched:
        own, before = k[:, :, :, head // group], k_before[:, head // group]
        keys = torch.cat((before.unsqueeze(1).expand(-1, k.shape[1], -1, -1), own), dim=2)
        out[:, :, i, run.batch.start :] = attn.alone(head).pattern(q[:, :, :, head] @ keys.mT)
