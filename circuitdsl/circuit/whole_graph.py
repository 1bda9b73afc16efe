"""All edges between whole nodes, at every position at once: the graph of the circuit leaderboards (MIB, EAP-IG).

An edge joins a sender to a receiver input, whatever the position. Query heads that share keys and values have an input
for each of them. Edges are numbered: by receiver input, in the order in which inputs read, and then by sender, in the
order in which senders write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from circuitdsl.circuit.nodes import EMBED, LOGITS, QKV, Input, Node
from circuitdsl.circuit.shapes import ModelShape

Array = np.ndarray


@dataclass(frozen=True)
class WholeGraph:
    """The graph of a model, known from its shape.

    Attributes:
        parallel: an MLP reads what the heads of its layer read.
    """

    n_layers: int
    n_heads: int
    parallel: bool = False

    @classmethod
    def of(cls, shape: ModelShape) -> WholeGraph:
        return cls(shape.n_layers, shape.n_heads, shape.parallel)

    @cached_property
    def senders(self) -> tuple[Node, ...]:
        """The embedding, then layer by layer the heads and the MLP."""
        found = [EMBED]
        for layer in range(self.n_layers):
            found += [*(Node("head", layer, head) for head in range(self.n_heads)), Node("mlp", layer)]
        return tuple(found)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """Layer by layer the queries, the keys and the values of all heads and what the MLP reads; then the logits."""
        found = list[Input]()
        for layer in range(self.n_layers):
            found += [Input(Node("head", layer, head), port) for port in QKV for head in range(self.n_heads)]
            found.append(Input(Node("mlp", layer), "in"))
        return (*found, Input(LOGITS, "in"))

    @cached_property
    def before(self) -> Int[Array, " inputs"]:
        """How many senders come before each input."""
        a_layer, heads = self.n_heads + 1, 0 if self.parallel else self.n_heads
        firsts = [1 + layer * a_layer + more for layer in range(self.n_layers) for more in (0, heads)]
        many = [3 * self.n_heads, 1] * self.n_layers
        return np.repeat([*firsts, len(self.senders)], [*many, 1])

    @cached_property
    def ends(self) -> tuple[Int[Array, " edges"], Int[Array, " edges"]]:
        """The number of the input, and of the sender, of each edge."""
        inputs, senders = np.nonzero(np.arange(len(self.senders)) < self.before[:, None])
        return inputs, senders

    @property
    def edges(self) -> Iterator[tuple[Node, Input]]:
        """The sender and the input of each."""
        for to, sender in zip(*self.ends, strict=True):
            yield self.senders[sender], self.inputs[to]

    def __str__(self) -> str:
        beside = " side by side with its MLPs" if self.parallel else ""
        return f"a model of {self.n_layers} layers of {self.n_heads} heads{beside}"

    def __len__(self) -> int:
        return int(self.before.sum())

    def matrix(self, of_edges: Float[Array, " edges"] | Bool[Array, " edges"]) -> Array:
        """Something of each edge `[inputs, senders]`; 0 where there is no edge."""
        found = np.zeros((len(self.inputs), len(self.senders)), of_edges.dtype)
        found[self.ends] = of_edges
        return found

    def of_matrix(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""
        found: Array = matrix[self.ends]
        return found

    def between(self, nodes: Collection[Node]) -> Bool[Array, " edges"]:
        """The edges between some nodes, and from these to the logits."""
        inputs, senders = self.ends
        sends = np.asarray([node in nodes for node in self.senders])
        reads = np.asarray([to.node in nodes or to.node == LOGITS for to in self.inputs])
        found: Array = sends[senders] & reads[inputs]
        return found

    def highest(self, values: Float[Array, " edges"], many: int) -> Bool[Array, " edges"]:
        """So many edges with the highest values."""
        chosen = np.zeros(len(values), bool)
        chosen[np.argsort(-values, kind="stable")[:many]] = True
        return chosen

    @cached_property
    def _writes(self) -> Int[Array, " inputs"]:
        """The sender that each input is one of; that of the logits does not exist."""
        numbers = {node: i for i, node in enumerate(self.senders)}
        return np.asarray([numbers.get(to.node, len(self.senders)) for to in self.inputs])

    def connected(self, kept: Bool[Array, " edges"]) -> Bool[Array, " edges"]:
        """The kept edges without those that are not on a way from the embedding to the logits.

        A node that no kept edge enters, or none leaves, goes with all its edges; a head stays while one of its inputs
        has an edge. As `prune` of EAP-IG's `graph.py` does it.
        """
        inputs, senders = self.ends
        kept, many = kept.copy(), len(self.senders)
        of_input = self._writes[inputs]
        while True:
            enters, leaves = np.zeros(many + 1, bool), np.zeros(many + 1, bool)
            enters[of_input[kept]] = True
            leaves[senders[kept]] = True
            enters[0] = leaves[many] = True
            there = enters & leaves
            there[many] = True
            left = kept & there[senders] & there[of_input]
            if (left == kept).all():
                return kept
            kept = left
