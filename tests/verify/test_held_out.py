"""`--task NAME=FILE`: the same spec on prompts that were held out, without an edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import load, loads
from circuitdsl.circuit.paths import prompt_files, prompts_instead
from circuitdsl.errors import UsageError
from circuitdsl.matrix.planning import hash_of
from circuitdsl.models.load import load_tokenizer
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.last import last_verdicts
from circuitdsl.verify.session import Session

SPEC = """circuit held
model "pocket"
task ioi(corrupt = abc, prompts = 48)
task mine = file("prompts.jsonl")
heads mover = 2.4 2.5 at END
mover -> logits at END : effect in [-90%, 50%]
expect attention(mover, END -> IO) >= 1%
"""


@pytest.fixture(scope="module")
def pairs() -> list[str]:
    tokens = Tokens(load_tokenizer("pocket"), "pocket")
    return [json.dumps(pair.record()) for pair in sample(TASKS["ioi"], tokens, 160, 7, "abc").pairs]


@pytest.fixture
def files(tmp_path: Path, pairs: list[str], monkeypatch) -> Path:
    """A folder with a spec and its prompts, and beside it two files of others."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "held.circ").write_text(SPEC)
    for path, some in ((home / "prompts", pairs[:40]), (tmp_path / "a", pairs[40:80]), (tmp_path / "b", pairs[80:])):
        path.with_suffix(".jsonl").write_text("\n".join(some))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(out: str) -> dict[str, list[float]]:
    claims = json.loads(out)["claims"]
    return {task: [c["measured"]["value"] for c in claims if c["task"] == task] for task in ("ioi", "mine")}


def verified(capsys, *options: str) -> tuple[int, str]:
    status = cli.run(["verify", "home/held.circ", "--format", "json", *options])
    return status, capsys.readouterr().out


def test_other_prompts_are_measured_and_the_report_says_so(files: Path, capsys) -> None:
    own, said = verified(capsys)
    status, other = verified(capsys, "--task", "mine=a.jsonl")
    assert (own, status) == (0, 0)
    before, after = numbers(said), numbers(other)
    assert before["ioi"] == after["ioi"]
    assert before["mine"] != after["mine"]
    tasks = {task["name"]: task for task in json.loads(other)["tasks"]}
    assert tasks["mine"]["instead"] == "a.jsonl" and tasks["ioi"]["instead"] == ""
    # what was measured is what a spec that names that file measures, from a cache that knows both
    (files / "named.circ").write_text(SPEC.replace("prompts.jsonl", "a.jsonl"))
    assert cli.run(["verify", "named.circ", "--format", "json", "--no-cache"]) == 0
    assert numbers(capsys.readouterr().out)["mine"] == pytest.approx(after["mine"], abs=1e-6)


def test_the_cache_knows_prompts_and_not_names(files: Path, capsys, pairs: list[str]) -> None:
    _, first = verified(capsys, "--task", "mine=a.jsonl")
    (files / "a.jsonl").write_text("\n".join(pairs[80:]))
    _, second = verified(capsys, "--task", "mine=a.jsonl")
    _, same = verified(capsys, "--task", "mine=b.jsonl", "--no-cache")
    assert numbers(first)["mine"] != numbers(second)["mine"]
    assert numbers(second)["mine"] == pytest.approx(numbers(same)["mine"], abs=1e-6)


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_every_report_says_so(files: Path, capsys, form: str) -> None:
    assert cli.run(["verify", "home/held.circ", "--task", "mine=a.jsonl", "--format", form]) == 0
    shown = " ".join(capsys.readouterr().out.split()).replace("\\u0027", "'")
    assert "measured on the prompts of a.jsonl, instead of the spec's own" in shown


def test_a_generated_task_may_have_the_prompts_of_a_file(files: Path, capsys) -> None:
    status, out = verified(capsys, "--task", "ioi=a.jsonl", "--task", "mine=b.jsonl")
    assert status == 0
    assert {task["name"]: task["instead"] for task in json.loads(out)["tasks"]} == {"ioi": "a.jsonl", "mine": "b.jsonl"}


def test_a_spec_without_its_own_file_can_be_verified(files: Path, capsys) -> None:
    (files / "home" / "prompts.jsonl").unlink()
    assert verified(capsys)[0] == 2
    assert verified(capsys, "--task", "mine=a.jsonl")[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("mina=a.jsonl",), "home/held.circ has no task mina; did you mean 'mine'?"),
        (("mine=c.jsonl",), "c.jsonl"),
    ],
)
def test_what_is_wrong_is_said(files: Path, capsys, options, said: str) -> None:
    for verb in ("verify", "plan", "mutate", "falsify", "check"):
        assert cli.run([verb, "home/held.circ", *(word for each in options for word in ("--task", each))]) == 2
        assert said in capsys.readouterr().err


def test_positions_are_those_of_the_file(files: Path, capsys) -> None:
    line = json.loads((files / "a.jsonl").read_text().splitlines()[0])
    del line["positions"]["IO"]
    (files / "c.jsonl").write_text(json.dumps(line))
    assert cli.run(["verify", "home/held.circ", "--task", "mine=c.jsonl", "--task", "ioi=c.jsonl"]) == 2
    assert "no task has a position IO" in capsys.readouterr().err


def test_other_verbs_take_them(files: Path, capsys) -> None:
    assert cli.run(["plan", "home/held.circ", "--task", "mine=b.jsonl"]) == 0
    assert " 80 " in capsys.readouterr().out
    assert cli.run(["check", "home/held.circ", "--task", "mine=b.jsonl"]) == 0
    assert "b.jsonl: 80 prompts" in capsys.readouterr().out
    assert cli.run(["falsify", "home/held.circ", "--claim", "7", "--task", "mine=b.jsonl", "--task", "ioi=b.jsonl"]) < 2


def test_in_a_matrix_each_file_is_a_cell(files: Path, capsys) -> None:
    options = ("--task", "mine=a.jsonl", "--task", "mine=b.jsonl", "--results", "r")
    assert cli.run(["verify", "home/held.circ", *options]) == 0
    reports = [json.loads(path.read_text()) for path in sorted((files / "r").rglob("*.json"))]
    found = {task["instead"] for each in reports for task in each.get("tasks", ()) if task["name"] == "mine"}
    assert found == {"a.jsonl", "b.jsonl"}
    capsys.readouterr()
    of_two = ("--results", "s", "--task", "mine=a.jsonl", "--task", "ioi=b.jsonl")
    assert cli.run(["verify", "home/held.circ", *of_two]) == 2
    assert "each --task is verified by itself" in capsys.readouterr().err
    before = hash_of(load("home/held.circ"), "mine=a.jsonl")
    (files / "a.jsonl").write_text((files / "b.jsonl").read_text())
    assert hash_of(load("home/held.circ"), "mine=a.jsonl") != before


def test_verdicts_on_other_prompts_are_not_those_of_the_spec(files: Path, capsys) -> None:
    verified(capsys, "--task", "mine=a.jsonl")
    assert not last_verdicts("home/held.circ")
    verified(capsys)
    assert last_verdicts("home/held.circ")


def test_a_session_takes_them_for_every_spec(files: Path) -> None:
    with Session(prompt_files={"mine": "a.jsonl"}) as session:
        report = session.verify(load("home/held.circ"))
    assert {task.instead for task in report.tasks} == {"", "a.jsonl"}
    assert load("home/held.circ", prompt_files={"mine": Path("a.jsonl")}).verify().tasks == report.tasks
    with (
        Session(prompt_files={"mine": "a.jsonl"}) as session,
        pytest.raises(UsageError, match="its own prompts of mine"),
    ):
        session.circuit(load("home/held.circ").circuits[0])
    with pytest.raises(UsageError, match="no task none"):
        loads(SPEC, prompt_files={"none": "a.jsonl"})
    with pytest.raises(UsageError, match="by the names of tasks"):
        Session(prompt_files=["a.jsonl"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("mine=a.jsonl", ("mine", "a.jsonl")),
        ("mine = some where/a.csv", ("mine", "some where/a.csv")),
        ("flip = ioi(corrupt = flip)", None),
        ("flip=ioi", None),
        ("ioi(prompts = 64)", None),
        ("a.jsonl", None),
        ("./a=b.jsonl", None),
    ],
)
def test_what_names_a_file(given: str, found: object) -> None:
    assert prompts_instead(given) == found


def test_a_task_has_one_file() -> None:
    with pytest.raises(UsageError, match="twice"):
        prompt_files(["mine=a.jsonl", "mine=b.jsonl"])
    with pytest.raises(UsageError, match="no task with a file"):
        prompt_files(["ioi"])
