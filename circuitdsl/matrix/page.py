"""The table as a page: no script, nothing fetched, every text escaped; it follows the colours of the system."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from circuitdsl.matrix.cell import NOT_APPLICABLE, ClaimRow
from circuitdsl.matrix.shown import summary
from circuitdsl.matrix.table import SIGNS, Entry, SpecTable, Table
from circuitdsl.report.numbers import figure, interval
from circuitdsl.report.page.build import style
from circuitdsl.report.report import Measured
from circuitdsl.verdicts import spoken
from circuitdsl.visible import escape

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
.cdsl .matrix { overflow-x: auto; margin: .4rem 0 1.6rem; }
.cdsl .matrix table { border-collapse: separate; border-spacing: 0; }
.cdsl .matrix :is(th, td) { padding: .22rem .55rem; border-bottom: 1px solid var(--rule); text-align: center; }
.cdsl .matrix thead th { font-weight: 500; color: var(--soft); vertical-align: bottom; }
.cdsl .matrix thead tr:first-child th { color: var(--ink); }
.cdsl .matrix .what { position: sticky; left: 0; z-index: 1; background: var(--paper); text-align: left;
  min-width: 16rem; font-weight: 400; }
.cdsl .matrix .number { display: inline-block; min-width: 2.6em; color: var(--soft); }
.cdsl .matrix .first { border-left: 1px solid var(--faint); }
.cdsl .matrix a { color: inherit; text-decoration: none; display: block; margin: -.22rem -.55rem;
  padding: .22rem .55rem; }
.cdsl .matrix a:hover { background: var(--raised); }
.cdsl .holds { color: var(--holds); }
.cdsl .expected { color: var(--soft); }
.cdsl :is(.fails, .unexpected) { color: var(--fails); font-weight: 700; }
.cdsl .undecided { color: var(--undecided); font-weight: 700; }
.cdsl .error { color: var(--error); font-weight: 700; }
.cdsl .none { color: var(--soft); }
.cdsl .legend span { margin-right: 1.2em; white-space: nowrap; }
.cdsl h2 { font: 400 19px/1.3 var(--serif); margin-top: 1.2rem; }
"""


def page(found: Table) -> str:
    """The table as a page of its own; links lead to the reports beside it."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>circuitdsl: {escape(summary(found))}</title>",
        f"<style>{style()}{_STYLE}</style>\n</head>\n<body>\n<main class='cdsl'>",
        f"<header><h1>Claims in every cell</h1><span class='model'>{escape(summary(found))}</span></header>",
        f"<p class='legend'>{''.join(_legend())}</p>",
        *_failed(found),
        *(line for spec in found.specs for line in _table(spec)),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _legend() -> Iterator[str]:
    for outcome, sign in SIGNS.items():
        yield f"<span class='{_kind(outcome)}'>{sign} {spoken(outcome)}</span>"


def _kind(outcome: str) -> str:
    return "none" if outcome == NOT_APPLICABLE else outcome


def _failed(found: Table) -> Iterator[str]:
    if found.failed:
        yield "<h2>Cells that could not be run</h2>\n<ul>"
        for record in found.failed:
            hint = f" <small>help: {escape(record.hint)}</small>" if record.hint else ""
            yield f"<li><b class='error'>!</b> {escape(str(record.cell))}: {escape(record.error)}{hint}</li>"
        yield "</ul>"


def _table(spec: SpecTable) -> Iterator[str]:
    yield f"<h2>{escape(spec.spec)} <small>{escape(spec.shared)}</small></h2>"
    yield "<div class='matrix' tabindex='0'>\n<table>\n<thead>"
    yield from _headings(spec)
    yield "</thead>\n<tbody>"
    columns = [(group, seed, place) for group, seeds in spec.groups.items() for place, seed in enumerate(seeds)]
    for number, line in enumerate(spec.lines):
        where = f"<span class='number'>{line.line or ''}</span>"
        cells = "".join(_cell(spec.entries.get((number, group, seed)), place) for group, seed, place in columns)
        yield f"<tr><th class='what' scope='row'>{where}<code>{escape(spec.named(line))}</code></th>{cells}</tr>"
    yield "</tbody>\n</table>\n</div>"


def _headings(spec: SpecTable) -> Iterator[str]:
    """A row each for models, tasks, options and seeds, where some column has one."""
    rows = (
        ("model", [group.model for group in spec.groups]),
        ("task", [group.task for group in spec.groups]),
        ("options", ["" if spec.shared else group.options for group in spec.groups]),
    )
    spans = [len(seeds) for seeds in spec.groups.values()]
    for name, texts in rows:
        if any(texts):
            cells = (
                f"<th class='first' scope='colgroup' colspan='{span}'>{escape(text)}</th>"
                for text, span in zip(texts, spans, strict=True)
            )
            yield f"<tr><th class='what'>{name}</th>{''.join(cells)}</tr>"
    if any(seed for seeds in spec.groups.values() for seed in seeds):
        cells = (
            f"<th{_first(number)} scope='col'>{escape(seed)}</th>"
            for seeds in spec.groups.values()
            for number, seed in enumerate(seeds)
        )
        yield f"<tr><th class='what'>seed</th>{''.join(cells)}</tr>"


def _first(number: int, *more: str) -> str:
    names = " ".join((*more, *["first"] * (number == 0)))
    return f" class='{names}'" if names else ""


def _cell(entry: Entry | None, place: int) -> str:
    if entry is None:
        return f"<td{_first(place)}></td>"
    outcome = entry.row.outcome
    said = escape(". ".join(filter(None, (_figure(entry.row), entry.row.reason))) or outcome)
    sign = f"<span role='img' aria-label='{spoken(outcome)}'>{SIGNS[outcome]}</span>"
    leads = entry.report and outcome != NOT_APPLICABLE
    inside = f"<a href='{quote(entry.report, errors='replace')}'>{sign}</a>" if leads else sign
    return f'<td{_first(place, _kind(outcome))} title="{spoken(outcome)}: {said}">{inside}</td>'


def _figure(row: ClaimRow) -> str:
    """`effect −43 % [−47, −39]`"""
    if row.value is None:
        return ""
    measured = Measured(row.name, row.value, row.ci, 0, row.unit)
    return f"{row.name} {figure(measured)} {interval(measured)}".strip()
