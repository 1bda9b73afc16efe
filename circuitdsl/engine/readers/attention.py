"""Attention patterns of the clean run, and of runs under a condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.engine import runs as engine
from circuitdsl.engine.experiment import check_node
from circuitdsl.engine.experiments import experiment_of
from circuitdsl.engine.path_patching import patched_attention
from circuitdsl.engine.positions import places_of, token_indices
from circuitdsl.engine.runs import Runs
from circuitdsl.measurements.requests import AttentionRequest, Condition, Request, by_condition
from circuitdsl.tasks.dataset import PromptPair

if TYPE_CHECKING:
    from circuitdsl.verify.bench import Bench

Array = np.ndarray


def attention(bench: Bench, runs: Runs, requests: Sequence[AttentionRequest], part: Array) -> dict[Request, Array]:
    """Attention summed over targets, averaged over sources and heads; the patterns of one run are made once."""
    pairs = [bench.pairs[i] for i in part]
    found: dict[Request, Array] = {}
    for under, together in by_condition(requests).items():
        pattern = _patterns(bench, runs, together, under, part)
        found |= {request: looked(request, pattern, pairs) for request in together}
    return found


def looked(
    request: AttentionRequest, pattern: Callable[[Node], Float[Tensor, "n T T"]], pairs: Sequence[PromptPair]
) -> Array:
    """What heads' patterns give for a request on some prompts."""
    source, target = token_indices(pairs, request.source), token_indices(pairs, request.target)
    count = (source >= 0).sum(-1).clamp_min(1)
    total = sum(engine.at(pattern(head), source, target).sum((1, 2)).cpu() / count for head in request.heads)
    return (torch.as_tensor(total) / len(request.heads)).double().numpy()


def _patterns(
    bench: Bench, runs: Runs, requests: Sequence[AttentionRequest], under: Condition | None, part: Array
) -> Callable[[Node], Float[Tensor, "n T T"]]:
    """The patterns of the heads that some requests look at, in the clean run or under a condition."""
    heads = list(dict.fromkeys(head for request in requests for head in request.heads))
    for head in heads:
        check_node(bench.model, head)
    if under is None:
        return cache(lambda head: engine.patterns(bench.model, runs.clean, head.layer, head.head))
    experiment, positions = experiment_of(under), places_of(bench, [under], part)
    memory = bench.max_memory
    (found,) = patched_attention(
        bench.model, runs, [experiment], positions, heads, max_memory=memory, tally=bench.tally
    )
    return lambda head: found[:, heads.index(head)]
