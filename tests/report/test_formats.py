"""The registry of formats: each is found by its name or by a file's suffix, and writes reports and comparisons."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from circuitdsl.report.diff import compare
from circuitdsl.report.formats import FORMATS, View, format_of
from circuitdsl.report.report import ClaimResult, ModelInfo, Report, Reports, SpecInfo

CLAIM = ClaimResult("c01", 1, "a -> b : lowers", "edge", None, "fails", "because <of> it")
REPORTS = Reports([Report(SpecInfo("t.circ", "t", ""), ModelInfo("m", "", 1, 1, "cpu", "", False), (), (CLAIM,), 1.0)])
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
        ("github", "r.json", "github"),
    ],
)
def test_a_format_is_chosen_by_name_or_else_by_suffix(name: str | None, target: str | None, found: str) -> None:
    assert format_of(name, Path(target) if target else None).name == found


def test_a_page_is_whole_and_escaped() -> None:
    page = FORMATS["html"].reports(REPORTS, VIEW)
    assert page.startswith('<!doctype html>\n<meta charset="utf-8">')
    assert "because &lt;of&gt; it" in page


def test_json_reads_back() -> None:
    assert Reports.from_json(json.loads(FORMATS["json"].reports(REPORTS, VIEW))) == REPORTS
