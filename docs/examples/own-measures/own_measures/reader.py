"""Reads lengths off clean runs; imported when something is measured."""

from __future__ import annotations

import torch

from circuitdsl.circuit.nodes import EVERYWHERE
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Numbers
from circuitdsl.models.writers import term


def read(batch, requests):
    """A number for each prompt of the batch, for each request."""
    return {request: Numbers(_loudness(batch, request.sites)) for request in requests}


def _loudness(batch, sites):
    found = []
    for node, position in sites:
        written = term(batch.model, node, batch.runs.clean.value(node)).double().norm(dim=-1).cpu()  # [n, T]
        if position == EVERYWHERE:
            found.append(written.mean(1))
            continue
        places = token_indices(batch.pairs, [position])  # [n, k], -1 where a prompt has fewer
        there = places >= 0
        found.append((written.gather(1, places.clamp_min(0)) * there).sum(1) / there.sum(1).clamp_min(1))
    return torch.stack(found).mean(0).numpy()
