"""A watch verifies again on every save, measures what is new alone, and says what is other than before."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from circuitdsl.verify.session import Session
from circuitdsl.verify.watch import Turn, files_of

SPEC = """circuit t
model "pocket"
task ioi(prompts = 40)
use "lab.circ"
heads mover = 2.5 2.7 at END
each 0.6 -> mover.q at END : lowers
mover -> logits at END : lowers
expect logit_diff >= 3
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "lab.circ").write_text('role watcher "sees"\n  expect attention(self, END -> IO) >= 1%\n')
    path = tmp_path / "t.circ"
    path.write_text(SPEC)
    return path


@pytest.fixture
def turns(spec: Path) -> Iterator[Callable[..., Turn]]:
    """`turns(text)` saves the spec with another text and gives the next turn; `turns()` the first."""
    edits = iter(())
    count = itertools.count(1)

    def wait() -> None:
        next(edits)()

    with Session(device="cpu") as session:
        watched = session.watch([spec], wait)

        def turn(text: str | None = None, path: Path = spec) -> Turn:
            nonlocal edits

            def save() -> None:
                path.write_text(text + "#" * next(count) + "\n")  # another size, whatever the clock says

            edits = iter([lambda: None, save, lambda: None] if text else [])
            return next(watched)

        yield turn


def test_an_edited_bound_runs_nothing(turns) -> None:
    first = turns()
    assert first.changes is None and [c.verdict for c in first.reports[0].claims] == ["undecided", "undecided", "holds"]
    again = turns(SPEC.replace(">= 3", ">= 30"))
    (report,) = again.reports
    assert report.block_positions == 0 and report.cached == 1
    assert again.changes.summary["regression"] == 1 and again.changes.summary["same"] == 2
    (change,) = (each for each in again.changes.changes if each.kind == "regression")
    assert (change.old.verdict, change.new.verdict, change.new.text) == ("holds", "fails", "expect logit_diff >= 30")
    assert json.loads(json.dumps(again.to_json()))["changes"]["summary"]["regression"] == 1


def test_an_edited_claim_with_the_same_verdict_is_told(turns) -> None:
    turns()
    again = turns(SPEC.replace(">= 3", ">=  3.5"))
    (change,) = (each for each in again.changes.changes if each.kind == "edited")
    assert (change.new.text, change.new.verdict) == ("expect logit_diff >= 3.5", "holds")
    assert again.changes.summary["same"] == 2 and not again.changes.settings
    assert turns(SPEC.replace(">= 3", ">= 3.5")).changes.summary["same"] == 3


def test_a_file_that_is_half_written_is_not_read(spec: Path) -> None:
    edits = iter([lambda: spec.write_text(""), lambda: spec.write_text(SPEC + "# again\n")])
    with Session(device="cpu") as session:
        watched = session.watch([spec], lambda: next(edits)())
        next(watched)
        assert next(watched).trouble is None


def test_an_edited_edge_runs_that_edge(turns, monkeypatch) -> None:
    first = turns()
    with monkeypatch.context() as patch:
        for name in ("circuitdsl.engine.ends.ends_of", "circuitdsl.models.record.open_model"):
            patch.setattr(name, lambda *_: pytest.fail("what is in memory is made again"))
        patch.setattr("circuitdsl.engine.runs.run", lambda *_: pytest.fail("a known run is made again"))
        again = turns(SPEC.replace("each 0.6 -> mover", "each 0.5 -> mover"))
    assert 0 < again.reports[0].block_positions <= first.reports[0].block_positions
    assert 0 < again.reports[0].cached < 1
    assert again.changes.summary["same"] == 2
    fresh = Session(device="cpu", cache=False).verify(again.reports[0].spec.path)
    values = [[claim.measured.value for claim in report.claims] for report in (again.reports[0], fresh)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_other_prompts_are_made(turns) -> None:
    turns()
    again = turns(SPEC.replace("prompts = 40", "prompts = 40, seed = 1"))
    fresh = Session(device="cpu", cache=False).verify(again.reports[0].spec.path)
    assert again.reports[0].tasks[0].seed == 1 and again.reports[0].tasks == fresh.tasks


def test_an_error_is_no_end(turns) -> None:
    turns()
    broken = turns(SPEC.replace("heads", "haeds"))
    assert "haeds" in broken.trouble.message and not broken.reports
    mended = turns(SPEC)
    assert mended.trouble is None and mended.changes.summary["same"] == 3


def test_what_a_spec_uses_is_watched(turns, spec: Path) -> None:
    turns()
    assert turns(spec.with_name("lab.circ").read_text(), spec.with_name("lab.circ")).trouble is None
    rows = '{"clean": "a b", "corrupt": "a c", "answer": " d", "distractor": " e"}\n'
    spec.with_name("p.jsonl").write_text(rows)
    spec.write_text(SPEC.replace("task ioi(prompts = 40)", 'task file("p.jsonl")'))
    assert files_of([spec]) == {spec, spec.with_name("lab.circ"), spec.with_name("p.jsonl")}


def test_without_a_cache_numbers_stay_in_memory(spec: Path, monkeypatch) -> None:
    monkeypatch.chdir(spec.parent)
    before = set(spec.parent.rglob("*"))
    edits = iter([lambda: spec.write_text(SPEC.replace(">= 3", ">= 30")), lambda: None])
    with Session(device="cpu", cache=False) as session:
        watched = session.watch([spec], lambda: next(edits)())
        first, again = next(watched), next(watched)
    assert first.reports[0].cached == 0 and again.reports[0].cached == 1
    assert set(spec.parent.rglob("*")) == before, "what is remembered of a model is not kept either"


def test_files_of_directions_and_dictionaries_are_watched(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    for name in ("u.safetensors", "sae/cfg.json", "sae/w.safetensors"):
        (tmp_path / name).touch()
    lines = ('direction u = file("u.safetensors")', 'dictionary d = sae("sae")', 'dictionary e = sae("later")')
    path = tmp_path / "t.circ"
    path.write_text(SPEC + "\n".join(lines) + "\n")
    found = {file.relative_to(tmp_path).as_posix() for file in files_of([path])}
    assert found == {"t.circ", "lab.circ", "u.safetensors", "sae/cfg.json", "sae/w.safetensors", "later"}


def test_a_changed_direction_is_measured_anew(tmp_path: Path) -> None:
    """The same text of the spec, and another vector in the file."""
    file, path = tmp_path / "u.safetensors", tmp_path / "t.circ"
    save_file({"s": torch.eye(128)[0]}, file)
    head = 'circuit t\nmodel "pocket"\ntask ioi(prompts = 40)\ndirection u = file("u.safetensors")\n'
    path.write_text(head + "expect knockout(resid1[u] at END) : effect <= 500%\n")
    edits = iter([lambda: None, lambda: save_file({"s": torch.arange(128.0)}, file), lambda: None])
    with Session(device="cpu") as session:
        watched = session.watch([path], lambda: next(edits)())
        first, again = next(watched), next(watched)
    values = [turn.reports[0].claims[0].measured.value for turn in (first, again)]
    assert again.trouble is None and values[0] != values[1]
