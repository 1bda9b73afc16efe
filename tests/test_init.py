"""`circuitdsl init`: a starter for every task that checks clean and verifies; nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import circuit_of_task, load, loads
from circuitdsl.circuit.shapes import shape_of
from circuitdsl.discover.starter import starter_text
from circuitdsl.language.format import format_text
from circuitdsl.report.prompts import summary
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import SHIPPED, TASKS
from circuitdsl.verify.session import Session
from tests.conftest import shared


@pytest.mark.parametrize("model", ["pocket", "gpt2", "some/unknown-model"])
@pytest.mark.parametrize("task", SHIPPED)
def test_a_starter_checks_clean(task: str, model: str) -> None:
    shape, circuit = shape_of(model)[0], circuit_of_task(task)
    layer = shape.n_layers - 1 if shape else 0
    text = starter_text(circuit.tasks[0], model, layer, circuit, Path("t.circ"))
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


def opening(path: Path) -> str:
    """The comment that opens a spec, as one line."""
    return " ".join(line.removeprefix("# ") for line in path.read_text().split("\ncircuit ")[0].splitlines())


def test_it_says_what_was_measured(pocket, tmp_path: Path) -> None:
    assert cli.run(["init", str(tmp_path / "a.circ"), "--task", "ioi(corrupt = flip, order = abba)"]) == 0
    said = opening(tmp_path / "a.circ")
    assert said.startswith("A starter: it verifies as it is, but its heads are a guess")
    found = Session("pocket").prompts("ioi(corrupt = flip, order = abba)")
    assert f"Measured: {summary(found)}." in said
    (use,) = load(tmp_path / "a.circ").circuit().tasks
    assert (use.corrupt, use.options) == ("flip", (("order", "abba"),))


@pytest.fixture
def prompt_file(tmp_path: Path, pocket_tokens):
    """`prompt_file(swapped)`: a prompt file of IOI, with answers and distractors exchanged where that is asked for."""

    def write(swapped: bool = False, name: str = "2 my-prompts.jsonl") -> Path:
        lines = []
        for pair in sample(TASKS["ioi"], pocket_tokens, 20).pairs:
            record = pair.record()
            if swapped:
                record |= {"answer": record["distractor"], "distractor": record["answer"]}
            lines.append(json.dumps(record))
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    return write


def test_a_prompt_file_is_named_from_the_spec(pocket, prompt_file, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("specs").mkdir()
    name = prompt_file().name
    for task, bos in ((name, None), (f'file("{name}", bos = no)', False)):
        assert cli.run(["init", "--task", task, "-o", "specs/t.circ"]) == 0
        assert "try: circuitdsl verify --allow-outside specs/t.circ" in capsys.readouterr().out
        (use,) = load("specs/t.circ", allow_outside=True).circuit().tasks
        assert (use.file, use.bos) == (f"../{name}", bos)
        assert cli.run(["verify", "--allow-outside", "specs/t.circ", "--format", "json"]) in (0, 1)
        assert json.loads(capsys.readouterr().out)["summary"]["error"] == 0
        Path("specs/t.circ").unlink()


@pytest.mark.parametrize("name", ["task.jsonl", "0.csv.jsonl", "Ünïcode.jsonl", "mine.jsonl"])
def test_any_name_of_a_file_gives_a_spec(pocket, prompt_file, tmp_path: Path, name: str) -> None:
    assert cli.run(["init", "--task", str(prompt_file(name=name)), "-o", str(tmp_path / "t.circ")]) == 0
    (use,) = load(tmp_path / "t.circ").circuit().tasks
    assert use.file == name


def test_a_model_that_does_not_do_the_task_is_said_not_to(pocket, prompt_file, tmp_path: Path, capsys) -> None:
    path = tmp_path / "t.circ"
    assert cli.run(["init", "--task", str(prompt_file(swapped=True)), "-o", str(path)]) == 0
    assert "warning: pocket does not do this task: logit_diff is −" in capsys.readouterr().err
    assert opening(path).startswith("A starter, but pocket does not do this task: logit_diff is −")
    assert "verifies as it is" not in opening(path) and "Measured: 20 prompts: accuracy 0.0 %" in opening(path)


def test_a_task_that_cannot_be_made_for_the_model_is_said(tmp_path: Path, capsys) -> None:
    path = tmp_path / "t.circ"
    assert cli.run(["init", str(path), "--model", str(shared("stories260K"))]) == 0
    assert "leaves 0 of 99 words in the list 'names'" in capsys.readouterr().err
    assert opening(path).startswith("A starter: it cannot be verified as it is: the tokenizer of ")


def test_bad_lines_make_no_spec(prompt_file, tmp_path: Path, capsys) -> None:
    path = prompt_file()
    path.write_text(path.read_text() + "\n{")
    for model in ("pocket", "some/unknown-model"):
        assert cli.run(["init", "--task", str(path), "-o", str(tmp_path / "t.circ"), "--model", model]) == 2
        assert f"{path}:21: not JSON" in capsys.readouterr().err
        assert not (tmp_path / "t.circ").exists()


def test_what_is_not_at_hand_is_not_measured(tmp_path: Path) -> None:
    assert cli.run(["init", str(tmp_path / "t.circ"), "--model", "gpt2"]) == 0
    assert "Nothing was measured: the weights of gpt2 are not at hand." in opening(tmp_path / "t.circ")


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
