"""Verdicts on models whose circuits are facts: what is true holds, what is false does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circuitdsl.circuit.nodes import EMBED, Edge, Input, Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.experiment import Experiment
from circuitdsl.verify.prompts import scored_prompts
from circuitdsl.verify.session import Options
from tests.drawing import examples
from tests.engine import reference
from tests.known_answers.hand_set import MODELS
from tests.known_answers.hand_set_claims import (
    DESIGNS,
    Design,
    KnownClaim,
    Population,
    claims,
    edge,
    knockout,
    on_the_bound,
    spec,
)
from tests.known_answers.hand_set_runs import Tally, sample_bench, verified
from tests.known_answers.random_models import matters_claims, matters_spec, random_model, random_task

H = {name: Node("head", *map(int, name.split("."))) for name in ("0.2", "1.1", "2.3", "3.2")}
END, S2 = Position("END"), Position("S2")


@pytest.fixture
def models(known_model: Callable[[str, int], Population]) -> dict[str, Population]:
    return {kind: known_model(kind, 96) for kind in MODELS}


@pytest.mark.parametrize(
    "experiment",
    [
        Experiment(),
        Experiment(
            edges=frozenset({Edge(H["1.1"], Input(H["2.3"], "q"), END), Edge(H["0.2"], Input(H["1.1"], "k"), S2)})
        ),
        Experiment(edges=frozenset({Edge(EMBED, Input(Node("mlp", 1), "in"), END)}), direction="denoise"),
        Experiment(sites=frozenset({Site(H["2.3"], END)}), ablate="zero"),
        Experiment(sites=frozenset({Site(EMBED, Position("*")), Site(H["3.2"], END)}), direction="denoise"),
    ],
    ids=str,
)
def test_what_is_called_true_is_what_the_definitions_say(models, experiment: Experiment) -> None:
    """Brute force on whole populations against the reference, which goes prompt by prompt and term by term."""
    whole = models["negative"]
    here = [0, 4, 8]  # prompts of one length
    pairs = [whole.data.pairs[i] for i in here]
    clean, corrupt = (torch.tensor([getattr(p, side) for p in pairs]) for side in ("clean_tokens", "corrupt_tokens"))
    at = {position: torch.tensor([p.positions.get(position.name, (0,)) for p in pairs]) for position in (END, S2)}
    logits = reference.logits(whole.model, clean, corrupt, experiment, at)
    found = whole.brute.logit_diffs(experiment)
    for row, place, pair in zip(logits, here, pairs, strict=True):
        assert found[place] == pytest.approx(float(row[pair.answers[0]] - row[pair.distractors[0]]), abs=1e-4)


def test_the_models_do_what_they_were_built_for(models) -> None:
    """The circuits are there, and so are self-repair, a head that works against the answer, and empty attention."""
    for whole in models.values():
        assert whole.gap.mean() > 2
        assert (whole.clean > 0).mean() > 0.85

    def effect(kind: str, subject) -> float:
        return models[kind].figure(subject).value

    assert effect("induction", edge("0.3", "2.1.k 2.6.k", "ANSWER")) < -0.9
    assert effect("chain", edge("2.3 2.4", "logits", "END")) < -0.9
    assert effect("negative", edge("3.2", "logits", "END")) > 0.3
    mover, both = knockout("2.3", "END"), knockout("2.3 3.5", "END")
    assert effect("backup", edge("2.3", "logits", "END")) < effect("backup", mover) - 0.25  # the backup makes up for it
    assert effect("backup", both) < effect("backup", mover) - 0.25
    for decoy in ("2.0", "3.4", "3.0"):
        assert abs(effect("decoy", edge(decoy, "logits", "END"))) < 0.01


def some_of(kind: str) -> Design:
    """A third of what a model was built for."""
    design = DESIGNS[kind]
    return replace(design, edges=design.edges[1::3], attends=design.attends[:1], acts=design.acts[-1:])


@pytest.mark.parametrize("kind", examples(("decoy", "negative"), MODELS))
def test_true_claims_hold_and_false_ones_do_not(models, kind: str) -> None:
    """Some of the claims on one sample; `benchmarks/known_answers.py` has all of them, on several."""
    whole = models[kind]
    part = claims(whole, some_of(kind), wrong_heads=1)[:32]
    tally = Tally()
    tally.add(part, verified(spec(whole.model.name, part), sample_bench(whole, seed=7)))
    held, true = tally.share(True)
    assert not tally.wrong
    assert 5 <= true <= 27
    assert held >= 0.95 * true - 1, tally.missed


def test_claims_on_their_bounds_do_not_hold(models) -> None:
    """A spec has a wrong "holds" with 2.5 % at most: one of four with 10 %, two with less than 1 %."""
    whole = models["chain"]
    part = on_the_bound(whole, some_of("chain"))
    text = spec(whole.model.name, part)
    tally = Tally()
    wrong = sum(tally.add(part, verified(text, sample_bench(whole, seed))) for seed in range(4))
    assert len(part) >= 8
    assert wrong <= 1, tally.wrong


def test_random_parts_of_random_models_rarely_matter(tmp_path: Path) -> None:
    """At 5 % each, more than 6 of 40 have a probability under 1 %."""
    verdicts = []
    for seed in range(2):
        model = random_model(tmp_path, seed)
        where = scored_prompts(model, random_task(model, 64, seed), Metric())
        text = matters_spec(model, matters_claims(seed), 20, 64)
        verdicts += [claim.verdict for claim in verified(text, where).claims]
    assert verdicts.count("error") == 0
    assert verdicts.count("fails") > 0
    assert verdicts.count("holds") <= 6


# --- what a figure of exactly nothing can be made to say -------------------------------------------


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_head_that_writes_nothing_has_no_effect_of_any_sign(models, early_stop: bool) -> None:
    """3.0 attends to the answer and has no output: every effect through it is exactly 0."""
    whole = models["decoy"]
    lines = [
        ("embed -> 3.0.v at IO : lowers", False),
        ("embed -> 3.0.v at IO : raises", False),
        ("embed -> 3.0.v at IO : matters", False),
        ("1.1 -> 3.0.q at END : effect <= -0.001%", False),
        ("1.1 -> 3.0.q at END : effect >= 0.001%", False),
        ("1.1 -> 3.0.q at END : delta <= -0.0001", False),
        ("each embed -> 3.0.k at IO : lowers", False),
        ("embed -> 3.0.v at IO : negligible", True),
        ("1.1 -> 3.0.q at END : negligible", True),
    ]
    part = [KnownClaim(line, true, "nothing") for line, true in lines]
    tally = Tally()
    tally.add(part, verified(spec(whole.model.name, part), sample_bench(whole, 3), Options(early_stop=early_stop)))
    assert not tally.wrong
    assert not tally.missed
