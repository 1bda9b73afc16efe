"""Options that ask for more: the task's other corruptions, and other templates."""

from __future__ import annotations

import json

import pytest

from circuitdsl.cli import run

SPEC = """circuit t "a test"
model "pocket"
task ioi(corrupt = {corrupt}, prompts = 32, seed = 3)
heads suppressor = 0.3 0.5 0.6 at END
0.6 -> logits at END
0.6 -> logits at END : lowers
"""


@pytest.fixture
def verified(tmp_path):
    """Run `verify` on a spec: (exit status, report)."""

    def verify(corrupt: str, *options: str) -> tuple[int, dict]:
        path, out = tmp_path / "t.circ", tmp_path / "out.json"
        path.write_text(SPEC.format(corrupt=corrupt))
        status = run(["verify", str(path), "-o", str(out), "--no-cache", "--device", "cpu", *options])
        return status, json.loads(out.read_text()) if out.exists() else {}

    return verify


def test_other_corruptions_are_noted_beside_what_matters(verified) -> None:
    _, plain = verified("abc")
    status, report = verified("abc", "--other-corruptions")
    assert [c["verdict"] for c in report["claims"]] == [c["verdict"] for c in plain["claims"]]
    matters, lowers = report["claims"]
    assert sum("corruptions: " in note and "flip" in note for note in matters["notes"]) == 1
    assert not any("flip" in note for note in lowers["notes"])  # does not say that it matters
    assert report["summary"] == plain["summary"]
    assert status in (0, 1)


def test_a_prompt_file_has_no_other_corruption_and_says_so(verified, tmp_path) -> None:
    assert run(["tasks", "sample", "ioi", "-n", "32", "--model", "pocket", "-o", str(tmp_path / "mine.jsonl")]) == 0
    task = 'abc, prompts = 32, seed = 3)\ntask mine = file("mine.jsonl"'
    _, report = verified(task, "--other-corruptions")
    of_file = [claim for claim in report["claims"] if claim["task"] == "mine"]
    note = "no other corruption: a prompt has one partner in its file"
    assert [note in claim["notes"] for claim in of_file] == [True, False]
    assert not any(note in claim["notes"] for claim in report["claims"] if claim["task"] == "ioi")


def test_one_line_says_what_a_claim_is_under_each_corruption() -> None:
    from circuitdsl.report.report import ClaimResult, Measured
    from circuitdsl.verify.verify import _note

    def result(verdict, effect: float | None = None, reason: str = "") -> ClaimResult:
        measured = None if effect is None else Measured("effect", effect, None, 64, "gap")
        cause = "no gap" if reason else ""
        return ClaimResult("c01", 1, "a -> b", "edge", "ioi", verdict, reason, measured=measured, cause=cause)

    holds, weak, fails = result("holds", -0.2), result("undecided", -0.012), result("fails", 0.0)
    others = [
        ("io", fails),
        ("flip", result("holds", -0.1)),
        ("s2", weak),
        ("swap", result("error", None, "no gap: …")),
    ]
    assert _note(holds, "abc", others) == (
        "corruptions: holds under abc −20 %, flip −10 %; fails under io 0.0 %; undecided under s2 −1.2 %; "
        "cannot be measured under swap (no gap)"
    )
    assert _note(weak, "abc", [("flip", holds)]) == "corruptions: holds under flip −20 %; undecided under abc −1.2 %"


def test_verdicts_about_other_templates(verified) -> None:
    status, report = verified("abc", "--generalise", "templates")
    assert report["generalise"] == "templates"
    lowers = report["claims"][-1]
    assert 15 <= lowers["measured"]["n"] <= 30  # 15 templates in two orders, those that were drawn
    assert lowers["verdict"] == "holds"
    assert status in (0, 1)


def test_scores_on_random_tokens_have_no_templates(check) -> None:
    text = SPEC.format(corrupt="abc") + "heads idle = 2.1 role induction\n"
    text += "expect induction_score(idle) <= 20%\nexpect role(idle)\n"
    score, role = check(text, generalise="templates").claims[-2:]
    assert (score.verdict, role.verdict) == ("holds", "fails")


def test_too_few_templates_are_refused(tmp_path, capsys) -> None:
    path = tmp_path / "t.circ"
    path.write_text('circuit t\nmodel "pocket"\ntask induction(prompts = 64)\nexpect accuracy >= 50%\n')
    assert run(["verify", str(path), "--generalise", "templates", "--no-cache", "--device", "cpu"]) == 3
    assert "--generalise templates needs 15 strata; the prompts of induction have" in capsys.readouterr().err
