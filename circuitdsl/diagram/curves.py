"""Faithfulness against the share of edges that is kept, for several circuits in one picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Pen, Rect, Span, document, dot, group, line, path, polyline, width, wrap
from circuitdsl.report.curves import Curve, Curves
from circuitdsl.report.numbers import percent, plain

_PAD, _WIDE, _TALL, _SIZE, _ROW = 24.0, 620.0, 300.0, 11.5, 19.0
_COLOURS = ("#0067a8", "#d1570b", "#00875f", "#a3508a", "#e09600", "#3e4c59", "#c5221f", "#72b0b8")


def picture(found: Curves) -> str:
    """Title, both curves of each file, the one by size with its intervals, and a legend with CPR and CMD, as SVG."""
    about = f"{found.prompts} prompts of seed {found.seed}; bands are 95 % of bootstrap resamples"
    lines = "full lines: the largest scores (CMD), broken lines: the highest (CPR)"
    subtitle = wrap(f"Faithfulness ({found.metric}) of the best edges; {lines}; {about}.", _SIZE, _WIDE)
    grid = Rect(_PAD + 46, _PAD + 34 + 16 * len(subtitle), _WIDE - 46, _TALL)
    steps = [step for one in found.curves for step in (*one.largest, *one.highest)]
    low = min(0.0, math.floor(4 * min(step.faithfulness.low for step in steps)) / 4)
    high = max(1.0, math.ceil(4 * max(step.faithfulness.high for step in steps)) / 4)
    plot = Plot(grid, steps[0].share, low, high)
    title = f"{found.task} on {found.model}"
    elements = [
        line(_PAD, _PAD + 4, Span(title, 15, bold=True)),
        *(line(_PAD, _PAD + 26 + 16 * i, Span(words, _SIZE, palette.SOFT)) for i, words in enumerate(subtitle)),
        group("axes", plot.axes([step.share for step in found.curves[0].largest])),
    ]
    for number, one in enumerate(found.curves):
        elements.append(group("curve", plot.curve(one, _COLOURS[number % len(_COLOURS)]), story=one.name))
    top = grid.bottom + 58
    elements += _legend(found.curves, top)
    return document(_WIDE + 2 * _PAD, top + _ROW * (1 + len(found.curves)) + _PAD, title, " ".join(subtitle), elements)


class Plot:
    """A grid: shares from left to right by their logarithm, faithfulness from bottom to top."""

    def __init__(self, grid: Rect, least: float, low: float, high: float) -> None:
        self.grid, self.least, self.low, self.high = grid, least, low, high

    def at(self, share: float, value: float) -> tuple[float, float]:
        """Where a point lies."""
        x = math.log(share / self.least) / math.log(1 / self.least)
        y = (value - self.low) / (self.high - self.low)
        return self.grid.x + x * self.grid.width, self.grid.bottom - y * self.grid.height

    def axes(self, shares: Sequence[float]) -> Iterator[str]:
        """Lines with numbers."""
        for quarter in range(round(4 * self.low), round(4 * self.high) + 1):
            left, right = self.at(self.least, quarter / 4), self.at(1.0, quarter / 4)
            strong = quarter in (0, 4)
            yield path(polyline(left, right), Pen(stroke=palette.FAINT if strong else "#e4e7eb"))
            words = Span(plain(quarter / 4), _SIZE, palette.SOFT)
            yield line(left[0] - 8 - words.width, left[1], words)
        for share in shares:
            x, bottom = self.at(share, self.low)
            yield path(polyline((x, bottom), (x, bottom + 4)), Pen(stroke=palette.FAINT))
            yield line(x, bottom + 15, Span(percent(share).replace(".0", ""), _SIZE, palette.SOFT), centred=True)
        middle = self.grid.x + self.grid.width / 2
        yield line(middle, self.grid.bottom + 34, Span("share of the edges", _SIZE, palette.SOFT), centred=True)

    def curve(self, one: Curve, colour: str) -> Iterator[str]:
        """The band of the intervals, the line and its points."""

        def points(end: str) -> list[tuple[float, float]]:
            return [self.at(step.share, getattr(step.faithfulness, end)) for step in one.largest]

        signed = [self.at(step.share, step.faithfulness.value) for step in one.highest]
        if signed != points("value"):
            yield path(polyline(*signed), Pen(stroke=colour, width=1.2, dash=(4, 3)))
        yield path(polyline(*points("high"), *reversed(points("low"))), Pen(palette.faded(colour, 0.15)))
        yield path(polyline(*points("value")), Pen(stroke=colour, width=1.8))
        for x, y in points("value"):
            yield dot(x, y, 2.6, colour)


def _legend(curves: Sequence[Curve], top: float) -> Iterator[str]:
    names = max(width(one.name, _SIZE) for one in curves)
    columns = [_PAD + 30 + min(names, _WIDE - 320) + gap for gap in (24, 150)]
    for x, words in zip(columns, ("CPR", "CMD"), strict=True):
        yield line(x, top, Span(words, _SIZE, bold=True))
    for number, one in enumerate(curves):
        y, colour = top + _ROW * (number + 1), _COLOURS[number % len(_COLOURS)]
        yield path(polyline((_PAD, y), (_PAD + 20, y)), Pen(stroke=colour, width=1.8))
        yield dot(_PAD + 10, y, 2.6, colour)
        yield line(_PAD + 30, y, Span(wrap(one.name, _SIZE, _WIDE - 320)[0], _SIZE))
        for x, area in zip(columns, (one.cpr, one.cmd), strict=True):
            yield line(x, y, Span(str(area), _SIZE))
