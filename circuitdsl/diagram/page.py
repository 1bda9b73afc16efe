"""Drawing → page: every box, arrow and label at its place."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from circuitdsl.diagram.elements import Curve, Point, Rect, bounds, straight
from circuitdsl.diagram.layout import GAP, Link, Port, place
from circuitdsl.diagram.model import Arrow, Box, Drawing, End
from circuitdsl.diagram.palette import tints as tints_of
from circuitdsl.diagram.shapes import ARC, ARC_LABEL, ARC_STEP, Label, Needs, Shape, label, shape

_WIDEST = 1120.0  # wider than this is no longer readable at 900 px
_COLUMNS = 6
_MARGIN = 8.0
_LOOP = 24.0
_ANY = 1e5  # room in which a label stays on one line
Column = tuple[str, ...]
OUTSIDE: Column = ("outside the circuit",)
ALL: Column = ("",)


@dataclass(frozen=True, slots=True)
class PlacedArrow:
    """Curves from the sender on, the tip beyond the last of them, and the label with the corner where it stands."""

    arrow: Arrow
    curves: tuple[Curve, ...]
    tip: Point
    width: float
    label: Label | None = None
    label_at: Point = (0.0, 0.0)

    @property
    def label_rect(self) -> Rect | None:
        return Rect(*self.label_at, self.label.width, self.label.height) if self.label else None


@dataclass(frozen=True, slots=True)
class Page:
    """Everything at its place: `area` is the rectangle around all of it."""

    area: Rect
    shapes: Mapping[str, Shape]
    boxes: Mapping[str, Rect]
    arrows: tuple[PlacedArrow, ...]
    columns: tuple[tuple[Column, float, float], ...]
    row: Mapping[str, int]


def lay_out(drawing: Drawing) -> Page:
    """Rows by layer, and columns by position where these fit the page."""
    row = rows(drawing.boxes, drawing.arrows)
    tints = tints_of(drawing)
    shapes = {box.key: shape(box, _needs(box, drawing, row), *tints[box.key]) for box in drawing.boxes}
    columns = _columns(drawing)
    if not (2 <= len(set(columns.values()) - {OUTSIDE, ALL}) <= _COLUMNS and _fit(row, columns, shapes)):
        columns = {key: OUTSIDE if drawing.box[key].outside else ALL for key in columns}
        row = _split(row, drawing, shapes)
    return _page(drawing, shapes, row, columns)


def _fit(row: Mapping[str, int], columns: Mapping[str, Column], shapes: Mapping[str, Shape]) -> bool:
    """Whether columns, each as wide as its fullest row, fit the page."""
    widths: dict[tuple[Column, int], float] = defaultdict(float)
    for key, column in columns.items():
        widths[column, row[key]] += shapes[key].room + GAP
    return sum(max(w for (of, _), w in widths.items() if of == column) for column in set(columns.values())) <= _WIDEST


def _page(drawing: Drawing, shapes: Mapping[str, Shape], row: Mapping[str, int], columns: Mapping[str, Column]) -> Page:
    names = in_order(columns.values())
    between = [arrow for arrow in drawing.arrows if not arrow.within]
    labels = [label(arrow) for arrow in between]
    links = [_link(arrow, text, shapes, row) for arrow, text in zip(between, labels, strict=True)]
    column = {key: names.index(name) for key, name in columns.items()}
    boxes, routes, corners, borders = place(shapes, row, column, links)
    ways = zip(between, labels, routes, corners, strict=True)
    arrows = [_routed(arrow, row, curves, drawing.width(arrow), text, at) for arrow, text, curves, at in ways]
    arrows += _within(drawing, shapes, boxes)
    rects = [*boxes.values(), *(rect for arrow in arrows if (rect := arrow.label_rect))]
    rects += [Rect(x, y, 0, 0).grown(a.width) for a in arrows for curve in a.curves for x, y in curve]
    named = zip(names, borders, strict=True) if len(names) > 1 else ()
    marks = tuple((name, low, high) for name, (low, high) in named if name != ALL)
    return Page(bounds(rects).grown(_MARGIN), shapes, boxes, tuple(arrows), marks, row)


def rows(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> dict[str, int]:
    """The row of each box, from the bottom.

    A box stands above another when all its nodes are in later layers, or when an arrow joins them. Where groups send
    to each other both ways, the one that lies lower on average stands lower.
    """
    upwards = sorted(boxes, key=lambda box: fmean(node.stage() for node in box.nodes))
    joined = {(arrow.sender.box, arrow.receiver.box) for arrow in arrows}
    joined |= {(receiver, sender) for sender, receiver in joined}
    row: dict[str, int] = {}
    for i, box in enumerate(upwards):
        under = (row[low.key] for low in upwards[:i] if low.layers[1] < box.layers[0] or (low.key, box.key) in joined)
        row[box.key] = max(under, default=-1) + 1
    return row


def _split(row: Mapping[str, int], drawing: Drawing, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The same rows, none wider than the page: what does not fit goes into a row of its own above."""

    def wide(keys: Iterable[str]) -> float:
        return sum(shapes[key].room + GAP for key in keys)

    full = [[box.key for box in drawing.boxes if row[box.key] == number] for number in sorted(set(row.values()))]
    apart = max((wide(key for key in keys if drawing.box[key].outside) for keys in full), default=0.0)
    room, found, number = max(_WIDEST - apart, _WIDEST / 2), {}, -1
    for keys in full:
        parts = min(len(keys), max(1, -int(-(wide(keys) - GAP) // room)))
        size = -(-len(keys) // parts)
        for i, key in enumerate(keys):
            number += i % size == 0
            found[key] = number
    return found


def _columns(drawing: Drawing) -> dict[str, Column]:
    """The column of every box but `embed` and `logits`; a box that names no position joins what it is tied to."""
    found = {
        box.key: OUTSIDE if box.outside else box.positions for box in drawing.boxes if box.outside or box.positions
    }
    ends = [(arrow.sender.box, arrow.receiver.box) for arrow in drawing.arrows if not arrow.within]
    for box in drawing.boxes:
        if box.key not in found and box.kind not in ("embed", "logits"):
            tied = [b for a, b in ends if a == box.key] + [a for a, b in ends if b == box.key]
            ties = Counter(found[key] for key in tied if key in found)
            found[box.key] = ties.most_common(1)[0][0] if ties else next(iter(found.values()), ALL)
    return found


def in_order(columns: Iterable[Column]) -> list[Column]:
    """Columns from left to right, as the prompt is read: S1, S1+1, S2, END as far as names tell; outside last."""
    found = list(dict.fromkeys(columns))
    letters = list(dict.fromkeys(_parts(name)[0] for column in found for name in column))

    def where(name: str) -> tuple[float, float, float]:
        prefix, number, offset = _parts(name)
        return (99.0 if prefix == "END" else letters.index(prefix), number, offset)

    def key(column: Column) -> tuple[bool, tuple[float, ...], int]:
        return column == OUTSIDE, max(map(where, column), default=()), len(column)

    return sorted(found, key=key)


def _parts(name: str) -> tuple[str, int, int]:
    """`S1+1` → S, 1, 1."""
    match = re.fullmatch(r"(.*?)(\d*)([+-]\d+)?", name)
    assert match
    return match[1], int(match[2] or 0), int(match[3] or 0)


def _ordered(arrow: Arrow, row: Mapping[str, int]) -> tuple[End, End]:
    """The lower and the upper end."""
    ends = arrow.sender, arrow.receiver
    return ends if row[ends[0].box] < row[ends[1].box] else ends[::-1]


def _link(arrow: Arrow, text: Label | None, shapes: Mapping[str, Shape], row: Mapping[str, int]) -> Link:
    low, high = _ordered(arrow, row)
    size = (text.width, text.height) if text else (0.0, 0.0)
    return Link(_port(low, shapes[low.box], upper=True), _port(high, shapes[high.box], upper=False), size)


def _port(end: End, shape: Shape, upper: bool) -> Port:
    """Where an arrow meets its end: the chip, where no other chip is in the way, else the box above or below it."""
    y = 0.0 if upper else shape.height
    if end.node is None:
        return Port(end.box, y)
    chip = shape.chips[end.node]
    column = [other.y for other in shape.chips.values() if abs(other.x - chip.x) < 1]
    if chip.y == (min(column) if upper else max(column)):
        y = chip.y if upper else chip.bottom
    return Port(end.box, y, chip.centre[0], chip.width / 2 - 6)


def _routed(
    arrow: Arrow, row: Mapping[str, int], curves: tuple[Curve, ...], width: float, text: Label | None, at: Point
) -> PlacedArrow:
    """The route from the sender on, cut where the head begins."""
    if _ordered(arrow, row)[0] is not arrow.sender:
        curves = tuple(Curve(*curve[::-1]) for curve in reversed(curves))
    *before, last = curves
    (x, y), start = last.end, last.start
    neck = y + _head_length(width) * (1 if start[1] > y else -1)
    return PlacedArrow(arrow, (*before, straight(start, (x, neck))), (x, y), width, text, at)


def _head_length(width: float) -> float:
    return 6.5 + 1.25 * width


def _is_arc(arrow: Arrow) -> bool:
    """Both ends are chips of the box: drawn inside it; anything else within a box is a loop beside it."""
    return arrow.sender.node is not None and arrow.receiver.node is not None


def _needs(box: Box, drawing: Drawing, row: Mapping[str, int]) -> Needs:
    above, below, arched = set(), set(), set()
    arcs: list[Label | None] = []
    loops: list[Label | None] = []
    for arrow in drawing.arrows:
        if not arrow.within:
            low, high = _ordered(arrow, row)
            above |= {low.node} if low.box == box.key and low.node else set()
            below |= {high.node} if high.box == box.key and high.node else set()
        elif arrow.sender.box == box.key:
            (arcs if _is_arc(arrow) else loops).append(_short_label(arrow))
            arched |= {end.node for end in (arrow.sender, arrow.receiver) if end.node and _is_arc(arrow)}
    room = max((found.width for found in arcs if found), default=0.0)
    beside = max((found.width for found in loops if found), default=0.0)
    found = frozenset(above), frozenset(below), len(arcs), frozenset(arched), len(loops)
    return Needs(*found, room, beside + _LOOP + 6 if loops else 0.0)


def _short_label(arrow: Arrow) -> Label | None:
    """The label of an arrow within a box, on one line, away from the arrow: it names the chips that it is about."""
    sender, receiver = arrow.sender.node, arrow.receiver.node
    about = f"{sender} → {receiver}" if sender and receiver else f"from {sender}" if sender else f"to {receiver}"
    return label(arrow, about if sender or receiver else "", room=_ANY, tall=False)


def _within(drawing: Drawing, shapes: Mapping[str, Shape], boxes: Mapping[str, Rect]) -> Iterator[PlacedArrow]:
    """Arrows that stay in their box: arcs under its chips, loops at its right side."""
    seen: Counter[tuple[str, bool]] = Counter()
    for arrow in drawing.arrows:
        if arrow.within:
            key = arrow.sender.box
            kind = (key, _is_arc(arrow))
            thick = min(drawing.width(arrow), 3.0)  # they are short
            yield (_arc if kind[1] else _loop)(arrow, shapes[key], boxes[key], seen[kind], thick)
            seen[kind] += 1


def _arc(arrow: Arrow, shape: Shape, rect: Rect, lane: int, width: float) -> PlacedArrow:
    """From chip to chip, through the room between the chips and the name of the box; labels are stacked beyond."""
    assert arrow.sender.node and arrow.receiver.node
    one, other = (shape.chips[node].moved(rect.x, rect.y) for node in (arrow.sender.node, arrow.receiver.node))
    up = 1 if shape.needs.above else -1
    edge = one.y if up < 0 else one.bottom
    out = edge + up * (ARC + ARC_STEP * lane)
    way = 1 if other.x > one.x else -1
    inwards = way * (4 + 3 * (lane % 6))  # from the middle of a chip
    a, b = one.centre[0] + inwards, other.centre[0] - inwards
    turn = min(6.0, abs(b - a) / 2)
    curves = (
        straight((a, edge), (a, out - up * turn)),
        Curve((a, out - up * turn), (a, out), (a, out), (a + way * turn, out)),
        straight((a + way * turn, out), (b - way * turn, out)),
        Curve((b - way * turn, out), (b, out), (b, out), (b, out - up * turn)),
        straight((b, out - up * turn), (b, edge + up * _head_length(width))),
    )
    text = _short_label(arrow)
    assert text
    x = min(max((a + b - text.width) / 2, rect.x + 4), rect.right - text.width - 4)
    beyond = edge + up * (ARC + ARC_STEP * (shape.needs.arcs - 1) + ARC_LABEL * (lane + 0.5) + 2)
    return PlacedArrow(arrow, curves, (b, edge), width, text, (x, beyond - text.height / 2))


def _loop(arrow: Arrow, shape: Shape, rect: Rect, lane: int, width: float) -> PlacedArrow:
    text = _short_label(arrow)
    x, y, head = rect.right, rect.y + 21 + 30.0 * lane, _head_length(width)
    curve = Curve((x, y + 9), (x + 1.5 * _LOOP, y + 15), (x + 1.5 * _LOOP, y - 9), (x + head, y - 9))
    at = (x + _LOOP + 4, y - text.height / 2) if text else (0.0, 0.0)
    return PlacedArrow(arrow, (curve,), (x, y - 9), width, text, at)
