"""Experiments in batches that fit into memory, grouped by entry layer and start; results come back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.batch_index import Array, Batch, Plan, Where, plan, ship
from circuitdsl.engine.experiment import Experiment, Positions, check
from circuitdsl.engine.forward import PatchedRun
from circuitdsl.engine.memory import batch_rows, ran_out
from circuitdsl.engine.runs import Runs, first_difference
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.via_mlps import Flows, flows
from circuitdsl.engine.workers import each, in_equal_parts, unit_rows
from circuitdsl.errors import out_of_memory

#: units of work that run as one batch at the most: smaller batches of patched runs take up to a quarter longer a row
UNITS = 2
#: a batch, and the rows of the result that its experiments have
Unit = tuple[Batch, Tensor]


class Limits(TypedDict, total=False):
    """How much is computed at once.

    Attributes:
        max_rows: residual-stream vectors (runs × positions) computed at once; by default what fits.
            Halved and retried when memory runs out.
        max_memory: bytes for caches and batches together, of which a batch takes its share; by default by what is free.
        tally: counts the work done.
    """

    max_rows: int | None
    max_memory: int | None
    tally: Tally | None


def in_batches(
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    unpatched: Callable[[Runs], Float[Tensor, "n ..."]],
    patched: Callable[[PatchedRun], Float[Tensor, "N E ..."]],
    kept: frozenset[Node] = frozenset(),
    **limits: Unpack[Limits],
) -> Float[Tensor, "experiments n ..."]:
    """Something measured on every patched run, each distinct experiment once, in batches that fit.

    Args:
        unpatched: the measurement on the clean prompts, which holds wherever an experiment changes no position.
        patched: the measurement on one batch.
        positions: as for `path_patching.effects`.
        kept: nodes whose values the measurement reads.

    Raises:
        PatchError: an experiment that the model or the prompts cannot hold.
        OutOfMemory: there is not enough for one experiment on one prompt.
    """
    model, tally = runs.model, limits.get("tally") or Tally()
    where = Where.of(positions, runs.n, runs.length, first_difference(runs.clean_tokens, runs.corrupt_tokens))
    rows = limits.get("max_rows") or batch_rows(model, runs.length, limits.get("max_memory"))
    distinct = list(dict.fromkeys(experiments))
    for experiment in distinct:
        check(model, experiment)
    found: dict[Experiment, Tensor] = {}
    for direction in dict.fromkeys(experiment.direction for experiment in distinct):
        together = [experiment for experiment in distinct if experiment.direction == direction]
        base = runs if direction == "noise" else runs.swapped()
        plans = [plan(experiment, model) for experiment in together]
        flow = flows(base, plans, where, rows, tally)
        values = unpatched(base)
        values = values.expand(len(plans), *values.shape).clone()
        units = [
            unit
            for members, prompts, start in entries(plans, where, model.n_layers)
            for unit in _units(
                Batch(tuple(plans[i] for i in members), prompts, start, where, model, flow.rows, kept),
                ship(members, model.device),
                min(rows, UNITS * unit_rows(model)),
            )
        ]
        units.sort(key=lambda unit: unit[0].rows_run * (model.n_layers - unit[0].entry), reverse=True)

        def run(unit: Unit, base: Runs = base, flow: Flows = flow, values: Tensor = values) -> Tally:
            own = Tally()
            _run(PatchedRun(base, unit[0], flow, own), unit[1], patched, values)
            return own

        for own in each(model, run, units, [batch.rows_run for batch, _ in units], rows):
            tally += own
        found |= zip(together, values, strict=True)
    return torch.stack([found[experiment] for experiment in experiments]) if found else torch.empty(0)


def entries(plans: list[Plan], where: Where, n_layers: int) -> Iterator[tuple[list[int], Array, int]]:
    """Experiments that enter at the same layer and start at the same positions, with the prompts of each start."""
    groups: dict[tuple[int, bytes], tuple[Array, list[int]]] = {}
    for i, one in enumerate(plans):
        start = where.start(one, n_layers)
        groups.setdefault((one.entry, start.tobytes()), (start, []))[1].append(i)
    for starts, members in groups.values():
        members.sort(key=lambda i: min(((p, *sorted(h)[:1]) for p, h in plans[i].reads.items()), default=()))
        for start in np.unique(starts[starts < where.length]):
            yield members, (starts == start).nonzero()[0], int(start)


def _units(batch: Batch, target: Tensor, max_rows: int) -> Iterator[Unit]:
    """Batches of at most so many rows, if possible, with their places: split by experiments, then by prompts."""
    experiments = max(1, max_rows // (len(batch.rows) * batch.steps))
    prompts = len(batch.rows) if experiments > 1 else max(1, max_rows // batch.steps)
    for e, last in in_equal_parts(len(batch.plans), experiments):
        for n, end in in_equal_parts(len(batch.rows), prompts):
            yield replace(batch, plans=batch.plans[e:last], rows=batch.rows[n:end]), target[e:last]


def _run(run: PatchedRun, target: Tensor, patched: Callable[[PatchedRun], Tensor], out: Tensor) -> None:
    """Run a batch; in halves where memory runs out."""
    batch, values = run.batch, _tried(run, patched)
    if values is not None:
        out[target[:, None], batch.prompts[None, :]] = values.transpose(0, 1)
        return
    for half, places in _units(batch, target, max(1, batch.rows_run // 2)):
        _run(replace(run, batch=half), places, patched, out)


def _tried(run: PatchedRun, patched: Callable[[PatchedRun], Tensor]) -> Tensor | None:
    """The measurement on a batch, or `None` where memory ran out and the batch can be halved."""
    run.tally.batches += 1
    try:
        return patched(replace(run))  # a copy, which takes its tensors with it
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(run.batch.plans) * len(run.batch.rows) == 1:
            what = f"patching one prompt of {run.runs.length} tokens ({run.batch.plans[0].experiment})"
            raise ran_out(what) from None
    return None
