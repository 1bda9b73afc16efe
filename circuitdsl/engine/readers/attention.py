"""Attention patterns of the clean run, of patched runs, of a changed model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import torch
from jaxtyping import Float, Int
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
#: the rows of a head's pattern at some positions of each prompt, which mean nothing where an index is -1
RowsOf = Callable[[Node, Int[Tensor, "n a"]], Float[Tensor, "n a T"]]


def read(batch: Batch, requests: Sequence[Attention]) -> Mapping[Request, Numbers]:
    """Attention summed over targets, averaged over sources and heads; the patterns of one run are made once."""
    found: dict[Request, Numbers] = {}
    for under in dict.fromkeys(request.under for request in requests):
        together = [request for request in requests if request.under == under]
        rows = rows_of(batch, [head for request in together for head in request.heads], under)
        found |= {request: Numbers(attended(batch, request, rows)) for request in together}
    return found


def of_changed(batch: Batch, request: Attention, run: Intervened) -> Array:
    return attended(batch, request, among(cache(run.pattern)))


def attended(batch: Batch, request: Attention, rows: RowsOf) -> Array:
    """What heads' patterns give for a request."""
    places = (token_indices(batch.pairs, each).to(batch.model.device) for each in (request.source, request.target))
    source, target = places
    there = (source >= 0)[:, :, None] & (target >= 0)[:, None, :]
    seen = target.clamp_min(0)[:, None, :].expand(there.shape)
    count = (source >= 0).sum(-1).clamp_min(1)
    total = sum((rows(head, source).gather(2, seen) * there).sum((1, 2)) / count for head in request.heads)
    return (torch.as_tensor(total) / len(request.heads)).double().cpu().numpy()


def rows_of(batch: Batch, heads: Sequence[Node], under: PatchRequest | None) -> RowsOf:
    """Rows of the patterns of heads in the clean run, or in the run under a patch."""
    if under is None:
        return partial(engine.patterns, batch.model, batch.runs.clean)
    return among(patterns_of(batch, heads, under))


def among(pattern: Pattern) -> RowsOf:
    """The rows of whole patterns."""
    return lambda head, at: engine.rows_at(pattern(head), at)


def patterns_of(batch: Batch, heads: Sequence[Node], under: PatchRequest | None) -> Pattern:
    """The patterns of heads in the clean run, or in the run under a patch."""
    if under is None:
        return cache(partial(engine.patterns, batch.model, batch.runs.clean))
    heads = list(dict.fromkeys(heads))
    (found,) = patched_attention(batch.runs, [experiment_of(under)], batch.places([under]), heads, **batch.limits)
    return lambda head: found[:, heads.index(head)]
