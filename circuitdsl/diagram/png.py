"""Scene → PNG. Graphviz is only the painter: the scene goes to it as xdot drawing operations, placed already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import graphviz

from circuitdsl.diagram.geometry import Curve, Point, Rect, polyline
from circuitdsl.diagram.marks import Block, Group, Line, Mark, Pen, Scene, Span, Stroke
from circuitdsl.diagram.model import Drawing
from circuitdsl.diagram.scene import gap, scene
from circuitdsl.errors import UserError

_LONGEST = 3000  # characters, of up to four bytes
_DOTS_PER_INCH = 144  # twice the 72 units of the scene
_SINK = 0.55  # from the centre line of text down to where Graphviz wants it, in font sizes
_CORNER = 0.5523  # a quarter of a circle as a cubic curve


def to_png(drawing: Drawing) -> bytes:
    """The drawing as a PNG image; raises what `paint` raises."""
    return paint(scene(drawing))


def paint(found: Scene) -> bytes:
    """Marks as a PNG image.

    Raises:
        UserError: Graphviz's program `dot` is not installed, or fails.
    """
    try:
        return graphviz.Source(_source(found), engine="neato").pipe(format="png", neato_no_op=2)
    except graphviz.ExecutableNotFound:
        raise UserError(
            "PNG needs Graphviz, and its program dot is not installed",
            hint="write .svg or .html instead, or install Graphviz (graphviz.org)",
        ) from None
    except graphviz.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip()
        raise UserError(f"Graphviz could not paint this: {said}", hint="write .svg or .html instead") from None


def _source(found: Scene) -> str:
    """A graph of two invisible nodes, at the corners, with the scene as its background."""
    operations = [op for mark in found.marks for op in _mark(mark, (0.0, found.height), 1.0)]
    painted = " + ".join(f'"{"".join(some)}"' for some in _pieces(operations))
    corners = ((0.0, 0.0), (found.width, found.height))
    nodes = "\n".join(f'"{i}" [pos="{x:.1f},{y:.1f}!"]' for i, (x, y) in enumerate(corners))
    return f"""digraph {{
graph [_background={painted}, bgcolor=white, dpi={_DOTS_PER_INCH}, pad=0]
node [style=invis, shape=point, width=0.001, height=0.001, fixedsize=true, label=""]
{nodes}
}}
"""


def _pieces(operations: Sequence[str]) -> Iterator[list[str]]:
    """Graphviz reads quoted strings up to 16 kB."""
    piece: list[str] = []
    for operation in operations:
        if piece and sum(map(len, piece)) + len(operation) > _LONGEST:
            yield piece
            piece = []
        piece.append(operation)
    yield piece


# Operations of xdot 1.x: https://graphviz.org/docs/outputs/canon/#xdot. y grows upwards there.


def _mark(mark: Mark, origin: Point, opacity: float) -> Iterator[str]:
    match mark:
        case Block():
            yield from _painted(_outline(mark), mark.pen, origin, opacity)
        case Stroke():
            yield from _painted(mark.curves, mark.pen, origin, opacity)
        case Line():
            yield from _line(mark, origin, opacity)
        case Group():
            inner = (origin[0] + mark.at[0], origin[1] - mark.at[1])
            for part in mark.marks:
                yield from _mark(part, inner, opacity * mark.opacity)


def _painted(curves: Iterable[Curve], pen: Pen, origin: Point, opacity: float) -> Iterator[str]:
    points = _points(curves, origin)
    if pen.fill:
        clear = pen.fill[:7] + "00"
        yield f"c {_string(clear)}C {_string(_colour(pen.fill, opacity))}b {points}"
    if pen.stroke:
        dash = "dashed" if pen.dash else "solid"
        yield f"S {_string(dash)}S {_string(f'setlinewidth({pen.width:.2f})')}"
        yield f"c {_string(_colour(pen.stroke, opacity))}B {points}"


def _points(curves: Iterable[Curve], origin: Point) -> str:
    """The control points of curves that follow one another: 3 n + 1 of them."""
    found: list[Point] = []
    for curve in curves:
        found += (
            [curve.leave, curve.arrive, curve.end] if found else [curve.start, curve.leave, curve.arrive, curve.end]
        )
    return f"{len(found)} " + "".join(f"{origin[0] + x:.2f} {origin[1] - y:.2f} " for x, y in found)


def _outline(block: Block) -> tuple[Curve, ...]:
    """Sides and corners of a round rectangle."""
    rect: Rect = block.rect
    r = min(block.radius, rect.height / 2, rect.width / 2)
    x, y, right, bottom = rect.x, rect.y, rect.right, rect.bottom
    ways = (((1, 0), (0, 1)), ((0, 1), (-1, 0)), ((-1, 0), (0, -1)), ((0, -1), (1, 0)))
    starts = ((right - r, y), (right, bottom - r), (x + r, bottom), (x, y + r))
    ends = ((right, y + r), (right - r, bottom), (x, bottom - r), (x + r, y))
    curves: list[Curve] = []
    at = (x + r, y)
    for (before, after), start, end in zip(ways, starts, ends, strict=True):
        k = r * _CORNER
        leave = (start[0] + k * before[0], start[1] + k * before[1])
        arrive = (end[0] - k * after[0], end[1] - k * after[1])
        curves += [*polyline(at, start), Curve(start, leave, arrive, end)]
        at = end
    return tuple(curves)


def _line(line: Line, origin: Point, opacity: float) -> Iterator[str]:
    """Every span about its own middle, or from its left end where the line begins there."""
    whole = sum(span.width for span in line.spans) + gap(line) * (len(line.spans) - 1)
    x = line.x - whole / 2 if line.centred else line.x
    y = origin[1] - line.y - _SINK * max(span.size for span in line.spans)
    for span in line.spans:
        at, place = (x + span.width / 2, 0) if line.centred else (x, -1)
        yield f"F {span.size:g} {_string(_font(span))}c {_string(_colour(span.fill, opacity))}"
        yield f"T {origin[0] + at:.2f} {y:.2f} {place} {span.width:.2f} {_string(_words(span.words))}"
        x += span.width + gap(line)


def _font(span: Span) -> str:
    return "Helvetica,Arial,sans-serif" + (" Bold" if span.bold else " Italic" if span.italic else "")


def _words(words: str) -> str:
    """Without what the DOT language would read itself: control characters, quotes, backslashes."""
    shown = "".join(char if char.isprintable() else " " for char in words)
    return shown.replace("\\", "\N{SET MINUS}").replace('"', "\N{MODIFIER LETTER DOUBLE PRIME}")


def _string(words: str) -> str:
    """Length in bytes, a dash, the string."""
    return f"{len(words.encode())} -{words} "


def _colour(colour: str, opacity: float) -> str:
    alpha = (int(colour[7:], 16) if len(colour) == 9 else 255) * opacity
    return f"{colour[:7]}{round(alpha):02x}"
