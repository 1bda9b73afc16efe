"""Drawing → layout: every box, chip, arrow and label with its place. Nothing overlaps; the writers only write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from circuitdsl.diagram import labels as labels_of
from circuitdsl.diagram.curves import (
    Heights,
    PlacedArrow,
    PlacedBox,
    arc_label,
    beside,
    curved,
    head_room,
    is_arc,
    spots,
    strokes,
    within,
)
from circuitdsl.diagram.geometry import Rect, bounds
from circuitdsl.diagram.labels import Task
from circuitdsl.diagram.model import Box, Drawing
from circuitdsl.diagram.place import ALL, OUTSIDE, Column, Placed, place
from circuitdsl.diagram.routes import Page, Route, ordered, routes
from circuitdsl.diagram.rows import rows
from circuitdsl.diagram.shapes import Needs, shape

_BAND = 5.0  # above and below the boxes of a row
_TRIES = 14
_MARGIN = 8.0
_AXIS = 56.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A faint word about a row or a column, and the stretch it is about."""

    words: str
    low: float
    high: float
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    width: float
    height: float
    boxes: tuple[PlacedBox, ...]
    arrows: tuple[PlacedArrow, ...]
    columns: tuple[Mark, ...]
    layers: tuple[Mark, ...]


def lay_out(drawing: Drawing) -> Layout:
    """Rows by layer, columns by position, arrows in the free lanes, labels on their arrows."""
    found = rows(drawing.boxes, drawing.arrows)
    row = {key: number for number, keys in enumerate(found) for key in keys}
    shapes = {box.key: shape(box, _needs(box, drawing, row)) for box in drawing.boxes}
    room = {box.key: beside(box, drawing) for box in drawing.boxes}
    placed = place(drawing, found, {key: shapes[key].width + room[key] for key in shapes})
    row = {key: number for number, keys in enumerate(placed.rows) for key in keys}
    left = {key: placed.centre[key] - (shapes[key].width + room[key]) / 2 for key in shapes}
    page = Page(drawing, shapes, left, row, placed.rows, room)
    ways = routes(page)
    return _framed(drawing, placed, _stacked(page, ways))


# --- what arrows ask of boxes -----------------------------------------------------------------------


def _needs(box: Box, drawing: Drawing, row: Mapping[str, int]) -> Needs:
    above, below = set(), set()
    arcs = [a for a in drawing.arrows if a.within and a.sender.box == box.key and is_arc(a)]
    for arrow in drawing.arrows:
        if not arrow.within:
            low, high, _ = ordered(arrow, row)
            above |= {low.node} if low.box == box.key and low.node else set()
            below |= {high.node} if high.box == box.key and high.node else set()
    room = max((arc_label(arrow).rect.width for arrow in arcs), default=0.0)
    loops = sum(a.within and a.sender.box == box.key for a in drawing.arrows) - len(arcs)
    return Needs(frozenset(above), frozenset(below), len(arcs), loops, room)


# --- heights ----------------------------------------------------------------------------------------


def _stacked(page: Page, ways: Sequence[Route]) -> tuple[list[PlacedBox], list[PlacedArrow]]:
    """Rows from the bottom up; the gaps between them grow until every label has room."""
    gaps = _first_gaps(page, ways)
    for _ in range(_TRIES):
        heights = _heights(page, gaps)
        boxes = _boxes(page, heights)
        arrows, crowded = _arrows(page, ways, boxes, heights)
        if not crowded:
            break
        for gap in crowded:
            gaps[gap] += 22
    return list(boxes.values()), arrows


def _first_gaps(page: Page, ways: Sequence[Route]) -> list[float]:
    """Taller where many arrows run, or run far sideways."""
    crossing: dict[int, list[float]] = defaultdict(list)
    for way in ways:
        for gap in range(way.rows[0], way.rows[1]):
            crossing[gap].append(abs(way.at(gap + 1) - way.at(gap)))
    return [
        min(170.0, 56 + 6 * len(crossing[gap]) + 0.1 * max(crossing[gap], default=0.0)) if crossing[gap] else 34.0
        for gap in range(len(page.rows) - 1)
    ]


def _heights(page: Page, gaps: Sequence[float]) -> Heights:
    top, bottom, y = [], [], 0.0
    for number, row in enumerate(page.rows):
        bottom.append(y)
        y -= max(page.shapes[key].height for key in row) + 2 * _BAND
        top.append(y)
        y -= gaps[number] if number < len(gaps) else 0
    return Heights(tuple(top), tuple(bottom))


def _boxes(page: Page, heights: Heights) -> dict[str, PlacedBox]:
    found = {}
    for box in page.drawing.boxes:
        made, row = page.shapes[box.key], page.row[box.key]
        middle = (heights.top[row] + heights.bottom[row]) / 2
        rect = Rect(page.left[box.key], middle - made.height / 2, made.width, made.height)
        found[box.key] = PlacedBox(box, rect, made)
    return found


# --- arrows -----------------------------------------------------------------------------------------


def _arrows(
    page: Page, ways: Sequence[Route], boxes: Mapping[str, PlacedBox], heights: Heights
) -> tuple[list[PlacedArrow], set[int]]:
    """Every arrow with its curves and label, and the gaps in which labels still want room."""
    inner = within(page.drawing, boxes)
    drawn = [curved(page.drawing, way, boxes, heights) for way in ways]
    obstacles = [placed.rect for placed in boxes.values()]
    obstacles += [arrow.label.rect for arrow in inner if arrow.label]
    obstacles += [head_room(arrow) for arrow in drawn]
    tasks, owners = [], []
    for way, arrow in zip(ways, drawn, strict=True):
        if text := labels_of.label(arrow.arrow):
            tasks.append(Task(text, spots(way, arrow, heights, text.rect.width), arrow.arrow.key))
            owners.append(arrow.arrow.key)
    choices = labels_of.arrange(tasks, obstacles, [stroke for arrow in (*drawn, *inner) for stroke in strokes(arrow)])
    placed = dict(zip(owners, choices, strict=True))
    done = [replace(a, label=placed[a.arrow.key].label) if a.arrow.key in placed else a for a in drawn]
    return [*done, *inner], {choice.gap for choice in choices if choice.clashes}


# --- the frame --------------------------------------------------------------------------------------


def _framed(drawing: Drawing, placed: Placed, made: tuple[list[PlacedBox], list[PlacedArrow]]) -> Layout:
    """Move everything to positive coordinates, with room for the words about rows and columns."""
    boxes, arrows = made
    rects = [box.rect for box in boxes] + [arrow.label.rect for arrow in arrows if arrow.label]
    rects += [Rect(x - a.width, y - a.width, 2 * a.width, 2 * a.width) for a in arrows for x, y in a.line]
    frame = bounds(rects)
    layered = [box for box in boxes if box.box.kind in ("group", "node")]
    dx = _MARGIN + (_AXIS if layered else 0) - frame.x
    dy = _MARGIN - frame.y
    named = [column for column in placed.columns if column[0] != ALL]
    columns = (
        tuple(_column(column, low + dx, high + dx) for column, low, high in named) if len(placed.columns) > 1 else ()
    )
    layers = tuple(
        _layers([box for box in layered if box.box.key in row], dy)
        for row in placed.rows
        if any(box.box.key in row for box in layered)
    )
    return Layout(
        frame.width + 2 * _MARGIN + (_AXIS if layered else 0),
        frame.height + 2 * _MARGIN,
        tuple(replace(box, rect=box.rect.moved(dx, dy)) for box in boxes),
        tuple(_moved(arrow, dx, dy) for arrow in arrows),
        columns,
        layers,
    )


def _column(column: Column, low: float, high: float) -> Mark:
    return Mark(", ".join(column), low - 12, high + 12, column == OUTSIDE)


def _layers(row: Sequence[PlacedBox], dy: float) -> Mark:
    """Which layers the boxes of a row belong to."""
    nodes = [node.layer for box in row for node in box.box.nodes if node.layer >= 0]
    low, high = min(nodes, default=0), max(nodes, default=0)
    area = bounds(box.rect for box in row)
    words = "" if not nodes else f"layer {low}" if low == high else f"layers {low}–{high}"
    return Mark(words, area.y + dy, area.bottom + dy)


def _moved(arrow: PlacedArrow, dx: float, dy: float) -> PlacedArrow:
    label = arrow.label and arrow.label.at((arrow.label.rect.centre[0] + dx, arrow.label.rect.centre[1] + dy))
    curves = tuple(curve.moved(dx, dy) for curve in arrow.curves)
    return replace(arrow, curves=curves, tip=(arrow.tip[0] + dx, arrow.tip[1] + dy), label=label)
