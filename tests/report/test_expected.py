"""Claims that are expected to fail: they count the other way round, in every format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import jsonschema
import pytest
from rich.console import Console

from circuitdsl.api import loads
from circuitdsl.report.diff import compare
from circuitdsl.report.formats import FORMATS, View
from circuitdsl.report.report import ClaimResult, ModelInfo, Report, Reports, SpecInfo
from circuitdsl.verdicts import VERDICTS, Verdict
from circuitdsl.verify.session import Session
from tests.schema import schema

VIEW = View(partial(Console, width=120, no_color=True, color_system=None))
WHY = "the backups take over"


def claim(verdict: Verdict, why: str | None = None, line: int = 3) -> ClaimResult:
    return ClaimResult("c1", line, f"a -> b{line} : lowers", "edge", "ioi", verdict, "because", expected_to_fail=why)


def report(*claims: ClaimResult) -> Report:
    model = ModelInfo("m", "", 1, 1, "cpu", "", False)
    return Report(SpecInfo("a.circ", "t", ""), model, (), claims, 1.0)


@pytest.mark.parametrize(
    ("verdict", "outcome", "status"),
    [("fails", "expected", 0), ("undecided", "expected", 0), ("holds", "unexpected", 1), ("error", "error", 3)],
)
def test_what_a_verdict_means_and_the_exit_status(verdict: Verdict, outcome: str, status: int) -> None:
    found = report(claim(verdict, WHY), claim("holds", line=4))
    assert found.claims[0].outcome == outcome
    assert found.exit_status() == status == found.exit_status(allow_undecided=True)
    assert found.summary == dict.fromkeys(VERDICTS, 0) | {"holds": 1} | {outcome: 1}


def test_one_gap_does_not_excuse_another_claim() -> None:
    for verdict, status in (("fails", 1), ("undecided", 1), ("error", 3)):
        assert report(claim("fails", WHY), claim(verdict, line=4)).exit_status() == status
    assert replace(report(claim("fails", WHY)), interrupted=True).exit_status() == 3


def test_reports_without_a_gap_are_as_they_were() -> None:
    assert list(report(claim("holds")).summary) == list(VERDICTS)
    assert report(claim("holds")).to_json()["claims"][0]["outcome"] == "holds"


def test_json_says_both_and_is_read_back() -> None:
    found = report(claim("fails", WHY), claim("holds", WHY, line=4))
    body = json.loads(json.dumps(found.to_json()))
    assert [(each["verdict"], each["outcome"], each["expected_to_fail"]) for each in body["claims"]] == [
        ("fails", "expected", WHY),
        ("holds", "unexpected", WHY),
    ]
    assert Report.from_json(body) == found


@pytest.fixture(scope="module")
def verified() -> Iterator[Report]:
    text = """circuit t
model "pocket"
task ioi(corrupt = abc, prompts = 64)
heads suppressor = 0.3 0.5 0.6 at END
suppressor -> logits at END : raises                      "Wang et al." expected to fail "it lowers"
suppressor -> logits at END : lowers                      expected to fail "it does not"
expect accuracy <= 50%                                    on ioi expected to fail "it is right"
channel 0.6 -> 1.6.q : composition >= 0.99                expected to fail "weak"
when suppressor is knocked out
  expect logit_diff rises                                 expected to fail "it falls"
property "always far" expected to fail "not always"
  expect logit_diff > 14
"""
    with Session("pocket", "cpu") as session:
        yield session.verify(loads(text))  # type: ignore[misc]


def test_every_kind_of_claim_from_text_to_verdict(verified: Report) -> None:
    assert [each.outcome for each in verified.claims] == ["expected", "unexpected", *["expected"] * 4]
    assert [each.citation for each in verified.claims[:2]] == ["Wang et al.", None]
    assert verified.claims[0].text == "suppressor -> logits at END : raises"
    assert verified.exit_status() == 1
    jsonschema.validate(verified.to_json(), schema())


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.reports])
def test_every_format_says_what_was_expected(verified: Report, name: str) -> None:
    text = FORMATS[name].reports(Reports([verified]), VIEW)
    for why in ("it lowers", "it does not", "weak", "it falls", "not always"):
        assert why in text
    said = '"unexpected"' if name in ("json", "sarif", "gitlab") else "unexpected" if name == "html" else "unexpectedly"
    assert said in text


def test_services_take_a_gap_for_one_and_a_claim_that_holds_for_a_failure(verified: Report) -> None:
    written = {
        name: FORMATS[name].reports(Reports([verified]), VIEW) for name in ("junit", "sarif", "github", "gitlab")
    }
    suite = ElementTree.fromstring(written["junit"])[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "6",
        "1",
        "0",
        "5",
    )
    results = json.loads(written["sarif"])["runs"][0]["results"]
    assert [(each["level"], "suppressions" in each) for each in results[:2]] == [("note", True), ("error", False)]
    assert [line.split(" ")[0] for line in written["github"].split("\n") if line[:2] == "::"] == [
        "::notice", "::error", *["::notice"] * 4
    ]  # fmt: skip
    assert [each["severity"] for each in json.loads(written["gitlab"])] == ["info", "major", *["info"] * 4]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (claim("holds"), claim("fails", WHY), "verdict"),  # accepted, and no regression
        (claim("holds"), claim("error", WHY), "regression"),
        (claim("holds"), claim("holds", WHY), "verdict"),
        (claim("fails", WHY), claim("holds", WHY), "mended"),
        (claim("fails", WHY), claim("undecided", WHY), "verdict"),
        (claim("fails", WHY), claim("fails"), "verdict"),
        (claim("holds", WHY), claim("fails"), "regression"),
        (claim("fails", WHY), claim("fails", WHY), "same"),
    ],
)
def test_two_runs_compared(old: ClaimResult, new: ClaimResult, kind: str) -> None:
    (change,) = compare([report(old)], [report(new)]).changes
    assert change.kind == kind
