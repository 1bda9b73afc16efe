"""Attribution, copying and attention scores in whole verifications."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from circuitdsl.report.terminal import show

HEAD = """circuit t "a test"
model "pocket"
task ioi(corrupt = abc, prompts = 64, seed = 4)
heads suppressor = 0.3 0.5 0.6    at END
heads mover      = 2.4 2.5        at END
"""


def test_what_is_read_off_the_runs(check) -> None:
    report = check(
        HEAD + "expect attribution(mover) > 0\nexpect attribution(mover) <= 0\nexpect copying(mover) in [50%, 90%]\n"
        "expect copying(2.4) >= 10%\nexpect copying(suppressor, negated) >= 80%\n"
        "when suppressor is knocked out\n  expect attribution(mover) falls\n",
        early_stop=False,
    )
    assert [claim.verdict for claim in report.claims] == ["holds", "fails", "holds", "holds", "fails", "holds"]
    attribution, _, copying, _, negated, falls = report.claims
    assert (attribution.measured.unit, copying.measured.unit) == ("logits", "share")
    assert (falls.measured.name, falls.measured.unit) == ("change", "logits")
    assert attribution.protocol == {"read": "attribution", "run": "clean", "norm": "clean"}
    assert negated.protocol["output"] == "negated"


def test_scores_stand_outside_of_tasks(check) -> None:
    report = check(HEAD + "expect induction_score(mover) >= 90%\nexpect duplicate_token_score(mover) <= 90%\n")
    first, second = report.claims
    assert (first.verdict, second.verdict) == ("fails", "holds")
    assert first.task is None and first.measured.n in (32, 64)
    assert first.protocol == {"read": "induction_score", "run": "random repeated tokens"}
    out = Console(file=io.StringIO(), width=120, no_color=True)
    show(report, out)
    assert "expect induction_score(mover) >= 90%" in out.file.getvalue()  # type: ignore[attr-defined]


def test_scores_and_tasks_share_a_table(check) -> None:
    lines = (
        "task flip = ioi(corrupt = flip, prompts = 64)\nexpect accuracy >= 50%\nexpect induction_score(2.4) <= 90%\n"
    )
    report = check(HEAD + lines)
    assert [(c.task, c.verdict) for c in report.claims] == [("ioi", "holds"), ("flip", "holds"), (None, "holds")]
    out = Console(file=io.StringIO(), width=120, no_color=True)
    show(report, out)
    assert "expect induction_score(2.4) <= 90%" in out.file.getvalue()  # type: ignore[attr-defined]


def test_the_same_spec_gives_the_same_scores(check) -> None:
    text = HEAD + "expect previous_token_score(mover) >= 4%\n"
    assert check(text).claims[0].measured == check(text).claims[0].measured


@pytest.mark.parametrize("prompts", [8, 64])
def test_copying_of_every_prompt_is_no_certainty(check, prompts: int) -> None:
    """Where all prompts hit, the interval is that of Clopper and Pearson."""
    (claim,) = check(
        HEAD.replace("64", str(prompts)) + "expect copying(suppressor, negated) <= 0.1%\n", early_stop=False
    ).claims
    assert claim.measured.value == 0
    assert claim.measured.ci[1] == pytest.approx(1 - 0.025 ** (1 / prompts), abs=0.01)
    assert claim.verdict == "undecided"
