"""Labels of arrows: their lines, and how much room they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from circuitdsl.diagram.elements import BLANK
from circuitdsl.diagram.geometry import Point, Rect
from circuitdsl.diagram.model import Arrow, Finding
from circuitdsl.diagram.text import width, wrap
from circuitdsl.verdicts import Verdict

SIZE, SMALL, LINE = 12.5, 11.0, 15.0
_ROOM = 130.0  # a note goes on a line of its own where the label would be wider


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
