"""A report as a piece of HTML for notebooks: one table, styles on the spot, nothing fetched, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from circuitdsl.report.formats import View
from circuitdsl.report.numbers import figure, interval, value
from circuitdsl.report.report import Measured, MeasurementResult, Report, Reports, with_headers
from circuitdsl.report.terminal import extra, provenance, task_line, whole_protocol

_COLOURS = {
    "holds": "#00875f", "fails": "#d93025", "undecided": "#b06f00", "error": "#7b8794", "interrupted": "#b06f00",
}  # fmt: skip
_CELL = "text-align:left;vertical-align:top;padding:.25em 1em .25em 0"
_FADED = "opacity:.65"


def to_html(report: Report) -> str:
    """The report as the terminal shows it: what was run, a row for each claim, a count."""
    counts = ", ".join(_coloured(words, verdict) for verdict, words in report.counts())
    return "\n".join(
        (
            '<div style="font-size:14px;line-height:1.45">',
            *_head(report),
            '<table style="font-size:inherit;border-collapse:collapse;margin:.7em 0">',
            *_claims(report),
            *(row for found in report.measurements for row in _measurement(found, len(report.tasks) > 1)),
            "</table>",
            f"<div>{counts} {_faded(f'{report.seconds:.1f} s')}</div>",
            *(f'<div style="{_FADED};font-size:smaller">{escape(s)}</div>' for s in provenance(report, verbose=True)),
            "</div>",
        )
    )


def page(reports: Iterable[Report], view: View | None = None) -> str:
    """Reports as a page of their own."""
    return f'<!doctype html>\n<meta charset="utf-8">\n{Reports(reports)._repr_html_()}\n'


def rows(report: Report) -> list[dict[str, Any]]:
    """A flat record for each claim on each task."""
    return [
        {
            "circuit": report.spec.circuit,
            "id": claim.id,
            "line": claim.line,
            "block": claim.block,
            "claim": claim.text,
            "task": claim.task,
            "verdict": claim.verdict,
            "measured": found.name if (found := claim.measured) else None,
            "value": found.value if found else None,
            "low": found.ci[0] if found and found.ci else None,
            "high": found.ci[1] if found and found.ci else None,
            "unit": found.unit if found else None,
            "n": found.n if found else 0,
            "part": found.part if found else "",
            "reason": claim.reason,
            "notes": "; ".join(claim.notes),
        }
        for claim in report.claims
    ]


def _head(report: Report) -> Iterator[str]:
    model = report.model
    shape = f"{model.name} ({model.n_layers} layers × {model.n_heads} heads) · {model.device} {model.dtype}"
    yield f"<div><b>{escape(report.spec.circuit)}</b> · {escape(shape)}</div>"
    for task in report.tasks:
        yield f'<div style="{_FADED}">{escape(task_line(task).plain)}</div>'


def _row(cells: Iterable[str]) -> str:
    inside = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    return f'<tr style="border-top:1px solid rgba(128,128,128,.3);background:transparent">{inside}</tr>'


def _claims(report: Report) -> Iterator[str]:
    """The headings, and the rows of all claims; those of a block stand below its header."""
    several = len(report.tasks) > 1
    names = ("line", "claim", *["task"] * several, "measured", "95 % interval", "n", "verdict")
    cells = "".join(f'<th style="{_CELL};font-weight:600;{_FADED}">{name}</th>' for name in names)
    yield f"<tr>{cells}</tr>"
    for claim, header in with_headers(report.reached):
        if header:
            yield _row([_faded(str(claim.block_line)), _faded(_code(header)), *[""] * (4 + several)])
        numbers, verdict = _numbers(figure(claim.measured), claim.measured), _coloured(claim.verdict, claim.verdict)
        task = [escape(claim.task or "")] * several
        yield _row([_faded(str(claim.line)), _code(claim.text), *task, *numbers, verdict])
        reason = claim.reason if claim.verdict != "holds" else ""
        protocol = whole_protocol(claim) if "keep" in claim.protocol else ""
        yield from _remarks((extra(claim), reason, protocol, *claim.notes), several)


def _numbers(shown: str, found: Measured | None) -> list[str]:
    return [_plain(shown), _plain(interval(found)), str(found.n)] if found else ["", "", ""]


def _remarks(remarks: Iterable[str], tasks: bool) -> Iterator[str]:
    """Rows below a figure, for what else is said of it."""
    for remark in filter(None, remarks):
        text = f'<td></td><td colspan="{5 + tasks}" style="{_CELL};padding-top:0;{_FADED}">{escape(remark)}</td>'
        yield f'<tr style="background:transparent">{text}</tr>'


def _measurement(found: MeasurementResult, tasks: bool) -> Iterator[str]:
    task, measured = [escape(found.task)] * tasks, found.measured
    numbers = _numbers(value(measured) if measured else "", measured)
    yield _row(["", escape(found.name), *task, *numbers, "" if measured else _faded(escape(found.reason))])
    yield from _remarks((whole_protocol(found), *found.notes), tasks)


def _coloured(text: str, verdict: str) -> str:
    return f'<b style="color:{_COLOURS[verdict]};white-space:nowrap">{text}</b>'


def _code(text: str) -> str:
    return f'<code style="background:transparent;white-space:pre-wrap">{escape(text)}</code>'


def _plain(text: str) -> str:
    return f'<span style="white-space:nowrap">{escape(text)}</span>'


def _faded(text: str) -> str:
    return f'<span style="{_FADED}">{text}</span>'
