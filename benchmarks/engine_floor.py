"""The floor: the arithmetic of what must be recomputed, at the rate this machine multiplies matrices.

Only matrix products are counted, two operations to a multiply and add; norms, activations, softmax, index tables and
memory traffic are left out. An experiment needs its sender's change mapped through W_O, its receiver's input mapped
onto one head, that head's attention, the rest of its layer where that head changed, and every later layer at the
positions from the first changed one on; at `*`, none before the first token that differs between the two prompts. In
the last layer only END is followed, and of the logits two are read.
What depends on the sender alone is counted once for all edges. The first product of the receiver's MLP is counted as
usual, though the engine does it with fewer columns where that pays (docs/performance.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.engine_workloads import EVERY, Workload
from circuitdsl.circuit.nodes import Edge
from circuitdsl.models.experts import Experts
from circuitdsl.models.parts import Attention, Mlp, Transformer
from circuitdsl.models.products import linear

#: operations, by (inputs, outputs) of the product; attention's products under (d_head, 0)
Work = Counter[tuple[int, int]]


def needed(model: Transformer, load: Workload) -> Work:
    """The operations of all edges of a workload on all of its prompts."""
    work: Work = Counter()
    senders = {(edge.sender, edge.position) for edge in load.edges}
    for _, position in senders:
        _add(work, model.d_head, model.d_model, sum(len(at) for at in _patched(load, position)))
    for edge in load.edges:
        for at in _patched(load, edge.position):
            _edge(work, model, edge, at, load.length)
    return work


def _patched(load: Workload, position: object) -> list[list[int]]:
    """Patched token indices of each prompt."""
    if position == EVERY:
        return [list(range(int(first), load.length)) for first in (load.clean != load.corrupt).int().argmax(dim=1)]
    return [[int(t) for t in row if t >= 0] for row in load.positions[position]]  # type: ignore[index]


def _edge(work: Work, model: Transformer, edge: Edge, at: list[int], length: int) -> None:
    """One edge on one prompt."""
    d, size, layer = model.d_model, model.d_head, edge.receiver.node.layer
    last = model.n_layers - 1
    attn = model.blocks[layer].attn
    changed = at if edge.receiver.port == "q" else list(range(at[0], length))
    changed = [t for t in changed if t == length - 1] if layer == last else changed
    _add(work, d, size * _heads_at_once(attn, edge.receiver.port), len(at))
    for t in changed:
        _attention(work, size, 1, t + 1)
    _add(work, size if attn.post is None else size * attn.n_heads, d, len(changed))
    if not model.parallel:
        _mlp(work, model, layer, len(changed))
    steps = length - at[0]
    for later in range(layer + 1, model.n_layers):
        width = 1 if later == last else steps
        _add(work, d, attn.n_heads * size, width)  # queries
        _add(work, d, 2 * attn.n_kv_heads * size, steps)  # keys and values
        for t in range(length - width, length):
            _attention(work, size, attn.n_heads, t + 1)
        _add(work, attn.n_heads * size, d, width)
        _mlp(work, model, later, width)
    _add(work, d, 2, 1)


def _heads_at_once(attn: Attention, port: str) -> int:
    """Heads whose queries or keys must be known for those of one of them: all, where one norm is of all together."""
    norm = {"q": attn.q_norm, "k": attn.k_norm}.get(port)
    return 1 if norm is None else len(norm.gain) // attn.d_head


def _add(work: Work, inputs: int, outputs: int, rows: int) -> None:
    work[inputs, outputs] += 2 * inputs * outputs * rows


def _attention(work: Work, size: int, heads: int, keys: int) -> None:
    """Scores and values of one query position."""
    work[size, 0] += 4 * size * heads * keys


def _mlp(work: Work, model: Transformer, layer: int, rows: int) -> None:
    mlp = model.blocks[layer].mlp
    if isinstance(mlp, Experts):
        _add(work, model.d_model, len(mlp.experts), rows)
        rows, mlp = rows * mlp.chosen, mlp.experts[0]
    assert isinstance(mlp, Mlp), "families are measured that have a reader of their own"
    _add(work, model.d_model, mlp.width, rows if mlp.gate is None else 2 * rows)
    _add(work, mlp.width, model.d_model, rows)


class Rates:
    """Operations a second of this machine, measured when first asked for, with matrices of the size that occurs."""

    def __init__(self, model: Transformer, clock: Callable[[], float], rows: int = 1024) -> None:
        self.model, self.clock, self.rows = model, clock, rows
        self.known: dict[tuple[int, int], float] = {}

    def of(self, inputs: int, outputs: int) -> float:
        """The best of several tries, so that the floor is as low as this machine allows."""
        key = (inputs, outputs) if inputs * outputs >= self.model.d_model * self.model.d_head else (0, 0)
        if key not in self.known:
            self.known[key] = self._measured(*key) if key != (0, 0) else max(self.best, 1.0)
        return self.known[key]

    @property
    def best(self) -> float:
        """The fastest product of the model's layers; small products are put at its rate."""
        d, mlp = self.model.d_model, self.model.blocks[0].mlp
        width = (mlp.experts[0] if isinstance(mlp, Experts) else mlp).width
        return max(self.of(*shape) for shape in ((d, d), (d, width), (width, d)))

    def _measured(self, inputs: int, outputs: int) -> float:
        like = self.model.W_E
        x = torch.randn(self.rows, inputs).to(like)
        weight = torch.randn(outputs, inputs).to(like)
        return max(self._once(x, weight) for _ in range(5))

    def _once(self, x: Tensor, weight: Tensor) -> float:
        ops = 2 * x.numel() * weight.shape[0]
        times = max(1, int(4e9 / ops))
        linear(x, weight)
        start = self.clock()
        for _ in range(times):
            linear(x, weight)
        return times * ops / (self.clock() - start)

    def seconds(self, work: Work) -> float:
        """The floor of some work."""
        return sum(ops / self.of(*shape) for shape, ops in work.items())
