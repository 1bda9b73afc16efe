"""The metric when circuits run alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from circuitdsl.engine.circuit_alone import subgraph_effects
from circuitdsl.engine.prompts import Batch, Numbers, scored
from circuitdsl.measurements.requests import Request, Subgraph


def read(batch: Batch, requests: Sequence[Subgraph]) -> Mapping[Request, Numbers]:
    """The metric of each circuit. Everything outside it is ablated, so that every prompt counts as changed."""
    prompts = batch.prompts
    readout = prompts.readout(prompts.scorer, batch.part)
    rows = subgraph_effects(batch.model, batch.runs, requests, batch.places(requests), readout, **batch.limits)
    numbers = scored(prompts.scorer, rows, torch.as_tensor(batch.part))
    return {request: Numbers(row, True) for request, row in zip(requests, numbers, strict=True)}
