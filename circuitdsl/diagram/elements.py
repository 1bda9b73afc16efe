"""What pictures are made of: rectangles, curves and words, and the few SVG elements that show them.

y grows downwards, as in SVG. Elements are text, without a font, script or style from anywhere else. The widths of
words are those of DejaVu Sans, the widest of the usual sans-serif fonts.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from circuitdsl.diagram import palette
from circuitdsl.visible import escape

FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
BLANK = 5.0  # between the words of different styles on a line
_EMS = {
    0.28: "ijlI'|",
    0.33: " .,:;!()[]/\\-",
    0.41: 'frt"·',
    0.52: "_*?`",
    0.54: "ckszJ",
    0.61: "abdeghnopquvxyLFETYZ",
    0.64: "0123456789$",
    0.70: "ABCDKNPRSVXU",
    0.79: "GHOQw",
    0.84: "+<>=−~#",
    0.98: "mMW%@&",
}
_EM = {char: em for em, chars in _EMS.items() for char in chars}
_BOLD = 1.1
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2

    def moved(self, dx: float, dy: float) -> Rect:
        return Rect(self.x + dx, self.y + dy, self.width, self.height)

    def grown(self, by: float) -> Rect:
        return Rect(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)


class Curve(NamedTuple):
    """The control points of a cubic Bézier curve, which stays between them."""

    start: Point
    leave: Point
    arrive: Point
    end: Point


def straight(start: Point, end: Point) -> Curve:
    return Curve(start, start, end, end)


def flowing(start: Point, end: Point) -> Curve:
    """A curve that leaves and arrives vertically."""
    half = (end[1] - start[1]) / 2
    return Curve(start, (start[0], start[1] + half), (end[0], end[1] - half), end)


def bounds(rects: Iterable[Rect]) -> Rect:
    """The smallest rectangle around all; an empty one around none."""
    found = list(rects) or [Rect(0, 0, 0, 0)]
    x, y = min(r.x for r in found), min(r.y for r in found)
    return Rect(x, y, max(r.right for r in found) - x, max(r.bottom for r in found) - y)


def polyline(*points: Point) -> tuple[Curve, ...]:
    """Straight pieces from point to point."""
    return tuple(straight(a, b) for a, b in itertools.pairwise(points))


def width(words: str, size: float, bold: bool = False) -> float:
    """Width in pixels of a line of text."""
    return size * (_BOLD if bold else 1.0) * sum(_em(char) for char in words)


def wrap(words: str, size: float, room: float, bold: bool = False) -> list[str]:
    """Break text into lines no wider than `room`: at blanks and underscores, inside a word only where it must be."""
    lines = [""]
    for piece in re.findall(r"[^\s_]*_+|\S+\s*|\s+", words):
        for part in _fitting(piece, size, room, bold):
            if lines[-1] and width((lines[-1] + part).rstrip(), size, bold) > room:
                lines.append("")
            lines[-1] += part
    return [line.strip() for line in lines if line.strip()] or [""]


def _fitting(piece: str, size: float, room: float, bold: bool) -> list[str]:
    """A piece cut into parts that each fit the room."""
    parts = [""]
    for char in piece:
        if parts[-1] and width((parts[-1] + char).rstrip(), size, bold) > room:
            parts.append("")
        parts[-1] += char
    return parts


def _em(char: str) -> float:
    if char in _EM:
        return _EM[char]
    if unicodedata.combining(char):
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.05
    return 0.75 if ord(char) < 0x2000 else 1.0


def document(wide: float, tall: float, title: str, description: str, elements: Iterable[str]) -> str:
    """One SVG document, on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {tall:.0f}" width="{wide:.0f}"'
        f' height="{tall:.0f}" role="img" font-family="{FONT}" fill="{palette.INK}">'
    )
    about = f"<title>{escape(title)}</title>", f"<desc>{escape(description)}</desc>"
    ground = f'<rect width="100%" height="100%" fill="{palette.PAPER}"/>'
    return "\n".join((head, *about, ground, *elements, "</svg>\n"))


def attribute(words: str) -> str:
    """Words as an XML attribute in its quotes."""
    return f'"{escape(words)}"'


def group(
    kind: str,
    elements: Iterable[str],
    story: str = "",
    at: Point = (0.0, 0.0),
    **about: str,
) -> str:
    """Elements that belong together: their class, what the pointer shows, and (`about`) data attributes."""
    data = "".join(f" data-{key}={attribute(value)}" for key, value in about.items())
    moved = f' transform="translate({at[0]:.1f} {at[1]:.1f})"' if at != (0.0, 0.0) else ""
    told = (f"<title>{escape(story)}</title>",) if story else ()
    return "\n".join((f'<g class="{kind}"{data}{moved}>', *told, *elements, "</g>"))


@dataclass(frozen=True, slots=True)
class Pen:
    """How a shape is painted: no colour, no paint. Colours may end in how opaque they are, as `#ffffffbf` does.

    A group that is faint as a whole would be painted on a page of its own first, which takes seconds for 100 arrows.
    """

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dash: tuple[int, int] | None = None

    def __str__(self) -> str:
        """The attributes of an SVG element."""
        return "".join(
            (
                _paint("fill", self.fill or "none"),
                f'{_paint("stroke", self.stroke)} stroke-width="{self.width:.2f}"' if self.stroke else "",
                f' stroke-dasharray="{self.dash[0]} {self.dash[1]}"' if self.dash else "",
            )
        )


def _paint(kind: str, colour: str) -> str:
    alpha = f' {kind}-opacity="{int(colour[7:], 16) / 255:.2f}"' if colour[7:] else ""
    return f' {kind}="{colour[:7]}"{alpha}'


def block(rect: Rect, radius: float, pen: Pen, node: str = "") -> str:
    """A rectangle with round corners; `node` is the node of the model that it stands for."""
    about = f' class="chip" data-node={attribute(node)}' if node else ""
    return (
        f'<rect{about} x="{rect.x:.1f}" y="{rect.y:.1f}" width="{rect.width:.1f}" height="{rect.height:.1f}"'
        f' rx="{min(radius, rect.height / 2):.1f}"{pen}/>'
    )


def six_sided(rect: Rect, pen: Pen, node: str) -> str:
    """A hexagon with points on the left and on the right; `node` as in `block`."""
    left, right, middle = rect.x + rect.height / 3.5, rect.right - rect.height / 3.5, rect.centre[1]
    upper = (left, rect.y), (right, rect.y), (rect.right, middle)
    corners = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in (*upper, (right, rect.bottom), (left, rect.bottom), (rect.x, middle))
    )
    return f'<polygon class="chip" data-node={attribute(node)} points="{corners}"{pen} stroke-linejoin="round"/>'


def dot(x: float, y: float, radius: float, colour: str) -> str:
    return block(Rect(x - radius, y - radius, 2 * radius, 2 * radius), radius, Pen(colour))


def path(curves: Iterable[Curve], pen: Pen) -> str:
    """Curves one after another, or the area in them."""
    parts, at = [], None
    for curve in curves:
        if curve.start != at:
            parts.append(f"M{curve.start[0]:.1f} {curve.start[1]:.1f}")
        if curve.leave == curve.start and curve.arrive == curve.end:
            parts.append(f"L{curve.end[0]:.1f} {curve.end[1]:.1f}")
        else:
            parts.append("C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in (curve.leave, curve.arrive, curve.end)))
        at = curve.end
    return f'<path d="{"".join(parts)}"{pen} stroke-linejoin="round"/>'


@dataclass(frozen=True, slots=True)
class Span:
    """Words of one style."""

    words: str
    size: float
    fill: str = palette.INK
    bold: bool = False
    italic: bool = False

    @property
    def width(self) -> float:
        return width(self.words, self.size, self.bold)

    def __str__(self) -> str:
        """The attributes of an SVG element."""
        weight = ' font-weight="600"' if self.bold else ""
        slant = ' font-style="italic"' if self.italic else ""
        return f' font-size="{self.size:g}"{weight}{slant} fill="{self.fill}"'


def line(x: float, y: float, *spans: Span, centred: bool = False) -> str:
    """Text; `y` is its centre line, `x` its left end or, centred, its middle."""
    middle = ' text-anchor="middle"' if centred else ""
    start = f'<text x="{x:.1f}" y="{y + 0.35 * max(span.size for span in spans):.1f}"{middle}'
    if len(spans) == 1:
        return f"{start}{spans[0]}>{escape(spans[0].words)}</text>"
    apart = (f' dx="{BLANK:g}"' if i else "" for i in range(len(spans)))
    inner = (f"<tspan{span}{dx}>{escape(span.words)}</tspan>" for span, dx in zip(spans, apart, strict=True))
    return f"{start}>{''.join(inner)}</text>"
