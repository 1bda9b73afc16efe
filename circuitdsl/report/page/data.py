"""Reports → what their page needs, as compact JSON values. Figures are put into words here, and drawn in the browser.

Numbers on prompts are written as two letters each (`packed`): 4096 steps between the smallest and the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from circuitdsl.report.behind import Behind, ClaimNumbers, ShownPrompt
from circuitdsl.report.numbers import figure, interval, part, value
from circuitdsl.report.report import ClaimResult, Detail, Measured, MeasurementResult, MemberResult, Report
from circuitdsl.report.terminal import extra, footnotes, provenance, task_line, task_remarks, whole_protocol

#: a number has two of these digits
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LETTERS = np.frombuffer(DIGITS.encode(), np.uint8)
_STEPS = len(DIGITS) ** 2 - 1
#: what is said of a claim, and where its record has it
_OF_CLAIM = {"id": "id", "line": "line", "text": "text", "block": "block", "cite": "citation", "kind": "kind"}


def of_report(report: Report, picture: Callable[[Report], str] | None = None) -> dict[str, Any]:
    """All that a page shows of one report; `picture` draws its circuit as SVG, or gives an empty text."""
    claims: dict[str, ClaimResult] = {}
    for claim in report.reached:
        claims.setdefault(claim.id, claim)
    order = {name: place for place, name in enumerate(claims)}
    tasks = {task.name: place for place, task in enumerate(report.tasks)}
    behind, words = report.behind, _Numbered()
    indices: _Numbered = _Numbered()
    numbers = {(each.claim, each.task): each for each in behind.numbers} if behind else {}
    return {
        "name": report.spec.circuit,
        "model": f"{report.model.name} ({report.model.n_layers} layers × {report.model.n_heads} heads)",
        "device": f"{report.model.device} {report.model.dtype}",
        "seconds": report.seconds,
        "counts": [list(pair) for pair in report.counts()],
        "tasks": [
            {
                "name": task.name,
                "line": task_line(task).plain,
                "remarks": [text for text, _ in task_remarks(task, verbose=True)],
                "prompts": [_prompt(each, words) for each in behind.prompts.get(task.name, ())] if behind else [],
            }
            for task in report.tasks
        ],
        "claims": [{key: getattr(claim, name) for key, name in _OF_CLAIM.items()} for claim in claims.values()],
        "results": [
            _result(each, order[each.id], tasks.get(each.task or ""), numbers.get((each.id, each.task)), indices)
            for each in report.reached
        ],
        "besides": [_besides(each) for each in report.measurements],
        "patterns": _patterns(behind, tasks) if behind else [],
        "words": list(words),
        "indices": [list(each) for each in indices],
        "svg": picture(report) if picture else "",
        "notes": [note.plain.strip() for note in footnotes(report) if note],
        "foot": _foot(report),
    }


class _Numbered(dict[Any, int]):
    """Numbers of values, in the order in which they are first asked for."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


def packed(values: Sequence[float] | np.ndarray) -> list[Any]:
    """The smallest number, the largest, and all as text, each in two digits of base 64."""
    given = np.asarray(values, float)
    low, high = float(given.min()), float(given.max())
    steps = np.rint((given / 2 - low / 2) / ((high / 2 - low / 2) or 1) * _STEPS).astype(int)  # halves stay finite
    letters = np.stack((_LETTERS[steps >> 6], _LETTERS[steps & 63]), -1)
    return [low, high, letters.tobytes().decode()]


def _result(
    claim: ClaimResult, place: int, task: int | None, numbers: ClaimNumbers | None, indices: _Numbered
) -> dict[str, Any]:
    """A claim on a task, without what is empty."""
    found = claim.measured
    protocol = (whole_protocol(claim), f"figure of {name}" if (name := part(claim)) else "")
    shown = {
        "c": place,
        "t": task,
        "v": claim.outcome,
        "fig": figure(found),
        "ci": interval(found) if found else "",
        "extra": extra(claim),
        "reason": claim.why,
        "notes": [*filter(None, protocol), *claim.notes],
        **(_measured(found) if found else {}),
        "members": [_member(each) for each in claim.members] if len(claim.members) > 1 else [],
        "details": [_detail(each) for each in claim.details],
        "compared": [_detail(each) for both in claim.comparisons for each in (both.first, both.second)],
        "example": claim.counterexample and {str(k): str(v) for k, v in claim.counterexample.items()},
        "behind": _numbers(numbers, indices) if numbers and numbers.values else None,
    }
    return {key: each for key, each in shown.items() if each not in (None, "", [])}


def _detail(found: Detail) -> dict[str, Any]:
    shown = value(Measured("", found.value, None, 0, found.unit))
    return {"name": found.name, "fig": shown, "v": found.verdict} | _range(found.value, found.ci, found.unit)


def _measured(found: Measured) -> dict[str, Any]:
    middle = "" if found.median is None else value(replace(found, value=found.median))
    return {
        **_range(found.value, found.ci, found.unit),
        "used": _ends(found.ci_used),
        "n": found.n,
        "median": middle,
        "right": found.right_sign,
    }


def _range(number: float, ci: tuple[float, float] | None, unit: str) -> dict[str, Any]:
    return {"value": _finite(number), "at": _ends(ci), "unit": unit}


def _member(member: MemberResult) -> dict[str, Any]:
    port = f".{member.input}" if member.input in ("q", "k", "v") else ""
    number = member.value if member.effect is None else member.effect
    name = f"{member.sender} → {member.receiver}{port}" if member.receiver else f"{member.sender} {member.check}"
    return {
        "name": f"{name} at {member.position}" if member.position else name,
        "v": member.verdict,
        "reason": member.reason,
        **_range(math.nan if number is None else number, member.ci, "gap" if member.effect is not None else ""),
    }


def _besides(found: MeasurementResult) -> dict[str, Any]:
    measured = found.measured
    said = f"{value(measured)} {interval(measured)} n {measured.n}" if measured else found.reason
    return {"name": found.name, "task": found.task, "said": said, "notes": [whole_protocol(found), *found.notes]}


def _numbers(found: ClaimNumbers, indices: _Numbered) -> dict[str, Any]:
    return {
        "prompts": indices[found.prompts],
        "values": packed(found.values),
        "most": _ends(tuple(np.quantile(found.values, (0.02, 0.98)).tolist())),
        "unit": found.unit,
        "holds": [_ends(each) for each in found.holds_in],
        "null": list(found.null),
        "own": found.among_null,
        "heads": list(found.heads),
    }


def _prompt(prompt: ShownPrompt, words: _Numbered) -> list[Any]:
    """Tokens as numbers of words; of the corrupt prompt only those that differ, by index."""
    corrupt = {i: words[b] for i, (a, b) in enumerate(zip(prompt.tokens, prompt.corrupt, strict=False)) if a != b}
    return [
        [words[token] for token in prompt.tokens],
        [list(pair) for pair in corrupt.items()],
        [[words[name], *at] for name, at in prompt.positions.items()],
        [words[token] for token in prompt.answers],
        [words[token] for token in prompt.distractors],
        _ends(prompt.scores),
        words[prompt.stratum],
        prompt.line,
    ]


def _patterns(behind: Behind, tasks: dict[str, int]) -> list[list[Any]]:
    """Task, head, prompt, then the rows one after another, each as long as its number says."""
    return [
        [tasks[each.task], each.head, each.prompt, *packed([x for row in each.rows for x in row])]
        for each in behind.patterns
        if each.task in tasks and each.rows and all(len(row) == i + 1 for i, row in enumerate(each.rows))
    ]


def _foot(report: Report) -> list[list[str]]:
    """Where the report comes from, each as a name and what is said."""
    known = {"circuitdsl": report.circuitdsl, **report.versions}
    hashes = {"spec": report.spec.sha256, **{f"prompts of {task.name}": task.sha256 for task in report.tasks}}
    made = report.behind
    rows = {
        "made": f"{made.time}, in {report.seconds:.1f} s" if made else f"in {report.seconds:.1f} s",
        "command": made.command if made else "",
        "spec": report.spec.path,
        "model": report.model.name,
        "seeds": ", ".join(f"{task.name} {task.seed}" for task in report.tasks),
        "verdicts": list(provenance(report, verbose=True))[-1].partition(" · ")[2] if report.tasks else "",
        "versions": ", ".join(f"{name} {number}" for name, number in known.items()),
    }
    rows |= {f"sha256 of {name}": digest for name, digest in (hashes | report.model.hashes).items()}
    return [[name, said] for name, said in rows.items() if said]


def _ends(ends: tuple[float, float] | None) -> list[float | None] | None:
    return None if ends is None else [_finite(end) for end in ends]


def _finite(number: float) -> float | None:
    rounded = float(f"{number:.5g}")
    return rounded if math.isfinite(rounded) else None


def of_reports(reports: Iterable[Report], picture: Callable[[Report], str] | None = None) -> dict[str, Any]:
    """What the page of several reports needs."""
    return {"reports": [of_report(report, picture) for report in reports]}
