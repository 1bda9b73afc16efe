"""Matched random edges: what a claim that something `matters` must stand out from (semantics: verdicts).

Pairs of the same kind (sender kind, receiver input, position), first into the same receiver, then into others of its
layer; for groups, random groups of the same size. Pairs that the spec itself claims for an input are left out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from itertools import product

from circuitdsl.circuit.catalogue import ModelShape
from circuitdsl.circuit.claims import EMBED, Circuit, Edge, Input, Node, Position, Site
from circuitdsl.measure.plan import EdgeRequest, NodeRequest

#: members of a null, where there are that many
SIZE = 40


class Nulls:
    """The nulls of one circuit in a model of one shape; the same spec always gets the same ones."""

    def __init__(self, circuit: Circuit, shape: ModelShape) -> None:
        self.shape = shape
        self.claimed = {edge for _, member in circuit.edges() for edge in member.edges}
        self.grouped = {node for group in circuit.groups for node in group.nodes}

    def of_edges(self, request: EdgeRequest) -> tuple[EdgeRequest, ...]:
        """Random counterparts of a patch: other senders into the same receivers, then into others of their layers."""
        senders = sorted({edge.sender for edge in request.edges})
        receivers = sorted({edge.receiver for edge in request.edges})
        positions = sorted({edge.position for edge in request.edges})
        rng = random.Random(repr(request))
        found: dict[tuple[Edge, ...], None] = {}
        for targets in self._receivers(receivers, rng):
            for chosen in self._senders(senders, targets, positions, rng):
                edges = self._pairs(chosen, targets, positions)
                if edges and len(edges) == len(request.edges) and edges != request.edges:
                    found[edges] = None
                if len(found) == SIZE:
                    return tuple(EdgeRequest(e, request.via_mlps, request.direction) for e in found)
        return tuple(EdgeRequest(e, request.via_mlps, request.direction) for e in found)

    def of_sites(self, request: NodeRequest) -> tuple[NodeRequest, ...]:
        """Random nodes of the same kinds at the same positions, none of them in a group of the spec."""
        rng = random.Random(repr(request))
        by_node: dict[Node, set[Position]] = {}
        for site in request.sites:
            by_node.setdefault(site.node, set()).add(site.position)
        found: dict[tuple[Site, ...], None] = {}
        pools = {kind: [n for n in self._nodes(kind) if n not in self.grouped] for kind in ("head", "mlp")}
        for _ in range(20 * SIZE):
            chosen: list[Site] = []
            for kind, pool in pools.items():
                mine = [places for node, places in by_node.items() if node.kind == kind]
                if len(mine) > len(pool):
                    return ()
                picked = rng.sample(pool, len(mine))
                chosen += [Site(n, p) for n, places in zip(picked, mine, strict=True) for p in places]
            if len(chosen) == len(request.sites):
                found[tuple(sorted(chosen))] = None
            if len(found) == SIZE:
                break
        return tuple(NodeRequest(sites, request.ablate, request.direction) for sites in found)

    # --- senders and receivers -----------------------------------------------------------------------

    def _receivers(self, receivers: list[Input], rng: random.Random) -> Iterator[list[Input]]:
        """The receivers themselves, then random ones of the same layers and ports."""
        yield receivers
        nodes = sorted({r.node for r in receivers})
        if any(node.kind != "head" for node in nodes):
            return
        for _ in range(4 * SIZE):
            swap: dict[Node, Node] = {}
            for node in nodes:
                free = [Node("head", node.layer, h) for h in range(self.shape.n_heads)]
                free = [other for other in free if other not in swap.values()]
                swap[node] = rng.choice(free)
            if all(old == new for old, new in swap.items()):
                continue
            yield sorted(Input(swap[r.node], r.port) for r in receivers)

    def _senders(
        self, senders: list[Node], receivers: list[Input], positions: list[Position], rng: random.Random
    ) -> Iterator[tuple[Node, ...]]:
        """Sets of unclaimed senders, each with as many of every kind as the claim has."""
        pools = {}
        for kind in {s.kind for s in senders}:
            pools[kind] = [s for s in self._nodes(kind) if self._free(s, receivers, positions)]
        wanted = {kind: sum(s.kind == kind for s in senders) for kind in pools}
        if any(len(pools[kind]) < n for kind, n in wanted.items()):
            return
        sets = math.prod(math.comb(len(pools[kind]), n) for kind, n in wanted.items())
        if len(senders) == 1:
            (pool,) = pools.values()
            yield from ((sender,) for sender in rng.sample(pool, len(pool)))
            return
        for _ in range(min(4 * SIZE, 3 * sets)):
            yield tuple(sorted(s for kind, n in wanted.items() for s in rng.sample(pools[kind], n)))

    def _free(self, sender: Node, receivers: Iterable[Input], positions: Iterable[Position]) -> bool:
        """Whether a sender comes before some receiver and is claimed for none of these inputs."""
        early = [r for r in receivers if self._earlier(sender, r)]
        return bool(early) and not any(Edge(sender, r, p) in self.claimed for r, p in product(early, positions))

    def _earlier(self, sender: Node, receiver: Input) -> bool:
        return sender.stage(self.shape.parallel) < receiver.node.stage(self.shape.parallel)

    def _pairs(
        self, senders: Iterable[Node], receivers: Iterable[Input], positions: Iterable[Position]
    ) -> tuple[Edge, ...]:
        found = product(senders, receivers, positions)
        return tuple(sorted(Edge(s, r, p) for s, r, p in found if self._earlier(s, r)))

    def _nodes(self, kind: str) -> list[Node]:
        layers, heads = range(self.shape.n_layers), range(self.shape.n_heads)
        match kind:
            case "head":
                return [Node("head", layer, head) for layer in layers for head in heads]
            case "mlp":
                return [Node("mlp", layer) for layer in layers]
            case _:
                return [EMBED]
