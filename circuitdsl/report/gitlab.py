"""Reports as GitLab's Code Quality report: a JSON list, shown beside the lines of a merge request."""

from __future__ import annotations

from circuitdsl.report.findings import findings
from circuitdsl.report.formats import View
from circuitdsl.report.report import Reports
from circuitdsl.visible import json_text, visible

_SEVERITY = {"error": "major", "warning": "minor", "note": "info"}


def reports_text(reports: Reports, view: View) -> str:
    """One entry for each finding. GitLab asks for a line: what is about a whole file stands on its first."""
    entries = [
        {
            "description": visible(f"{found.about}: {found.said}".replace("\n", ": ")),
            "check_name": found.rule,
            "fingerprint": found.fingerprint,
            "severity": _SEVERITY[found.level],
            "location": {"path": visible(found.path).removeprefix("./"), "lines": {"begin": max(found.line, 1)}},
        }
        for found in findings(reports, view.allow_undecided)
    ]
    return json_text(entries, indent=1) + "\n"
