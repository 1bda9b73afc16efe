"""Runs of the whole graph equal the definition of a circuit alone; their gradients equal differences of such runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitdsl.circuit.nodes import EVERYWHERE, Edge
from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.engine.whole_runs import WholeRun, acting
from circuitdsl.measurements.requests import Subgraph
from tests.drawing import examples
from tests.engine.small_models import Case
from tests.engine.test_circuit_alone import by_definition

CLOSE = 1e-4


def graph_of(case: Case) -> WholeGraph:
    return WholeGraph(case.model.n_layers, case.model.n_heads, case.model.parallel)


def logits(case: Case, kept: np.ndarray, weights: torch.Tensor) -> torch.Tensor:
    """All logits at END."""
    terms = case.runs.corrupt
    copied = type(terms)({node: value.clone() for node, value in terms.kept.items()}, terms.end.clone())
    some = acting(case.model, graph_of(case), kept)
    return case.model.logits(WholeRun(case.model, case.clean, copied, weights, some).end()[:, 0])


def weights_of(case: Case, kept: np.ndarray) -> torch.Tensor:
    return torch.tensor(graph_of(case).matrix(kept.astype(np.float32)))


def drawn(graph: WholeGraph, seed: int) -> np.ndarray:
    """Some edges; half of them, or few."""
    draw = np.random.default_rng(seed)
    return draw.random(len(graph)) < (0.5, 0.15, 0.85)[seed % 3]


@pytest.mark.parametrize("seed", examples(range(2), range(9)))
def test_edges_that_are_kept_do_what_the_definition_says(case: Case, seed: int) -> None:
    graph = graph_of(case)
    kept = drawn(graph, seed)
    edges = frozenset(Edge(*edge, EVERYWHERE) for edge, there in zip(graph.edges, kept, strict=True) if there)
    wanted = by_definition(case, Subgraph("edges", edges=edges, mlps=True))
    connected = graph.connected(kept)
    with torch.no_grad():
        assert (logits(case, kept, weights_of(case, kept)) - wanted).abs().max() < CLOSE
        if case.model.blocks[0].attn.post is None:  # there a head's term changes with those of the others
            assert (logits(case, connected, weights_of(case, connected)) - wanted).abs().max() < CLOSE


def test_gradients_are_those_of_small_steps(case: Case) -> None:
    """Along a direction in which every weight that the run reads takes part."""
    graph = graph_of(case)
    kept = graph.connected(drawn(graph, 0))
    weights = weights_of(case, kept).requires_grad_()
    direction = torch.randn(case.model.n_vocab, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad((logits(case, kept, weights) @ direction).sum(), weights)
    steps, along = 1e-3, torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    along = along * (found != 0)
    with torch.no_grad():
        ends = [(logits(case, kept, weights + sign * steps * along) @ direction).sum() for sign in (1, -1)]
    assert float((ends[0] - ends[1]) / (2 * steps)) == pytest.approx(float((found * along).sum()), rel=3e-2, abs=2e-2)


def test_a_graph_has_its_edges_in_both_orders() -> None:
    graph = WholeGraph(2, 2)
    assert len(graph) == len(list(graph.edges)) == 46
    numbers = np.arange(len(graph))
    assert (graph.of_matrix(graph.matrix(numbers)) == numbers).all()
    assert len(WholeGraph(2, 2, parallel=True)) == 46 - 2 * 2


def test_edges_on_no_way_are_taken_out() -> None:
    """A head that nothing enters, and one that nothing leaves, go; so does what hangs on them."""
    graph = WholeGraph(2, 2)
    names = [f"{sender} -> {to}" for sender, to in graph.edges]

    def connected(*kept: str) -> set[str]:
        assert set(kept) <= set(names)
        left = graph.connected(np.asarray([name in kept for name in names]))
        return {name for name, there in zip(names, left, strict=True) if there}

    way = "embed -> 0.0.v", "0.0 -> 1.1.q", "1.1 -> logits"
    assert connected(*way) == set(way)
    assert connected(*way, "0.1 -> logits", "embed -> 0.1.k", "0.1 -> m0") == {*way, "0.1 -> logits", "embed -> 0.1.k"}
    assert connected(*way[1:]) == set()
    assert connected("embed -> logits", "m0 -> m1", "m1 -> logits") == {"embed -> logits"}
