"""The registry of formats: each is found by its name or by a file's suffix, and writes reports and comparisons."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from circuitdsl.report.diff import compare
from circuitdsl.report.formats import FORMATS, View, format_of
from circuitdsl.report.notebook import to_html
from circuitdsl.report.report import (
    ClaimResult,
    Measured,
    MemberResult,
    ModelInfo,
    Report,
    Reports,
    SpecInfo,
    TaskResult,
)

CLAIM = ClaimResult("c01", 1, "a -> b : lowers", "edge", None, "fails", "because <of> it")
REPORTS = Reports([Report(SpecInfo("t.circ", "t", ""), ModelInfo("m", "", 1, 1, "cpu", "", False), (), (CLAIM,), 1.0)])
PARTS = (("0.3", -0.2), ("0.5", -0.4))
VIEW = View(partial(Console, width=100, no_color=True, color_system=None))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_what_it_promises(name: str) -> None:
    assert "a -" in FORMATS[name].reports(REPORTS, VIEW)
    if FORMATS[name].of_diff:
        assert "gone" in FORMATS[name].diff(compare(REPORTS, []), VIEW)


@pytest.mark.parametrize(
    ("name", "target", "found"),
    [
        (None, None, "text"),
        (None, "report", "text"),
        (None, "r.json", "json"),
        (None, "r.html", "html"),
        (None, "r.xml", "junit"),
        (None, "r.md", "markdown"),
        (None, "r.sarif", "sarif"),
        ("github", "r.json", "github"),
    ],
)
def test_a_format_is_chosen_by_name_or_else_by_suffix(name: str | None, target: str | None, found: str) -> None:
    assert format_of(name, Path(target) if target else None).name == found


@pytest.mark.parametrize("suffix", [row.suffix for row in FORMATS.values() if row.suffix])
def test_a_suffix_names_only_what_has_that_format(suffix: str) -> None:
    assert format_of(None, Path(f"x{suffix}"), of="of_prompts").of_prompts


def test_json_reads_back() -> None:
    assert Reports.from_json(json.loads(FORMATS["json"].reports(REPORTS, VIEW))) == REPORTS


def test_a_table_has_each_claim_once_and_what_the_screen_says_below_it() -> None:
    """With several tasks their figures stand below each other; verbose, it has all reasons and parts."""
    parts = tuple(MemberResult(s, "logits", "in", "END", v, None, None, 9, "holds", f"{s}: so") for s, v in PARTS)
    found = Measured(
        "effect", -0.2, (-0.3, -0.1), 9, "gap", part="0.3 -> logits at END", sender="0.3", receiver="logits"
    )
    both = [replace(CLAIM, task=name, verdict="holds", members=parts, measured=found) for name in ("one", "two")]
    tasks = [TaskResult(name, "abc", 9, 0, "", "logit_diff", 1.0, 0.0, 1.0) for name in ("one", "two")]
    reports = Reports([replace(REPORTS[0], tasks=tuple(tasks), claims=tuple(both))])
    table = to_html(reports[0])
    assert table.count("a -&gt; b : lowers") == 1 and table.count("2 of 2, weakest 0.3") == 2
    assert "0.5: so" not in table
    table = to_html(reports[0], verbose=True)
    assert table.count("because &lt;of&gt; it") == table.count("0.5: so") == 2
