"""No more is recomputed than must be: block-positions are counted, since seconds depend on the machine.

A block-position is one layer's MLP at one position of one run. What each workload needs is written down here by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from circuitdsl.api import load
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.batch_index import Where
from circuitdsl.engine.batch_index import plan as sorted_out
from circuitdsl.engine.count import floor_of
from circuitdsl.engine.experiment import Experiment, experiment_of
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.runs import first_difference
from circuitdsl.engine.tally import Tally
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest
from circuitdsl.models.parts import Transformer
from circuitdsl.verify.measure import measure
from circuitdsl.verify.plan import plan
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.session import with_overrides
from tests.engine.small_models import Case, make_case

END, S2 = Position("END"), Position("S2")
LAYERS, HEADS, LENGTH, PROMPTS = 4, 3, 6, 3


@pytest.fixture(scope="module")
def case(random_model: Callable[[str], Transformer]) -> Case:
    """Prompts of 6 tokens that differ from their partners from token 1 on; S2 is token 3, 4 and 2."""
    made = make_case(random_model("gpt2"))
    assert first_difference(made.clean, made.corrupt).tolist() == [1, 1, 1]
    positions = {END: made.positions[END], S2: torch.tensor([[3], [4], [2]])}
    return Case(made.model, made.clean, made.corrupt, made.runs, positions)


def counted(case: Case, experiments: Sequence[Experiment]) -> int:
    tally = Tally()
    effects(case.runs, experiments, case.positions, case.vocabulary, tally=tally)
    return tally.block_positions


def after(layer: int, steps: int) -> int:
    """Layers from `layer` on at `steps` positions each, but for the last one, which is followed at END alone."""
    return steps * max(0, LAYERS - 1 - layer) + (1 if layer < LAYERS else 0)


def edges(port: str, position: Position, receivers: Sequence[int]) -> list[Experiment]:
    """Every head of layer 0 into every head of some layers."""
    return [
        Experiment(frozenset([Edge(Node("head", 0, i), Input(Node("head", layer, j), port), position)]))
        for layer in receivers
        for i in range(HEADS)
        for j in range(HEADS)
    ]


def test_a_query_at_end_recomputes_one_position_of_each_layer(case: Case) -> None:
    per_pair = sum(LAYERS - layer for layer in (1, 2, 3))
    assert counted(case, edges("q", END, (1, 2, 3))) == PROMPTS * HEADS**2 * per_pair == 162


def test_keys_and_values_recompute_what_follows_them(case: Case) -> None:
    steps = [LENGTH - 3, LENGTH - 4, LENGTH - 2]
    for port in "kv":
        least = HEADS**2 * sum(after(layer, s) for layer in (2, 3) for s in steps)
        assert counted(case, edges(port, S2, (2, 3))) == least == 135


def test_all_positions_are_those_from_the_first_that_differs(case: Case) -> None:
    for port in "qkv":
        least = PROMPTS * HEADS**2 * sum(after(layer, LENGTH - 1) for layer in (1, 2, 3))
        assert counted(case, edges(port, EVERYWHERE, (1, 2, 3))) == least == 486


def test_a_query_passes_through_its_own_mlp_where_it_is_patched_alone(case: Case) -> None:
    steps = [LENGTH - 3, LENGTH - 4, LENGTH - 2]
    least = HEADS**2 * sum(1 + after(2, s) for s in steps)
    assert counted(case, edges("q", S2, (1,))) == least


def test_a_window_ends_what_a_key_reaches(random_model: Callable[[str], Transformer]) -> None:
    """Layers 1 and 2 see 4 tokens back: token 1 is read by the queries up to token 4, and END is token 5."""
    made = make_case(random_model("gemma2"))
    first = Position("FIRST")
    one = Case(made.model, made.clean, made.corrupt, made.runs, {first: torch.ones(PROMPTS, 1, dtype=torch.long)})
    assert counted(one, edges("k", first, (1,))) == PROMPTS * HEADS**2 * (4 + 1)
    assert counted(one, edges("v", first, (2,))) == 0


def test_into_the_logits_nothing_is_recomputed(case: Case) -> None:
    some = [Experiment(frozenset([Edge(Node("head", 1, i), Input(LOGITS, "in"), END)])) for i in range(HEADS)]
    assert counted(case, some) == 0


def test_a_patch_where_the_prompts_are_the_same_recomputes_nothing(case: Case) -> None:
    before = {**case.positions, Position("FIRST"): torch.zeros(PROMPTS, 1, dtype=torch.long)}
    same = Case(case.model, case.clean, case.corrupt, case.runs, before)
    assert counted(same, edges("k", Position("FIRST"), (1, 2))) == 0
    site = frozenset([Site(Node("head", 1, 0), Position("FIRST"))])
    assert counted(same, [Experiment(sites=site)]) == 0
    assert counted(same, [Experiment(sites=site, ablate="zero")]) > 0, "zero differs from every term"


def test_equal_experiments_are_run_once(case: Case) -> None:
    some = edges("q", END, (1,))
    assert counted(case, [*some, *some[::-1]]) == counted(case, some)


@pytest.mark.parametrize("name", ["ioi", "induction", "greater_than", "colored_objects", "laundry_list"])
def test_shipped_specs_are_measured_at_the_floor(pocket: Transformer, name: str) -> None:
    circuit = with_overrides(load(f"pocket/{name}").circuit(), prompts=12)
    plans = plan(circuit, ModelShape(pocket.name, pocket.n_layers, pocket.n_heads, pocket.parallel))
    for task, bench in prompts_by_task(circuit, pocket).items():
        asked = [r for p in plans if p.task == task for r in p.requests if isinstance(r, EdgeRequest | NodeRequest)]
        bench.tally.block_positions = 0
        measure(bench, asked, np.arange(12))
        least = 0
        for pair in bench.pairs:
            clean, corrupt = (torch.tensor([t]) for t in (pair.clean_tokens, pair.corrupt_tokens))
            positions = {p: token_indices([pair], [p]) for r in asked for p in r.positions}
            where = Where.of(positions, 1, clean.shape[1], first_difference(clean, corrupt))
            least += sum(
                int(floor_of(pocket, sorted_out(one, pocket), where).sum()) for one in set(map(experiment_of, asked))
            )
        assert bench.tally.block_positions == least > 0
