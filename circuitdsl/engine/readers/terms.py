"""Which terms a patch would change: whether a node's term differs from its replacement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, reduce

import torch
from torch import Tensor

from circuitdsl.engine import runs as engine
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.measurements.requests import PatchRequest, Request, TermRequest, replaced


def read(batch: Batch, requests: Sequence[TermRequest]) -> Mapping[Request, Numbers]:
    """1 where a term differs from its replacement, else 0."""
    differs = _differs(batch)
    found = {request: differs(request).cpu().numpy() for request in requests}
    return {request: Numbers(changed.astype(float), changed) for request, changed in found.items()}


def changed_by(batch: Batch, requests: Sequence[Request]) -> Mapping[Request, Array]:
    """On which prompts every patch of a request changes some term; each term is compared once."""
    differs = _differs(batch)

    @cache
    def change(patch: PatchRequest) -> Tensor:
        return reduce(torch.logical_or, map(differs, replaced(patch)))

    return {
        request: reduce(torch.logical_and, map(change, request.patches)).cpu().numpy()
        for request in requests
        if request.patches
    }


def _differs(batch: Batch) -> Callable[[TermRequest], Tensor]:
    @cache
    def differs(term: TermRequest) -> Tensor:
        places = token_indices(batch.pairs, [term.position])
        return engine.changed(batch.runs, term.node, places, term.ablate)

    return differs
