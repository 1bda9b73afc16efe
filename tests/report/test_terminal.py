"""The report on a screen: every number says what it is, however wide the screen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from rich.console import Console

from circuitdsl.report.notebook import to_html
from circuitdsl.report.report import (
    ClaimResult,
    Detail,
    FigurePair,
    Measured,
    MemberResult,
    ModelInfo,
    Null,
    Report,
    SpecInfo,
    TaskResult,
)
from circuitdsl.report.terminal import show
from circuitdsl.verdicts import Verdict
from circuitdsl.version import __version__


def task(name: str) -> TaskResult:
    return TaskResult(name, "abc", 64, 0, "", "logit_diff", 14.77, -0.91, 1.0)


def claim(
    line: int, text: str, name: str, value: float, unit: str, n: int = 64, verdict: Verdict = "holds", on: str = "ioi"
) -> ClaimResult:
    kind = "expect" if text.startswith("expect") else "edge"
    named = name in ("delta", "copying", "|F(M) − F(C)|")
    found = Measured(name, value, (value - 0.01, value + 0.01), n, unit, named=named)
    sides = (
        Detail(side, v, (v - 0.01, v + 0.01), unit) for side, v in (("sup -> logits", value), ("mov -> logits", 1))
    )
    pairs = (FigurePair(*sides, times=2.0),) if name == "delta" else ()
    reason = "because of its figure"
    return ClaimResult(f"c{line:02d}", line, text, kind, on, verdict, reason, measured=found, comparisons=pairs)


CLAIMS = (
    claim(1, "sup -> logits at END : lowers", "effect", -0.24, "gap", n=32),
    claim(2, "sup -> logits at END : stronger than mov -> logits", "delta", -3.56, "logits"),
    claim(3, "expect role(mov)", "copying", 0.66, "share", verdict="undecided"),
    claim(4, "expect attribution(sup) > 0", "attribution", 2.89, "logits"),
    claim(5, "expect logit_diff falls by >= 5", "change", -11.14, "logits"),
)


def shown(width: int, *tasks: str) -> str:
    return text_of(width, tasks, (replace(stated, task=name) for stated in CLAIMS for name in tasks))


def text_of(width: int, tasks: Iterable[str], claims: Iterable[ClaimResult]) -> str:
    model = ModelInfo("pocket", "", 4, 8, "cpu", "float32", False)
    report = Report(SpecInfo("t.circ", "t", ""), model, tuple(map(task, tasks)), tuple(claims), 1.0)
    console = Console(width=width, no_color=True, color_system=None)
    with console.capture() as capture:
        show(report, console)
    return capture.get()


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("tasks", [("ioi",), ("ioi", "a_task_of_a_long_name"), ("ioi", "flip", "swap")])
def test_every_number_says_what_it_is_and_over_how_many_prompts(width: int, tasks: tuple[str, ...]) -> None:
    text = shown(width, *tasks)
    figures = ("−24 %", "delta −3.56 logits", "copying 66 %", "2.89 logits", "−11.14 logits")
    assert [text.count(figure) for figure in figures] == [len(tasks)] * len(figures)
    assert text.count("n 32 ") == len(tasks) and text.count("n 64 ") == 4 * len(tasks)
    assert "change −11.14" not in text  # the claim says that it falls
    assert "a figure without a name is its claim's, or an effect" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_what_is_stronger_is_told_with_what_it_is_compared_with() -> None:
    lines = shown(120, "ioi").splitlines()
    (at,) = (i for i, line in enumerate(lines) if "stronger than" in line)
    both = "sup -> logits: −3.56 [−3.57, −3.55] against 2 times mov -> logits: 1.00 [0.99, 1.01]"
    assert lines[at + 1].strip() == both


def test_tasks_stand_side_by_side_where_they_fit() -> None:
    wide, narrow = shown(200, "ioi", "flip"), shown(80, "ioi", "flip")
    (row,) = (line for line in wide.splitlines() if "attribution" in line)
    assert row.count("2.89 logits") == row.count("[2.88, 2.90]") == row.count("n 64") == 2
    assert not [line for line in narrow.splitlines() if "attribution" in line and "logits" in line]
    assert "[2.88, 2.90]" in narrow


def test_what_does_not_fit_beside_the_numbers_stands_below() -> None:
    pair = MemberResult("0.1", "1.1", "q", "END", -0.1, None, None, 64, "holds")
    long = claim(1, "each a -> b at END : lowers", "|F(M) − F(C)|", -3.0, "logits", n=64)
    lines = text_of(80, ["ioi"], [replace(long, members=(pair, pair), null=Null(1.0, 23))]).splitlines()
    assert any(line.endswith("n 64  holds") for line in lines) and "        2 of 2, rarer than 23 of 23" in lines


@pytest.mark.parametrize("tasks", [("ioi",), ("ioi", "flip")])
def test_a_report_says_what_it_is_of(tasks: tuple[str, ...]) -> None:
    """On a screen and on a page: metric, gap, accuracy, prompts, seed, corruption, device, versions and hashes."""
    made = [replace(task(name), sha256=f"{name}abcdef0123456789") for name in tasks]
    model = ModelInfo("pocket", "a1cbd008af92ffff", 4, 8, "cpu", "float32", False, "c73aae24ba53ff", "d199ba0e2ecbff")
    spec = SpecInfo("specs/t.circ", "t", "4877dcdf2007ffff")
    claims = tuple(replace(stated, task=name) for stated in CLAIMS for name in tasks)
    report = Report(spec, model, tuple(made), claims, 1.0, {"torch": "9.1", "numpy": "8.2"}, 2, early_stop=False)
    console = Console(width=160, no_color=True, color_system=None)
    found = {}
    for verbose in (False, True):
        with console.capture() as capture:
            show(report, console, verbose)
        found[verbose] = capture.get()
    page = to_html(report)
    for text in (*found.values(), page):
        assert text.count("logit_diff 14.77 clean, −0.91 corrupt (abc), gap 15.68, accuracy 100 %") == len(tasks)
        assert text.count("up to 64 prompts, seed 0") == len(tasks) and "cpu float32" in text
        assert f"circuitdsl {__version__} · torch 9.1" in text
        assert "spec 4877dcdf2007 · prompts" in text
        assert "weights a1cbd008af92 · config c73aae24ba53 · tokenizer d199ba0e2ecb" in text
        assert all(f"{one.sha256[:12]}" in text for one in made)
    for text in (found[True], page):
        assert "numpy 8.2" in text and "specs/t.circ · Holm 5 % · no early looks · 2 threads" in text
    assert "numpy" not in found[False]
