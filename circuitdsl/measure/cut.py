"""Does a traced signal matter? It is taken out of what the head reads, and nothing else is touched.

The local intervention of Franco & Crovella 2024 (arXiv:2410.00340): from the normed residual that the firing head
reads, at each end of its arrow, the part of its senders' output is removed that lies along the signal's singular
vectors; query, key and value of that head are recomputed there, and everything after it is live. The control removes
what the same senders write along as many singular vectors outside the signal, drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.claims import Node, Position
from circuitdsl.measure.bench import Bench, score_ends
from circuitdsl.measure.places import indices_of
from circuitdsl.measure.trace import SIDES, Firing, Tracer, tracers
from circuitdsl.models.parts import Attention, attend
from circuitdsl.models.weights import Factors
from circuitdsl.patching.runs import Edits, edited, run


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Changes of the metric on the prompts on which the head fires, one each.

    Attributes:
        indices: which prompts.
        signal: without the traced signal.
        control: without as many random singular vectors.
    """

    indices: np.ndarray
    signal: np.ndarray
    control: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """What is taken out of a head's normed input: on one prompt, at one token."""

    row: int
    token: int
    part: Float[Tensor, " d"]


@dataclass(frozen=True, eq=False)
class _Without(Edits):
    """One head reads its input without some parts; queries, keys and values are linear in it."""

    head: Node
    factors: Factors
    removals: Sequence[Removal]

    def attend(self, layer: int, attn: Attention, q: Tensor, k: Tensor, v: Tensor, rows: slice) -> Tensor:
        z = attend(attn, q, k, v)
        if layer != self.head.layer:
            return z
        h = self.head.head
        q, k, v = q.clone(), k.clone(), v.clone()
        for found in self.removals:
            if rows.start <= found.row < rows.stop:
                for port, weight in ((q, self.factors.W_Q), (k, self.factors.W_K), (v, self.factors.W_V)):
                    port[found.row - rows.start, h, found.token] -= (found.part.double() @ weight[h]).to(port.dtype)
        z[:, :, h] = attend(attn, q, k, v)[:, :, h]
        return z


@torch.inference_mode()
def cut(bench: Bench, head: Node, source: Position, target: Position, seed: int = 0) -> Cut:
    """Take the signal of a head's firings from one position to another out of what the head reads.

    Raises:
        NotTraced: the model turns queries and keys with the position.
    """
    generator = torch.Generator().manual_seed(seed)
    ends = {kind: bench.ends_of()[0].clone() for kind in ("signal", "control")}
    indices: list[int] = []
    for numbers, tracer in tracers(bench.model, [pair.clean_tokens for pair in bench.pairs]):
        firings = []
        for place, number in enumerate(numbers):
            pair = bench.pairs[number]
            found = (tracer.firing(place, head, token) for token in indices_of(pair, source))
            firings += [f for f in found if f and f.source in indices_of(pair, target)][:1]
        if not firings:
            continue
        here = [numbers[f.prompt] for f in firings]
        indices += here
        runs, factors = run(bench.model, tracer.tokens, tracer.tokens), tracer.weights.factors(head.layer)
        for kind in ends:
            removals = [r for f in firings for r in _removals(tracer, f, generator if kind == "control" else None)]
            changed = edited(runs, _Without(head, factors, removals)).end
            ends[kind][here] = changed[[f.prompt for f in firings]]
    order = np.sort(np.asarray(indices, int))
    change = {kind: (score_ends(bench, end) - bench.clean)[order] for kind, end in ends.items()}
    return Cut(order, change["signal"], change["control"])


def _removals(tracer: Tracer, firing: Firing, generator: torch.Generator | None) -> list[Removal]:
    """What the traced senders write along the signal, or (given a generator) along random vectors outside it."""
    parts = tracer.omega(firing.head)
    chosen = torch.tensor(firing.signal)
    if generator is not None:
        outside = torch.tensor([k for k in range(len(parts.values)) if k not in firing.signal], dtype=torch.long)
        chosen = outside[torch.randperm(len(outside), generator=generator)[: len(chosen)]]
    removals = []
    for side in SIDES:
        vectors = (parts.destination if side == "destination" else parts.source)[chosen, :-1]
        _, scale = tracer.normed(firing.prompt, firing.head.layer, firing.token(side))
        written = sum((tracer.written(firing.prompt, node, firing.token(side)) for node, _ in firing.senders[side]))
        if isinstance(written, Tensor):
            removals.append(Removal(firing.prompt, firing.token(side), (vectors @ written / scale) @ vectors))
    return removals
