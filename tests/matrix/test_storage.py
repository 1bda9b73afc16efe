"""Where results are kept: two processes on one directory, and stores that fsspec knows."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from circuitdsl.errors import UserError
from circuitdsl.matrix import worker
from circuitdsl.matrix.cell import Cell, ClaimRow, Record
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.storage import Directory, InMemory, Remote, storage
from tests.conftest import ROOT
from tests.matrix.conftest import run


def without_times(results: Results) -> dict[str, object]:
    """What is kept of every cell and in its reports, without seconds and dates."""
    found = {}
    for record in results.records():
        body = record.to_json() | {"seconds": 0, "finished": ""}
        reports = json.loads(results.storage.read(record.report)) if record.report else []
        for report in reports if isinstance(reports, list) else [reports]:
            report |= {"seconds": 0, "cached": 0, "block_positions": 0}
        found[record.cell.key] = [body, reports]
    return found


@pytest.mark.long
def test_two_processes_on_one_directory_destroy_nothing(lab: Path) -> None:
    """Every cell is there, each file is whole, and everything is as one process leaves it."""
    line = "verify ioi.circ weights.circ --model pocket --model small --seed 0 --seed 1 --seed 2 --resume --results"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "circuitdsl", *line.split(), "both"], env=environment, stdout=-3, stderr=-3
        )
        for _ in range(2)
    ]
    ends = [process.wait() for process in both]
    assert ends == [run(f"{line} one")] * 2
    found, alone = Results(Directory(lab / "both")), Results(Directory(lab / "one"))
    assert without_times(found) == without_times(alone)
    assert len(found.records()) == 12
    assert len(json.loads((lab / "both/index.json").read_text())["cells"]) == 12
    names = sorted(path.relative_to(lab / "both") for path in (lab / "both").rglob("*"))
    assert names == sorted(path.relative_to(lab / "one") for path in (lab / "one").rglob("*"))


def test_a_cell_that_another_process_has_done_meanwhile_is_not_done_again(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified, real = [], worker.Worker.verify

    def other_first(self, cell, told):
        """While the first cell is verified, another process does the last one."""
        verified.append(cell.seed)
        if len(verified) == 1:
            run("verify ioi.circ --seed 2 --results r --resume")
        return real(self, cell, told)

    monkeypatch.setattr(worker.Worker, "verify", other_first)
    run("verify ioi.circ --seed 0 --seed 1 --seed 2 --results r")
    assert verified == [0, 2, 1]
    assert len(Results(Directory(lab / "r")).records()) == 3


def test_a_failure_takes_no_cell_from_a_process_that_did_it(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = worker.Worker.verify, []

    def failing(self, cell, told):
        calls.append(cell)
        if len(calls) == 1:
            run("verify ioi.circ --seed 0 --results r --resume")
            return worker.Verified(cell, error="bad luck")
        return real(self, cell, told)

    monkeypatch.setattr(worker.Worker, "verify", failing)
    assert run("verify ioi.circ --seed 0 --results r") == 0
    (record,) = Results(Directory(lab / "r")).records()
    assert record.state == "done" and len(calls) == 2


@pytest.mark.parametrize("ci", [(-math.inf, 0.5), (-0.5, math.inf), None])
def test_a_record_comes_back_whatever_its_interval(ci: tuple[float, float] | None) -> None:
    row = ClaimRow("c", 1, "a claim", "t", "undecided", "why", "effect", math.nan if ci is None else 0.1, ci, "gap")
    kept, record = InMemory(), Record(Cell("s", "m"), "done", (row,))
    Results(kept).keep(record)
    (found,) = Results(kept).records()
    assert found == (replace(record, claims=(replace(row, value=None),)) if ci is None else record)


def test_what_is_done_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is looked at again: another process may have done it meanwhile."""
    kept = InMemory()
    for seed, state in enumerate(("done", "done", "failed")):
        Results(kept).keep(Record(Cell("s", "m", seed=seed), state))
    read, real = [], InMemory.read
    monkeypatch.setattr(InMemory, "read", lambda self, name: read.append(name) or real(self, name))
    results = Results(kept)
    for _ in range(3):
        results.summarize()
    assert len(read) == 2 + 3


def test_what_is_done_already_needs_no_torch(lab: Path) -> None:
    run("verify ioi.circ --seed 0 --results r")
    line = "cli.run('verify ioi.circ --seed 0 --results r --resume'.split())"
    code = f"import sys; from circuitdsl import cli; {line}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.fixture
def memory():
    """fsspec's store in memory, empty before and after."""
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install fsspec")
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def test_results_in_a_remote_store_are_those_of_a_directory(lab: Path, memory, capsys) -> None:
    line = "verify ioi.circ --model small --seed 0 --seed 1 --results"
    assert run(f"{line} memory://lab/results") == run(f"{line} r")
    remote, local = Results(Remote("memory://lab/results")), Results(Directory(lab / "r"))
    assert without_times(remote) == without_times(local) and len(remote.keys()) == 2
    assert sorted(memory.find("/lab/results")) == sorted(
        f"/lab/results/{path.relative_to(lab / 'r').as_posix()}" for path in (lab / "r").rglob("*") if path.is_file()
    )
    capsys.readouterr()
    assert run(f"{line} memory://lab/results --resume") in (0, 1)
    assert "2 of them from earlier" in capsys.readouterr().err
    assert run("stability memory://lab/results") == 0
    assert not (lab / "memory:").exists()


def test_a_configuration_may_name_a_store(lab: Path, memory) -> None:
    (lab / "circuitdsl.toml").write_text('results = "memory://lab/r"\n[[run]]\nspecs = ["weights.circ"]\n')
    assert run("run") == 0
    assert len(Results(Remote("memory://lab/r")).records()) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [("nothing://x", "cannot open nothing://x"), ("memory://x", "cannot list memory://x")],
)
def test_a_store_that_does_not_answer_is_said(address: str, said: str, memory, monkeypatch, capsys, lab: Path) -> None:
    def refused(*_, **__):
        raise PermissionError("not yours")

    monkeypatch.setattr(type(memory), "ls", refused)
    assert run(f"verify ioi.circ --results {address}") == 3
    assert said in capsys.readouterr().err


def test_nothing_of_a_directory_is_unpickled(lab: Path, capsys) -> None:
    """A pickle where a record or a report should be is named, and stays closed; one under another name is no matter."""

    class Opened:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(lab / "opened"),)

    line = "verify ioi.circ --model small --seed 0 --seed 1 --results r"
    assert run(line) in (0, 1)
    records = sorted((lab / "r/cells").iterdir())
    for name in ("index.json", "table.csv", "cells/other.pkl", f"reports/{records[0].name}"):
        (lab / "r" / name).write_bytes(pickle.dumps(Opened()))
    assert run(f"{line} --resume") in (0, 1) and json.loads((lab / "r/index.json").read_text())
    records[1].write_bytes(pickle.dumps(Opened()))
    capsys.readouterr()
    assert run(f"{line} --resume") == 3
    assert f"cannot read {records[1].relative_to(lab)}" in capsys.readouterr().err
    assert run(f"view r/reports/{records[0].name} -o x.html") in (2, 3)
    assert not (lab / "opened").exists()


@pytest.mark.parametrize("report", ["//elsewhere.example/x", "javascript:alert(1)", "../../secret.json"])
def test_a_record_leads_to_its_own_report_alone(report: str) -> None:
    kept, record = InMemory(), Record(Cell("s", "m"), "done")
    Results(kept).keep(record)
    (name,) = kept
    kept[name] = kept[name].replace('"report": ""', json.dumps({"report": report})[1:-1])
    assert json.loads(kept[name])["report"] == report and Results(kept).records() == []


def test_without_fsspec_it_is_said_what_to_install(lab: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert run("verify ioi.circ --results memory://x") == 3
    assert "pip install 'circuitdsl[remote]'" in capsys.readouterr().err


def test_directories_that_cannot_be_written_are_said(lab: Path, monkeypatch, capsys) -> None:
    (lab / "file").write_text("")
    assert run("verify ioi.circ --results file") == 3
    assert run("verify ioi.circ --results file/below") == 3
    assert "Traceback" not in capsys.readouterr().err


def test_texts_come_back_as_they_were_written(tmp_path: Path, memory) -> None:
    for kept in (InMemory(), Directory(tmp_path / "d"), Remote("memory://t/d")):
        assert kept.names("cells") == [] and kept.read("cells/a.json") is None
        kept.write("cells/b.json", "é\n")
        kept.write("cells/a.json", "a")
        kept.write("cells/a.json", "b")
        assert kept.names("cells") == ["cells/a.json", "cells/b.json"]
        assert (kept.read("cells/a.json"), kept.read("cells/b.json")) == ("b", "é\n")
    assert isinstance(storage("s"), Directory) and isinstance(storage(None), InMemory)
    with pytest.raises(UserError):
        Directory(tmp_path / "d").read("cells")
