"""The task's metric, or another: of patched runs, of circuits alone, of a changed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine import runs as engine
from circuitdsl.engine.batches import Group
from circuitdsl.engine.circuit_alone import subgraph_effects
from circuitdsl.engine.ends import scored
from circuitdsl.engine.experiment import experiment_of
from circuitdsl.engine.intervene import Intervened
from circuitdsl.engine.path_patching import effects_side_by_side
from circuitdsl.engine.prompts import Array, Batch, Numbers, reads_several
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.requests import Request, Subgraph


@reads_several
def patched(batches: Sequence[Batch], requests: Sequence[Request]) -> Sequence[Mapping[Request, Numbers]]:
    """The metric of every patched run. Batches run side by side, once for each metric."""
    prompts, found = batches[0].prompts, [dict[Request, Numbers]() for _ in batches]
    by_metric: dict[Metric, list[Request]] = {}
    for request in requests:
        by_metric.setdefault(getattr(request, "metric", prompts.metric), []).append(request)
    for metric, mine in by_metric.items():
        score, groups = prompts.scorer_of(metric), [Group(batch.runs, batch.places(mine)) for batch in batches]
        readouts = [prompts.readout(score, batch.part) for batch in batches]
        experiments = [experiment_of(request) for request in mine]
        every = effects_side_by_side(groups, experiments, readouts, **batches[0].limits)
        for batch, known, rows in zip(batches, found, every, strict=True):
            numbers = scored(score, rows, torch.as_tensor(batch.part))
            known |= {request: Numbers(row) for request, row in zip(mine, numbers, strict=True)}
    return found


def alone(batch: Batch, requests: Sequence[Subgraph]) -> Mapping[Request, Numbers]:
    """The metric when circuits run alone: everything outside is ablated, so that every prompt counts as changed."""
    prompts, score = batch.prompts, batch.prompts.scorer_of(batch.prompts.metric)
    readout = prompts.readout(score, batch.part)
    rows = subgraph_effects(batch.runs, requests, batch.places(requests), readout, **batch.limits)
    numbers = scored(score, rows, torch.as_tensor(batch.part))
    return {request: Numbers(row, True) for request, row in zip(requests, numbers, strict=True)}


def of_changed(batch: Batch, request: Behaviour, run: Intervened) -> Array:
    """The metric of a changed model."""
    score = batch.prompts.scorer_of(request.metric)
    rows = engine.baseline(batch.model, run.cache, batch.prompts.readout(score, batch.part))
    return scored(score, rows[None], torch.as_tensor(batch.part))[0]
