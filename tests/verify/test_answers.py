"""What a report says of the tokens that are scored, and of a blank that is missing before them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from circuitdsl.api import loads
from circuitdsl.engine.prompts import Prompts
from circuitdsl.models.model import Model
from circuitdsl.report.formats import View
from circuitdsl.report.github import reports_text
from circuitdsl.report.report import Report
from circuitdsl.report.terminal import show
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.answers import notes_on, tokens_of
from circuitdsl.verify.prompts import make_prompts
from circuitdsl.verify.store import Store

SPEC = 'circuit t\nmodel "pocket"\ntask {}\nexpect accuracy >= 0%\n'
KEYS = ("answer", "distractor")


@pytest.fixture
def spec_of(tmp_path: Path, pocket_tokens):
    """`spec_of(blank)`: a spec on a prompt file whose answers begin with that."""

    def make(blank: str, n: int = 12) -> str:
        records = [pair.record() for pair in sample(TASKS["ioi"], pocket_tokens, n, seed=1).pairs]
        lines = [record | {key: blank + record[key].strip() for key in KEYS} for record in records]
        (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return SPEC.format(f'mine = file("{tmp_path / "p.jsonl"}")')

    return make


def test_a_blank_that_is_missing_is_warned_of(spec_of, check) -> None:
    (task,) = check(spec_of("")).tasks
    assert len(task.notes) == 1
    assert "times as probable" in task.notes[0] and " of 12 prompts" in task.notes[0]
    assert all(not token.text.startswith(" ") for token in (*task.answers, *task.distractors))
    (right,) = check(spec_of(" ")).tasks
    assert right.notes == ()
    assert len(right.answers) == 8 and all(token.text.startswith(" ") for token in right.answers)


def test_tasks_that_ship_are_not_looked_at(check) -> None:
    """The answers of `greater_than` have no blank, and are right so."""
    (task,) = check(SPEC.format("greater_than(prompts = 8)")).tasks
    assert task.notes == () and len(task.answers) == len(task.distractors) == 8


def test_the_blank_must_help_clearly_and_on_most_prompts(spec_of, pocket, monkeypatch) -> None:
    circuit = loads(spec_of(""), allow_outside=True).circuits[0]
    prompts = make_prompts(circuit, circuit.tasks[0], pocket)

    def said(*ratios: float) -> bool:
        values = list(ratios) * (12 // len(ratios))
        monkeypatch.setattr("circuitdsl.engine.ends.more_probable", lambda *_: np.asarray(values))
        return bool(notes_on(prompts, circuit.tasks[0]))

    assert said(1.0) and said(3.0, 3.0, -1.0)
    assert not said(0.5)  # 1.6 times as probable
    assert not said(20.0, -1.0, -1.0)  # a single prompt of three


def test_what_is_known_is_not_measured_again(spec_of, pocket, tmp_path) -> None:
    circuit = loads(spec_of(""), allow_outside=True).circuits[0]
    said = []
    for _ in range(2):
        with Store(tmp_path / "cache.sqlite") as store:
            prompts = make_prompts(circuit, circuit.tasks[0], pocket, store)
            if said:
                prompts = replace(prompts, ends=_never)
            said.append(notes_on(prompts, circuit.tasks[0]))
    assert said[0] and said[0] == said[1]


def _never() -> None:
    raise AssertionError("the prompts were run")


def test_a_model_without_a_tokenizer_has_tokens_without_texts(spec_of, pocket) -> None:
    circuit = loads(spec_of(""), allow_outside=True).circuits[0]
    made = make_prompts(circuit, circuit.tasks[0], pocket)
    prompts: Prompts = replace(made, source=Model.of(replace(pocket, tokenizer=None)))
    assert notes_on(prompts, circuit.tasks[0]) == ()
    assert {str(token) for token in tokens_of(prompts)[0]} <= {str(p.answers[0]) for p in made.pairs}


def test_every_format_shows_it(spec_of, check) -> None:
    report = check(spec_of(""))
    console = Console(width=70, no_color=True, color_system=None)
    with console.capture() as capture:
        show(report, console)
    text = capture.get()
    assert "answer tokens '" in text and " … against '" in " ".join(text.split())
    assert "\nwarning: with a blank before them" in text and max(map(len, text.splitlines())) <= 70
    assert "answer tokens" in report._repr_html_() and "warning: with a blank" in report._repr_html_()
    assert "::warning file=<text>,title=prompts%3A t on mine::with a blank" in reports_text(
        [report], View(lambda: console)
    )
    again = Report.from_json(json.dumps(report.to_json()))
    assert again.tasks == report.tasks


def test_of_a_generated_task_the_tokens_are_shown_on_request(check) -> None:
    report = check(SPEC.format("ioi(prompts = 8)"))
    console = Console(width=120, no_color=True, color_system=None)
    for verbose in (False, True):
        with console.capture() as capture:
            show(report, console, verbose)
        assert ("answer tokens" in capture.get()) is verbose
