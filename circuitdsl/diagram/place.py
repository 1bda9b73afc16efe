"""Where boxes stand across the page: columns by position, an order with few crossings, then places."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from circuitdsl.diagram.geometry import crosses, spread_within
from circuitdsl.diagram.model import Arrow, Drawing
from circuitdsl.diagram.rows import Rows, split

GAP, ROOMY = 42.0, 110.0  # between boxes of a row: at least, and at most where labels need room
COLUMN_GAP = 40.0
LABEL, ROOMIEST = 90.0, 840.0
WIDEST = 1120.0  # wider than this is no longer readable at 900 px
_EFFORT = 3_000_000  # pairs of arrows looked at while searching for an order
Column = tuple[str, ...]
OUTSIDE: Column = ("outside the circuit",)
ALL: Column = ("",)


@dataclass(frozen=True, slots=True)
class Placed:
    """Boxes across the page: rows in order, the centre of each box, and the columns with their extents."""

    rows: Rows
    centre: Mapping[str, float]
    columns: tuple[tuple[Column, float, float], ...]


def place(drawing: Drawing, rows: Rows, widths: dict[str, float]) -> Placed:
    """By columns of positions where that fits the page, else freely."""
    by_position = _columns(drawing)
    gap = _gap(drawing, rows, widths)
    named = {column for column in by_position.values() if column not in (OUTSIDE, ALL)}
    if 2 <= len(named) <= 6:
        placed = _Search(drawing, rows, widths, by_position, gap).run()
        if placed.columns[-1][2] <= WIDEST:
            return placed
    single = {key: OUTSIDE if drawing.box[key].outside else ALL for key in by_position}
    apart = max(sum(widths[key] + gap for key in row if drawing.box[key].outside) for row in rows) if rows else 0.0
    return _Search(drawing, split(rows, widths, gap, max(WIDEST - apart, WIDEST / 2)), widths, single, gap).run()


def _gap(drawing: Drawing, rows: Rows, widths: Mapping[str, float]) -> float:
    """Room between boxes: more where many labelled arrows must pass between few narrow boxes."""
    row = {key: number for number, keys in enumerate(rows) for key in keys}
    across: Counter[int] = Counter()
    for arrow in drawing.arrows:
        low, high = sorted((row[arrow.sender.box], row[arrow.receiver.box]))
        across.update(range(low, high))
    wanted = min(LABEL * max(across.values(), default=0), ROOMIEST)
    fullest = max(rows, key=lambda keys: sum(widths[key] for key in keys), default=[])
    spare = wanted - sum(widths[key] for key in fullest)
    return min(max(GAP, spare / max(1, len(fullest) - 1)), ROOMY)


# --- columns ----------------------------------------------------------------------------------------


def _columns(drawing: Drawing) -> dict[str, Column]:
    """The column of every box but `embed` and `logits`; a box that names no position joins what it is tied to."""
    found: dict[str, Column] = {}
    for box in drawing.boxes:
        if box.outside:
            found[box.key] = OUTSIDE
        elif box.positions:
            found[box.key] = box.positions
    for box in drawing.boxes:
        if box.key not in found and box.kind not in ("embed", "logits"):
            ties = Counter(found[key] for key in _neighbours(box.key, drawing.arrows) if key in found)
            found[box.key] = ties.most_common(1)[0][0] if ties else next(iter(found.values()), ALL)
    return found


def _neighbours(key: str, arrows: Iterable[Arrow]) -> list[str]:
    ends = [(arrow.sender.box, arrow.receiver.box) for arrow in arrows if not arrow.within]
    return [b for a, b in ends if a == key] + [a for a, b in ends if b == key]


def in_order(columns: Iterable[Column]) -> list[Column]:
    """Columns from left to right, as the prompt is read: S1, S1+1, S2, END as far as names tell; outside last."""
    found = list(dict.fromkeys(columns))
    letters: dict[str, int] = {}
    for column in found:
        for name in column:
            letters.setdefault(_parts(name)[0], len(letters))

    def where(name: str) -> tuple[float, float, float]:
        prefix, number, offset = _parts(name)
        return (99.0 if prefix == "END" else letters[prefix], number, offset)

    def key(column: Column) -> tuple[bool, tuple[float, ...], int]:
        places = sorted(where(name) for name in column)
        return column == OUTSIDE, places[-1] if places else (), len(column)

    return sorted(found, key=key)


def _parts(name: str) -> tuple[str, int, int]:
    """`S1+1` → S, 1, 1."""
    match = re.fullmatch(r"(.*?)(\d*)([+-]\d+)?", name)
    assert match
    return match[1], int(match[2] or 0), int(match[3] or 0)


# --- order and places -------------------------------------------------------------------------------


class _Search:
    """Swaps boxes within a column and row while that makes arrows shorter and cross less."""

    def __init__(
        self, drawing: Drawing, rows: Rows, widths: dict[str, float], column: dict[str, Column], gap: float
    ) -> None:
        self.arrows = [arrow for arrow in drawing.arrows if not arrow.within]
        self.widths, self.column, self.gap = widths, column, gap
        self.columns = in_order(column.values())
        self.cells: dict[tuple[int, Column], list[str]] = {}
        self.free: dict[str, int] = {}
        for number, row in enumerate(rows):
            for key in row:
                if key in column:
                    self.cells.setdefault((number, column[key]), []).append(key)
                else:
                    self.free[key] = number
        self.rows = rows
        self.row = {key: number for number, row in enumerate(rows) for key in row}
        self.neighbours = {key: _neighbours(key, self.arrows) for key in self.row}
        self.extents = self._extents()
        self.left = _EFFORT // max(1, len(self.arrows) ** 2)

    def run(self) -> Placed:
        self._improve()
        centre = self._settled()
        ordered = [sorted(row, key=centre.__getitem__) for row in self.rows]
        return Placed(ordered, centre, tuple((column, *self.extents[column]) for column in self.columns))

    def _extents(self) -> dict[Column, tuple[float, float]]:
        """Left and right of every column: as wide as its fullest row."""
        x, found = 0.0, {}
        for column in self.columns:
            cells = [cell for (_, where), cell in self.cells.items() if where == column]
            wide = max(sum(self.widths[key] + self.gap for key in cell) - self.gap for cell in cells)
            found[column] = (x, x + wide)
            x += wide + COLUMN_GAP
        return found or {}

    def _packed(self) -> dict[str, float]:
        """Every cell's boxes side by side about the middle of the column."""
        centre: dict[str, float] = {}
        for (_, column), cell in self.cells.items():
            low, high = self.extents[column]
            x = (low + high - sum(self.widths[key] + self.gap for key in cell) + self.gap) / 2
            for key in cell:
                centre[key] = x + self.widths[key] / 2
                x += self.widths[key] + self.gap
        return self._with_free(centre)

    def _with_free(self, centre: dict[str, float]) -> dict[str, float]:
        """`embed` and `logits` over the middle of what they are tied to."""
        for key in self.free:
            others = [other for other in self.neighbours[key] if other in centre and other not in self.free]
            inside = [other for other in others if self.column[other] != OUTSIDE]
            tied = [centre[other] for other in inside or others]
            centre[key] = sum(tied) / len(tied) if tied else 0.0
        return centre

    def _improve(self) -> None:
        """First improvement, until no swap helps or the effort is spent."""
        best, better = self._cost(), True
        while better and self.left > 0:
            better = False
            for cell in self.cells.values():
                for i, j in itertools.combinations(range(len(cell)), 2):
                    cell[i], cell[j] = cell[j], cell[i]
                    cost = self._cost()
                    self.left -= 1
                    if cost < best - 1e-9:
                        best, better = cost, True
                    else:
                        cell[i], cell[j] = cell[j], cell[i]
                    if self.left <= 0:
                        return

    def _cost(self) -> float:
        centre = self._packed()
        lines = [
            tuple(sorted((self.row[key], centre[key]) for key in (arrow.sender.box, arrow.receiver.box)))
            for arrow in self.arrows
        ]
        cost = sum(abs(b[1] - a[1]) / 250 for a, b in lines)
        cost += sum(crosses(*one, *other) for one, other in itertools.combinations(lines, 2))
        return cost + 0.7 * sum(self._hits(a, b, centre) for a, b in lines)

    def _hits(self, a: tuple[float, float], b: tuple[float, float], centre: Mapping[str, float]) -> int:
        """Boxes between two rows that a straight arrow would run through."""
        found = 0
        for number in range(int(a[0]) + 1, int(b[0])):
            x = a[1] + (b[1] - a[1]) * (number - a[0]) / (b[0] - a[0])
            found += sum(abs(centre[key] - x) < self.widths[key] / 2 for key in self.rows[number])
        return found

    def _settled(self, rounds: int = 8) -> dict[str, float]:
        """Boxes drawn towards what they are tied to, in their order and column."""
        centre = self._packed()
        for _ in range(rounds):
            for (_, column), cell in self.cells.items():
                targets = [self._target(key, centre) for key in cell]
                gaps = [(self.widths[a] + self.widths[b]) / 2 + self.gap for a, b in itertools.pairwise(cell)]
                low, high = self.extents[column]
                places = spread_within(targets, gaps, low + self.widths[cell[0]] / 2, high - self.widths[cell[-1]] / 2)
                centre.update(zip(cell, places, strict=True))
            centre = self._with_free(centre)
        return centre

    def _target(self, key: str, centre: Mapping[str, float]) -> float:
        low, high = self.extents[self.column[key]]
        tied: Sequence[float] = [centre[other] for other in self.neighbours[key] if other not in self.free]
        middle = (low + high) / 2
        return (sum(tied) + middle) / (len(tied) + 1)
