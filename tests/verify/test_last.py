"""The last verdict on each claim: kept for editors, known again wherever the claim stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl.api import load, loads
from circuitdsl.verify.last import FOLDER, key_of, last_verdicts, of_claim
from circuitdsl.verify.last import asked as asked_of
from circuitdsl.verify.session import Session

TEXT = """circuit small
model "pocket"
task ioi(corrupt = abc, prompts = 32)
task flip = ioi(corrupt = flip, prompts = 32)
heads mover = 0.3 0.5 at END
expect accuracy >= 90%
mover -> logits at END : effect <= -0.1%  on ioi
when mover is knocked out
  expect accuracy <= 100%  on ioi
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.circ"
    path.write_text(TEXT)
    return path


def test_verdicts_are_kept_and_found_again(spec: Path) -> None:
    assert last_verdicts(str(spec)) == ()
    with Session() as session:
        report = session.verify(spec)
        found = last_verdicts(str(spec))
        assert [(one.statement, one.task) for one in found] == [(one.text, one.task) for one in report.claims]
        assert [(one.verdict, one.reason) for one in found] == [(one.verdict, one.reason) for one in report.claims]
        # the claims stand elsewhere, and one of them is asked differently
        moved = loads("# a comment\n" + TEXT.replace("0.3 0.5", "0.3 0.5 0.6"), spec).circuits[0]
        assert [len(of_claim(found, moved, claim)) for claim in moved.claims] == [2, 1, 1]
        asked = [of_claim(found, moved, claim)[0].asked == asked_of(moved, claim) for claim in moved.claims]
        assert asked == [True, False, False]
        # the same is measured under another name, and written in another way
        renamed = loads(TEXT.replace("mover", "late").replace("-0.1%", "-0.10%"), spec).circuits[0]
        for claim, old in zip(renamed.claims, found[1:], strict=True):
            assert of_claim(found, renamed, claim)[-1].reason == old.reason
            assert of_claim(found, renamed, claim)[-1].asked == asked_of(renamed, claim)
        # one claim alone changes its verdict alone
        times = [one.when for one in found]
        session.verify(spec, claim=6)
        again = last_verdicts(str(spec))
        assert [one.when > before for one, before in zip(again, times, strict=True)] == [True, True, False, False]
        # a claim that is gone takes its verdict along
        spec.write_text(TEXT.replace("<= -0.1%", "<= -0.2%"))
        session.verify(spec, claim=6)
        known = {key_of("small", claim) for claim in load(spec).circuits[0].claims}
        assert {one.claim for one in last_verdicts(str(spec))} < known


def test_verdicts_stay_when_a_group_is_renamed(spec: Path) -> None:
    """Also while only some claims are verified under the new name; none is then known twice."""
    with Session() as session:
        session.verify(spec)
        spec.write_text(TEXT.replace("mover", "late"))
        (renamed,) = load(spec).circuits
        for line in (6, 7):
            session.verify(spec, claim=line)
            assert [len(of_claim(last_verdicts(str(spec)), renamed, claim)) for claim in renamed.claims] == [2, 1, 1]


def test_nothing_is_kept_without_the_cache_or_without_a_file(spec: Path) -> None:
    with Session(cache=False) as session:
        session.verify(spec, claim=6)
    assert last_verdicts(str(spec)) == ()
    loads(TEXT).verify(claim=6)
    assert last_verdicts("<text>") == ()


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '[{"circuit": 3}]', "\0" * 100, "[" * 100_000])
def test_what_is_damaged_counts_as_nothing(spec: Path, damage: str) -> None:
    with Session() as session:
        session.verify(spec, claim=6)
        assert session.store is not None and session.store.folder is not None
        (file,) = (session.store.folder / FOLDER).iterdir()
        assert json.loads(file.read_text())
        file.write_text(damage)
        assert last_verdicts(str(spec)) == ()
        session.verify(spec, claim=6)
        assert len(last_verdicts(str(spec))) == 2
        file.unlink()
        file.mkdir()  # it can neither be read nor written, and nobody is told
        session.verify(spec, claim=6)
        assert last_verdicts(str(spec)) == ()
