"""`circuitdsl init`: a starter for every task that checks clean and verifies; nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import load, loads
from circuitdsl.cli.language import starter
from circuitdsl.language.format import format_text
from circuitdsl.tasks.registry import SHIPPED


@pytest.mark.parametrize("model", ["pocket", "gpt2", "some/unknown-model"])
@pytest.mark.parametrize("task", SHIPPED)
def test_a_starter_checks_clean(task: str, model: str) -> None:
    text = starter(SHIPPED[task], model)
    spec = loads(text, model=None)
    assert spec.diagnostics == (), spec.problems
    assert len(spec.circuit().claims) == 3
    assert format_text(text) == text
    for place in SHIPPED[task].positions:
        assert place in text


def test_it_verifies_on_the_pocket_model(pocket, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["init"]) == 0
    assert "wrote ioi.circ" in capsys.readouterr().out
    assert load("ioi.circ").ok
    assert cli.run(["verify", "ioi.circ", "--prompts", "64", "--format", "json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["error"] == 0
    assert next(c["verdict"] for c in found["claims"] if "accuracy" in c["text"]) == "holds"


def test_nothing_is_overwritten(tmp_path: Path, capsys) -> None:
    path = tmp_path / "mine.circ"
    path.write_text("mine")
    assert cli.run(["init", str(path)]) == 3
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_a_model_that_nobody_knows_is_taken_with_a_warning(tmp_path: Path, capsys) -> None:
    assert cli.run(["init", str(tmp_path / "a.circ"), "--model", "gpt2"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.run(["init", str(tmp_path / "b.circ"), "--model", "gtp2"]) == 0
    assert "gtp2 is not known here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (("--task", "ioj"), 2, "there is no task ioj"),
        (("--model", "/nowhere"), 3, "there is no model directory /nowhere"),
        (("--model", 'a"b'), 2, "cannot be called"),
        (("-o", "other.circ"), 2, "two files are named"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path: Path, capsys, options, status: int, says: str) -> None:
    assert cli.run(["init", str(tmp_path / "t.circ"), *options]) == status
    assert says in capsys.readouterr().err
    assert not (tmp_path / "t.circ").exists()
