"""Runs of nodes at places equal the definition of a circuit alone; their gradients equal differences of such runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from circuitdsl.circuit.nodes import EVERYWHERE, Node, Position, Site
from circuitdsl.engine.partial_runs import copied
from circuitdsl.engine.runs import mean_terms
from circuitdsl.engine.site_runs import Standing, end
from circuitdsl.measurements.requests import Subgraph
from tests.drawing import examples
from tests.engine.small_models import Case
from tests.engine.test_circuit_alone import by_definition

CLOSE = 1e-4


def places_of(case: Case) -> dict[Position, torch.Tensor]:
    """Which tokens each place stands for, of each prompt; `*` for all."""
    found = {EVERYWHERE: torch.ones(case.clean.shape)}
    for place, index in case.positions.items():
        found[place] = torch.zeros(case.clean.shape)
        for row, tokens in enumerate(index):
            found[place][row, tokens[tokens >= 0]] = 1
    return found


def standing(case: Case) -> Standing:
    zeros = torch.zeros(len(case.clean), dtype=torch.long)
    means = copied(mean_terms(case.model, case.corrupt, zeros, 1))
    return Standing(zeros, case.clean, torch.stack(list(places_of(case).values())), means, zeros)


def sites_of(case: Case) -> Iterator[Site]:
    """In the order of the weights."""
    for layer in range(case.model.n_layers):
        for node in (*(Node("head", layer, head) for head in range(case.model.n_heads)), Node("mlp", layer)):
            yield from (Site(node, place) for place in places_of(case))


def drawn(case: Case, seed: int) -> torch.Tensor:
    shape = case.model.n_layers, case.model.n_heads + 1, len(places_of(case))
    draw = np.random.default_rng(seed)
    return torch.tensor(draw.random(shape) < (0.3, 0.1, 0.6)[seed % 3], dtype=torch.float32)


def logits(case: Case, some: Standing, weights: torch.Tensor) -> torch.Tensor:
    return case.model.logits(end(case.model, some, weights)[:, 0]).float()


@pytest.mark.parametrize("seed", examples(range(2), range(9)))
def test_nodes_that_are_kept_do_what_the_definition_says(case: Case, seed: int) -> None:
    weights = drawn(case, seed)
    sites = frozenset(site for site, there in zip(sites_of(case), weights.flatten(), strict=True) if there)
    wanted = by_definition(case, Subgraph("nodes", sites=sites, mlps=True, ablate="mean"))
    with torch.no_grad():
        assert (logits(case, standing(case), weights) - wanted).abs().max() < CLOSE


def test_gradients_are_those_of_small_steps(case: Case) -> None:
    some, weights = standing(case), (0.3 * drawn(case, 2)).requires_grad_()
    direction = torch.randn(case.model.n_vocab, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad((logits(case, some, weights) @ direction).sum(), weights)
    step, along = 1e-3, torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        along = along * (weights > 0)
        ends = [(logits(case, some, weights + sign * step * along) @ direction).sum() for sign in (1, -1)]
    assert float((ends[0] - ends[1]) / (2 * step)) == pytest.approx(float((found * along).sum()), rel=3e-2, abs=2e-2)
