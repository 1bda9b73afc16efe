"""Rectangles, curves, and placing things in a line without overlap. y grows downwards, as in SVG."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class Curve(NamedTuple):
    """The control points of a cubic Bézier curve, which stays between them."""

    start: Point
    leave: Point
    arrive: Point
    end: Point


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


def spread(
    targets: Sequence[float], gaps: Sequence[float], low: float, high: float, firm: Sequence[float]
) -> list[float]:
    """Places in [low, high], as near to `targets` (least squares, weighted by `firm`) as the order and gaps let them.

    `gaps[i]` lies between places i and i + 1; gaps shrink where they do not fit.
    """
    from scipy.optimize import isotonic_regression

    needed = sum(gaps)
    shrink = min(1.0, max(high - low, 0.0) / needed) if needed else 1.0
    before = list(itertools.accumulate((gap * shrink for gap in gaps), initial=0.0))
    flat = isotonic_regression([at - ahead for at, ahead in zip(targets, before, strict=True)], weights=firm).x
    return [min(max(float(x), low), high - before[-1]) + ahead for x, ahead in zip(flat, before, strict=True)]


def polyline(*points: Point) -> tuple[Curve, ...]:
    """Straight pieces from point to point."""
    return tuple(straight(a, b) for a, b in itertools.pairwise(points))
