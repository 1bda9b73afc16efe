"""Which terms a patch would change: whether a node's term differs from its replacement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from circuitdsl.circuit.nodes import Ablation, Node, Position
from circuitdsl.engine import runs as engine
from circuitdsl.engine.along_paths import lets_through
from circuitdsl.engine.batch_index import Where
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.measurements.requests import PatchRequest, PathRequest, Request, TermRequest


def read(batch: Batch, requests: Sequence[TermRequest]) -> Mapping[Request, Numbers]:
    """1 where a term differs from its replacement, else 0."""
    differs = _differs(batch)
    found = {request: differs(request.node, request.position, request.ablate) for request in requests}
    return {request: Numbers(changed.astype(float), changed) for request, changed in found.items()}


def changed_by(batch: Batch, requests: Sequence[Request]) -> Mapping[Request, Array]:
    """On which prompts every patch of a request changes some term; each term is compared once.

    The change of a path must come to its end as well.
    """
    differs = _differs(batch)

    @cache
    def change(patch: PatchRequest) -> Array:
        found = np.logical_or.reduce([differs(node, position, patch.ablate) for node, position in patch.writes])
        if isinstance(patch, PathRequest):
            runs = batch.runs
            first = engine.first_difference(runs.clean_tokens, runs.corrupt_tokens)
            found = found & lets_through(
                batch.model, Where.of(batch.places([patch]), runs.n, runs.length, first), patch.arrows
            )
        return found

    return {
        request: np.logical_and.reduce([change(patch) for patch in request.patches])
        for request in requests
        if request.patches
    }


def _differs(batch: Batch) -> Callable[[Node, Position, Ablation], Array]:
    @cache
    def differs(node: Node, position: Position, ablate: Ablation) -> Array:
        places = token_indices(batch.pairs, [position])
        return engine.changed(batch.runs, node, places, ablate).cpu().numpy()

    return differs
