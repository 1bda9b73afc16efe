"""What requests say that they read of runs is all that is kept, and it is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuitdsl.circuit.nodes import EMBED, LOGITS, Edge, Input, Node, Position
from circuitdsl.engine import memory
from circuitdsl.engine.experiment import Experiment, experiment_of
from circuitdsl.engine.path_patching import effects, patched_attention, patched_terms
from circuitdsl.engine.runs import Runs, changed, ends, patterns, run
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.attribution import Attribution
from circuitdsl.measurements.kept import Kept
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, PatchRequest, Request, replaced
from circuitdsl.models.parts import Mlp, Transformer
from tests.drawing import examples
from tests.engine.random_experiments import experiments
from tests.engine.small_models import FAMILIES, LENGTH, PROMPTS, Case, make_case
from tests.engine.test_exact import drawn, with_means

END = Position("END")
HEADS = (Node("head", 1, 2),)
#: reads of a middle layer and of the last, and a patch between the two
REQUESTS: tuple[Request, ...] = (
    Attention(HEADS, (END,), (END,)),
    Attribution(HEADS),
    EdgeRequest((Edge(Node("head", 1, 0), Input(Node("head", 2, 1), "v"), END),)),
)


def patch_of(experiment: Experiment) -> PatchRequest | None:
    """The request that makes an experiment."""
    how = experiment.via_mlps, experiment.direction, experiment.sent
    edges = EdgeRequest(tuple(sorted(experiment.edges)), *how)
    if not experiment.sites:
        return edges if edges.edges else None
    sites = tuple(sorted(experiment.sites))
    return NodeRequest(sites, experiment.ablate, experiment.direction, edges if edges.edges else None)


def runs_for(case: Case, request: Request) -> Runs:
    """Runs that keep what a request reads, and nothing else."""
    kept = request.kept(case.model.n_layers)
    runs = run(case.model, case.clean, case.corrupt, kept=kept)
    assert {*runs.clean.kept} == kept.clean - {LOGITS} and {*runs.corrupt.kept} == kept.corrupt - {LOGITS}
    for each in fields(Kept)[2:]:
        assert {*getattr(runs.clean, each.name)} == getattr(kept, each.name)
    return runs if case.runs.means is None else runs.with_means(case.runs.means, case.runs.stratum)


@pytest.mark.parametrize("family", examples(("gpt2", "gpt_neox", "gemma2", "olmo2", "bloom", "mixtral"), FAMILIES))
def test_what_is_kept_is_enough(family: str, random_model: Callable[[str], Transformer]) -> None:
    """For logits of patched runs, for what they attend to, for what their nodes write, and for what a patch changes."""
    model = random_model(family)
    heads = [Node("head", layer, 1) for layer in range(model.n_layers)]

    @drawn
    @given(experiments(model), st.integers(0, 5), st.integers(0, model.n_layers - 1))
    def check(experiment: Experiment, seed: int, upto: int) -> None:
        case, patch = with_means(make_case(model, seed))[0], patch_of(experiment)
        if patch is None:
            return
        experiment = replace(
            experiment, via_mlps=experiment.via_mlps and bool(experiment.edges)
        )  # else it says nothing
        assert experiment_of(patch) == experiment
        runs = runs_for(case, patch)
        same(lambda each: effects(each, [experiment], case.positions, case.vocabulary), runs, case.runs)
        for term in (term for one in patch.patches for term in replaced(one)):
            same(lambda each, term=term: changed(each, term.node, None, term.ablate), runs, case.runs)
        if isinstance(patch, NodeRequest) and patch.under is not None:
            return  # no condition is of both kinds
        some, nodes = heads[: upto + 1], [EMBED, *heads[: upto + 1], Node("mlp", upto)]
        runs = runs_for(case, Attention(tuple(some), (END,), (END,), patch))
        same(lambda each: patched_attention(each, [experiment], case.positions, some), runs, case.runs)
        if any(site.node.along and site.node.kind in ("head", "resid") for site in experiment.sites):
            return  # what such a patch leaves of terms is not read
        runs = runs_for(case, Attribution(tuple(nodes), patch))
        same(lambda each: patched_terms(each, [experiment], case.positions, nodes), runs, case.runs)

    check()


def same(measured: Callable[[Runs], torch.Tensor], *runs: Runs) -> None:
    """A measurement is the same on two runs."""
    one, other = map(measured, runs)
    assert torch.equal(one, other) or (one - other).abs().max() < 1e-4


@pytest.fixture
def mlp_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each MLP that is computed is computed at."""
    rows: list[int] = []
    true_written = Mlp.written

    def written(self: Mlp, x: torch.Tensor, *others: Any) -> Any:
        rows.append(x.shape[:-1].numel())
        return true_written(self, x, *others)

    monkeypatch.setattr(Mlp, "written", written)
    return rows


def test_a_run_ends_at_the_highest_layer_that_is_read(gpt2: Case, mlp_rows: list[int]) -> None:
    head = Node("head", 2, 1)
    runs = run(gpt2.model, gpt2.clean, gpt2.corrupt, kept=Attention((head,), (END,), (END,)).kept(4))
    assert mlp_rows == [PROMPTS * LENGTH] * 2 and not runs.corrupt.kept
    assert torch.allclose(patterns(gpt2.model, runs.clean, head), patterns(gpt2.model, gpt2.runs.clean, head))


def test_of_the_last_layer_end_alone_is_computed_where_nothing_else_is_read(gpt2: Case, mlp_rows: list[int]) -> None:
    assert torch.allclose(ends(gpt2.model, gpt2.clean), gpt2.runs.clean.end, atol=1e-5)
    assert mlp_rows == [*[PROMPTS * LENGTH] * 3, PROMPTS]
    mlp_rows.clear()
    terms = run(gpt2.model, gpt2.clean, gpt2.clean, kept=Kept(frozenset([Node("head", 3), LOGITS]))).clean
    assert mlp_rows == [PROMPTS * LENGTH] * 4
    assert torch.allclose(terms.z[0], gpt2.runs.clean.z[3], atol=1e-5)


def test_long_prompts_run_a_few_at_a_time(gpt2: Case, mlp_rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(memory.TOKENS, "cpu", 2 * LENGTH)
    runs = run(gpt2.model, gpt2.clean, gpt2.corrupt)
    assert max(mlp_rows) == 2 * LENGTH
    assert torch.allclose(runs.clean.end, gpt2.runs.clean.end, atol=1e-5)
    assert torch.allclose(runs.corrupt.end, gpt2.runs.corrupt.end, atol=1e-5)


def test_what_is_kept_is_counted(gpt2: Case) -> None:
    """Bytes as tensors have them."""
    for kept in (None, *(request.kept(4) for request in REQUESTS)):
        runs = run(gpt2.model, gpt2.clean, gpt2.corrupt, kept=kept)
        cache, sets = runs.clean, (runs.clean.resid_pre, runs.clean.mlp_in, runs.clean.q, runs.clean.k, runs.clean.v)
        held = [*cache.kept.values(), *runs.corrupt.kept.values(), *(tensor for one in sets for tensor in one.values())]
        assert sum(tensor.nbytes for tensor in held) == PROMPTS * memory.prompt_bytes(gpt2.model, LENGTH, kept)
