"""Drawing → one HTML file: the figure, and under it what every arrow claims. No script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator

from circuitdsl.report.diagram import palette
from circuitdsl.report.diagram.model import Arrow, Drawing
from circuitdsl.report.diagram.svg import FONT, text, to_svg
from circuitdsl.report.numbers import percent

_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 2rem auto; max-width: 1160px; padding: 0 1rem; font: 15px/1.5 {FONT}; color: {palette.INK};
  background: {palette.PAPER}; }}
figure {{ margin: 0; }}
svg {{ display: block; margin: 0 auto; max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; width: 100%; margin-top: 1.5rem; font-size: 14px; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-top: 1px solid #e4e7eb; }}
th {{ color: {palette.SOFT}; font-weight: 600; }}
td.number {{ text-align: right; white-space: nowrap; }}
td.line {{ color: {palette.FAINT}; }}
code {{ font: 13px/1.5 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; overflow-wrap: anywhere; }}
summary {{ cursor: pointer; color: {palette.SOFT}; }}
ul {{ margin: .2rem 0 0; padding-left: 1.1rem; }}
b.verdict::before {{ content: ''; display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .45em; background: currentColor; }}
.holds {{ color: {palette.TONES["holds"]}; }} .fails {{ color: {palette.TONES["fails"]}; }}
.undecided {{ color: #8a5a00; }} .error, .unmeasured {{ color: {palette.SOFT}; }}
"""


def to_html(drawing: Drawing) -> str:
    """The drawing as a self-contained page."""
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(drawing.title)}</title>",
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<figure>",
            to_svg(drawing),
            "</figure>",
            *_table(drawing),
            "</body>\n</html>\n",
        )
    )


def _table(drawing: Drawing) -> Iterator[str]:
    """A line per claim that is drawn, in the order of the spec."""
    if not drawing.arrows:
        return
    found = "<th>verdict</th><th>effect</th><th>reason</th>" if drawing.reported else ""
    yield f"<table>\n<thead><tr><th>line</th><th>edge</th>{found}</tr></thead>\n<tbody>"
    for arrow in drawing.arrows:
        yield _row(drawing, arrow)
    yield "</tbody>\n</table>"


def _row(drawing: Drawing, arrow: Arrow) -> str:
    lines = "<br>".join(str(said.line) for said in arrow.claims)
    claims = "<br>".join(f"<code>{text(said.text)}</code>" for said in arrow.claims)
    cells = f'<td class="line">{lines}</td><td>{claims}</td>'
    if drawing.reported:
        cells += _found(arrow)
    return f"<tr>{cells}</tr>"


def _found(arrow: Arrow) -> str:
    if arrow.finding is None:
        return '<td><b class="verdict unmeasured">not in the report</b></td><td></td><td></td>'
    finding = arrow.finding
    reasons = "<br>".join(text(reason) for reason in finding.reasons)
    return (
        f'<td><b class="verdict {finding.verdict}">{finding.verdict}</b></td>'
        f'<td class="number">{text(finding.shown)}</td><td>{reasons}{_members(arrow)}</td>'
    )


def _members(arrow: Arrow) -> str:
    """Every pair of a group edge, folded away."""
    pairs = [m for m in arrow.finding.members if m.effect is not None] if arrow.finding else []
    if len(pairs) < 2:
        return ""
    items = "".join(f"<li><code>{text(m.text)}</code> {text(percent(m.effect or 0.0))}</li>" for m in pairs)
    return f"<details><summary>{len(pairs)} pairs</summary><ul>{items}</ul></details>"
