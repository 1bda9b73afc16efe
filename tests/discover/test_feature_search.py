"""Features of a draft: gradients are those of the runs, attributions foretell knock-outs, and claims hold elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from circuitdsl import cli
from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import Position, Site
from circuitdsl.discover.asked import prompts_of
from circuitdsl.discover.feature_search import attributions, features_named, groups_of
from circuitdsl.discover.search import effects
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.requests import NodeRequest
from circuitdsl.verify.session import Session

END, S2 = Position("END"), Position("S2")


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    with Session("pocket", cache=False) as session:
        return prompts_of(session, "ioi(corrupt = abc)", "logit_diff", 32, 0)


@pytest.mark.parametrize(("name", "place", "least"), [("t1", END, 0.9), ("r1", END, 0.9), ("r3", END, 0.5)])
def test_attributions_foretell_what_knock_outs_do(prompts: Prompts, name: str, place: Position, least: float) -> None:
    kind = "transcoders/1" if name == "t1" else f"saes/resid{name[1]}"
    features, indices = features_named([f"pocket/{kind}"]), np.arange(32)
    scores = attributions(prompts, indices, features, [S2, place])[name][1]
    best = [int(i) for i in np.argsort(-np.abs(scores))[:24]]
    tried = {NodeRequest((Site(feature(name, features.named[name], i), place),)): i for i in best}
    exact = effects(prompts, list(tried), indices)
    found = np.corrcoef([scores[tried[each]] for each in exact], [float(ratio.value) for ratio in exact.values()])
    assert found[0, 1] > least


def test_groups_have_the_features_that_carry_the_name(prompts: Prompts) -> None:
    features = features_named(["pocket/saes/resid3"])
    (group,) = groups_of(prompts, np.arange(32), features, [END], 0.02)
    assert group.definition.startswith("features r3_end = ") and "r3[136]" in group.definition
    assert not groups_of(prompts, np.arange(32), features, [END], 0.9)


@pytest.mark.long
def test_a_draft_with_features_holds_on_a_fresh_seed(tmp_path: Path) -> None:
    target = tmp_path / "draft.circ"
    with Session("pocket", cache=False) as session:
        found = session.discover("ioi(corrupt = abc)", features=["pocket/saes/resid3"], claims=40)
        target.write_text(found.text)
        report = session.verify(target, seed=77)
    lines = [" ".join(line.split()) for line in found.text.splitlines()]
    assert any(line.startswith("r3_end -> logits at END : effect <= -") for line in lines)
    assert any("-> r3_end at END : " in line for line in lines)
    assert {claim.verdict for claim in report.claims} == {"holds"}


def test_dictionaries_that_cannot_be_searched_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--task", "ioi", "--features", "pocket/saes", "--features", "pocket/saes/resid1"], "sit at one place"),
        (["--task", "ioi", "--features", "nowhere/here"], "nowhere/here"),
        (["--from", "pocket/ioi", "--features", "pocket/saes"], "--features goes with a --task, not --from"),
    ):
        assert cli.run(["discover", *arguments]) in (2, 3)
        assert message in capsys.readouterr().err
