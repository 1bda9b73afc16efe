"""Labels of arrows: what they say, and where on the curve they stand clear of everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from circuitdsl.report.diagram.geometry import Point, Rect
from circuitdsl.report.diagram.model import Arrow
from circuitdsl.report.diagram.text import width, wrap

SIZE, SMALL, LINE, BLANK = 12.5, 11.0, 15.0, 5.0
_ROOM = 130.0  # a note goes on a line of its own where the label would be wider
_CLEAR = 3.0
_HARD = 1000.0


@dataclass(frozen=True, slots=True)
class Run:
    """Words of one style in a label."""

    words: str
    kind: Literal["port", "number", "note"]

    @property
    def width(self) -> float:
        return width(self.words, SMALL if self.kind == "note" else SIZE, bold=self.kind == "port")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a label about its centre, runs a blank apart."""

    x: float
    y: float
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """A label at its place. The mark says the verdict without colour."""

    rect: Rect
    lines: tuple[Line, ...]
    mark: Point | None = None

    def at(self, centre: Point) -> Label:
        dx, dy = centre[0] - self.rect.centre[0], centre[1] - self.rect.centre[1]
        lines = tuple(replace(line, x=line.x + dx, y=line.y + dy) for line in self.lines)
        mark = (self.mark[0] + dx, self.mark[1] + dy) if self.mark else None
        return Label(self.rect.moved(dx, dy), lines, mark)


def label(arrow: Arrow, also: str = "", room: float = _ROOM) -> Label | None:
    """The label of an arrow, not yet placed; none where there is nothing to say. `also` is added to its note."""
    note = ", ".join(part for part in (also, arrow.note) if part)
    number = arrow.finding.shown if arrow.finding else ""
    first = [Run(arrow.port, "port")] if arrow.port else []
    first += [Run(number, "number")] if number else []
    left = 20.0 if arrow.finding else 7.0
    below: list[str] = []
    if note and left + _wide([*first, Run(note, "note")]) + 7 <= room:
        first.append(Run(note, "note"))
    elif note:
        below = wrap(note, SMALL, room)
    if not (first or below or arrow.finding):
        return None
    top = LINE if first or arrow.finding else 0.0
    notes = [Run(line, "note") for line in below]
    wide = max([left + _wide(first) + (7 if first else -1), *(run.width + 14 for run in notes)])
    lines = [Line((left - 7 + wide) / 2, 9.5, tuple(first))] if first else []
    lines += [Line(wide / 2, 9.5 + top + i * (LINE - 1), (run,)) for i, run in enumerate(notes)]
    tall = 19 + (len(notes) - 1) * (LINE - 1) + top if notes else 19.0
    return Label(Rect(0, 0, wide, tall), tuple(lines), (11.5, 9.5) if arrow.finding else None)


def _wide(runs: Sequence[Run]) -> float:
    return sum(run.width for run in runs) + BLANK * max(0, len(runs) - 1)


# --- placement --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spot:
    """A place on an arrow's own curve, in one of the gaps between rows; `off` grows away from the middle."""

    point: Point
    gap: int
    off: float


@dataclass(frozen=True, slots=True)
class Task:
    """One label to place; `owner` is the key of its arrow, whose own curve it may cover."""

    label: Label
    spots: tuple[Spot, ...]
    owner: str


@dataclass(frozen=True, slots=True)
class Choice:
    label: Label
    gap: int
    clashes: bool


Strokes = Sequence[tuple[str, Rect, Sequence[Point]]]  # pieces of arrows: whose, its bounds, points on it


#: side of a cell
CELL = 48


class _Grid:
    """Pieces of arrows by the cells of a grid they lie in: a label is compared with those near it only."""

    def __init__(self, strokes: Strokes) -> None:
        self.cells: dict[tuple[int, int], list[tuple[str, Rect, Sequence[Point]]]] = defaultdict(list)
        for stroke in strokes:
            for cell in _cells(stroke[1]):
                self.cells[cell].append(stroke)

    def covered(self, rect: Rect, owner: str) -> set[str]:
        """The arrows, but for the label's own, that run under a rectangle."""
        found = {owner}
        for cell in _cells(rect):
            for other, area, points in self.cells.get(cell, ()):
                if other not in found and rect.overlaps(area) and any(rect.holds(point) for point in points):
                    found.add(other)
        return found - {owner}


def _cells(rect: Rect) -> Iterator[tuple[int, int]]:
    for column in range(int(rect.x // CELL), int(rect.right // CELL) + 1):
        for row in range(int(rect.y // CELL), int(rect.bottom // CELL) + 1):
            yield column, row


def arrange(tasks: Sequence[Task], obstacles: Sequence[Rect], strokes: Strokes) -> list[Choice]:
    """Choose a spot for every label: each takes its best in turn, then all think again twice."""
    rects = [[task.label.at(spot.point).rect.grown(_CLEAR) for spot in task.spots] for task in tasks]
    grid = _Grid(strokes)
    costs = [
        [_ground_cost(task, spot, rect, obstacles, grid) for spot, rect in zip(task.spots, offered, strict=True)]
        for task, offered in zip(tasks, rects, strict=True)
    ]
    chosen: dict[int, int] = {}

    def cost(i: int, spot: int) -> float:
        clashes = sum(rects[i][spot].overlaps(rects[j][other]) for j, other in chosen.items() if j != i)
        return costs[i][spot] + _HARD * clashes

    for _ in range(3):
        for i in sorted(range(len(tasks)), key=lambda i: (len(tasks[i].spots), -tasks[i].label.rect.width)):
            chosen[i] = min(range(len(rects[i])), key=lambda spot: cost(i, spot))
    found = []
    for i, task in enumerate(tasks):
        spot = task.spots[chosen[i]]
        found.append(Choice(task.label.at(spot.point), spot.gap, cost(i, chosen[i]) >= _HARD))
    return found


def _ground_cost(task: Task, spot: Spot, rect: Rect, obstacles: Sequence[Rect], grid: _Grid) -> float:
    """What a spot costs whatever the other labels do: boxes are forbidden, other arrows better left visible."""
    cost = 3 * spot.off + _HARD * sum(rect.overlaps(obstacle) for obstacle in obstacles)
    return cost + 4 * len(grid.covered(rect, task.owner))
