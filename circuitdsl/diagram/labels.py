"""Labels of arrows: what they say, and where on the curve they stand clear of everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from circuitdsl.diagram.geometry import Point, Rect
from circuitdsl.diagram.model import Arrow, Finding
from circuitdsl.diagram.text import width, wrap
from circuitdsl.verdicts import Verdict

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
    """A line of a label about its centre, or from its left end on; runs a blank apart."""

    x: float
    y: float
    runs: tuple[Run, ...]
    centred: bool = True


@dataclass(frozen=True, slots=True)
class Label:
    """A label at its place. A mark says the verdict without colour; there is one a figure where these disagree."""

    rect: Rect
    lines: tuple[Line, ...]
    marks: tuple[tuple[Verdict, Point], ...] = ()

    def at(self, centre: Point) -> Label:
        dx, dy = centre[0] - self.rect.centre[0], centre[1] - self.rect.centre[1]
        lines = tuple(replace(line, x=line.x + dx, y=line.y + dy) for line in self.lines)
        marks = tuple((verdict, (x + dx, y + dy)) for verdict, (x, y) in self.marks)
        return Label(self.rect.moved(dx, dy), lines, marks)


def label(arrow: Arrow, also: str = "", room: float = _ROOM, tall: bool = True) -> Label | None:
    """The label of an arrow, not yet placed; none where there is nothing to say.

    Args:
        also: added to its note.
        room: how wide it may be before its note goes on a line of its own.
        tall: whether several figures stand one under the other.
    """
    note = ", ".join(part for part in (also, arrow.note) if part)
    finding = None if arrow.quiet else arrow.finding
    port = [Run(arrow.port, "port")] if arrow.port and not arrow.quiet else []
    if finding and tall and len(finding.figures) > 1:
        return _listed(finding, port, wrap(note, SMALL, room) if note else [])
    first = [*port, *([Run(finding.shown, "number")] if finding and finding.shown else [])]
    left = 20.0 if finding else 7.0
    below: list[str] = []
    if note and left + _wide([*first, Run(note, "note")]) + 7 <= room:
        first.append(Run(note, "note"))
    elif note:
        below = wrap(note, SMALL, room)
    if not (first or below or finding):
        return None
    top = LINE if first or finding else 0.0
    notes = [Run(line, "note") for line in below]
    wide = max([left + _wide(first) + (7 if first else -1), *(run.width + 14 for run in notes)])
    lines = [Line((left - 7 + wide) / 2, 9.5, tuple(first))] if first else []
    lines += [Line(wide / 2, 9.5 + top + i * (LINE - 1), (run,)) for i, run in enumerate(notes)]
    height = 19 + (len(notes) - 1) * (LINE - 1) + top if notes else 19.0
    return Label(Rect(0, 0, wide, height), tuple(lines), ((finding.verdict, (11.5, 9.5)),) if finding else ())


def _listed(finding: Finding, port: Sequence[Run], note: Sequence[str]) -> Label:
    """Figures one under the other from the same left end, each with its mark where they disagree; the note below."""
    indent = 20.0 + (_wide(port) + BLANK if port else 0.0)
    rows = [Run(figure.words, "number") for figure in finding.figures]
    notes = [Run(line, "note") for line in note]
    wide = max([*(indent + run.width + 7 for run in rows), *(run.width + 14 for run in notes)])
    lines = [Line(20.0 + port[0].width / 2, 9.5, tuple(port))] if port else []
    lines += [Line(indent, 9.5 + i * LINE, (run,), centred=False) for i, run in enumerate(rows)]
    lines += [Line(wide / 2, 9.5 + (len(rows) + i) * LINE, (run,)) for i, run in enumerate(notes)]
    marked = finding.figures if finding.mixed else finding.figures[:1]
    marks = tuple((figure.verdict, (11.5, 9.5 + i * LINE)) for i, figure in enumerate(marked))
    return Label(Rect(0, 0, wide, 19 + (len(rows) + len(notes) - 1) * LINE), tuple(lines), marks)


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
