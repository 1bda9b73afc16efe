"""Formats that other services read: SARIF, JUnit's XML, GitLab's Code Quality, Markdown.

Their official schemas are not in this repository. `CIRCUITDSL_SCHEMAS` names a folder with `sarif-schema-2.1.0.json`
and `junit-10.xsd`: then these are used too. The checks here are stricter where it matters: they know what we write.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from circuitdsl.report.formats import FORMATS, View
from circuitdsl.report.markdown import ROWS, cell, code
from circuitdsl.report.report import (
    MISSED,
    ClaimResult,
    Measured,
    ModelInfo,
    Report,
    Reports,
    SpecInfo,
    TaskResult,
    as_text,
)
from circuitdsl.report.sarif import message
from circuitdsl.verdicts import Verdict

VIEW = View(partial(Console, width=100, no_color=True, color_system=None))
ALLOWING = replace(VIEW, allow_undecided=True)
MARKDOWN = MarkdownIt("commonmark").enable("table")


def claim(line: int, verdict: Verdict, text: str = "", task: str | None = "ioi") -> ClaimResult:
    found = Measured("effect", -0.2, (-0.3, -0.1), 64, "gap")
    return ClaimResult(
        "c1", line, text or f"a -> b{line} : lowers", "edge", task, verdict, f"because {line}", {}, found
    )


def report(*claims: ClaimResult, path: str = "circuits/a b.circ", **others: Any) -> Report:
    task = TaskResult("ioi", "abc", 64, 0, "", "logit_diff", 1.0, 0.0, 1.0, notes=("few strata",))
    model = ModelInfo("m", "", 1, 1, "cpu", "", False)
    return Report(SpecInfo(path, "t", ""), model, (task,), claims, 1234.5, **others)


EACH = report(claim(3, "holds"), claim(4, "fails"), claim(5, "undecided"), claim(6, "error"), claim(4, "fails"))
MISSING = replace(claim(8, "error"), reason=MISSED)
REPORTS = Reports([EACH, report(claim(7, "fails", task=None), MISSING, path="b.circ", interrupted=True)])


def written(name: str, reports: Reports = REPORTS, view: View = VIEW) -> Any:
    text = FORMATS[name].reports(reports, view)
    return ElementTree.fromstring(text) if name == "junit" else text if name == "markdown" else json.loads(text)


def records(**properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties, each required, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = records(text={"type": "string", "minLength": 1})
PLACE = records(
    artifactLocation=records(uri={"type": "string", "pattern": r"^[\w./%-]+$"}),
    region=records(startLine={"type": "integer", "minimum": 1}),
) | {"required": ["artifactLocation"]}
RESULT = records(
    ruleId={"enum": ["fails", "undecided", "error", "interrupted", "prompts"]},
    ruleIndex={"type": "integer", "minimum": 0},
    level={"enum": ["error", "warning"]},
    message=TEXT,
    locations={"type": "array", "items": records(physicalLocation=PLACE), "minItems": 1, "maxItems": 1},
    partialFingerprints=records(**{"claim/v1": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}),
    properties={"type": "object"},
)
RESULT["required"].remove("properties")
RULE = records(id={"type": "string"}, shortDescription=TEXT)
RUN = records(
    tool=records(
        driver=records(name={"const": "circuitdsl"}, version={"type": "string"}, rules={"type": "array", "items": RULE})
    ),
    invocations={"type": "array", "items": records(executionSuccessful={"type": "boolean"})},
    results={"type": "array", "items": RESULT},
    properties={"type": "object"},
)
SARIF = records(
    **{"$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"}},
    runs={"type": "array", "items": RUN, "minItems": 1},
)


def official(name: str) -> Path:
    """An official schema; the test is skipped where it is not at hand."""
    path = Path(os.environ.get("CIRCUITDSL_SCHEMAS", "")) / name
    if not os.environ.get("CIRCUITDSL_SCHEMAS") or not path.is_file():
        pytest.skip(f"CIRCUITDSL_SCHEMAS names no folder with {name}")
    return path


def test_sarif_has_what_the_standard_asks_for() -> None:
    found = written("sarif")
    jsonschema.validate(found, SARIF)
    (run,) = found["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert [rules[each["ruleIndex"]] for each in run["results"]] == [each["ruleId"] for each in run["results"]]
    assert not run["invocations"][0]["executionSuccessful"]


def test_sarif_is_valid_by_the_official_schema() -> None:
    schema = json.loads(official("sarif-schema-2.1.0.json").read_text())
    jsonschema.Draft4Validator(schema).validate(written("sarif"))


def test_sarif_has_a_result_for_every_claim_that_does_not_hold() -> None:
    results = written("sarif")["runs"][0]["results"]
    places = [each["locations"][0]["physicalLocation"] for each in results]
    found = [
        (each["ruleId"], place["artifactLocation"]["uri"], place.get("region", {}).get("startLine"))
        for each, place in zip(results, places, strict=True)
    ]
    first, second = "circuits/a%20b.circ", "b.circ"
    assert found == [
        ("prompts", first, None),
        ("fails", first, 4),
        ("undecided", first, 5),
        ("error", first, 6),
        ("fails", first, 4),
        ("prompts", second, None),
        ("fails", second, 7),
        ("interrupted", second, None),
    ]
    assert results[1]["message"]["text"] == "t on ioi: a -> b4 : lowers\nbecause 4"
    assert len({each["partialFingerprints"]["claim/v1"] for each in results}) == len(results)
    assert [each["level"] for each in written("sarif", view=ALLOWING)["runs"][0]["results"]][2] == "warning"


def test_sarif_messages_have_no_places_to_fill_and_no_links_of_others() -> None:
    assert message("{0} of [click](https://x.test)") == "{{0}} of [click] (https://x.test)"
    assert message("effect [−3, −1]") == "effect [−3, −1]"


def test_a_finding_keeps_its_fingerprint_when_lines_and_figures_move() -> None:
    def prints(*claims: ClaimResult) -> list[str]:
        return [each["fingerprint"] for each in written("gitlab", Reports([report(*claims)]))]

    moved = replace(claim(9, "fails", "a -> b4  : lowers"), reason="other")
    assert prints(claim(4, "fails")) == prints(moved)
    assert prints(claim(4, "fails")) != prints(claim(4, "undecided"))
    assert prints(claim(4, "fails"))[1] != prints(claim(4, "fails", task="flip"))[1]


def test_gitlab_has_what_its_documentation_asks_for() -> None:
    place = records(
        path={"type": "string", "pattern": "^[^/.]"}, lines=records(begin={"type": "integer", "minimum": 1})
    )
    entry = records(
        description={"type": "string", "pattern": r"^[^\n]+$"},
        check_name={"type": "string"},
        fingerprint={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        severity={"enum": ["info", "minor", "major", "critical", "blocker"]},
        location=place,
    )
    found = written("gitlab", Reports([*REPORTS, report(claim(2, "fails"), path="./c.circ")]))
    jsonschema.validate(found, {"type": "array", "items": entry})
    assert len({each["fingerprint"] for each in found}) == len(found) == 10
    assert [each["location"]["lines"]["begin"] for each in found[:3]] == [1, 4, 5]


#: what `junit-10.xsd` lets an element have: its attributes, and the elements in it
JUNIT = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "file", "id", "timestamp", "hostname", "package"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name", "classname", "time", "group"}, {"skipped", "failure", "error", "system-out", "system-err"}),
    **dict.fromkeys(("failure", "error", "skipped"), ({"type", "message"}, set())),
}


def test_junit_has_the_form_that_jenkins_reads() -> None:
    for view in (VIEW, ALLOWING):
        root = written("junit", view=view)
        assert root.tag == "testsuites"
        for element in root.iter():
            attributes, inside = JUNIT[element.tag]
            assert set(element.attrib) <= attributes
            assert {each.tag for each in element} <= inside
        for suite in root:
            assert {"name", "tests", "failures", "errors"} <= set(suite.attrib)
            assert suite.get("time") == "1234.500"


def test_junit_is_valid_by_the_official_schema() -> None:
    etree = pytest.importorskip("lxml.etree")
    schema = etree.XMLSchema(etree.parse(str(official("junit-10.xsd"))))
    schema.assertValid(etree.fromstring(FORMATS["junit"].reports(REPORTS, VIEW).encode()))


def test_junit_has_a_test_for_every_claim() -> None:
    root = written("junit")
    tests = [(case.get("classname"), case.get("name"), [each.tag for each in case]) for case in root.iter("testcase")]
    assert tests[:5] == [
        ("t on ioi", "a -> b3 : lowers", []),
        ("t on ioi", "a -> b4 : lowers", ["failure"]),
        ("t on ioi", "a -> b5 : lowers", ["failure"]),
        ("t on ioi", "a -> b6 : lowers", ["error"]),
        ("t on ioi", "a -> b4 : lowers (2)", ["failure"]),
    ]
    assert tests[5:] == [("t", "a -> b7 : lowers", ["failure"]), ("t on ioi", "a -> b8 : lowers", ["error"])]
    assert root[0][1][0].text == "circuits/a b.circ:4: a -> b4 : lowers\nbecause 4"
    assert {what: root.get(what) for what in ("tests", "failures", "errors")} == {
        "tests": "7",
        "failures": "4",
        "errors": "2",
    }
    allowed = written("junit", view=ALLOWING)
    assert (allowed[0].get("failures"), allowed[0].get("skipped")) == ("2", "1")


def rows(markdown: str) -> list[list[str]]:
    """The cells of all tables of a page of Markdown, as its readers see them."""
    table = MARKDOWN.parse(markdown)
    found: list[list[str]] = []
    for each in table:
        if each.type == "tr_open":
            found.append([])
        elif each.type == "inline" and found:
            found[-1].append("".join(child.content for child in each.children or ()))
    return [row for row in found if row]


def test_markdown_says_what_does_not_hold_and_folds_the_rest() -> None:
    text = written("markdown")
    assert text.startswith("### `t` on `m`: 1 holds, 2 fail, 1 undecided, 1 error\n")
    assert "<details><summary>1 of 5 hold</summary>" in text
    found = rows(text.partition("<details>")[0])
    assert found[1] == ["4", "a -> b4 : lowers", "ioi", "−20 % [−30, −10]", "fails", "because 4"]
    assert len(found) == 5


@pytest.mark.parametrize(
    "text", ["a | b", r"a \| b", "a ` b", "``a", "`", r"\\|`|", "<b>@all</b> [x](y) #1 $x$ :smile: www.x.test"]
)
def test_a_text_stays_as_it_is_in_a_cell(text: str) -> None:
    table = f"| a | b |\n|---|---|\n| {cell(text)} | {cell('next')} |\n"
    (shown, after) = rows(table)[1]
    assert after == "next"
    assert shown.replace(" |", "|") == text.replace(" |", "|")  # a blank may stand before a bar
    assert "<code>" in MARKDOWN.render(table)
    assert ElementTree.fromstring(MARKDOWN.render(code(text)))[0].text == text


def test_a_long_table_says_how_many_rows_are_left_out() -> None:
    many = Reports([report(*(claim(n, "fails") for n in range(ROWS + 7)))])
    text = written("markdown", many)
    assert len(rows(text)) == ROWS + 1
    assert "\nand 7 more\n" in text


def test_markdown_begins_with_what_changed_against_the_base() -> None:
    base = Reports([report(claim(3, "fails"), claim(4, "holds"), claim(9, "holds"))])
    text = written("markdown", Reports([report(claim(3, "holds"), claim(4, "fails"))]), replace(VIEW, against=base))
    assert text.startswith("### Against the base\n\n**2 regressions, 1 mended**\n")
    assert [row[:3] + row[3:5] for row in rows(text.partition("### `t`")[0])] == [
        ["line", "claim", "task", "before", "now"],
        ["4", "a -> b4 : lowers", "ioi", "holds −20 % [−30, −10]", "fails −20 % [−30, −10]"],
        ["9", "a -> b9 : lowers", "ioi", "holds −20 % [−30, −10]", "gone"],
        ["line", "claim", "task", "before", "now"],
        ["3", "a -> b3 : lowers", "ioi", "fails −20 % [−30, −10]", "holds −20 % [−30, −10]"],
    ]


@pytest.fixture
def run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, found in (("base", Reports([report(claim(4, "holds"))])), ("new", REPORTS)):
        Path(f"{name}.json").write_text(as_text(found))

    return run


def test_view_writes_several_files(run) -> None:
    files = ("x.sarif", "x.xml", "x.md", "x.html")
    named = [word for file in files for word in ("-o", file)]
    assert run("view", "new.json", "--no-browser", "--against", "base.json", *named)[0] == 0
    starts = ("{", "<?xml", "### Against the base", "<!doctype html>")
    assert [Path(file).read_text().startswith(start) for file, start in zip(files, starts, strict=True)] == [True] * 4


@pytest.mark.parametrize(("name", "file"), [("sarif", "x.sarif"), ("junit", "x.xml"), ("markdown", "x.md")])
def test_view_writes_a_report_in_any_format(run, name: str, file: str) -> None:
    status, out, _ = run("view", "new.json", "--format", name)
    assert (status, out) == (0, FORMATS[name].reports(REPORTS, VIEW))
    assert run("view", "new.json", "-o", file)[:2] == (0, "")
    assert Path(file).read_text() == out
    allowed = run("view", "new.json", "--format", name, "--allow-undecided")[1]
    assert (allowed == out) == (name == "markdown")


def test_a_summary_is_compared_with_a_base(run) -> None:
    status, out, _ = run("view", "new.json", "--format", "markdown", "--against", "base.json")
    assert (status, out.splitlines()[2]) == (0, "**1 regression, 6 new**")
    status, out, err = run("view", "new.json", "--format", "junit", "--against", "base.json")
    assert (status, out) == (2, "")
    assert "circuitdsl diff base.json" in err
    status, out, err = run("view", "new.json", "--format", "markdown", "--against", "none.json")
    assert (status, out) == (2, "")
    assert "none.json" in err


@pytest.mark.parametrize(
    ("old", "new", "failing"),
    [
        ("base", "base", set()),
        ("base", "new", {"regression", "change"}),
        ("new", "base", {"regression", "change"}),  # claims that held are gone
        ("more", "less", {"change"}),  # what failed is gone
        ("less", "more", {"change"}),
    ],
)
def test_a_comparison_fails_on_what_is_asked_for(run, old: str, new: str, failing: set[str]) -> None:
    Path("less.json").write_text(as_text(Reports([report(claim(4, "holds"))])))
    Path("more.json").write_text(as_text(Reports([report(claim(4, "holds"), claim(5, "fails"))])))
    assert run("diff", f"{old}.json", f"{new}.json")[0] == ("regression" in failing)
    for what in ("regression", "change", "nothing"):
        status, out, _ = run("diff", f"{old}.json", f"{new}.json", "--fail-on", what, "--format", "markdown")
        assert status == (what in failing), what
        assert out.startswith("**")
