"""A trace graph as a picture: a column for each token and a row for each layer."""

from __future__ import annotations

from collections.abc import Sequence

from circuitdsl.circuit.traced import Link, Place, TraceGraph
from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Curve, Pen, Point, Rect, Span, block, document, group, line, path, straight
from circuitdsl.report.numbers import percent, plain

_PAD, _CHIP, _GAP, _ROW, _TOP = 24.0, 46.0, 8.0, 92.0, 112.0
_COLOURS = {"destination": palette.TONES["q"], "source": palette.TONES["k"]}
_SIDES = {"destination": "at the token that attends", "source": "at the token attended to"}


def picture(found: TraceGraph, links: Sequence[Link], least: float, model: str) -> str:
    """Heads as chips in the column of the token where they write, links as curves from sender to receiver, as SVG."""
    cells: dict[tuple[str, int], list[Place]] = {}
    places = dict.fromkeys(place for link in links for place in (link.receiver, link.sender))
    for place in sorted(places, key=lambda place: place.head.head):
        cells.setdefault((place.token, place.head.layer), []).append(place)
    title = f"{found.head}, {found.source} → {found.target}: who made it attend there ({model})"
    about = (
        f"Fires on {found.firings} of {found.prompts} prompts. Senders make up 70 % of what heads add to the signal; "
        f"shown where they do so on at least {percent(least)} of the firings."
    )
    elements = [
        line(_PAD, _PAD + 2, Span(title, 15, bold=True)),
        line(_PAD, _PAD + 22, Span(about, 10.5, palette.SOFT)),
    ]
    for i, (side, words) in enumerate(_SIDES.items()):
        x, y = _PAD + 210 * i, _PAD + 44
        elements.append(path((straight((x, y), (x + 24, y)),), Pen(stroke=_COLOURS[side], width=3)))
        elements.append(line(x + 32, y, Span(words, 10.5, palette.SOFT)))
    rows = found.head.layer
    bottom, x = _TOP + rows * _ROW + 30, _PAD + 50
    at: dict[Place, Point] = {}
    for column in found.order:
        members = {layer: each for (token, layer), each in cells.items() if token == column}
        if not members:
            continue
        room = max(map(len, members.values())) * (_CHIP + _GAP)
        elements.append(block(Rect(x - 8, _TOP - 26, room + 16, bottom - _TOP + 26), 8, Pen(palette.BAND)))
        elements.append(line(x + room / 2, bottom + 12, Span(column, 12, bold=True), centred=True))
        for layer, each in members.items():
            first = x + (room - len(each) * (_CHIP + _GAP)) / 2
            for i, place in enumerate(each):
                at[place] = first + (i + 0.5) * (_CHIP + _GAP), _TOP + (rows - layer) * _ROW
        x += room + 34
    for layer in range(rows + 1):
        elements.append(line(_PAD, _TOP + (rows - layer) * _ROW, Span(f"layer {layer}", 10.5, palette.SOFT)))
    elements += [_curve(link, at, found.firings) for link in reversed(links)]
    elements += [_chip(place, point, place.head == found.head) for place, point in at.items()]
    wide = max(x + _PAD - 20, 560.0, 24 + 6.2 * len(about))
    return document(wide, bottom + _PAD, title, about, elements)


def _curve(link: Link, at: dict[Place, Point], firings: int) -> str:
    (x0, y0), (x1, y1) = at[link.sender], at[link.receiver]
    start, end = (x0, y0 - 13), (x1, y1 + 13)
    bend = (start[1] - end[1]) * 0.45
    curve = Curve(start, (x0, start[1] - bend), (x1, end[1] + bend), end)
    share = min(link.count / firings, 1.0)
    counts = f"{link.count} of {firings} firings, adds {plain(link.weight)}"
    pen = Pen(stroke=palette.faded(_COLOURS[link.side], 0.3 + 0.5 * share), width=0.8 + 4.2 * share)
    story = f"{link.sender} -> {link.receiver}, {link.side}: {counts}"
    return group("link", [path((curve,), pen)], story=story)


def _chip(place: Place, point: Point, first: bool) -> str:
    x, y = point
    pen = Pen("#fdeedd" if first else palette.PAPER, "#d8a468" if first else "#8a96a3", 1.4)
    name = Span(str(place.head), 12, bold=first)
    return group("head", [block(Rect(x - _CHIP / 2, y - 13, _CHIP, 26), 8, pen), line(x, y, name, centred=True)])
