"""How arrows run: lanes between the boxes of the rows they pass, and where they meet a box."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circuitdsl.diagram.geometry import spread_within
from circuitdsl.diagram.labels import label
from circuitdsl.diagram.model import Arrow, Drawing, End
from circuitdsl.diagram.shapes import Shape

LANE = 15.0  # between two arrows side by side
_CLEAR = 13.0  # between a lane and a box
_SLOT, _WIDE_SLOT = 30.0, 80.0  # between two arrows at the same side of a box, without and with labels
_FAR = 1e5

Interval = tuple[float, float]


@dataclass(slots=True)
class Route:
    """An arrow between two boxes from its lower to its upper end, across the page: the rows give the heights."""

    arrow: Arrow
    low: End
    high: End
    rows: tuple[int, int]
    upwards: bool
    label: float = 0.0  # its width
    lanes: dict[int, float] = field(default_factory=dict)
    x_low: float = 0.0
    x_high: float = 0.0

    def passed(self) -> range:
        return range(self.rows[0] + 1, self.rows[1])

    def straight(self, row: int) -> float:
        """Where a straight line between the ends would pass a row."""
        share = (row - self.rows[0]) / (self.rows[1] - self.rows[0])
        return self.x_low + (self.x_high - self.x_low) * share

    def at(self, row: int) -> float:
        """Where it passes, starts or ends."""
        if row <= self.rows[0]:
            return self.x_low
        return self.x_high if row >= self.rows[1] else self.lanes[row]


Sharing = list[tuple[int, Interval, list[Route]]]


@dataclass(frozen=True, slots=True)
class Page:
    """What routing needs to know of the boxes: shape, left edge and row of each."""

    drawing: Drawing
    shapes: Mapping[str, Shape]
    left: Mapping[str, float]
    row: Mapping[str, int]
    rows: Sequence[Sequence[str]]
    beside: Mapping[str, float]  # room for loops, right of the box

    def middle(self, end: End) -> float:
        shape = self.shapes[end.box]
        if end.node:
            return self.left[end.box] + shape.chip(end.node).centre[0]
        return self.left[end.box] + shape.width / 2


def ordered(arrow: Arrow, row: Mapping[str, int]) -> tuple[End, End, bool]:
    """Lower end, upper end, and whether the arrow runs upwards."""
    if row[arrow.sender.box] < row[arrow.receiver.box]:
        return arrow.sender, arrow.receiver, True
    return arrow.receiver, arrow.sender, False


def routes(page: Page) -> list[Route]:
    """All arrows between different boxes, from the short to the long."""
    found = []
    for arrow in page.drawing.arrows:
        if arrow.within:
            continue
        low, high, upwards = ordered(arrow, page.row)
        route = Route(arrow, low, high, (page.row[low.box], page.row[high.box]), upwards)
        text = label(arrow)
        route.label = text.rect.width if text else 0.0
        route.x_low, route.x_high = page.middle(low), page.middle(high)
        found.append(route)
    sharing = _choose_lanes(page, found)
    for _ in range(3):
        _spread_lanes(sharing)
        _meet_boxes(page, found)
    return found


# --- lanes ------------------------------------------------------------------------------------------


def _choose_lanes(page: Page, found: Sequence[Route]) -> Sharing:
    """Give every long arrow a free interval in each row it passes: what arrows share each interval."""
    free = [_intervals(page, row) for row in page.rows]
    users: dict[tuple[int, int], list[Route]] = defaultdict(list)
    for route in sorted(found, key=lambda route: route.rows[1] - route.rows[0]):
        for row, index in _path(route, free, users):
            users[row, index].append(route)
            low, high = free[row][index]
            route.lanes[row] = min(max(route.straight(row), low), high)
    return [(row, free[row][index], sharing) for (row, index), sharing in sorted(users.items())]


def _spread_lanes(shared: Sharing) -> None:
    """Arrows of one interval side by side, in the order in which they come and go."""
    for row, (low, high), sharing in shared:
        wish = {route.arrow.key: (route.at(row - 1) + route.at(row + 1)) / 2 for route in sharing}
        sharing.sort(key=lambda route: (wish[route.arrow.key], route.at(row + 1), route.arrow.key))
        targets = [min(max(wish[route.arrow.key], low), high) for route in sharing]
        for route, x in zip(sharing, spread_within(targets, [LANE] * (len(sharing) - 1), low, high), strict=True):
            route.lanes[row] = x


def _intervals(page: Page, row: Sequence[str]) -> list[Interval]:
    """Where an arrow may pass between the boxes of a row, and left and right of them."""
    edges = [-_FAR]
    for key in row:
        edges += [page.left[key] - _CLEAR, page.left[key] + page.shapes[key].width + page.beside[key] + _CLEAR]
    edges.append(_FAR)
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def _path(
    route: Route, free: Sequence[Sequence[Interval]], users: Mapping[tuple[int, int], list[Route]]
) -> list[tuple[int, int]]:
    """The intervals to take, row by row, with the least sideways way (dynamic programming over the rows)."""
    states: list[tuple[float, float, list[tuple[int, int]]]] = [(0.0, route.x_low, [])]
    for row in route.passed():
        after = []
        for index, (low, high) in enumerate(free[row]):
            load = len(users.get((row, index), ()))
            x = min(max(route.straight(row), low), high)
            crowded = 4000.0 if load * LANE > high - low else 12.0 * load
            best = min(states, key=lambda state: state[0] + abs(state[1] - x))
            after.append((best[0] + abs(best[1] - x) + crowded, x, [*best[2], (row, index)]))
        states = after
    return min(states, key=lambda state: state[0] + abs(state[1] - route.x_high))[2]


# --- ends -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Meeting:
    """One end of a route at a side of a box, with the place it comes from."""

    route: Route
    end: End
    at_low: bool

    @property
    def comes_from(self) -> tuple[float, float, str]:
        rows = self.route.rows
        near, far = (rows[0] + 1, rows[1]) if self.at_low else (rows[1] - 1, rows[0])
        return self.route.at(near), self.route.at(far), self.route.arrow.key

    def settle(self, x: float) -> None:
        if self.at_low:
            self.route.x_low = x
        else:
            self.route.x_high = x


def _meet_boxes(page: Page, found: Sequence[Route]) -> None:
    """Spread the ends at each side of each box in the order their other ends come, so that they do not cross."""
    sides: dict[tuple[str, bool], list[_Meeting]] = defaultdict(list)
    for route in found:
        sides[route.low.box, True].append(_Meeting(route, route.low, True))
        sides[route.high.box, False].append(_Meeting(route, route.high, False))
    for (box, _), meetings in sides.items():
        _meet(page, box, _in_order(page, meetings))


def _in_order(page: Page, meetings: Sequence[_Meeting]) -> list[_Meeting]:
    """By where they come from; those that end at single chips in the order of the chips."""
    ordered = sorted(meetings, key=lambda m: m.comes_from)
    at_chips = iter(sorted((m for m in ordered if m.end.node), key=lambda m: (page.middle(m.end), m.comes_from)))
    return [next(at_chips) if m.end.node else m for m in ordered]


def _meet(page: Page, box: str, meetings: Sequence[_Meeting]) -> None:
    """Ends at a chip as near its middle as there is room, ends at the box near the straight way."""
    low, high = page.left[box] + 14, page.left[box] + page.shapes[box].width - 14
    middle, last = (low + high) / 2, len(meetings) - 1
    wish = max(_SLOT, min(_WIDE_SLOT, max(m.route.label for m in meetings) + 4))
    step = min(wish, (high - low) / max(1, last))
    targets = [
        page.middle(m.end)
        if m.end.node
        else 0.5 * (middle + (i - last / 2) * step) + 0.5 * min(max(m.comes_from[0], low), high)
        for i, m in enumerate(meetings)
    ]
    gaps = [
        min(step, 11.0 if a.end == b.end and a.end.node else 16.0 if a.end.node or b.end.node else _SLOT)
        for a, b in itertools.pairwise(meetings)
    ]
    weights = [50.0 if m.end.node else 1.0 for m in meetings]
    for meeting, x in zip(meetings, spread_within(targets, gaps, low, high, weights), strict=True):
        reach = page.shapes[box].chip(meeting.end.node).width / 2 - 6 if meeting.end.node else high - low
        aim = page.middle(meeting.end)
        meeting.settle(min(max(x, aim - reach), aim + reach))
