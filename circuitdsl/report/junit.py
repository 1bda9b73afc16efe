"""Reports as JUnit's XML, for services that run tests: a suite for each circuit, a test for each claim on a task.

The elements and attributes are those that Jenkins' schema knows (`junit-10.xsd` of its xUnit plugin). Where a claim
stands is in the text of its failure, as that schema has no place for a file and a line.
"""

from __future__ import annotations

from collections import Counter
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from circuitdsl.report.findings import here, on
from circuitdsl.report.formats import View
from circuitdsl.report.report import ClaimResult, Report, Reports
from circuitdsl.visible import harmless, line, lines


def reports_text(reports: Reports, view: View) -> str:
    """The XML. An undecided claim is a failure, or a test that was skipped where that is allowed.

    One that is expected to fail was skipped, as services have it of such tests; a failure where it holds.
    """
    root = Element("testsuites")
    for report in reports:
        root.append(_suite(report, view.allow_undecided))
    for what in ("tests", "failures", "errors"):
        root.set(what, str(sum(int(suite.get(what, "0")) for suite in root)))
    indent(root, " ")
    return harmless(f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n')


def _suite(report: Report, allow_undecided: bool) -> Element:
    suite = Element("testsuite", {"name": line(report.spec.circuit), "file": line(here(report.spec.path))})
    seen: Counter[tuple[str, str]] = Counter()
    for claim in report.claims:
        of, name = line(on(report.spec.circuit, claim.task)), line(claim.statement)
        seen[of, name] += 1
        again = seen[of, name]
        test = SubElement(suite, "testcase", {"classname": of, "name": f"{name} ({again})" if again > 1 else name})
        if kind := _kind(claim, allow_undecided):
            found = SubElement(test, kind, {"type": claim.spoken, "message": line(claim.why)})
            found.text = lines(f"{here(report.spec.path)}:{claim.line}: {claim.statement}\n{claim.why}")
    counts = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(report.claims)))
    for what, kind in counts.items():
        suite.set(what, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("time", f"{report.seconds:.3f}")
    return suite


def _kind(claim: ClaimResult, allow_undecided: bool) -> str:
    """The element that says that a claim is not as it should be, or was not to hold; empty where all is well."""
    others = {"holds": "", "expected": "skipped", "error": "error"}
    undecided = claim.outcome == "undecided" and allow_undecided
    return others.get(claim.outcome, "skipped" if undecided else "failure")
