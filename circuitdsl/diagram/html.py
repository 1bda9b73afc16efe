"""Drawing → one HTML file: the figure, and under it every claim, with what was found. No script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator

from circuitdsl.circuit.claims import Claim
from circuitdsl.diagram import palette
from circuitdsl.diagram.collect import measured_in, pairs
from circuitdsl.diagram.elements import FONT
from circuitdsl.diagram.model import Drawing
from circuitdsl.diagram.svg import to_svg
from circuitdsl.report import numbers
from circuitdsl.report.report import ClaimResult
from circuitdsl.visible import escape

_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 2rem auto; max-width: 1160px; padding: 0 1rem; font: 15px/1.5 {FONT}; color: {palette.INK};
  background: {palette.PAPER}; }}
figure {{ margin: 0; }}
svg {{ display: block; margin: 0 auto; max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; width: 100%; margin-top: 1.5rem; font-size: 14px; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-top: 1px solid #e4e7eb; }}
th {{ color: {palette.SOFT}; font-weight: 600; }}
th.number, td.number {{ text-align: right; white-space: nowrap; }}
td.claim {{ min-width: 17rem; }}
td.line {{ color: {palette.FAINT}; }}
code {{ font: 13px/1.5 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; overflow-wrap: anywhere; }}
summary {{ cursor: pointer; color: {palette.SOFT}; }}
ul {{ margin: .2rem 0 0; padding-left: 1.1rem; }}
b.verdict {{ white-space: nowrap; }}
b.verdict::before {{ content: ''; display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .45em; background: currentColor; }}
.holds {{ color: {palette.TONES["holds"]}; }} .fails, .unexpected {{ color: {palette.TONES["fails"]}; }}
.expected {{ color: {palette.TONES["expected"]}; }}
.undecided {{ color: #8a5a00; }} .error, .unmeasured {{ color: {palette.SOFT}; }}
"""


def to_html(drawing: Drawing) -> str:
    """The drawing as a self-contained page."""
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(drawing.title)}</title>",
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<figure>",
            to_svg(drawing),
            "</figure>",
            *_table(drawing),
            "</body>\n</html>\n",
        )
    )


def _table(drawing: Drawing) -> Iterator[str]:
    """A line per claim and task, drawn or not, in the order of the spec."""
    if not drawing.claims:
        return
    names = ["line", "claim"]
    if drawing.reported:
        names += [*(["task"] if drawing.several_tasks else []), "figure", "interval", "n", "verdict", "reason"]
    heads = "".join(f"<th{_kind(name)}>{name}</th>" for name in names)
    yield f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>"
    for claim in drawing.claims:
        cells = _cells(claim)
        yield "<tr>" + "".join(f"<td{_kind(name)}>{cells.get(name, '')}</td>" for name in names) + "</tr>"
    yield "</tbody>\n</table>"


def _kind(column: str) -> str:
    kind = "number" if column in ("figure", "interval", "n") else column if column in ("line", "claim") else ""
    return f' class="{kind}"' if kind else ""


def _cells(claim: Claim | ClaimResult) -> dict[str, str]:
    found = {"line": str(claim.line or ""), "claim": f"<code>{escape(claim.text)}</code>"}
    if isinstance(claim, Claim):
        return found | {"verdict": '<b class="verdict unmeasured">not in the report</b>'}
    measured = measured_in(claim)
    return {
        "line": found["line"],
        "claim": (f"{escape(claim.block)}<br>" if claim.block else "") + found["claim"],
        "task": escape(claim.task or ""),
        "figure": escape(numbers.figure(measured)),
        "interval": escape(numbers.interval(measured)) if measured else "",
        "n": str(measured.n or "") if measured else "",
        "verdict": f'<b class="verdict {claim.outcome}">{claim.spoken}</b>',
        "reason": escape(claim.why) + _pairs(claim),
    }


def _pairs(claim: ClaimResult) -> str:
    """Every pair of a group edge, folded away."""
    told = list(pairs(claim.members))
    if len(told) < 2:
        return ""
    items = "".join(f"<li><code>{escape(pair)}</code> {escape(effect)}</li>" for pair, effect in told)
    return f"<details><summary>{len(told)} pairs</summary><ul>{items}</ul></details>"
