"""Experiments in batches that fit into memory, grouped by entry layer and start; results come back in order.

Batches that run side by side are a *unit* of work. Units are cut by what there is to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine.along_paths import carried
from circuitdsl.engine.batch_index import Array, Batch, Plan, Where, plan, ship
from circuitdsl.engine.experiment import Experiment, Positions, check
from circuitdsl.engine.forward import Passes, PatchedRun
from circuitdsl.engine.memory import batch_rows, ran_out
from circuitdsl.engine.runs import Runs, first_difference
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.via_mlps import flows
from circuitdsl.engine.workers import each, each_group, in_equal_parts, rows_together
from circuitdsl.errors import out_of_memory


@dataclass(frozen=True, eq=False)
class Group:
    """Prompts of one length, and the token indices of positions on them."""

    runs: Runs
    positions: Positions


class Pass(NamedTuple):
    """A pass over a batch, and where its results go: these rows of the values of its group."""

    run: PatchedRun
    target: Tensor
    values: Tensor


class _Prepared(NamedTuple):
    """The passes over a group, its values as they are where nothing is patched, and the work that was done for it."""

    values: Tensor
    passes: list[Pass]
    tally: Tally


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
    groups: Sequence[Group],
    experiments: Sequence[Experiment],
    unpatched: Sequence[Callable[[Runs], Float[Tensor, "n ..."]]],
    patched: Callable[[Passes], Iterable[Float[Tensor, "N E ..."]]],
    kept: frozenset[Node] = frozenset(),
    **limits: Unpack[Limits],
) -> list[Float[Tensor, "experiments n ..."]]:
    """Something measured on every patched run, each distinct experiment once, in batches that fit: for each group.

    Args:
        unpatched: for each group the measurement on its clean prompts, which holds wherever an experiment changes no
            position.
        patched: the measurement on passes that run side by side, for each of them.
        kept: nodes whose values the measurement reads.

    Raises:
        PatchError: an experiment that the model or the prompts cannot hold.
        OutOfMemory: there is not enough for one experiment on one prompt.
    """
    model, tally = groups[0].runs.model, limits.get("tally") or Tally()
    longest = max(group.runs.length for group in groups)
    most = limits.get("max_rows") or batch_rows(model, longest, limits.get("max_memory"))
    distinct = list(dict.fromkeys(experiments))
    for experiment in distinct:
        check(model, experiment)
    if not distinct:
        return [torch.empty(0)] * len(groups)
    found: list[dict[Experiment, Tensor]] = [{} for _ in groups]
    for direction in dict.fromkeys(experiment.direction for experiment in distinct):
        together = [experiment for experiment in distinct if experiment.direction == direction]

        def prepared(i: int, direction: str = direction, together: list[Experiment] = together) -> _Prepared:
            base, own = groups[i].runs if direction == "noise" else groups[i].runs.swapped(), Tally()
            values = unpatched[i](base)
            values = values.expand(len(together), *values.shape).clone()
            return _Prepared(values, _passes(i, base, groups[i].positions, together, values, kept, most, own), own)

        passes, sizes = [], [group.runs.n * group.runs.length for group in groups]
        for i, each_prepared in enumerate(each_group(model, prepared, range(len(groups)), sizes, most)):
            passes += each_prepared.passes
            tally += each_prepared.tally
            found[i] |= zip(together, each_prepared.values, strict=True)
        units = list(_side_by_side(passes, min(most, rows_together(model))))
        rows = [sum(one.run.batch.rows_run for one in unit) for unit in units]

        def run(unit: list[Pass]) -> Tally:
            own = Tally()
            _run([one._replace(run=replace(one.run, tally=own)) for one in unit], patched)
            return own

        for own in each(model, run, units, rows, most):
            tally += own
    return [torch.stack([values[experiment] for experiment in experiments]) for values in found]


def _passes(
    group: int,
    base: Runs,
    positions: Positions,
    experiments: Sequence[Experiment],
    values: Float[Tensor, "E n ..."],
    kept: frozenset[Node],
    most: int,
    tally: Tally,
) -> list[Pass]:
    """Experiments of one direction on one group, in batches of at most so many rows, if possible."""
    model = base.model
    where = Where.of(positions, base.n, base.length, first_difference(base.clean_tokens, base.corrupt_tokens))
    plans = [plan(experiment, model) for experiment in experiments]
    flow = flows(base, plans, where, most, tally) | carried(base, plans, where, most, tally)
    return [
        Pass(PatchedRun(group, base, part, flow, tally), target, values)
        for members, prompts, start in entries(plans, where, model.n_layers)
        for part, target in _parts(
            Batch(tuple(plans[i] for i in members), prompts, start, where, model, flow.rows, kept),
            ship(members, model.device),
            min(most, rows_together(model)),
        )
    ]


def _side_by_side(passes: list[Pass], most: int) -> Iterator[list[Pass]]:
    """Passes that run together, of at most so many rows; those that enter at neighbouring layers, the dearest first."""
    passes.sort(key=lambda one: (one.run.batch.entry, -one.run.batch.rows_run))
    unit, room = list[Pass](), most
    for one in passes:
        rows = one.run.batch.rows_run
        if unit and rows > room:
            yield unit
            unit, room = [], most
        unit.append(one)
        room -= rows
    if unit:
        yield unit


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


def _parts(batch: Batch, target: Tensor, max_rows: int) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of at most so many rows, if possible, with their places: split by experiments, then by prompts."""
    experiments = max(1, max_rows // (len(batch.rows) * batch.steps))
    prompts = len(batch.rows) if experiments > 1 else max(1, max_rows // batch.steps)
    for e, last in in_equal_parts(len(batch.plans), experiments):
        for n, end in in_equal_parts(len(batch.rows), prompts):
            yield replace(batch, plans=batch.plans[e:last], rows=batch.rows[n:end]), target[e:last]


def _run(unit: Sequence[Pass], patched: Callable[[Passes], Iterable[Tensor]]) -> None:
    """Run passes side by side; in halves where memory runs out."""
    if not _done(unit, patched):
        for half in _halves(unit):
            _run(half, patched)


def _done(unit: Sequence[Pass], patched: Callable[[Passes], Iterable[Tensor]]) -> bool:
    """Whether the results were written; not so where memory ran out and the unit can be halved."""
    first = unit[0].run
    first.tally.batches += 1
    try:
        runs = [replace(one.run) for one in unit]  # copies, which take their tensors with them
        for (run, target, values), result in zip(unit, patched(runs), strict=True):
            values[target[:, None], run.batch.prompts[None, :]] = result.transpose(0, 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(unit) == len(first.batch.plans) == len(first.batch.rows) == 1:
            what = f"patching one prompt of {first.runs.length} tokens ({first.batch.plans[0].experiment})"
            raise ran_out(what) from None
        return False
    return True


def _halves(unit: Sequence[Pass]) -> Iterator[Sequence[Pass]]:
    """The passes of a unit in halves; a single one's batch in halves."""
    if len(unit) > 1:
        middle = len(unit) // 2
        yield from (unit[:middle], unit[middle:])
        return
    run, target, values = unit[0]
    for half, places in _parts(run.batch, target, max(1, run.batch.rows_run // 2)):
        yield [Pass(replace(run, batch=half), places, values)]
