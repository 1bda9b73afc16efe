"""Metrics in specs: their options, their units, and metrics that fall when things go well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl.api import loads
from circuitdsl.models.load import load_tokenizer
from circuitdsl.report.report import Report
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens

HEADER = (
    'circuit m\nmodel "pocket"\ntask ioi(prompts = 200)\nheads low = 0.3 0.5 0.6 at END\nheads idle = 3.3 3.5 at END\n'
)


def verified(metric: str, *lines: str) -> Report:
    report = loads(f"{HEADER}metric {metric}\n" + "\n".join(lines) + "\n", "m.circ").verify(early_stop=False)
    assert isinstance(report, Report)
    return report


def test_harm_raises_a_metric_that_falls() -> None:
    """Without its first layer the model does not do the task: the rank goes up, most of the way to the corrupt one."""
    report = verified(
        "rank",
        "expect knockout(0.* at *) : raises and effect <= -20%",
        "expect knockout(0.* at *) : lowers",
        "expect knockout(0.* at *) : effect >= 0%",
        "expect knockout(0.* at *) : delta >= 5",
        "expect knockout(idle) : lowers",
        "expect knockout(idle) : raises",
        "expect rank <= 5",
        "expect rank >= 50",
    )
    (task,) = report.tasks
    assert task.clean is not None and task.corrupt_value is not None and task.clean < 2 < 20 < task.corrupt_value
    verdicts = [claim.verdict for claim in report.claims]
    assert verdicts[:4] == ["holds", "fails", "fails", "holds"]
    assert "holds" not in verdicts[4:6]
    assert verdicts[6:] == ["holds", "fails"]
    first = report.claims[0].measured
    assert first is not None and first.value < 0 and first.delta is not None and first.delta > 0


@pytest.mark.parametrize("metric", ["prob", "logit", "accuracy(top = 5)"])
def test_harm_lowers_those_that_rise(metric: str) -> None:
    report = verified(
        metric,
        "expect knockout(0.* at *) : lowers",
        "expect knockout(0.* at *) : raises",
        f"expect {metric} >= {'5' if metric == 'logit' else '80%'}",
    )
    assert [claim.verdict for claim in report.claims] == ["holds", "fails", "holds"]
    assert report.tasks[0].metric == metric


@pytest.mark.parametrize("metric", ["rank", "prob"])
def test_a_gap_of_the_wrong_sign_is_an_error(tmp_path: Path, metric: str) -> None:
    """Where the corrupt prompt makes the answer likely, and the clean one does not, the model does not do the task."""
    tokens = Tokens(load_tokenizer("pocket"), "pocket")
    records = [pair.record() for pair in sample(TASKS["ioi"], tokens, 64, 7).pairs]
    swapped = [
        {"clean": r["corrupt"], "corrupt": r["clean"], "answer": r["answer"], "distractor": r["distractor"]}
        for r in records
    ]
    (tmp_path / "swapped.jsonl").write_text("\n".join(map(json.dumps, swapped)))
    head = HEADER.replace("ioi(prompts = 200)", 'file("swapped.jsonl")')
    lines = [f"expect knockout(idle) : {said}" for said in ("lowers", "raises", "effect in [-50%, 50%]", "negligible")]
    report = loads(f"{head}metric {metric}\n" + "\n".join(lines), tmp_path / "m.circ").verify()
    assert [claim.verdict for claim in report.claims] == ["error"] * 4
    assert all("does not do this task" in claim.reason for claim in report.claims)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("accuracy(top = 0)", "top is a whole number from 1 to 1000000"),
        ("accuracy(top = 2.5)", "top is a whole number from 1 to 1000000"),
        ("accuracy(top = 5%)", "top is a whole number from 1 to 1000000"),
        ("accuracy(top = five)", "top is a whole number from 1 to 1000000"),
        ("accuracy(top)", "top is a number: top = 5"),
        ("accuracy(argmax, top = 5)", "argmax and top exclude each other: accuracy takes one of them"),
        ("rank(top = 5)", "unknown option 'top' of rank"),
        ("ranks", "unknown metric 'ranks'; did you mean 'rank'?"),
    ],
)
def test_what_is_wrong_with_a_metric_is_said(line: str, message: str) -> None:
    found = loads(f"{HEADER}metric {line}\nexpect accuracy >= 1%\n", "m.circ").diagnostics
    assert message in next(d.message for d in found if d.severity == "error")


def test_bounds_have_the_units_of_the_metric() -> None:
    wrong = {
        "expect prob >= 0.4": "prob is a share, written with a percent sign: did you mean 40%?",
        "expect rank <= 0.5": "rank cannot be 0.5: it lies between 1 and 100",
        "expect accuracy(top = 5) >= 150%": "accuracy cannot be 150%: it lies between 0% and 100%",
        "expect logit >= 5%": "logit is a plain number, without '%': did you mean 5?",
    }
    for line, message in wrong.items():
        found = [d.message for d in loads(f"{HEADER}{line}\n", "m.circ").diagnostics if d.severity == "error"]
        assert found == [message]
