"""A spec that a person began: what they wrote stays, and what is missing is added below."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import load, loads
from circuitdsl.circuit.nodes import Edge, Input, Node, Site
from circuitdsl.discover.given import given_by
from circuitdsl.discover.needed import Needed, Where
from circuitdsl.discover.places import END
from circuitdsl.engine.prompts import Prompts
from circuitdsl.language.format import format_text

MINE = """\
circuit mine "what I know so far"
  note "two heads"

model "pocket"
task  ioi(prompts = 64, seed = 0)

heads decider    = 0.3 0.5      at END         # my own name
heads idle       = 3.3          at END  outside

decider -> logits   at END  : effect <= -5%
"""
DECIDERS = frozenset(Site(Node("mlp", layer), END) for layer in (1, 2, 3))


def test_what_a_spec_says_is_what_a_search_begins_with() -> None:
    given = given_by(loads(MINE).circuits[0], MINE)
    assert given.sites == {Site(Node("head", 0, h), END) for h in (3, 5)}
    assert given.forbidden == {Site(Node("head", 3, 3), END)}
    assert Edge(Node("head", 0, 3), Input(Node("logits"), "in"), END) in given.edges
    assert not given.mlps and given.names == {"decider", "idle"} and given.on == ""
    several = MINE.replace("task  ioi(", "task other = ioi(corrupt = flip)\ntask  ioi(")
    assert given_by(loads(several).circuits[0], several).on == " on other"


def test_a_draft_from_a_spec_keeps_it_and_adds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def needed(prompts: Prompts, indices: object, where: Where, progress: object) -> Needed:
        return Needed(where.given | {Site(Node("head", 0, 6), END)}, 1.0, True)

    monkeypatch.setattr("circuitdsl.discover.drafting.needed", needed)
    monkeypatch.setattr("circuitdsl.discover.drafting.siblings", lambda *_: frozenset())
    monkeypatch.setattr("circuitdsl.discover.discover.CHECKED", 64)
    mine, more = tmp_path / "mine.circ", tmp_path / "more.circ"
    mine.write_text(MINE)
    assert cli.run(["discover", "--from", str(mine), "--prompts", "32", "-o", str(more)]) == 0
    text = more.read_text()
    known, added = text.split("# --- added by discover")
    assert known.split() == format_text(MINE).split()
    groups = {group.name: group for group in load(more).circuits[0].groups}
    assert groups["decider"].nodes == (Node("head", 0, 3), Node("head", 0, 5))
    assert [g.nodes for name, g in groups.items() if name not in ("decider", "idle")] == [(Node("head", 0, 6),)]
    assert "alone this circuit recovers" in added and "decider -> logits" not in added
    assert "mlps" not in added  # the spec names none: all of them stay


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (MINE + MINE.replace("mine", "second", 1), "has several circuits"),
        (MINE.replace("logits   at", "logit   at"), "logit"),
        (MINE.replace("model", "metric accuracy\nmodel"), "accuracy is 0 or 1"),
    ],
)
def test_a_spec_to_begin_with_is_one_that_can_be_searched(
    text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.circ"
    path.write_text(text)
    assert cli.run(["discover", "--from", str(path)]) == 2
    assert why in capsys.readouterr().err
