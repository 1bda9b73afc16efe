"""`tasks show` and `tasks check`: what a user sees of prompts is what is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import circuitdsl
from circuitdsl import cli
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.prompts import behaviour
from circuitdsl.report.prompts import Prompts
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify import look
from circuitdsl.verify.prompts import scored_prompts
from circuitdsl.verify.session import Session


@pytest.fixture(scope="module")
def found(pocket) -> Prompts:
    return circuitdsl.prompts("ioi(bos = yes)", pocket, n=3, corrupt="flip", cache=False)


@pytest.fixture
def prompt_file(tmp_path: Path, pocket_tokens) -> Path:
    """A file of 20 pairs of IOI, on the second and last lines of which something is wrong."""
    records = [pair.record() for pair in sample(TASKS["ioi"], pocket_tokens, 20, seed=1).pairs]
    records[1] |= {"answer": " Zork"}
    lines = [json.dumps({k: v for k, v in r.items() if not k.endswith("_tokens")}) for r in records]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join([*lines[:-1], "{oops"]))
    return path


def test_figures_and_predictions_are_the_models_own(found: Prompts, pocket) -> None:
    from circuitdsl.tasks.tokens import Tokens

    tokens = Tokens(pocket.tokenizer, "pocket", True)
    data = sample(TASKS["ioi"], tokens, look.MADE, 0, "flip")
    scored = scored_prompts(pocket, data, Metric())
    assert (found.all.prompts, found.bos, found.corrupt, found.does_task) == (64, True, "flip", True)
    assert found.all.clean == pytest.approx(float(scored.clean.mean()), abs=1e-4)
    assert found.all.gap == pytest.approx(float((scored.clean - scored.corrupt).mean()), abs=1e-4)
    assert found.all.accuracy == float(behaviour(scored, Metric("accuracy")).mean())
    assert sum(each.prompts for each in found.strata.values()) == sum(found.lengths.values()) == 64
    for pair, shown, score in zip(data.pairs, found.pairs, scored.clean, strict=False):
        assert tuple(token.id for token in shown.clean.tokens) == pair.clean_tokens
        assert shown.positions == dict(pair.positions) and shown.clean.score == pytest.approx(score, abs=1e-4)
        logits = pocket.original.module(torch.tensor([pair.clean_tokens])).logits[0, -1]
        p, ids = logits.softmax(-1).topk(5)
        assert [guess.token.id for guess in shown.clean.top] == ids.tolist()
        assert [guess.probability for guess in shown.clean.top] == pytest.approx(p.tolist(), abs=1e-4)
        assert "".join(token.text for token in shown.clean.tokens[1:]) == pair.clean
        assert shown.differs == {pair.positions["S2"][0]}


@pytest.mark.parametrize("width", [60, 120])
def test_every_token_stands_in_a_column_with_its_index_and_positions(found: Prompts, width: int) -> None:
    console = Console(width=width, no_color=True, color_system=None)
    with console.capture() as capture:
        found.show(console)
    lines = capture.get().splitlines()
    pair, seen = found.pairs[0], []
    for number, line in enumerate(lines[: next(i for i, x in enumerate(lines) if x.startswith("  answer"))]):
        if line.startswith("  clean"):
            indices, corrupt = lines[number - 1], lines[number + 1]
            assert len(line) <= width
            starts = [i for i, c in enumerate(indices) if c != " " and indices[i - 1] == " "]
            for at in starts:
                index = int(indices[at:].split()[0])
                seen.append(index)
                assert line[at:].split(" ")[0] == pair.clean.tokens[index].text.replace(" ", "·")
                assert corrupt[at:].split(" ")[0] == pair.corrupt.tokens[index].text.replace(" ", "·")
                if index in pair.positions["S2"]:
                    assert lines[number + 2][at:].startswith("S2")
    assert seen == list(range(len(pair.clean.tokens)))
    assert "indices are those that a prompt file may give; they count BOS, which is token 0" in " ".join(
        " ".join(lines).split()
    )


def test_as_a_page_and_as_json(found: Prompts, tmp_path: Path) -> None:
    body = json.loads(json.dumps(found.to_json()))
    assert body["pairs"][0]["clean"]["tokens"][0] == {"text": "<|endoftext|>", "id": found.pairs[0].clean.tokens[0].id}
    assert body["all"]["prompts"] == 64
    html = found._repr_html_()
    assert "&lt;|endoftext|&gt;" in html and "<|endoftext|>" not in html
    target = tmp_path / "page.html"
    assert cli.run(["tasks", "show", "greater_than", "-n", "1", "--no-cache", "-o", str(target)]) == 0
    assert target.read_text().startswith("<!doctype html>") and target.read_text().count("CENTURY") == 0
    assert "XX1" in target.read_text()


def test_a_model_that_does_not_do_a_task_is_said_not_to(pocket, tmp_path: Path, pocket_tokens) -> None:
    """With answers and distractors exchanged the gap is below 0."""
    lines = []
    for pair in sample(TASKS["ioi"], pocket_tokens, 30).pairs:
        record = pair.record()
        lines.append(json.dumps(record | {"answer": record["distractor"], "distractor": record["answer"]}))
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    found = circuitdsl.prompts(str(tmp_path / "p.jsonl"), pocket, cache=False)
    assert found.does_task is False
    assert found.notes[0].startswith("pocket does not do this task: logit_diff is −")


@pytest.mark.parametrize(("n", "does"), [(1, False), (2, False), (12, True)])
def test_a_few_prompts_cannot_tell_whether_a_model_does_a_task(pocket, tmp_path, pocket_tokens, n, does) -> None:
    """As in `verify`, which then decides no claim on effects."""
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(json.dumps(pair.record()) for pair in sample(TASKS["ioi"], pocket_tokens, n).pairs))
    found = circuitdsl.prompts(str(path), pocket, cache=False)
    assert found.does_task is does
    assert does or "cannot tell whether pocket does this task: logit_diff is " in found.notes[0]
    text = f'circuit t\nmodel "pocket"\ntask p = file("{path}")\n0.6 -> logits at END : lowers\n'
    verdict = circuitdsl.loads(text, allow_outside=True).verify(pocket, cache=False).claims[0].verdict
    assert does or verdict == "undecided"


def test_without_weights_the_tokens_are_shown(tmp_path: Path, capsys) -> None:
    from circuitdsl.models.load import POCKET

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (POCKET / name).exists():
            (tmp_path / name).write_bytes((POCKET / name).read_bytes())
    assert cli.run(["tasks", "show", "ioi", "--model", str(tmp_path), "-n", "1"]) == 0
    said = capsys.readouterr().out
    assert "64 prompts\n" in said and "warning: the model was not run: " in said and "answer tokens ' " in said
    with Session(str(tmp_path), cache=False) as session:
        assert session.prompts("ioi").does_task is None


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("ioj",), 2, "there is no task ioj"),
        (("ioi(x = 1)",), 2, "unknown option 'x' of ioi"),
        (("ioi\ntask induction",), 2, "is not a task"),
        (("ioi", "--corrupt", "none"), 2, "task ioi has no corruption 'none'"),
        (("p.jsonl", "--corrupt", "abc"), 2, "a prompt file has corrupt prompts of its own"),
        (("nowhere.jsonl", "--model", "pocket"), 2, "cannot read the prompt file nowhere.jsonl"),
        (("ioi", "--model", "/nowhere"), 3, "there is no model directory /nowhere"),
    ],
)
def test_what_cannot_be_shown_is_said(prompt_file: Path, monkeypatch, capsys, arguments, status, says) -> None:
    monkeypatch.chdir(prompt_file.parent)
    assert cli.run(["tasks", "show", *arguments]) == status
    assert says in capsys.readouterr().err


def test_a_file_that_no_named_model_has_to_read_asks_for_one(prompt_file: Path, capsys) -> None:
    assert cli.run(["tasks", "show", str(prompt_file)]) == 2
    said = capsys.readouterr().err
    assert "2 bad lines" in said and "no model is named: these are the tokens of pocket" in said
    assert said.count("\n") == 3


# --- `tasks check` ----------------------------------------------------------------------------------


def test_all_bad_lines_are_listed_and_both_kinds_are_written(prompt_file: Path, tmp_path: Path, capsys) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    wanted = ["--good", str(good), "--bad", str(bad)]
    assert cli.run(["tasks", "check", str(prompt_file), *wanted]) == 2
    said = capsys.readouterr().out
    assert f"{prompt_file}:2: the tokenizer of pocket does not know 'Zork' in answer ' Zork'" in said
    assert f"{prompt_file}:20: not JSON" in said
    assert "no model is named: these are the tokens of pocket" in said
    assert f"{prompt_file}: 20 lines, 18 can be used, 2 cannot" in said and "answer tokens ' " in said
    lines = prompt_file.read_text().splitlines()
    assert list(map(json.loads, good.read_text().splitlines())) == [json.loads(x) for x in (lines[0], *lines[2:19])]
    first, second = map(json.loads, bad.read_text().splitlines())
    assert first == json.loads(lines[1]) | {"reason": first["reason"]} and "Zork" in first["reason"]
    assert (second["line"], second["text"]) == (20, "{oops") and second["reason"].startswith("not JSON")
    assert cli.run(["tasks", "check", str(good)]) == 0
    assert cli.run(["tasks", "check", str(prompt_file), "--model", "pocket"]) == 2
    assert "no model is named" not in capsys.readouterr().out


def test_more_than_a_hundred_bad_lines_are_listed(tmp_path: Path, capsys) -> None:
    (tmp_path / "p.csv").write_text("clean,corrupt\n" + "Zork,Zyx\n" * 150)
    assert cli.run(["tasks", "check", str(tmp_path / "p.csv"), "--bad", str(tmp_path / "b.jsonl")]) == 2
    first = capsys.readouterr().out
    assert first.count("does not know 'Zork'") == 50 and "and 100 more" in first
    assert cli.run(["tasks", "check", "--all", str(tmp_path / "p.csv")]) == 2
    assert capsys.readouterr().out.count("does not know 'Zork'") == 150
    assert (tmp_path / "b.jsonl").read_text().count('"clean": "Zork"') == 150


@pytest.mark.parametrize("wanted", [("--good", "p.jsonl"), ("--bad", "./p.jsonl"), ("--good", "x", "--bad", "x")])
def test_no_file_is_written_over_another(prompt_file: Path, monkeypatch, capsys, wanted) -> None:
    monkeypatch.chdir(prompt_file.parent)
    before = prompt_file.read_bytes()
    assert cli.run(["tasks", "check", "p.jsonl", *wanted]) == 2
    assert "two of the files that are named are the same" in capsys.readouterr().err
    assert prompt_file.read_bytes() == before and not (prompt_file.parent / "x").exists()


def test_a_check_follows_bos(prompt_file: Path, tmp_path: Path, pocket_tokens, capsys) -> None:
    record = sample(TASKS["ioi"], pocket_tokens, 1).pairs[0].record()
    for key in ("clean_tokens", "corrupt_tokens"):
        del record[key]
    (tmp_path / "p.jsonl").write_text(json.dumps(record | {"positions": {"FIRST": 0}}))
    assert cli.run(["tasks", "check", str(tmp_path / "p.jsonl")]) == 0
    assert cli.run(["tasks", "check", str(tmp_path / "p.jsonl"), "--bos", "yes"]) == 2
    assert "position FIRST is token 0, the beginning-of-sequence token" in capsys.readouterr().out
