"""Scene → SVG, by hand: no font, script or style from anywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from circuitdsl.diagram import palette
from circuitdsl.diagram.geometry import Curve
from circuitdsl.diagram.marks import Block, Group, Line, Mark, Pen, Scene, Span, Stroke
from circuitdsl.diagram.model import Drawing
from circuitdsl.diagram.scene import gap, scene

FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_svg(drawing: Drawing) -> str:
    """The drawing as one SVG document."""
    return paint(scene(drawing))


def paint(found: Scene) -> str:
    """Marks as one SVG document."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {found.width:.0f} {found.height:.0f}"'
        f' width="{found.width:.0f}" height="{found.height:.0f}" role="img"'
        f' font-family="{FONT}" fill="{palette.INK}">',
        f"<title>{text(found.title)}</title>",
        f"<desc>{text(found.description)}</desc>",
        f'<rect width="100%" height="100%" fill="{palette.PAPER}"/>',
        *(line for mark in found.marks for line in _mark(mark)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def text(words: str) -> str:
    """Words as XML text; characters that XML cannot hold become replacement characters."""
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words))


def attribute(words: str) -> str:
    return quoteattr(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words))


def _mark(mark: Mark) -> Iterator[str]:
    match mark:
        case Block():
            yield _block(mark)
        case Stroke():
            yield f'<path d="{_path(mark.curves)}"{_pen(mark.pen)} stroke-linejoin="round"/>'
        case Line():
            yield _line(mark)
        case Group():
            yield from _group(mark)


def _group(group: Group) -> Iterator[str]:
    names = f"{group.kind} {group.classes}".strip()
    about = "".join(f" data-{key}={attribute(value)}" for key, value in group.about)
    faint = f' opacity="{group.opacity:g}"' if group.opacity < 1 else ""
    moved = f' transform="translate({group.at[0]:.1f} {group.at[1]:.1f})"' if group.at != (0.0, 0.0) else ""
    yield f'<g class="{names}"{about}{faint}{moved}>'
    if group.story:
        yield f"<title>{text(group.story)}</title>"
    for mark in group.marks:
        yield from _mark(mark)
    yield "</g>"


def _block(block: Block) -> str:
    rect, radius = block.rect, min(block.radius, block.rect.height / 2)
    about = f' class="chip" data-node="{text(block.node)}"' if block.node else ""
    return (
        f'<rect{about} x="{rect.x:.1f}" y="{rect.y:.1f}" width="{rect.width:.1f}" height="{rect.height:.1f}"'
        f' rx="{radius:.1f}"{_pen(block.pen)}/>'
    )


def _pen(pen: Pen) -> str:
    fill, alpha = (pen.fill[:7], pen.fill[7:]) if pen.fill else ("none", "")
    parts = [f' fill="{fill}"']
    if alpha:
        parts.append(f' fill-opacity="{int(alpha, 16) / 255:.2f}"')
    if pen.stroke:
        parts.append(f' stroke="{pen.stroke}" stroke-width="{pen.width:.2f}"')
    if pen.dash:
        parts.append(f' stroke-dasharray="{pen.dash[0]} {pen.dash[1]}"')
    return "".join(parts)


def _line(line: Line) -> str:
    first = line.spans[0]
    middle = ' text-anchor="middle"' if line.centred else ""
    start = f'<text x="{line.x:.1f}" y="{line.y + 0.35 * max(s.size for s in line.spans):.1f}"{middle}'
    if len(line.spans) == 1:
        return f"{start}{_style(first)}>{text(first.words)}</text>"
    apart = f' dx="{gap(line):g}"'
    spans = (
        f"<tspan{_style(span)}{apart if i else ''}>{text(span.words)}</tspan>" for i, span in enumerate(line.spans)
    )
    return f"{start}>{''.join(spans)}</text>"


def _style(span: Span) -> str:
    weight = ' font-weight="600"' if span.bold else ""
    slant = ' font-style="italic"' if span.italic else ""
    return f' font-size="{span.size:g}"{weight}{slant} fill="{span.fill}"'


def _path(curves: Iterable[Curve]) -> str:
    parts, at = [], None
    for curve in curves:
        if curve.start != at:
            parts.append(f"M{curve.start[0]:.1f} {curve.start[1]:.1f}")
        if curve.leave == curve.start and curve.arrive == curve.end:
            parts.append(f"L{curve.end[0]:.1f} {curve.end[1]:.1f}")
        else:
            parts.append("C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in (curve.leave, curve.arrive, curve.end)))
        at = curve.end
    return "".join(parts)
