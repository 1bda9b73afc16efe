"""Prompts of a task as a piece of HTML, or as a page of their own: nothing fetched, no script, every text escaped."""

from __future__ import annotations

from collections.abc import Iterator

from circuitdsl.report.formats import View
from circuitdsl.report.notebook import FADED, faded
from circuitdsl.report.numbers import percent, plain
from circuitdsl.report.prompts import (
    Pair,
    Prompts,
    Side,
    heading,
    how,
    legend,
    named,
    strata_columns,
    strata_rows,
    visible,
)
from circuitdsl.report.prompts import summary as summary_of
from circuitdsl.report.terminal import listed
from circuitdsl.visible import escape

_RIGHT, _WRONG, _PLACE, _WARNING = "#00875f", "#d93025", "#0067a8", "#b06f00"
_MONO = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:13px"
_CHANGED = "background:rgba(163,80,138,.22);border-radius:3px"


def to_html(found: Prompts) -> str:
    """The prompts as the terminal shows them: token by token, then what is known of all of them."""
    return "\n".join(
        (
            '<div style="font-size:14px;line-height:1.45">',
            f"<div><b>{escape(found.task)}</b> {faded(escape(how(found)))}</div>",
            f'<div style="margin:.3em 0"><b>{escape(summary_of(found))}</b></div>',
            f"<div>answer tokens {escape(listed(found.answers))} against {escape(listed(found.distractors))}</div>",
            *(f'<div style="color:{_WARNING}">warning: {escape(note)}</div>' for note in found.notes),
            f"<div>{faded(escape(legend(found)))}</div>",
            *(line for number, pair in enumerate(found.pairs, start=1) for line in _pair(pair, number, found.metric)),
            *_strata(found),
            "</div>",
        )
    )


def page(found: Prompts, view: View | None = None) -> str:
    body = 'style="max-width:1160px;margin:2rem auto;padding:0 1rem;font-family:system-ui,sans-serif"'
    title = f"<title>{escape(found.task)}, {escape(found.model)}</title>"
    return f'<!doctype html>\n<meta charset="utf-8">\n{title}\n<body {body}>\n{to_html(found)}\n</body>\n'


def _strata(found: Prompts) -> Iterator[str]:
    if len(found.strata) < 2:
        return
    cell = "padding:.1em 1.5em .1em 0"
    yield '<table style="font-size:inherit;border-collapse:collapse;margin:.6em 0">'
    heads = ("stratum", *strata_columns(found))
    yield f"<tr>{''.join(f'<th style={chr(34)}{cell};text-align:left{chr(34)}>{head}</th>' for head in heads)}</tr>"
    for name, row in strata_rows(found):
        cells = "".join(f'<td style="{cell};text-align:left">{escape(each)}</td>' for each in (name, *row))
        yield f'<tr style="background:transparent">{cells}</tr>'
    yield "</table>"


def _pair(pair: Pair, number: int, metric: str) -> Iterator[str]:
    yield '<div style="border-top:1px solid rgba(128,128,128,.3);margin-top:1em;padding-top:.6em">'
    yield f"<div>{faded(escape(heading(pair, number)))}</div>"
    yield f'<div style="display:flex;flex-wrap:wrap;gap:.5em 2px;margin:.4em 0;{_MONO}">'
    yield f'<div style="{FADED};padding-right:.6em"><div style="font-size:11px">&nbsp;</div>clean<br>corrupt</div>'
    for i, (a, b, names) in enumerate(pair.rows):
        changed = f' style="{_CHANGED}"' if i in pair.differs else ""
        places = "<br>".join(map(escape, names)) or "&nbsp;"
        yield (
            '<div style="text-align:center;padding:0 3px">'
            f'<div style="{FADED};font-size:11px">{i}</div>'
            f"<div{changed}>{escape(a)}</div><div{changed}>{escape(b)}</div>"
            f'<div style="color:{_PLACE};font-size:11px;font-weight:600">{places}</div></div>'
        )
    yield "</div>"
    sides = ((pair.answers, _RIGHT), (pair.distractors, _WRONG))
    right, wrong = (f'<b style="color:{colour}">{escape(named(tokens))}</b>' for tokens, colour in sides)
    after = f"; after the corrupt prompt {escape(named(pair.corrupt_answers))}" if pair.corrupt_answers else ""
    yield f"<div>answer {right}, not {wrong}{after}</div>"
    if pair.clean.top:
        yield '<table style="font-size:inherit;border-collapse:collapse;margin:.3em 0">'
        yield from (
            _predicted(pair, side, name, metric) for name, side in (("clean", pair.clean), ("corrupt", pair.corrupt))
        )
        yield "</table>"
    yield "</div>"


def _predicted(pair: Pair, side: Side, name: str, metric: str) -> str:
    """A row: what the model predicts after one side, each prediction with a bar as wide as it is probable."""
    cells = []
    for guess in side.top:
        colour = _RIGHT if guess.token in pair.answers else _WRONG if guess.token in pair.distractors else "inherit"
        bar = f"height:3px;width:{max(2, round(90 * guess.probability))}px;background:rgba(82,96,109,.6)"
        shown = f'<span style="{_MONO};color:{colour}">{escape(visible(guess.token))}</span>'
        cells.append(f"{shown} {faded(percent(guess.probability))}<div style='{bar}'></div>")
    score = "" if side.score is None else f"{metric} {plain(side.score)}"
    inside = "".join(f'<td style="padding:.15em 1.2em .15em 0;text-align:left">{c}</td>' for c in (faded(name), *cells))
    return f'<tr style="background:transparent">{inside}<td style="{FADED}">{escape(score)}</td></tr>'
