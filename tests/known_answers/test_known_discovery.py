"""What a search finds in models whose circuits are facts: the heads, and the roles that they were built for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.discover.drafting import Drafting
from circuitdsl.discover.roles import roles_of
from circuitdsl.discover.scoring import METHODS, Asked
from circuitdsl.discover.watch import Budget, Watch
from circuitdsl.engine.whole_runs import WholeRuns
from circuitdsl.report.report import Report
from tests.known_answers.hand_set_claims import Population
from tests.known_answers.hand_set_runs import known, sample_bench, verified

CHAIN = {("0.2", "S2"): "duplicate_token"} | {(head, "END"): "inhibition" for head in ("1.1", "1.5")}
MOVERS = {(head, "END"): "mover" for head in ("2.3", "2.4")}
#: a model, and all heads of its circuit with the roles that they were built for
BUILT = {
    "decoy": CHAIN | MOVERS,  # and heads that look like them
    "negative": CHAIN | MOVERS | {("3.2", "END"): "negative_mover"},
}


def opening(whole: Population, seed: int) -> list[str]:
    return ["circuit known", f'model "{whole.model.name}"', f'task known = file("known.jsonl", seed = {seed})']


def check(whole: Population, text: str, n: int = 256) -> Report:
    (seed,) = re.findall(r"seed = (\d+)", text)
    return verified(text, sample_bench(whole, int(seed), n=n))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["decoy", "negative"])
def test_the_heads_that_were_built_are_found_in_their_roles(kind: str, tmp_path: Path) -> None:
    whole = known(kind, tmp_path, 512)
    searched, held = sample_bench(whole, 0, n=96), sample_bench(whole, 1, n=256)
    made = Drafting(
        searched,
        opening(whole, 2),
        lambda text: verified(text, held),
        lambda text: verified(text, searched),
        Watch("searching", Budget()),
    ).discover()
    groups = [each for each in made.draft.groups if each.group.kind == "head"]
    found = {(str(n), str(at)): g.role for g in groups for n in g.group.nodes for at in g.group.positions}
    assert found.items() >= BUILT[kind].items()
    assert {head for head, _ in found} == {head for head, _ in BUILT[kind]}  # one writes at other places as well
    assert {claim.verdict for claim in check(whole, made.text).claims} == {"holds"}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["decoy", "negative"])
def test_the_edges_that_were_built_have_the_largest_scores(
    kind: str, known_model: Callable[[str, int], Population]
) -> None:
    """They are known by brute force: edges whose effect is a fiftieth of the gap or more."""
    runs = WholeRuns(sample_bench(known_model(kind, 512), 0, n=64), np.arange(64))
    exact, *_ = METHODS["exact"](Asked(runs, 1, lambda _: True))
    scores, *_ = METHODS["hybrid"](Asked(runs, 1, lambda _: True))
    built, edges = np.abs(exact) > 0.02, list(runs.graph.edges)
    wins = np.abs(scores[built])[:, None] > np.abs(scores[~built])
    assert wins.mean() > 0.98  # the area under the ROC curve
    best = {edges[i] for i in np.argsort(-np.abs(scores))[: 2 * built.sum()]}
    heads = {str(node) for sender, to in best for node in (sender, to.node) if node.kind == "head"}
    assert {head for head, _ in BUILT[kind]} <= heads


def test_a_backup_is_known_by_what_it_does_without_the_movers(tmp_path: Path) -> None:
    """The search cannot find it, for it does next to nothing; asked of it, the role is right, and noise has none."""
    whole = known("quiet backup", tmp_path, 512)
    heads = [placed("2.3"), placed("3.5"), placed("3.1"), placed("1.1"), placed("0.2", "S2")]
    roles = roles_of(heads, {"ANSWER", "DISTRACTOR"}, opening(whole, 3), lambda text: check(whole, text, 512))
    built = ("mover", "backup_mover", None, "inhibition", "duplicate_token")
    assert [roles.get(head) for head in heads] == list(built)


@pytest.mark.long
def test_a_role_is_asked_only_of_heads_that_act_where_its_checks_look_from(tmp_path: Path) -> None:
    """A mover said to act at S2 is none there; and none is asked where the task does not have what checks look at."""
    whole = known("chain", tmp_path, 512)

    def ask(positions: set[str], at: str) -> dict[tuple[Node, Position], str]:
        return roles_of([placed("2.3", at)], positions, opening(whole, 3), lambda text: check(whole, text))

    assert ask({"ANSWER", "DISTRACTOR"}, "END") == {placed("2.3"): "mover"}
    assert ask({"ANSWER", "DISTRACTOR"}, "S2") == {}
    assert ask({"S1", "S2"}, "END") == {}


def placed(head: str, position: str = "END") -> tuple[Node, Position]:
    return Node("head", *map(int, head.split("."))), Position(position)
