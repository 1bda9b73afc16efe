"""The activations of neurons and features in the clean run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.measurements.activation import Activation
from circuitdsl.measurements.fires import Fires
from circuitdsl.measurements.requests import Request


def read(batch: Batch, requests: Sequence[Activation]) -> Mapping[Request, Numbers]:
    """The mean activation over a request's sites; a position of several tokens counts as their mean."""
    return {request: Numbers(_activation(batch, request)) for request in requests}


def fires(batch: Batch, requests: Sequence[Fires]) -> Mapping[Request, Numbers]:
    """1 where all features of a request are above 0 at all of its sites, at any token of a position of several."""
    return {request: Numbers(_fires(batch, request)) for request in requests}


def _fires(batch: Batch, request: Fires) -> Array:
    found = []
    for site in request.sites:
        places = token_indices(batch.pairs, [site.position])
        above = (batch.runs.clean.neurons[site.node] > 0).cpu().gather(1, places.clamp_min(0))
        found.append((above & (places >= 0)).any(-1))
    return torch.stack(found).all(0).double().numpy()


def _activation(batch: Batch, request: Activation) -> Array:
    found = []
    for site in request.sites:
        places = token_indices(batch.pairs, [site.position])
        here = places >= 0
        values = batch.runs.clean.neurons[site.node].double().cpu().gather(1, places.clamp_min(0))
        found.append((values * here).sum(-1) / here.sum(-1).clamp_min(1))
    return torch.stack(found).mean(0).numpy()
