"""The few SVG elements that pictures are made of, as text: no font, script or style from anywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from circuitdsl.diagram import palette
from circuitdsl.diagram.geometry import Curve, Point, Rect
from circuitdsl.diagram.text import width

FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
BLANK = 5.0  # between the words of different styles on a line
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(wide: float, tall: float, title: str, description: str, elements: Iterable[str]) -> str:
    """One SVG document, on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {tall:.0f}" width="{wide:.0f}"'
        f' height="{tall:.0f}" role="img" font-family="{FONT}" fill="{palette.INK}">'
    )
    about = f"<title>{plain(title)}</title>", f"<desc>{plain(description)}</desc>"
    ground = f'<rect width="100%" height="100%" fill="{palette.PAPER}"/>'
    return "\n".join((head, *about, ground, *elements, "</svg>\n"))


def plain(words: str) -> str:
    """Words as XML text; characters that XML cannot hold become replacement characters."""
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words))


def attribute(words: str) -> str:
    """Words as an XML attribute in its quotes."""
    return quoteattr(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words))


def group(
    kind: str,
    elements: Iterable[str],
    story: str = "",
    opacity: float = 1.0,
    at: Point = (0.0, 0.0),
    **about: str,
) -> str:
    """Elements that belong together: their class, what the pointer shows, and (`about`) data attributes."""
    data = "".join(f" data-{key}={attribute(value)}" for key, value in about.items())
    faint = f' opacity="{opacity:g}"' if opacity < 1 else ""
    moved = f' transform="translate({at[0]:.1f} {at[1]:.1f})"' if at != (0.0, 0.0) else ""
    told = (f"<title>{plain(story)}</title>",) if story else ()
    return "\n".join((f'<g class="{kind}"{data}{faint}{moved}>', *told, *elements, "</g>"))


@dataclass(frozen=True, slots=True)
class Pen:
    """How a shape is painted: no colour, no paint."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dash: tuple[int, int] | None = None

    def __str__(self) -> str:
        """The attributes of an SVG element."""
        fill, alpha = self.fill[:7] or "none", self.fill[7:]
        return "".join(
            (
                f' fill="{fill}"',
                f' fill-opacity="{int(alpha, 16) / 255:.2f}"' if alpha else "",
                f' stroke="{self.stroke}" stroke-width="{self.width:.2f}"' if self.stroke else "",
                f' stroke-dasharray="{self.dash[0]} {self.dash[1]}"' if self.dash else "",
            )
        )


def block(rect: Rect, radius: float, pen: Pen, node: str = "") -> str:
    """A rectangle with round corners; `node` is the node of the model that it stands for."""
    about = f' class="chip" data-node={attribute(node)}' if node else ""
    return (
        f'<rect{about} x="{rect.x:.1f}" y="{rect.y:.1f}" width="{rect.width:.1f}" height="{rect.height:.1f}"'
        f' rx="{min(radius, rect.height / 2):.1f}"{pen}/>'
    )


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
        return f"{start}{spans[0]}>{plain(spans[0].words)}</text>"
    apart = (f' dx="{BLANK:g}"' if i else "" for i in range(len(spans)))
    inner = (f"<tspan{span}{dx}>{plain(span.words)}</tspan>" for span, dx in zip(spans, apart, strict=True))
    return f"{start}>{''.join(inner)}</text>"
