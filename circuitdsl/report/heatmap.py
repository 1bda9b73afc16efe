"""Numbers on a grid as colours: a map of compositions, with what stands above chance outlined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from circuitdsl.diagram import palette
from circuitdsl.diagram.geometry import Rect
from circuitdsl.diagram.marks import Block, Group, Line, Mark, Pen, Scene, Span
from circuitdsl.diagram.picture import write_picture
from circuitdsl.diagram.text import width, wrap

_PAD, _SIZE, _SMALL = 24.0, 12.0, 10.5
_WIDE, _NARROW, _TALL = 46.0, 11.0, 27.0
_ABSENT = "#eef1f4"
#: from little to much, of one hue and growing darkness, so that a grey print and a colour-blind reader see the same
_RAMP = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
_STEPS = 40


@dataclass(frozen=True, slots=True)
class Cell:
    """One number; `words` are written under it where there is room, `story` shows when it is pointed at."""

    value: float
    words: str = ""
    story: str = ""
    outlined: bool = False


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A grid of numbers.

    Attributes:
        rows, columns: their names; the first row is drawn at the top.
        row_title, column_title: what they are.
        cells: [rows][columns]; None where there is no number.
        unit: what the numbers are.
        outline: what an outlined cell means.
    """

    title: str
    subtitle: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_title: str
    column_title: str
    cells: tuple[tuple[Cell | None, ...], ...]
    unit: str
    outline: str


def write_heat_map(found: HeatMap, path: Path) -> None:
    """Draw into a file; raises what `write_picture` raises."""
    write_picture(scene(found), path)


def scene(found: HeatMap) -> Scene:
    """Title, grid, scale: every mark at its place."""
    wide = _WIDE if len(found.columns) <= 24 else _NARROW
    values = [cell.value for row in found.cells for cell in row if cell]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    left = _PAD + 22 + max((width(name, _SIZE) for name in found.rows), default=0) + 8
    whole = max(left + wide * len(found.columns) + _PAD, 430.0)
    subtitle = wrap(found.subtitle, _SMALL, whole - 2 * _PAD)
    top = _PAD + 20 + 15 * len(subtitle) + 46
    grid = Rect(left, top, wide * len(found.columns), _TALL * len(found.rows))
    marks = [
        Line(_PAD, _PAD + 4, (Span(found.title, 15, bold=True),)),
        *(Line(_PAD, _PAD + 25 + 15 * i, (Span(line, _SMALL, palette.SOFT),)) for i, line in enumerate(subtitle)),
        *_axes(found, grid, wide),
        Group("plot", tuple(_cells(found, grid, wide, (low, high)))),
        *_scale(found, grid, (low, high)),
    ]
    return Scene(whole, grid.bottom + 84 + _PAD, found.title, found.subtitle, tuple(marks))


def _axes(found: HeatMap, grid: Rect, wide: float) -> Iterator[Mark]:
    """The names of rows and columns; where columns are narrow, one name for those that share their beginning."""
    yield Line(grid.x + grid.width / 2, grid.y - 36, (Span(found.column_title, _SMALL, palette.SOFT),), centred=True)
    yield Line(_PAD, grid.y - 16, (Span(found.row_title, _SMALL, palette.SOFT),))
    for i, name in enumerate(found.rows):
        y = grid.y + _TALL * (i + 0.5)
        yield Line(grid.x - 8 - width(name, _SIZE), y, (Span(name, _SIZE),))
    if wide == _WIDE:
        for i, name in enumerate(found.columns):
            yield Line(grid.x + wide * (i + 0.5), grid.y - 14, (Span(name, _SIZE),), centred=True)
        return
    for name, first, last in _runs([column.partition(".")[0] for column in found.columns]):
        middle = grid.x + wide * (first + last + 1) / 2
        yield Line(middle, grid.y - 14, (Span(name, _SIZE),), centred=True)
        if first:
            yield Block(Rect(grid.x + wide * first - 0.5, grid.y - 22, 1, 20), 0, Pen(palette.FAINT))


def _runs(names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Equal neighbours: (name, first, last)."""
    first = 0
    for i in range(1, len(names) + 1):
        if i == len(names) or names[i] != names[first]:
            yield names[first], first, i - 1
            first = i


def _cells(found: HeatMap, grid: Rect, wide: float, span: tuple[float, float]) -> Iterator[Mark]:
    outlined = []
    for i, row in enumerate(found.cells):
        for j, cell in enumerate(row):
            rect = Rect(grid.x + wide * j + 0.75, grid.y + _TALL * i + 0.75, wide - 1.5, _TALL - 1.5)
            if cell is None:
                yield Block(rect, 2, Pen(_ABSENT))
                continue
            share = _share(cell.value, span)
            marks: list[Mark] = [Block(rect, 2, Pen(_colour(share)))]
            if wide == _WIDE:
                marks += _figure(cell, rect, share)
            yield Group("cell", tuple(marks), story=cell.story)
            if cell.outlined:
                outlined.append(Block(rect.grown(0.25), 2, Pen(stroke=palette.TONES["k"], width=1.8)))
    yield from outlined  # over their neighbours


def _figure(cell: Cell, rect: Rect, share: float) -> Iterator[Mark]:
    x, y = rect.centre
    ink = palette.PAPER if share > 0.62 else palette.INK
    number = Span(_short(cell.value), _SMALL, ink, bold=cell.outlined)
    if not cell.words:
        yield Line(x, y, (number,), centred=True)
        return
    yield Line(x, y - 5.5, (number,), centred=True)
    yield Line(x, y + 6.5, (Span(cell.words, 8.5, ink),), centred=True)


def _scale(found: HeatMap, grid: Rect, span: tuple[float, float]) -> Iterator[Mark]:
    """The colours with their numbers, and what outlines mean."""
    y, long = grid.bottom + 30, 200.0
    step = long / _STEPS
    yield Line(grid.x, y - 11, (Span(found.unit, _SMALL, palette.SOFT),))
    for i in range(_STEPS):
        yield Block(Rect(grid.x + step * i, y, step + 0.4, 11), 0, Pen(_colour((i + 0.5) / _STEPS)))
    yield Line(grid.x, y + 20, (Span(_short(span[0]), _SMALL),))
    top = _short(span[1])
    yield Line(grid.x + long - width(top, _SMALL), y + 20, (Span(top, _SMALL),))
    yield Block(Rect(grid.x, y + 34, 14, 11), 2, Pen(stroke=palette.TONES["k"], width=1.8))
    yield Line(grid.x + 22, y + 39.5, (Span(found.outline, _SMALL, palette.SOFT),))


def _share(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return 0.5 if high <= low or not math.isfinite(value) else (value - low) / (high - low)


def _colour(share: float) -> str:
    """A colour of the ramp, in the space between its two nearest steps."""
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    step = min(int(place), len(_RAMP) - 2)
    part = place - step
    mixed = (round(a + (b - a) * part) for a, b in zip(_RAMP[step], _RAMP[step + 1], strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _short(value: float) -> str:
    """Three decimals without the leading zero, as such scores are printed in papers."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text
