"""Importance profiles: what every head of a model does for a task, and whether two tasks use the same ones.

Overlap compares what two specs say; this compares what the model does, whatever was written down (after Merullo et al.
2023, arXiv 2310.08744, section 4, who correlate importance across tasks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from circuitdsl.circuit.nodes import EVERYWHERE, Node, Site
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import NodeRequest
from circuitdsl.verify.measure import measure

PERMUTATIONS = 10_000

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Profile:
    """The total effect of every head on one task: the share of the gap that its corruption at all positions costs.

    Attributes:
        task: its name in the spec.
        heads: all heads of the model.
        effects: mean of (patched − clean) over mean of (clean − corrupt), for each of them.
        n: prompts that it was measured on.
    """

    task: str
    heads: tuple[Node, ...]
    effects: tuple[float, ...]
    n: int


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of two figures of the same heads.

    `p` is the share of random pairings of heads within each layer that correlate at least as well: heads of one layer
    are alike in what they can reach, which alone makes profiles similar.
    """

    rho: float
    p: float


def profile(prompts: Prompts, task: str, count: int, done: Callable[[int], None] | None = None) -> Profile:
    """Measure the importance of every head on the first `count` prompts.

    Raises:
        UserError: the metric is the same on clean and corrupt prompts, so that there is nothing to take a share of.
    """
    model = prompts.model
    heads = tuple(Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads))
    indices = np.arange(min(count, len(prompts.pairs)))
    requests = [NodeRequest((Site(head, EVERYWHERE),)) for head in heads]
    found = measure(prompts, requests, indices, done)
    gap = float((prompts.clean - prompts.corrupt)[indices].mean())
    if not gap:
        raise UserError(f"task {task} has no gap: {prompts.metric} is the same on clean and corrupt prompts")
    effects = (float((found[request].values - prompts.clean[indices]).mean()) / gap for request in requests)
    return Profile(task, heads, tuple(effects), len(indices))


def correlation(first: Profile, second: Profile, seed: int = 0) -> Correlation:
    """How alike the sizes of the effects of all heads are on two tasks."""
    return rank_correlation(first.heads, np.abs(first.effects), np.abs(second.effects), seed)


def rank_correlation(heads: Sequence[Node], first: Array, second: Array, seed: int = 0) -> Correlation:
    """How alike two figures rank some heads [heads]."""
    from scipy.stats import rankdata

    a, b = rankdata(first), rankdata(second)
    layers = np.asarray([head.layer for head in heads])
    rho = _pearson(a, b)
    rng = np.random.default_rng(seed)
    shuffled = np.tile(b, (PERMUTATIONS, 1))
    for layer in np.unique(layers):
        here = np.flatnonzero(layers == layer)
        shuffled[:, here] = rng.permuted(shuffled[:, here], axis=1)
    as_high = sum(_pearson(a, row) >= rho - 1e-12 for row in shuffled)
    return Correlation(rho, (1 + as_high) / (1 + PERMUTATIONS))


def _pearson(a: Array, b: Array) -> float:
    x, y = a - a.mean(), b - b.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else 0.0
