"""Annotations for GitHub's pages of a change: workflow commands, one line each, on standard output.

The format is that of "Workflow commands for GitHub Actions": `::error file=F,line=N,title=T::message`, with percent
signs and line ends escaped, in properties colons and commas too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from circuitdsl.language.diagnostics import Diagnostic
from circuitdsl.report import diff as diffs
from circuitdsl.report import terminal
from circuitdsl.report.diff import Diff
from circuitdsl.report.findings import findings, here, on
from circuitdsl.report.formats import View
from circuitdsl.report.numbers import interval, value
from circuitdsl.report.report import ClaimResult, Report
from circuitdsl.visible import visible

Level = Literal["error", "warning", "notice"]
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def annotation(level: Level, message: str, title: str, file: str = "", **where: int) -> str:
    """One workflow command; `where` may give line, endLine, col and endColumn."""
    properties = {"file": here(file), **where, "title": title}
    inside = ",".join(f"{key}={visible(str(given)).translate(_PROPERTY)}" for key, given in properties.items() if given)
    return f"::{level} {inside}::" + visible(message, "\n").translate(_DATA)


def reports_text(reports: Iterable[Report], view: View) -> str:
    """Reports as a screen shows them, and the annotations."""
    reports = list(reports)
    lines = of_reports(reports, view.allow_undecided)
    return terminal.reports_text(reports, view) + "".join(f"{line}\n" for line in lines)


def diff_text(diff: Diff, view: View) -> str:
    """A comparison as a screen shows it, and the annotations."""
    return diffs.diff_text(diff, view) + "".join(f"{line}\n" for line in of_diff(diff))


def of_reports(reports: Iterable[Report], allow_undecided: bool = False) -> Iterator[str]:
    """An annotation for every claim that does not hold; one for all those that an interruption left out."""
    for found in findings(reports, allow_undecided):
        where = {"line": found.line} if found.line else {}
        level = "notice" if found.level == "note" else found.level
        yield annotation(level, found.said, f"{found.rule}: {found.about}", found.path, **where)


def of_diagnostics(diagnostics: Iterable[Diagnostic], path: str) -> Iterator[str]:
    """An annotation for each, with the place that its caret marks."""
    for found in diagnostics:
        span = found.span
        where = {"line": span.line, "endLine": span.end_line}
        if span.line == span.end_line:  # GitHub takes columns only where the annotation is about one line
            where |= {"col": span.column, "endColumn": max(span.column, span.end_column - 1)}
        message = "\n".join((found.message, *found.notes, *([f"help: {found.help}"] if found.help else [])))
        yield annotation(found.severity, message, found.code, path, **where)


def of_diff(diff: Diff) -> Iterator[str]:
    """Regressions as errors, moved numbers and other verdicts as warnings, mended and new claims as notices."""
    levels: dict[str, Level] = {"regression": "error", "moved": "warning", "verdict": "warning"}
    for change in diff.changes:
        if change.kind != "same":
            title = f"{change.kind}: {on(change.spec.circuit, change.claim.task)}"
            level = levels.get(change.kind, "notice")
            # the line of a claim that is gone says nothing about the file as it is now
            where = {"line": change.claim.line} if change.new else {}
            said = f"{change.claim.statement}\n{_found(change.old) or 'new'} → {_found(change.new) or 'gone'}"
            yield annotation(level, said, title, change.spec.path, **where)


def _found(claim: ClaimResult | None) -> str:
    if claim is None or claim.measured is None:
        return claim.spoken if claim else ""
    return f"{claim.spoken}, {value(claim.measured)} {interval(claim.measured)}".rstrip()
