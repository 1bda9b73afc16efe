"""What share of a model a circuit keeps, against counting node by node and edge by edge."""

from __future__ import annotations

import random

import pytest

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.positions import indices_of
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verify.results import kept_share

END, A, B = Position("END"), Position("A"), Position("B")
PAIRS = [PromptPair(row := tuple(range(n)), row, (), (), {"A": (1,), "B": (1, 2), "END": (n - 1,)}, "") for n in (4, 6)]
HEADS = [Node("head", layer, head) for layer in range(3) for head in range(2)]
MLPS = [Node("mlp", layer) for layer in range(3)]


def every_edge(mlps: bool, parallel: bool) -> list[tuple[Node, Input]]:
    readers = [Input(head, port) for head in HEADS for port in "qkv"] + [Input(LOGITS, "in")]
    readers += [Input(mlp, "in") for mlp in MLPS] if mlps else []
    writers = HEADS + ([EMBED, *MLPS] if mlps else [])
    return [(w, r) for r in readers for w in writers if w.stage(parallel) < r.node.stage(parallel)]


def tokens(last: bool, port: str, pair: PromptPair) -> set[int]:
    """Where something counts: the last layer and the logits at END, keys and values everywhere."""
    return {len(pair.clean_tokens) - 1} if last and port not in ("k", "v") else set(range(len(pair.clean_tokens)))


@pytest.mark.parametrize("mlps", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_edges_are_counted_one_by_one(mlps: bool, parallel: bool) -> None:
    shape, rng = ModelShape("m", 3, 2, parallel), random.Random(0)
    every = every_edge(mlps, parallel)
    chosen = frozenset(Edge(*rng.choice(every), rng.choice((END, A, B, EVERYWHERE))) for _ in range(40))
    stray = Edge(EMBED, Input(HEADS[-1], "v"), A)  # without MLPs it is never patched
    kept = total = 0
    for writer, reader in every:
        for pair in PAIRS:
            there = tokens(reader.node == LOGITS or reader.node.layer == 2, reader.port, pair)
            named = [
                indices_of(pair, e.position) for e in chosen | {stray} if (e.sender, e.receiver) == (writer, reader)
            ]
            total += len(there)
            kept += len(there & {i for index in named for i in index})
    assert kept_share(Subgraph("edges", edges=chosen | {stray}, mlps=mlps), shape, PAIRS) == kept / total
    everything = frozenset(Edge(w, r, EVERYWHERE) for w, r in every)
    assert kept_share(Subgraph("edges", edges=everything, mlps=mlps), shape, PAIRS) == 1
    assert kept_share(Subgraph("edges", mlps=mlps), shape, PAIRS) == 0


@pytest.mark.parametrize("mlps", [False, True])
def test_nodes_are_counted_token_by_token(mlps: bool) -> None:
    shape, nodes = ModelShape("m", 3, 2), HEADS + MLPS * mlps
    sites = frozenset({Site(HEADS[0], A), Site(HEADS[0], B), Site(HEADS[2], EVERYWHERE), Site(HEADS[5], EVERYWHERE)})
    total = sum(len(tokens(node.layer == 2, "", pair)) for node in nodes for pair in PAIRS)
    # two tokens of each prompt (A is among B), all of both, and END of each
    assert kept_share(Subgraph("nodes", sites=sites, mlps=mlps), shape, PAIRS) == (4 + 10 + 2) / total


def test_the_last_layer_counts_at_the_end_alone() -> None:
    sites = frozenset(Site(head, END if head.layer == 2 else EVERYWHERE) for head in HEADS)
    shape = ModelShape("m", 3, 2)
    assert kept_share(Subgraph("nodes", sites=sites), shape, PAIRS) == 1
    assert kept_share(Subgraph("nodes", sites=sites, mlps=True), shape, PAIRS) < 0.7


def test_a_part_counts_as_its_node() -> None:
    parts = frozenset(Site(Node("head", 0, 0, index), EVERYWHERE) for index in (0, 1))
    whole = frozenset({Site(Node("head", 0, 0), EVERYWHERE)})
    shape = ModelShape("m", 3, 2)
    assert kept_share(Subgraph("nodes", sites=parts), shape, PAIRS) == kept_share(
        Subgraph("nodes", sites=whole), shape, PAIRS
    )
