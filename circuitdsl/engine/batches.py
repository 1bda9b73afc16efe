"""Experiments in batches that fit: grouped by entry layer and start, split to memory, put back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.engine.batch_index import Array, Batch, Plan, Where, plan, ship
from circuitdsl.engine.count import Tally
from circuitdsl.engine.experiment import Experiment, PatchError, Positions, check
from circuitdsl.engine.forward import Live
from circuitdsl.engine.memory import batch_rows, out_of_memory, ran_out
from circuitdsl.engine.runs import Runs, first_difference
from circuitdsl.engine.via_mlps import flows

Progress = Callable[[int, int], None]


def sweep(
    runs: Runs,
    experiments: Sequence[Experiment],
    positions: Positions,
    unpatched: Callable[[Runs], Float[Tensor, "n ..."]],
    patched: Callable[[Live], Float[Tensor, "N E ..."]],
    *,
    max_rows: int | None,
    max_memory: int | None,
    progress: Progress | None = None,
    tally: Tally | None = None,
) -> Float[Tensor, "experiments n ..."]:
    """Something measured on every patched run, each distinct experiment once, in batches that fit.

    Args:
        unpatched: the measurement on the clean prompts, which holds wherever an experiment changes no position.
        patched: the measurement on one batch.
        positions, max_rows, max_memory, progress, tally: as for `recompute.effects`.
    """
    model, tally = runs.model, tally if tally is not None else Tally()
    where = Where.of(positions, runs.n, runs.length, first_difference(runs.clean_tokens, runs.corrupt_tokens))
    rows = max_rows or batch_rows(model, runs.length, max_memory)
    distinct = list(dict.fromkeys(experiments))
    for experiment in distinct:
        check(model, experiment)
    if runs.means is None and any(e.ablate == "mean" and e.sites for e in distinct):
        raise PatchError("mean ablation needs the means: Runs.with_means(mean_terms(...), stratum)")
    tally.experiments += len(distinct)
    done = _Done(progress, len(distinct) * runs.n)
    out: list[Tensor | None] = [None] * len(distinct)
    for direction in ("noise", "denoise"):
        places = [i for i, experiment in enumerate(distinct) if experiment.direction == direction]
        if not places:
            continue
        base = runs if direction == "noise" else runs.swapped()
        plans = [plan(distinct[i], model) for i in places]
        flow = flows(model, base, plans, where, rows, tally)
        values = unpatched(base)
        values = values.expand(len(plans), *values.shape).clone()
        for members, prompts, start in entries(plans, where, model.n_layers):
            batch = Batch(tuple(plans[i] for i in members), prompts, start, where, model, flow.rows)
            target = ship(members, model.device)
            _run_split(Live(base, batch, flow, tally), target, patched, rows, values, done)
        for i, one in zip(places, values, strict=True):
            out[i] = one
    done.add(done.total - done.count)  # prompts in which an experiment changes no position
    index = {experiment: i for i, experiment in enumerate(distinct)}
    found = [one for one in out if one is not None]
    return torch.stack([found[index[experiment]] for experiment in experiments]) if found else torch.empty(0)


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


def entries(plans: list[Plan], where: Where, n_layers: int) -> Iterator[tuple[list[int], Array, int]]:
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
    live: Live,
    target: Tensor,
    patched: Callable[[Live], Tensor],
    max_rows: int,
    out: Tensor,
    done: _Done,
) -> None:
    """Run a batch in chunks that fit, first split by experiments, then by prompts."""
    batch = live.batch
    experiments = max(1, max_rows // (len(batch.rows) * batch.steps))
    prompts = len(batch.rows) if experiments > 1 else max(1, max_rows // batch.steps)
    for e in range(0, len(batch.plans), experiments):
        for n in range(0, len(batch.rows), prompts):
            part = replace(batch, plans=batch.plans[e : e + experiments], rows=batch.rows[n : n + prompts])
            places = target[e : e + experiments]
            values = _tried(live, part, patched)
            if values is None:
                half = max(1, len(part.plans) * len(part.rows) * part.steps // 2)
                _run_split(replace(live, batch=part), places, patched, half, out, done)
            else:
                out[places[:, None], part.prompts[None, :]] = values.transpose(0, 1)
                done.add(len(part.plans) * len(part.rows))


def _tried(live: Live, part: Batch, patched: Callable[[Live], Tensor]) -> Tensor | None:
    """The measurement on a part of a batch, or `None` where memory ran out and the part can be halved."""
    live.tally.batches += 1
    try:
        return patched(Live(live.runs, part, live.flow, live.tally))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(part.plans) * len(part.rows) == 1:
            what = f"patching one prompt of {part.where.length} tokens ({part.plans[0].experiment})"
            raise ran_out(what) from None
    return None
