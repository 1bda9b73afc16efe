"""The curves of arrows, once boxes and lanes have their places, and where labels may stand on them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram import labels as labels_of
from circuitdsl.diagram.geometry import Curve, Point, Rect, flowing, straight
from circuitdsl.diagram.labels import Label, Spot
from circuitdsl.diagram.model import Arrow, Box, Drawing, End
from circuitdsl.diagram.routes import Route
from circuitdsl.diagram.shapes import ARC, ARC_LABEL, ARC_STEP, Shape

_LOOP = 24.0
_ANY = 1e5  # room in which a label stays on one line
_HOLD = 9.0  # from the end of a label that stands beside its arrow to the arrow under it


@dataclass(frozen=True, slots=True)
class PlacedBox:
    box: Box
    rect: Rect
    shape: Shape

    def chip(self, node: Node) -> Rect:
        return self.shape.chip(node).moved(self.rect.x, self.rect.y)


@dataclass(frozen=True, slots=True)
class PlacedArrow:
    """Curves from the sender on, and the tip beyond the last of them."""

    arrow: Arrow
    curves: tuple[Curve, ...]
    tip: Point
    width: float
    label: Label | None = None

    @property
    def line(self) -> tuple[Point, ...]:
        return tuple(point for curve in self.curves for point in curve.samples())


def strokes(placed: PlacedArrow) -> list[tuple[str, Rect, list[Point]]]:
    """The pieces of an arrow with their bounds, for finding what runs under a label."""
    pieces = [curve.samples(20) for curve in placed.curves]
    return [(placed.arrow.key, _around(points), points) for points in pieces]


def _around(points: list[Point]) -> Rect:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Rect(min(xs) - 0.5, min(ys) - 0.5, max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)


@dataclass(frozen=True, slots=True)
class Heights:
    """Top and bottom of the band of every row; the gap above row i lies between rows i and i + 1."""

    top: tuple[float, ...]
    bottom: tuple[float, ...]


# --- arrows between boxes ---------------------------------------------------------------------------


def head_length(width: float) -> float:
    return 6.5 + 1.25 * width


def curved(drawing: Drawing, way: Route, boxes: Mapping[str, PlacedBox], heights: Heights) -> PlacedArrow:
    """Straight past the rows, smooth between them."""
    width = drawing.width(way.arrow)
    low, high = (way.x_low, _meets(boxes, way.low, upper=True)), (way.x_high, _meets(boxes, way.high, upper=False))
    head = head_length(width)
    start, end = (low[1], high[1] + head) if way.upwards else (low[1] - head, high[1])
    points = [(way.x_low, start), (way.x_low, min(start, heights.top[way.rows[0]]))]
    for row in way.passed():
        points += [(way.lanes[row], heights.bottom[row]), (way.lanes[row], heights.top[row])]
    points += [(way.x_high, max(end, heights.bottom[way.rows[1]])), (way.x_high, end)]
    curves = []
    for i, (a, b) in enumerate(itertools.pairwise(points)):
        if a != b:
            curves.append(flowing(a, b) if i % 2 else straight(a, b))
    if way.upwards:
        return PlacedArrow(way.arrow, tuple(curves), high, width)
    turned = [Curve(c.end, c.arrive, c.leave, c.start) for c in reversed(curves)]
    return PlacedArrow(way.arrow, tuple(turned), low, width)


def _meets(boxes: Mapping[str, PlacedBox], end: End, upper: bool) -> float:
    """The height at which an arrow meets its end: the chip, where no other chip is in the way, else the box."""
    placed = boxes[end.box]
    if end.node:
        chip = placed.shape.chip(end.node)
        column = [other.y for _, other in placed.shape.chips if abs(other.x - chip.x) < 1]
        if chip.y == (min(column) if upper else max(column)):
            return placed.rect.y + (chip.y if upper else chip.bottom)
    return placed.rect.y if upper else placed.rect.bottom


def head_room(arrow: PlacedArrow) -> Rect:
    """The arrowhead, which no label may cover."""
    x, y = arrow.tip
    half = 4 + arrow.width
    ys = sorted((y, arrow.curves[-1].end[1]))
    return Rect(x - half, ys[0], 2 * half, ys[1] - ys[0])


def spots(way: Route, arrow: PlacedArrow, heights: Heights, wide: float) -> tuple[Spot, ...]:
    """Places for a label so wide: on the curves, or held at one end, in every gap that the arrow runs through."""
    aside = max(0.0, wide / 2 - _HOLD)
    curves = [curve for curve in arrow.curves if abs(curve.end[1] - curve.start[1]) > 20]
    gaps = range(way.rows[0], way.rows[1])
    spots = []
    for gap in gaps:
        low, high = heights.top[gap], heights.bottom[gap + 1]
        for curve in curves:
            if not min(curve.start[1], curve.end[1]) - 1 <= (low + high) / 2 <= max(curve.start[1], curve.end[1]) + 1:
                continue
            for step in range(2, 25):
                point, share = curve.at(step / 26), abs(step / 26 - 0.5)
                off = share + 0.1 * abs(gap - gaps[len(gaps) // 2])
                spots.append(Spot(point, gap, off))
                spots += [Spot((point[0] + dx, point[1]), gap, off + 0.5) for dx in (-aside, aside) if aside]
    return tuple(spots) or (Spot(arrow.curves[0].at(0.5), way.rows[0], 0.0),)


# --- arrows within a box ----------------------------------------------------------------------------


def is_arc(arrow: Arrow) -> bool:
    """Both ends are chips of the box: drawn inside it; anything else within a box is a loop beside it."""
    return arrow.sender.node is not None and arrow.receiver.node is not None


def loop_label(arrow: Arrow) -> Label | None:
    """A loop ends at the box, so that its label names the single node it is about."""
    sender, receiver = arrow.sender.node, arrow.receiver.node
    return labels_of.label(
        arrow, f"from {sender}" if sender else f"to {receiver}" if receiver else "", room=_ANY, tall=False
    )


def arc_label(arrow: Arrow) -> Label:
    """The label of an arc stands away from it, so that it names both ends."""
    found = labels_of.label(arrow, f"{arrow.sender.node} → {arrow.receiver.node}", room=_ANY, tall=False)
    assert found
    return found


def beside(box: Box, drawing: Drawing) -> float:
    """Room for loops, right of a box."""
    loops = [a for a in drawing.arrows if a.within and a.sender.box == box.key and not is_arc(a)]
    if not loops:
        return 0.0
    return _LOOP + 6 + max((found.rect.width for a in loops if (found := loop_label(a))), default=0.0)


def within(drawing: Drawing, boxes: Mapping[str, PlacedBox]) -> list[PlacedArrow]:
    """Arrows that stay in their box: arcs under its chips, loops at its right side."""
    seen: Counter[tuple[str, bool]] = Counter()
    found = []
    for arrow in drawing.arrows:
        if arrow.within:
            kind = (arrow.sender.box, is_arc(arrow))
            make = _arc if kind[1] else _loop
            thick = min(drawing.width(arrow), 3.0)  # they are short
            found.append(make(arrow, boxes[arrow.sender.box], seen[kind], thick))
            seen[kind] += 1
    return found


def _arc(arrow: Arrow, placed: PlacedBox, lane: int, width: float) -> PlacedArrow:
    """From chip to chip, through the room between the chips and the name of the box; labels are stacked beyond."""
    assert arrow.sender.node and arrow.receiver.node
    one, other = placed.chip(arrow.sender.node), placed.chip(arrow.receiver.node)
    up = -1 if placed.shape.arcs_above else 1
    edge = one.y if up < 0 else one.bottom
    out = edge + up * (ARC + ARC_STEP * lane)
    way = 1 if other.x > one.x else -1
    a, b = one.centre[0] + way * (4 + 3 * lane), other.centre[0] - way * (4 + 3 * lane)
    turn = min(6.0, abs(b - a) / 2)
    curves = (
        straight((a, edge), (a, out - up * turn)),
        Curve((a, out - up * turn), (a, out), (a, out), (a + way * turn, out)),
        straight((a + way * turn, out), (b - way * turn, out)),
        Curve((b - way * turn, out), (b, out), (b, out), (b, out - up * turn)),
        straight((b, out - up * turn), (b, edge + up * head_length(width))),
    )
    text = arc_label(arrow)
    half = text.rect.width / 2 + 4
    x = min(max((a + b) / 2, placed.rect.x + half), placed.rect.right - half)
    beyond = edge + up * (ARC + ARC_STEP * (placed.shape.arcs - 1) + ARC_LABEL * (lane + 0.5) + 2)
    return PlacedArrow(arrow, curves, (b, edge), width, text.at((x, beyond)))


def _loop(arrow: Arrow, placed: PlacedBox, lane: int, width: float) -> PlacedArrow:
    y = placed.rect.y + 21 + 30.0 * lane
    x, head = placed.rect.right, head_length(width)
    curve = Curve((x, y + 9), (x + 1.5 * _LOOP, y + 15), (x + 1.5 * _LOOP, y - 9), (x + head, y - 9))
    text = loop_label(arrow)
    if text:
        text = text.at((x + _LOOP + 4 + text.rect.width / 2, y))
    return PlacedArrow(arrow, (curve,), (x, y - 9), width, text)
