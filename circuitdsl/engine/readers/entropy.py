"""The entropy of attention rows: of the clean run, of patched runs, of a changed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch

from circuitdsl.engine.intervene import Intervened
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.engine.readers.attention import Pattern, patterns_of
from circuitdsl.measurements.entropy import Entropy
from circuitdsl.measurements.requests import Request


def read(batch: Batch, requests: Sequence[Entropy]) -> Mapping[Request, Numbers]:
    """−Σ a ln a of the row of each source, averaged over sources and heads."""
    return {r: Numbers(_entropy(batch, r, patterns_of(batch, r.heads, r.under))) for r in requests}


def of_changed(batch: Batch, request: Entropy, run: Intervened) -> Array:
    """The entropy of rows in a changed model."""
    return _entropy(batch, request, cache(run.pattern))


def _entropy(batch: Batch, request: Entropy, pattern: Pattern) -> Array:
    source = token_indices(batch.pairs, request.source)
    here = source >= 0
    rows = torch.arange(len(source))[:, None]
    total = torch.zeros(len(source), dtype=torch.float64)
    for head in request.heads:
        looked = pattern(head).double().cpu()[rows, source.clamp_min(0)]
        entropy = torch.special.entr(looked).sum(-1)
        total += (entropy * here).sum(-1) / here.sum(-1).clamp_min(1)
    return (total / len(request.heads)).numpy()
