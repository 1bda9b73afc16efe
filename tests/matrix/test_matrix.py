"""Specs × models × tasks × seeds on one machine: what is asked, what is kept, and how it goes on."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import circuitdsl.matrix
from circuitdsl.errors import UsageError, UserError
from circuitdsl.matrix import worker
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.storage import Directory
from circuitdsl.report.report import read_reports
from circuitdsl.verify.session import Session
from tests.matrix.conftest import IOI, run

SCHEMA = Draft202012Validator(json.loads((Path(circuitdsl.matrix.__file__).parent / "schema.json").read_text()))


def rows(lab: Path, results: str = "r") -> list[dict[str, str]]:
    """The lines of the table of a results directory."""
    return list(csv.DictReader(io.StringIO((lab / results / "table.csv").read_text())))


def outcomes(lab: Path, **of: str) -> dict[int, str]:
    """The outcomes of the rows that have some values, by the line of the claim."""
    return {int(r["line"]): r["outcome"] for r in rows(lab) if all(r[name] == value for name, value in of.items())}


def test_every_cell_is_what_verify_says_of_it(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify ioi.circ weights.circ --model pocket --model small --seed 0 --seed 3 --results r") in (0, 1)
    shown = capsys.readouterr().out
    assert "8 cells" in shown and "seeds" in shown
    found = {(r.cell.spec, r.cell.model, r.cell.seed): r for r in Results(Directory(lab / "r")).records()}
    assert len(found) == 8
    for seed in (0, 3):
        with Session("pocket", cache=False) as session:
            alone = session.verify("ioi.circ", seed=seed)
        kept = read_reports(lab / "r" / found["ioi.circ", "pocket", seed].report)[0]
        assert [c.to_json() for c in kept.claims] == json.loads(json.dumps([c.to_json() for c in alone.claims]))
        assert kept.tasks[0].seed == seed


def test_what_a_model_lacks_is_not_applicable(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A claim that names a missing head, or is about the whole circuit that has it; the others are asked."""
    run("verify ioi.circ weights.circ --model small --results r")
    found = outcomes(lab, spec="ioi.circ")
    assert {line for line, outcome in found.items() if outcome == "not applicable"} == {7, 10}
    assert set(found) == {6, 7, 8, 9, 10}
    assert outcomes(lab, spec="weights.circ") == {3: "not applicable"}
    assert "small has 2 layers: 2.4 does not exist" in capsys.readouterr().out
    reasons = {int(r["line"]): r["reason"] for r in rows(lab) if r["spec"] == "ioi.circ"}
    assert reasons[10].startswith("the circuit is not there as a whole")
    assert run("verify weights.circ --model small --results r2") == 3  # nothing at all could be asked


def test_other_tasks_take_the_place_of_the_specs_own(lab: Path) -> None:
    """A task that the spec has by that name is its own, with its options; where positions lack, nothing is asked."""
    text = IOI.replace("task ioi(prompts = 32)", "task mine = ioi(prompts = 48)\ntask ioi(prompts = 32, seed = 5)")
    (lab / "ioi.circ").write_text(text)
    assert run("verify ioi.circ --task mine --task ioi(corrupt=flip) --task greater_than --results r") in (0, 1, 3)
    by_task = {r.cell.task: r for r in Results(Directory(lab / "r")).records()}
    own = read_reports(lab / "r" / by_task["mine"].report)[0].tasks
    other = read_reports(lab / "r" / by_task["ioi(corrupt=flip)"].report)[0].tasks
    assert [(t.name, t.prompts, t.seed) for t in own] == [("mine", 48, 0)]
    assert [(t.name, t.corrupt, t.seed) for t in other] == [("ioi", "flip", 0)]
    lacking = {row.line: row for row in by_task["greater_than"].claims}
    assert lacking[10].outcome == "not applicable" and "no position S2" in lacking[10].reason
    assert lacking[9].outcome != "not applicable"


def test_a_failed_cell_says_why_and_the_rest_goes_on(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify ioi.circ --model broken --model pocket --results r") == 3
    out, _ = capsys.readouterr()
    assert "failed" in out and "broken/model.safetensors cannot be read" in out
    states = {r.cell.model: r.state for r in Results(Directory(lab / "r")).records()}
    assert states == {"broken": "failed", "pocket": "done"}
    assert outcomes(lab, model="broken") == {0: "error"}
    (lab / "broken" / "model.safetensors").write_bytes((lab / "small" / "model.safetensors").read_bytes())
    assert run("verify ioi.circ --model broken --model pocket --results r --resume") in (0, 1)
    assert {r.state for r in Results(Directory(lab / "r")).records()} == {"done"}  # the newest of each cell


def test_a_mistake_of_ours_in_one_cell_is_kept_with_its_traceback(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Session.reports

    def spoilt(self, specs, **how):
        if how["seed"] == 1:
            raise ZeroDivisionError("spoilt")
        return real(self, specs, **how)

    monkeypatch.setattr(Session, "reports", spoilt)
    assert run("verify ioi.circ --seed 0 --seed 1 --seed 2 --results r") == 3
    found = {r.cell.seed: r for r in Results(Directory(lab / "r")).records()}
    assert [found[seed].state for seed in (0, 1, 2)] == ["done", "failed", "done"]
    assert found[1].error == "ZeroDivisionError: spoilt"
    assert any("in spoilt" in line for line in found[1].log)


def test_resume_verifies_only_what_is_missing(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    real = worker.Worker.verify
    monkeypatch.setattr(
        worker.Worker, "verify", lambda self, cell, told: verified.append(cell.seed) or real(self, cell, told)
    )
    run("verify ioi.circ --seed 0 --seed 1 --results r")
    run("verify ioi.circ --seed 0 --seed 1 --seed 2 --results r --resume")
    assert verified == [0, 1, 2]
    (lab / "ioi.circ").write_text(IOI.replace(">= 12", ">= 11"))
    run("verify ioi.circ --seed 0 --seed 1 --results r --resume")
    assert verified == [0, 1, 2, 0, 1]
    run("verify ioi.circ --seed 0 --no-early-stop --results r --resume")
    assert verified == [0, 1, 2, 0, 1, 0]


def test_results_are_not_mixed_unasked(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("verify ioi.circ --results r")
    before = {path: path.read_bytes() for path in (lab / "r").rglob("*.json")}
    assert run("verify ioi.circ --seed 0 --results r") == UserError.status
    assert "--resume" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (lab / "r").rglob("*.json")}


def test_ctrl_c_loses_nothing(lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was verified is kept; the cell that was interrupted is none of it, and is verified again."""
    real = worker.Worker.verify

    def stopped(self, cell, told):
        if cell.seed == 1:
            raise KeyboardInterrupt
        return real(self, cell, told)

    monkeypatch.setattr(worker.Worker, "verify", stopped)
    assert run("verify ioi.circ --seed 0 --seed 1 --seed 2 --results r") == 130
    assert "1 of 3 cells are in r; --resume goes on" in capsys.readouterr().err
    assert [cell["cell"]["seed"] for cell in json.loads((lab / "r/index.json").read_text())["cells"]] == [0]
    monkeypatch.setattr(worker.Worker, "verify", real)
    assert run("verify ioi.circ --seed 0 --seed 1 --seed 2 --results r --resume") in (0, 1)
    assert len(rows(lab)) == 15


def test_an_interrupted_report_is_not_kept(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Session.reports
    cut = lambda *given, **how: [replace(each, interrupted=True) for each in real(*given, **how)]  # noqa: E731
    monkeypatch.setattr(Session, "reports", cut)
    assert run("verify ioi.circ --seed 0 --seed 1 --results r") == 130
    assert Results(Directory(lab / "r")).records() == []


def test_models_of_neighbouring_cells_are_loaded_once(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = Session.__init__
    monkeypatch.setattr(
        Session, "__init__", lambda self, model, **how: opened.append(model) or real(self, model, **how)
    )
    run("verify ioi.circ weights.circ --model pocket --model small --seed 0 --seed 1 --results r")
    assert opened == ["pocket", "small"]


def test_files_follow_the_schema(lab: Path) -> None:
    run("verify ioi.circ --model small --model broken --results r")
    for path in (lab / "r/index.json", *(lab / "r/cells").iterdir()):
        SCHEMA.validate(json.loads(path.read_text()))
    cells = json.loads((lab / "r/index.json").read_text())["cells"]
    counts = {cell["cell"]["model"]: cell["claims"]["not applicable"] for cell in cells}
    assert counts == {"broken": 0, "small": 2}


def test_a_file_of_other_software_is_no_cell(lab: Path) -> None:
    run("verify ioi.circ --results r")
    for name, text in (("x.json", "{}"), ("y.json", "no json"), ("z.txt", "")):
        (lab / "r/cells" / name).write_text(text)
    assert len(Results(Directory(lab / "r")).records()) == 1
    key = next((lab / "r/cells").glob("?" * 32 + ".json"))
    (lab / "r/cells" / f"{'0' * 32}.json").write_text(key.read_text())  # a record under another's name
    assert len(Results(Directory(lab / "r")).records()) == 1


@pytest.mark.parametrize("option", ["--claim 6", "-o x.json", "--format json", "--watch", "--view", "--with-prompts"])
def test_options_of_one_report_are_refused(option: str, lab: Path) -> None:
    before = sorted(lab.iterdir())
    assert run(f"verify ioi.circ --seed 0 --seed 1 {option}") == UsageError.status
    assert sorted(lab.iterdir()) == before


def test_without_a_directory_the_table_is_shown_and_nothing_is_kept(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(lab.iterdir())
    assert run("verify ioi.circ --seed 0 --seed 1") in (0, 1)
    assert "2 cells" in capsys.readouterr().out
    assert sorted(lab.iterdir()) == before


def test_a_spec_that_changed_meanwhile_fails_its_cell(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is of what was planned, or there is none."""
    real = worker.Worker.verify

    def edited(self, cell, told):
        (lab / "ioi.circ").write_text(IOI.replace(">= 12", ">= 11"))
        return real(self, cell, told)

    monkeypatch.setattr(worker.Worker, "verify", edited)
    assert run("verify ioi.circ --seed 0 --results r") == 3
    (record,) = Results(Directory(lab / "r")).records()
    assert "has changed since the run was planned" in record.error
