"""Random circuits of the shape of a given one, with which it is compared (Shi et al. 2024).

Its heads are exchanged, in every layer by a random permutation, so that each has as many heads in each layer, at the
same positions, joined alike. MLPs have none to be exchanged with, and stay.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from circuitdsl.circuit.nodes import Edge, Input, Node, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.measurements.requests import Subgraph

#: how many circuits there are after each round of draws; a round is drawn while the claim is open
ROUNDS = (100, 150, 200, 300, 500, 1000)
#: draws in a row that give the circuit itself, before every circuit of its shape is taken to be this one
TRIES = 100


@dataclass(frozen=True, slots=True)
class Peers:
    """The random circuits of the first rounds. They are independent draws and may repeat; the circuit is left out.

    There are none where every circuit of the shape is the same one. A later round has those of the earlier ones first.
    """

    circuit: Subgraph
    shape: ModelShape
    rounds: int = 1

    @property
    def drawn(self) -> tuple[Subgraph, ...]:
        """The circuits of the last of these rounds."""
        return _drawn(self)

    @property
    def more(self) -> Peers | None:
        """The same with one more round; None after the last one, or where there are no circuits."""
        left = self.rounds < len(ROUNDS) and next(self._draws(), None)
        return replace(self, rounds=self.rounds + 1) if left else None

    def __len__(self) -> int:
        """How many there are in all of these rounds."""
        return 0 if next(self._draws(), None) is None else ROUNDS[self.rounds - 1]

    def _draws(self) -> Iterator[Subgraph]:
        rng = random.Random(f"{sorted(self.circuit.sites)} {sorted(self.circuit.edges)}")
        heads = [
            [Node("head", layer, head) for head in range(self.shape.n_heads)] for layer in range(self.shape.n_layers)
        ]
        same = 0
        while same < TRIES:
            swap = {a: b for layer in heads for a, b in zip(layer, rng.sample(layer, len(layer)), strict=True)}
            drawn = _exchanged(self.circuit, swap)
            same = same + 1 if drawn == self.circuit else 0
            if not same:
                yield drawn


@lru_cache(maxsize=2**7)
def _drawn(peers: Peers) -> tuple[Subgraph, ...]:
    """The circuits of the last round; they are asked for at every step of a measurement."""
    before = ROUNDS[peers.rounds - 2] if peers.rounds > 1 else 0
    return tuple(islice(peers._draws(), before, ROUNDS[peers.rounds - 1]))


def _exchanged(circuit: Subgraph, swap: Mapping[Node, Node]) -> Subgraph:
    """The circuit with every head, and every part of one, exchanged for another."""

    def of(node: Node) -> Node:
        other = swap.get(node.whole, node.whole)
        return other._replace(index=node.index, of=node.of) if node.is_part else other

    edges: Iterable[Edge] = circuit.edges
    return replace(
        circuit,
        sites=frozenset(Site(of(site.node), site.position) for site in circuit.sites),
        edges=frozenset(Edge(of(e.sender), Input(of(e.receiver.node), e.receiver.port), e.position) for e in edges),
    )
