"""`pytest specs/pocket` just works: one test a claim and task, failures with the report's reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from circuitdsl.api import load
from circuitdsl.models.load import load_tokenizer
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.testing.plugin import slug
from tests.conftest import ROOT

pytest_plugins = ["pytester"]

SPEC = """circuit t
model "pocket"
task ioi(prompts = 64)
heads suppressor = 0.3 0.5 0.6 at END
suppressor -> logits at END : lowers
each suppressor -> logits at END : effect <= -10%
expect accuracy >= 90%
"""


@pytest.fixture
def run(check, pytester: pytest.Pytester):
    """Run pytest on files; the plugin is named, so that it need not be installed.

    What a run in this process imports is forgotten after it, and torch does not stand that: so it is imported first.
    """
    assert check(SPEC)

    def call(*arguments: str, **files: str) -> pytest.RunResult:
        for name, text in files.items():
            (pytester.path / f"{name}.circ").write_text(text)
        return pytester.runpytest("-p", "no:circuitdsl", "-p", "circuitdsl.testing.plugin", *arguments)

    return call


def test_every_claim_is_a_test(run) -> None:
    result = run("-v", good=SPEC.replace("-10%", "-1%"))
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["good.circ::suppressor_to_logits_at_END_lowers PASSED*", "*::expect_accuracy_ge_90pct PASSED*"]
    )


def test_a_task_may_have_the_prompts_of_a_file(run, pytester) -> None:
    tokens = Tokens(load_tokenizer("pocket"), "pocket")
    records = [pair.record() for pair in sample(TASKS["ioi"], tokens, 40, 7).pairs]
    (pytester.path / "mine.jsonl").write_text("\n".join(map(json.dumps, records)))
    run("--circ-task", "ioi=mine.jsonl", good=SPEC.replace("-10%", "90%")).assert_outcomes(passed=3)
    run("--circ-task", "other=mine.jsonl").stdout.fnmatch_lines(["*good.circ has no task other*"])


def test_a_claim_that_does_not_hold_fails_with_its_reason(run, monkeypatch) -> None:
    result = run(bad=SPEC)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "each suppressor -> logits at END : effect <= -10%",
            "fails on ioi: 0.3 -> logits at END: effect −* is above −10 %",
            "  0.6 -> logits at END: effect * reaches across −10 %*",
            "bad.circ:6",
        ]
    )
    monkeypatch.setenv("COLUMNS", "200")
    result = run("-rf")
    result.stdout.fnmatch_lines(["FAILED bad.circ::each_suppressor_to_logits_*_effect_le_-10pct - fails: 0.3 -> *"])


def test_a_circuit_is_verified_once_for_the_claims_that_are_selected(run, monkeypatch) -> None:
    """Each is judged at the level that it has among all of them."""
    from circuitdsl.verify import verify as module

    seen: list[tuple[int, int]] = []
    levels: set[str] = set()
    original = module.verify

    def verify(circuit, model, benches, *rest):
        report = original(circuit, model, benches, *rest)
        seen.append((id(model), len(report.claims)))
        levels.add(report.level)
        return report

    monkeypatch.setattr(module, "verify", verify)
    other = SPEC.replace("circuit t", "circuit u")
    run("one.circ", "two.circ", one=SPEC, two=other).assert_outcomes(passed=4, failed=2)
    assert len(seen) == 2  # circuits
    assert len({model for model, _ in seen}) == 1  # one model for both
    seen.clear()
    run("-k", "accuracy", "one.circ").assert_outcomes(passed=1, deselected=2)
    assert [claims for _, claims in seen] == [1]
    run("one.circ::expect_accuracy_ge_90pct").assert_outcomes(passed=1)
    assert len(levels) == 1


def test_a_selected_claim_runs_no_prompts_of_other_tasks(run, monkeypatch) -> None:
    from circuitdsl.verify import prompts

    made: list[str] = []
    original = prompts.make_prompts
    monkeypatch.setattr(prompts, "make_prompts", lambda c, use, *more: made.append(use.name) or original(c, use, *more))
    text = SPEC.replace("task ioi(prompts = 64)", "task ioi(prompts = 64)\ntask again = ioi(prompts = 32, seed = 2)")
    text = text.replace("accuracy >= 90%", "accuracy >= 50%  on again")
    run("-k", "accuracy", one=text).assert_outcomes(passed=1, deselected=4)
    assert made == ["again"]


def test_one_item_a_task_and_a_circuit(run) -> None:
    text = """task ioi(prompts = 32)
task flip = ioi(corrupt = flip, prompts = 32)
model "pocket"
circuit a
expect logit_diff >= 5
expect logit_diff >= 6 on flip
circuit b
expect logit_diff >= 5 on ioi
"""
    result = run("--collect-only", "-q", several=text)
    assert [line for line in result.outlines if "::" in line] == [
        "several.circ::a-expect_logit_diff_ge_5_on_ioi",
        "several.circ::a-expect_logit_diff_ge_5_on_flip",
        "several.circ::a-expect_logit_diff_ge_6_on_flip",
        "several.circ::b-expect_logit_diff_ge_5_on_ioi",
    ]
    run("several.circ").assert_outcomes(passed=4)


def test_a_claim_that_is_expected_to_fail_is_an_xfail_and_a_strict_one(run) -> None:
    gap = SPEC.replace("-10%", '-60% expected to fail "by half"')
    kept = SPEC.replace("lowers", 'lowers expected to fail "no"')
    result = run("-v", "-rx", gap=gap, kept=kept.replace("-10%", "-1%"))
    result.assert_outcomes(passed=4, xfailed=1, failed=1)
    result.stdout.fnmatch_lines_random(["*by half (fails: *", "*unexpectedly holds on ioi: *; expected to fail: no*"])


def test_undecided_fails_unless_it_is_allowed(run) -> None:
    text = SPEC.replace("90%", "99%").replace("-10%", "-1%")
    result = run(open=text)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["undecided on ioi: accuracy * reaches across 99 %; about * would decide"])
    run("--circ-allow-undecided").assert_outcomes(passed=2, skipped=1)


def test_mistakes_are_errors_of_collection_all_of_them_with_carets(run) -> None:
    result = run(wrong=SPEC.replace("each suppressor", "each supressor") + "expect acuracy >= 90%\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*wrong.circ:6:6: error[[]E040]: unknown group 'supressor'*", "*^^^^^^^^^*", "*did you mean 'accuracy'*"]
    )
    assert "Traceback" not in result.stdout.str()
    files = SPEC.replace("ioi(prompts = 64)", 'mine = file("none.jsonl")')
    result = run("file.circ", file=files)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cannot read the prompt file*"])


def test_warnings_are_warnings(run) -> None:
    result = run(twice=SPEC.replace("-10%", "-1%") + "expect accuracy >= 90%\n")
    result.assert_outcomes(passed=4, warnings=1)
    result.stdout.fnmatch_lines(["*W001*this claim stands in line 7 already*"])


def test_a_model_that_is_not_at_hand_skips_unless_it_was_asked_for(run, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = SPEC.replace('"pocket"', '"nobody/nothing"')
    result = run("-rs", away=text)
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["SKIPPED*nobody/nothing*"])
    result = run("--circ-model", "/nowhere")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["could not be run: there is no model directory /nowhere*--circ-model*"])
    told = [line for line in result.outlines if line.startswith("could not be run: ")]
    full, *brief = told
    assert "/nowhere" in full
    assert len(brief) == 2 and all("for the reason given at line " in line for line in brief)
    run("--circ-model", "pocket").assert_outcomes(passed=2, failed=1)


def test_prompts_and_seed(run) -> None:
    run("--circ-prompts", "1", few=SPEC).assert_outcomes(failed=3)
    result = run("--circ-prompts", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*0 is not a whole number from 1*"])


def test_junit_names_the_claim_and_its_reason(run, pytester) -> None:
    run("--junitxml=out.xml", bad=SPEC)
    cases = ElementTree.parse(pytester.path / "out.xml").getroot().findall(".//testcase")
    failed = {case.get("name"): case.find("failure") for case in cases if case.find("failure") is not None}
    ((name, failure),) = failed.items()
    assert name == "each_suppressor_to_logits_at_END_effect_le_-10pct"
    assert failure is not None
    assert "is above −10 %" in str(failure.get("message"))
    assert {case.get("classname") for case in cases} == {"bad.circ"}


def test_other_files_are_left_alone(run, pytester) -> None:
    pytester.makepyfile(test_plain="def test_one(): pass")
    (pytester.path / "notes.txt").write_text("circuit t")
    run().assert_outcomes(passed=1)


def test_the_plugin_costs_nothing_where_no_spec_is() -> None:
    heavy = "[m for m in ('torch', 'rich', 'lark') if m in sys.modules]"
    code = f"import sys; import circuitdsl.testing.plugin; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_entry_point_is_declared() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"circuitdsl": "circuitdsl.testing.plugin"}


def test_channels_are_tests_without_a_task(run) -> None:
    result = run("-v", weights='circuit w\nmodel "pocket"\nchannel 0.3 -> 2.4.v : composition >= 0.9\n')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*::channel_0.3_to_2.4.v_composition_ge_0.9 FAILED*", "fails: composition *"])


def test_a_failing_property_shows_the_simplest_prompt_that_breaks_it(run) -> None:
    text = 'circuit t\nmodel "pocket"\ntask ioi\nproperty "p"\n  expect logit_diff > 12\n'
    result = run(broken=text)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "fails on ioi: * of 500 prompts break it",
            "  the simplest found by a search: “Then, *”: logit_diff *, not > 12",
        ]
    )


BLOCK = """circuit t
model "pocket"
task ioi(prompts = 64)
heads suppressor = 0.3 0.5 0.6 at END
expect logit_diff >= 1
when suppressor -> logits at END is patched
  expect logit_diff >= 100
  expect logit_diff falls
when suppressor is knocked out
  expect logit_diff falls
"""


def test_a_claim_in_a_block_is_told_with_its_condition(run) -> None:
    result = run("-v", block=BLOCK)
    result.assert_outcomes(passed=3, failed=1)
    when = "when suppressor -> logits at END is patched"
    result.stdout.fnmatch_lines(
        [
            "block.circ::when_suppressor_to_logits_at_END_is_patched-expect_logit_diff_ge_100 FAILED*",
            f"_* line 7: {when}: expect logit_diff >= 100 _*",
            f"{when}: expect logit_diff >= 100",
            "fails on ioi: *",
        ]
    )


def names(result: pytest.RunResult) -> list[str]:
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_names_stay_where_lines_move_and_are_unique(run) -> None:
    before = names(run("--collect-only", "-q", spec=BLOCK))
    assert before and not any(re.search(r"[^\w.+-]", name) for name in before)
    moved = BLOCK.replace("expect logit_diff >= 1\n", "# why\n\nexpect   logit_diff >= 1\n")
    assert names(run("--collect-only", "-q", spec=moved)) == before
    twice = names(run("--collect-only", "-q", spec=BLOCK + "expect logit_diff >= 1\n"))
    assert twice == [*before, "expect_logit_diff_ge_1-2"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(a+b)->logits at S1+1:effect<=-5 %", "(a + b) -> logits at S1+1 : effect <= -5%"),
        ("(a-b)->logits:lowers", "(a - b) -> logits : lowers"),
        ("expect attention(a,END->IO)in[1%,2%]", "expect attention(a, END -> IO) in [1%, 2%]"),
    ],
)
def test_names_do_not_depend_on_blanks(one: str, other: str) -> None:
    assert slug(one) == slug(other)
    assert slug("a -> b : effect <= -5%") != slug("a -> b : effect <= 5%") != slug("a -> b : effect >= 5%")


def test_names_select_and_deselect(run) -> None:
    name = names(run("--collect-only", "-q", spec=BLOCK))[0]
    run(f"spec.circ::{name}").assert_outcomes(passed=1)
    run(f"--deselect=spec.circ::{name}", "-k", "not ge_100").assert_outcomes(passed=2, deselected=2)
    run("-k", "is_patched-expect_logit_diff_falls").assert_outcomes(passed=1, deselected=3)


def test_the_claims_that_the_page_names_can_be_named() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    named = re.findall(r"pytest (specs/\S+\.circ)::(\S+)", page)
    named += [(path, name) for path, name in re.findall(r"--deselect (specs/\S+\.circ)::(\S+)", page)]
    assert len(named) == 2
    for path, name in named:
        assert name in {slug(claim.text) for claim in load(ROOT / path).circuit().claims}


def test_a_second_run_takes_numbers_from_the_cache(run, monkeypatch) -> None:
    from circuitdsl.verify import verify as module

    cached: list[float] = []
    original = module.verify

    def verify(*given):
        report = original(*given)
        cached.append(report.cached)
        return report

    monkeypatch.setattr(module, "verify", verify)
    for _ in range(2):
        run(kept=SPEC).assert_outcomes(passed=2, failed=1)
    assert cached == [0, 1]
