"""Long work says how far it is: a bar or a spinner on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.cli import terminal

SPEC = """circuit t
model "pocket"
task ioi(prompts = 64)
heads suppressor = 0.3 0.5 0.6 at END
suppressor -> logits at END : lowers
property "right answer" for 90% of prompts
  expect logit_diff >= 1
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "t.circ"
    path.write_text(SPEC)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("verify SPEC --no-cache", r"claims? open, \d+% of the most it can take"),
        ("mutate SPEC --no-cache", r"\d+ mutants open, \d+% of the most it can take"),
        ("falsify SPEC --budget 150", r"looking for a prompt of ioi that breaks line 6: \d+ looked at"),
        ("compare SPEC SPEC --measure --prompts 32 --no-cache", r"measuring every head, \d+% of the most it can take"),
        ("discover --task ioi --prompts 16 --no-cache", r"searching: \d+ parts do \d+% of the behaviour"),
    ],
)
def test_off_a_terminal_long_work_says_a_line_now_and_then(
    arguments: str, said: str, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "EVERY", 0.01)
    cli.run(arguments.replace("SPEC", spec).split())
    out, err = capsys.readouterr()
    assert re.search(said + r" \(\d+ s so far\)", err)
    assert "so far" not in out


def test_short_work_says_nothing(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", spec]) == 0
    assert "so far" not in capsys.readouterr().err


def test_of_work_within_work_the_innermost_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "EVERY", 0.01)
    with terminal.told("searching"), terminal.told("checking"):
        time.sleep(0.2)
    lines = set(capsys.readouterr().err.splitlines())
    assert "checking (0 s so far)" in lines and "searching (0 s so far)" not in lines
    assert not terminal.Told.innermost


def test_mutate_says_first_what_it_takes(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["mutate", spec])
    err = capsys.readouterr().err
    assert re.match(r"t: (\d+) mutants, \d+ of them to judge: \d+ experiments on 64 prompts; about .* s", err)
