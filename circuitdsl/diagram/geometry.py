"""Rectangles, curves, and placing things in a line without overlap. y grows downwards, as in SVG."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2

    def moved(self, dx: float, dy: float) -> Rect:
        return Rect(self.x + dx, self.y + dy, self.width, self.height)

    def grown(self, by: float) -> Rect:
        return Rect(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)

    def overlaps(self, other: Rect) -> bool:
        return (
            self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom
        )  # touching is not overlapping

    def holds(self, point: Point) -> bool:
        return self.x < point[0] < self.right and self.y < point[1] < self.bottom


@dataclass(frozen=True, slots=True)
class Curve:
    """A cubic Bézier curve."""

    start: Point
    leave: Point
    arrive: Point
    end: Point

    @property
    def points(self) -> tuple[Point, Point, Point, Point]:
        """Its control points; it stays between them."""
        return self.start, self.leave, self.arrive, self.end

    def at(self, t: float) -> Point:
        s = 1 - t
        weights = (s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t)
        return (
            sum(w * x for w, (x, _) in zip(weights, self.points, strict=True)),
            sum(w * y for w, (_, y) in zip(weights, self.points, strict=True)),
        )

    def moved(self, dx: float, dy: float) -> Curve:
        return Curve(*((x + dx, y + dy) for x, y in self.points))

    def reversed(self) -> Curve:
        return Curve(*self.points[::-1])


def straight(start: Point, end: Point) -> Curve:
    return Curve(start, start, end, end)


def flowing(start: Point, end: Point) -> Curve:
    """A curve that leaves and arrives vertically."""
    half = (end[1] - start[1]) / 2
    return Curve(start, (start[0], start[1] + half), (end[0], end[1] - half), end)


def bounds(rects: Iterable[Rect]) -> Rect:
    """The smallest rectangle around all; an empty one around none."""
    found = list(rects) or [Rect(0, 0, 0, 0)]
    x, y = min(r.x for r in found), min(r.y for r in found)
    return Rect(x, y, max(r.right for r in found) - x, max(r.bottom for r in found) - y)


def spread(targets: Sequence[float], gaps: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Places as near to `targets` (least squares) as keeps the order and `gaps[i]` between places i and i + 1.

    Pool adjacent violators: places minus the gaps before them must not fall.
    """
    before = list(itertools.accumulate(gaps, initial=0.0))
    pools: list[tuple[float, float, int]] = []
    for target, offset, heavy in zip(targets, before, weights or [1.0] * len(targets), strict=False):
        mean, weight, count = target - offset, heavy, 1
        while pools and pools[-1][0] > mean:
            last, their_weight, size = pools.pop()
            mean = (mean * weight + last * their_weight) / (weight + their_weight)
            weight, count = weight + their_weight, count + size
        pools.append((mean, weight, count))
    flat = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(flat, before, strict=False)]


def spread_within(
    targets: Sequence[float],
    gaps: Sequence[float],
    low: float,
    high: float,
    weights: Sequence[float] | None = None,
) -> list[float]:
    """As `spread`, inside [low, high]; the gaps shrink where they do not fit."""
    room, needed = max(high - low, 0.0), sum(gaps)
    if needed > room:
        gaps = [gap * room / needed for gap in gaps]
    before = list(itertools.accumulate(gaps, initial=0.0))
    places = spread(targets, gaps, weights)
    return [
        min(max(place, low + ahead), high - (before[len(gaps)] - ahead))
        for place, ahead in zip(places, before, strict=False)
    ]


def polyline(*points: Point) -> tuple[Curve, ...]:
    """Straight pieces from point to point."""
    return tuple(straight(a, b) for a, b in itertools.pairwise(points))
