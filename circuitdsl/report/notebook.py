"""A report as a piece of HTML for notebooks: one table, styles on the spot, nothing fetched, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from circuitdsl.errors import UserError
from circuitdsl.report.numbers import figure, interval, value
from circuitdsl.report.report import Measured, MeasurementResult, Report
from circuitdsl.report.terminal import (
    by_task,
    extra,
    footnotes,
    paragraphs,
    provenance,
    task_line,
    task_remarks,
    whole_protocol,
)
from circuitdsl.visible import escape

_COLOURS = {
    "holds": "#00875f", "expected": "#3d7a9c", "fails": "#d93025", "unexpected": "#d93025", "undecided": "#b06f00",
    "error": "#7b8794", "interrupted": "#b06f00",
}  # fmt: skip
_CELL = "vertical-align:top;padding:.3em 1.2em .3em 0"
_RIGHT = "text-align:right;font-variant-numeric:tabular-nums"
_LEFT = "text-align:left"
FADED = "opacity:.65"
_WARNING = "color:#b06f00"
_RULE = "border-top:1px solid rgba(128,128,128,.3)"


def to_html(report: Report, verbose: bool = False) -> str:
    """The report as the terminal shows it: what was run, a count, a row for each claim."""
    counts = ", ".join(_coloured(words, verdict) for verdict, words in report.counts())
    return "\n".join(
        (
            '<div style="font-size:14px;line-height:1.45">',
            *_head(report),
            f'<div style="margin-top:.7em">{counts or "no claims"} {faded(f"· {report.seconds:.1f} s")}</div>',
            '<table style="font-size:inherit;border-collapse:collapse;margin:.7em 0">',
            *_claims(report, verbose),
            *(row for found in report.measurements for row in _measurement(found, len(report.tasks) > 1)),
            "</table>",
            *(_small(note.plain.strip()) for note in footnotes(report) if note),
            *map(_small, provenance(report, verbose=True)),
            "</div>",
        )
    )


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
            "outcome": claim.outcome,
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


def frame(rows: Sequence[Any], columns: Sequence[str] | None = None) -> Any:
    """Rows as a pandas data frame; raises `UserError` where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise UserError("to_frame needs pandas, which is not installed", hint="pip install pandas") from None
    return pandas.DataFrame(rows, columns=columns)


def _head(report: Report) -> Iterator[str]:
    model = report.model
    shape = f"{model.name} ({model.n_layers} layers × {model.n_heads} heads) · {model.device} {model.dtype}"
    yield f'<div><b style="font-size:larger">{escape(report.spec.circuit)}</b> · {escape(shape)}</div>'
    for task in report.tasks:
        yield f'<div style="{FADED}">{escape(task_line(task).plain)}</div>'
        for text, style in task_remarks(task, len(report.tasks) > 1):
            yield f'<div style="{_WARNING if style == "yellow" else FADED}">{escape(text)}</div>'


def _row(cells: Iterable[tuple[str, str]], rule: bool = True) -> str:
    """A row of cells, each as (content, how it is aligned); a line above it says that something else begins."""
    inside = "".join(f'<td style="{_CELL};{align}">{cell}</td>' for cell, align in cells)
    return f'<tr style="{f"{_RULE};" * rule}background:transparent">{inside}</tr>'


def _claims(report: Report, verbose: bool) -> Iterator[str]:
    """The headings, and the rows of all claims: those of a block below its header, other tasks below the first."""
    several = len(report.tasks) > 1
    names = [("line", _RIGHT), ("claim", _LEFT), *[("task", _LEFT)] * several, ("measured", _RIGHT)]
    names += [("95 % interval", _LEFT), ("n", _RIGHT), ("", _LEFT), ("verdict", _LEFT)]
    cells = "".join(
        f'<th style="{_CELL};{align};font-weight:600;white-space:nowrap;{FADED}">{name}</th>' for name, align in names
    )
    yield f"<tr>{cells}</tr>"
    for claim, header, found in by_task(report):
        if header:
            yield _row([(faded(str(claim.block_line)), _RIGHT), (faded(_code(header)), _LEFT)])
        for i, each in enumerate(found.values()):
            about = ("", "") if i else (faded(str(claim.line)), _code(claim.text))
            task = [(escape(each.task or "weights"), _LEFT)] * several
            verdict = _coloured(each.spoken, each.outcome)
            numbers = _numbers(figure(each.measured), each.measured, extra(each))
            yield _row([(about[0], _RIGHT), (about[1], _LEFT), *task, *numbers, (verdict, _LEFT)], rule=not i)
            yield from _remarks(((by, text) for by, text, _ in paragraphs(each, verbose)), several)


def _numbers(shown: str, found: Measured | None, besides: str = "") -> list[tuple[str, str]]:
    cells = (shown, interval(found), str(found.n or "")) if found else ("", "", "")
    aligned = zip(map(_plain, cells), (_RIGHT, _LEFT, _RIGHT), strict=True)
    return [*aligned, (faded(_plain(besides)) if besides else "", _LEFT)]


def _remarks(remarks: Iterable[tuple[int, str]], tasks: bool) -> Iterator[str]:
    """Rows below a figure, for what else is said of it: each with its indent, as on a terminal."""
    for by, text in remarks:
        inside = f"padding-top:0;padding-left:{(by - 8) / 2}em;{_LEFT};{FADED}"
        cell = f'<td></td><td colspan="{6 + tasks}" style="{_CELL};{inside}">{escape(text)}</td>'
        yield f'<tr style="background:transparent">{cell}</tr>'


def _measurement(found: MeasurementResult, tasks: bool) -> Iterator[str]:
    task, measured = [(escape(found.task), _LEFT)] * tasks, found.measured
    numbers = _numbers(value(measured) if measured else "", measured)
    reason = "" if measured else faded(escape(found.reason))
    yield _row([("", _RIGHT), (escape(found.name), _LEFT), *task, *numbers, (reason, _LEFT)])
    yield from _remarks(((8, text) for text in (whole_protocol(found), *found.notes) if text), tasks)


def _small(text: str) -> str:
    return f'<div style="{FADED};font-size:smaller">{escape(text)}</div>'


def _coloured(text: str, verdict: str) -> str:
    return f'<b style="color:{_COLOURS[verdict]};white-space:nowrap">{text}</b>'


def _code(text: str) -> str:
    return f'<code style="background:transparent;white-space:pre-wrap">{escape(text)}</code>'


def _plain(text: str) -> str:
    return f'<span style="white-space:nowrap">{escape(text)}</span>'


def faded(text: str) -> str:
    return f'<span style="{FADED}">{text}</span>'
