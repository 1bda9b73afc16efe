"""What a report has against a spec, one record each: services that show such lists have formats of their own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuitdsl.report.report import ClaimResult, Report

Level = Literal["error", "warning", "note"]
#: what a finding may be, and what that means
RULES = {
    "fails": "The interval of the figure lies outside what is claimed.",
    "expected": "The claim does not hold, and the spec expects that.",
    "unexpected": "The claim holds, and the spec expects it to fail.",
    "undecided": "The interval of the figure reaches across the bound.",
    "error": "The claim could not be measured.",
    "interrupted": "The run was interrupted before all claims were measured.",
    "prompts": "Something is unusual about the prompts of a task.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim that does not hold or was not to hold, or a remark on a whole spec.

    Attributes:
        rule: a key of `RULES`.
        about: the circuit and the task.
        said: what is claimed and what was found, or the remark.
        path: of the spec, from the current folder where it lies below it.
        line: in the spec; 0 where the finding is about all of it.
        claim: the claim that it is about.
        fingerprint: 64 digits that stay the same when lines and figures move; no two findings of a list share them.
    """

    rule: str
    level: Level
    about: str
    said: str
    path: str
    line: int
    claim: ClaimResult | None
    fingerprint: str


def findings(reports: Iterable[Report], allow_undecided: bool = False) -> Iterator[Finding]:
    """Every claim that does not hold or was not to, the notes on prompts, and one finding for all that is left out."""
    seen: Counter[tuple[str, ...]] = Counter()
    for report in reports:
        path = here(report.spec.path)
        for rule, level, about, said, claim in _found(report, allow_undecided):
            key = (path, about, rule, "".join((claim.statement if claim else said).split()))
            digest = hashlib.sha256("\0".join((*key, str(seen[key]))).encode(errors="backslashreplace")).hexdigest()
            seen[key] += 1
            yield Finding(rule, level, about, said, path, claim.line if claim else 0, claim, digest)


def _found(report: Report, allow_undecided: bool) -> Iterator[tuple[str, Level, str, str, ClaimResult | None]]:
    circuit = report.spec.circuit
    for task in report.tasks:
        for note in task.notes:
            yield "prompts", "warning", on(circuit, task.name), note, None
    for claim in report.reached:
        if claim.outcome != "holds":
            level: Level = "warning" if allow_undecided and claim.outcome == "undecided" else "error"
            level = "note" if claim.outcome == "expected" else level
            yield claim.outcome, level, on(circuit, claim.task), f"{claim.statement}\n{claim.why}", claim
    if missing := len(report.claims) - len(report.reached):
        said = f"{missing} of {len(report.claims)} claims were not measured"
        yield "interrupted", "error", circuit, said, None


def on(circuit: str, task: str | None) -> str:
    """`ioi on flip`; the circuit alone for claims about weights."""
    return f"{circuit} on {task}" if task else circuit


def here(path: str) -> str:
    """A path from the current folder, which is the repository's root where tests run; others as they are."""
    absolute = bool(path) and Path(path).is_absolute()
    return Path(path).relative_to(Path.cwd()).as_posix() if absolute and Path(path).is_relative_to(Path.cwd()) else path
