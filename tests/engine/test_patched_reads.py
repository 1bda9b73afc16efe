"""What is measured under a condition, against runs of the whole model by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.experiment import experiment_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, PatchRequest, Request
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.measure import measure, present
from circuitdsl.verify.prompts import scored_prompts
from tests.engine import reference

END, IO, S2 = Position("END"), Position("IO"), Position("S2")
H03, H05, H24, H25 = (Node("head", *at) for at in ((0, 3), (0, 5), (2, 4), (2, 5)))
OUT = NodeRequest((Site(H03, END), Site(H05, END)))
PATCHED = EdgeRequest((Edge(H03, Input(H24, "q"), END), Edge(H05, Input(H24, "q"), END)))
VIA = EdgeRequest((Edge(H03, Input(LOGITS, "in"), END),), via_mlps=True)
PROMPTS = 6


@pytest.fixture(scope="module")
def whole(pocket, pocket_tokens) -> Prompts:
    return scored_prompts(pocket, sample(TASKS["ioi"], pocket_tokens, PROMPTS, seed=4), Metric())


def places(bench: Prompts, i: int, request: Request) -> dict[Position, torch.Tensor]:
    at = bench.pairs[i].positions
    return {p: torch.tensor([[t + p.offset for t in at[p.name]]]) for p in request.positions}


def by_hand(bench: Prompts, i: int, request: Request) -> torch.Tensor:
    """A prompt's logits under the patches of a request, every run of the model made in full."""
    pair = bench.pairs[i]
    clean, corrupt = torch.tensor([pair.clean_tokens]), torch.tensor([pair.corrupt_tokens])
    experiment = experiment_of(request)
    return reference.logits(bench.model, clean, corrupt, experiment, places(bench, i, request))[0]


def attention_by_hand(bench: Prompts, i: int, request: Attention) -> float:
    pair = bench.pairs[i]
    clean, corrupt = torch.tensor([pair.clean_tokens]), torch.tensor([pair.corrupt_tokens])
    experiment, at = experiment_of(request), places(bench, i, request)
    patterns = reference.attention(bench.model, clean, corrupt, experiment, at, request.heads)[0]
    sources = [t for p in request.source for t in at[p][0]]
    targets = [t for p in request.target for t in at[p][0]]
    return float(np.mean([[sum(pattern[s, t] for t in targets) for s in sources] for pattern in patterns]))


def difference(bench: Prompts, i: int, logits: torch.Tensor) -> float:
    pair = bench.pairs[i]
    return float(logits[list(pair.answers)].mean() - logits[list(pair.distractors)].mean())


@pytest.mark.parametrize("under", [OUT, PATCHED, VIA], ids=["knocked out", "patched", "via MLPs"])
def test_behaviour_and_knockouts_under_a_condition(whole: Prompts, under: PatchRequest) -> None:
    probability = Behaviour(Metric("prob_diff"), under)
    alone, both = Behaviour(Metric(), under), NodeRequest((Site(H25, END),), under=under)
    found = measure(whole, [probability, alone, both, under], np.arange(PROMPTS))
    for i in range(PROMPTS):
        logits = by_hand(whole, i, alone)
        assert found[alone].values[i] == pytest.approx(difference(whole, i, logits), abs=1e-3)
        assert found[under].values[i] == found[alone].values[i]
        p = logits.softmax(-1)
        pair = whole.pairs[i]
        right, wrong = p[list(pair.answers)].sum(), p[list(pair.distractors)].sum()
        assert found[probability].values[i] == pytest.approx(float(right - wrong), abs=1e-4)
        assert found[both].values[i] == pytest.approx(difference(whole, i, by_hand(whole, i, both)), abs=1e-3)
    assert not np.allclose(found[alone].values, whole.clean)


@pytest.mark.parametrize("under", [OUT, PATCHED], ids=["knocked out", "patched"])
def test_attention_under_a_condition(whole: Prompts, under: PatchRequest) -> None:
    request = Attention((H24, H25), (END,), (IO, S2), under)
    clean = Attention((H24, H25), (END,), (IO, S2))
    found = measure(whole, [request, clean], np.arange(PROMPTS))
    for i in range(PROMPTS):
        assert found[request].values[i] == pytest.approx(attention_by_hand(whole, i, request), abs=1e-5)
    assert not np.allclose(found[request].values, found[clean].values, atol=1e-3)
    assert found[request].changed.all() and not found[clean].changed.any()


def test_a_condition_counts_among_positions_and_changes(pocket, pocket_tokens) -> None:
    """Role flip changes nothing before S2, so that a condition at S1 changes nothing."""
    flip = scored_prompts(pocket, sample(TASKS["ioi"], pocket_tokens, 4, corrupt="flip"), Metric())
    idle = NodeRequest((Site(H03, Position("S1")),))
    under = NodeRequest((Site(H25, END),), under=idle)
    found = measure(flip, [under, NodeRequest((Site(H25, END),))], np.arange(4))
    assert not found[under].changed.any()
    assert found[NodeRequest((Site(H25, END),))].changed.any()
    missing = Attention((H25,), (END,), (END,), NodeRequest((Site(H03, Position("NOWHERE")),)))
    assert not present(flip, missing, np.arange(4)).any()


def test_patches_that_replace_terms_differently_are_not_made_together() -> None:
    with pytest.raises(ValueError, match="cannot be made together"):
        experiment_of(NodeRequest((Site(H25, END),), "mean", under=OUT))
