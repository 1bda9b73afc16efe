"""Attention patterns of the clean run, of patched runs, of a changed model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine import runs as engine
from circuitdsl.engine.experiment import experiment_of
from circuitdsl.engine.intervene import Intervened
from circuitdsl.engine.path_patching import patched_attention
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.prompts import Array, Batch, Numbers
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.requests import PatchRequest, Request

Pattern = Callable[[Node], Float[Tensor, "n T T"]]


def read(batch: Batch, requests: Sequence[Attention]) -> Mapping[Request, Numbers]:
    """Attention summed over targets, averaged over sources and heads; the patterns of one run are made once."""
    found: dict[Request, Numbers] = {}
    for under in dict.fromkeys(request.under for request in requests):
        together = [request for request in requests if request.under == under]
        pattern = patterns_of(batch, [head for request in together for head in request.heads], under)
        found |= {request: Numbers(attended(batch, request, pattern)) for request in together}
    return found


def of_changed(batch: Batch, request: Attention, run: Intervened) -> Array:
    """Attention in a changed model."""
    return attended(batch, request, cache(run.pattern))


def attended(batch: Batch, request: Attention, pattern: Pattern) -> Array:
    """What heads' patterns give for a request."""
    source, target = token_indices(batch.pairs, request.source), token_indices(batch.pairs, request.target)
    count = (source >= 0).sum(-1).clamp_min(1)
    total = sum(engine.at(pattern(head), source, target).sum((1, 2)).cpu() / count for head in request.heads)
    return (torch.as_tensor(total) / len(request.heads)).double().numpy()


def patterns_of(batch: Batch, heads: Sequence[Node], under: PatchRequest | None) -> Pattern:
    """The patterns of heads in the clean run, or in the run under a patch."""
    if under is None:
        return cache(partial(engine.patterns, batch.model, batch.runs.clean))
    heads = list(dict.fromkeys(heads))
    (found,) = patched_attention(batch.runs, [experiment_of(under)], batch.places([under]), heads, **batch.limits)
    return lambda head: found[:, heads.index(head)]
