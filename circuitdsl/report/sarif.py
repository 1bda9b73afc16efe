"""Reports as SARIF 2.1.0 (Static Analysis Results Interchange Format), for GitHub's code scanning and editors.

Claims that hold are counted, and no results. A message means what is in it: braces are doubled, as SARIF reads `{0}`
as a place to fill, and a text from a spec becomes no link.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from circuitdsl.report.findings import RULES, Finding, findings
from circuitdsl.report.formats import View
from circuitdsl.report.report import Reports
from circuitdsl.version import __version__
from circuitdsl.visible import json_text, visible

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MESSAGE = str.maketrans({"{": "{{", "}": "}}"})


def reports_text(reports: Reports, view: View) -> str:
    """The JSON of one run with all reports."""
    names = list(RULES)
    rules = [{"id": name, "shortDescription": {"text": said}} for name, said in RULES.items()]
    run = {
        "tool": {"driver": {"name": "circuitdsl", "version": __version__, "rules": rules}},
        "invocations": [{"executionSuccessful": not any(report.interrupted for report in reports)}],
        "results": [_result(found, names.index(found.rule)) for found in findings(reports, view.allow_undecided)],
        "properties": {"summary": [{"circuit": each.spec.circuit, **each.summary} for each in reports]},
    }
    return json_text({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False) + "\n"


def _result(found: Finding, rule: int) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(found.path)}}
    if found.line > 0:
        place["region"] = {"startLine": found.line}
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "ruleIndex": rule,
        "level": found.level,
        "message": {"text": message(f"{found.about}: {found.said}")},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"claim/v1": found.fingerprint},
    }
    if found.rule == "expected" and found.claim:  # a known gap, which the spec accepts
        reason = message(found.claim.expected_to_fail or "")
        result["suppressions"] = [{"kind": "inSource", "justification": reason}]
    if found.claim:
        body = found.claim.to_json()
        result["properties"] = {key: body[key] for key in ("id", "kind", "task", "measured")}
    return result


def message(text: str) -> str:
    """A text that a reader of SARIF shows as it is."""
    return visible(text, "\n").translate(_MESSAGE).replace("](", "] (")


def _uri(path: str) -> str:
    """A path as a reference: relative to the repository's root, where that is known."""
    shown = visible(path)
    return PurePath(shown).as_uri() if PurePath(shown).is_absolute() else quote(shown)
