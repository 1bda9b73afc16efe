"""The entropy of attention rows: of the clean run, of patched runs, of a changed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch

from circuitdsl.engine.intervene import Intervened
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.engine.readers.attention import RowsOf, among, rows_of
from circuitdsl.measurements.entropy import Entropy
from circuitdsl.measurements.requests import Request


def read(batch: Batch, requests: Sequence[Entropy]) -> Mapping[Request, Numbers]:
    """−Σ a ln a of the row of each source, averaged over sources and heads."""
    return {r: Numbers(_entropy(batch, r, rows_of(batch, r.heads, r.under))) for r in requests}


def of_changed(batch: Batch, request: Entropy, run: Intervened) -> Array:
    """The entropy of rows in a changed model."""
    return _entropy(batch, request, among(cache(run.pattern)))


def _entropy(batch: Batch, request: Entropy, rows: RowsOf) -> Array:
    source = token_indices(batch.pairs, request.source)
    here = source >= 0
    total = torch.zeros(len(source), dtype=torch.float64)
    for head in request.heads:
        entropy = torch.special.entr(rows(head, source).double().cpu()).sum(-1)
        total += (entropy * here).sum(-1) / here.sum(-1).clamp_min(1)
    return (total / len(request.heads)).numpy()
