"""Labels of arrows, each drawn at its own corner, and the signs of verdicts in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import BLANK, Pen, Span, block, dot, line, path
from circuitdsl.diagram.geometry import Point, Rect, polyline
from circuitdsl.diagram.model import Arrow
from circuitdsl.diagram.text import wrap
from circuitdsl.verdicts import Verdict

_SIZE, _SMALL, _LINE, _MIDDLE = 12.5, 11.0, 15.0, 9.5
_EDGE, _SIGN = 7.0, 20.0  # from the border to the words: without and with the sign of a verdict
_ROOM = 130.0  # a note goes on a line of its own where the label would be wider


@dataclass(frozen=True, slots=True)
class Label:
    """A label drawn: its size, its SVG elements, and the verdicts whose signs it shows."""

    width: float
    height: float
    elements: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()


def label(arrow: Arrow, also: str = "", room: float = _ROOM, tall: bool = True) -> Label | None:
    """The label of an arrow; none where there is nothing to say.

    Args:
        also: added to its note.
        room: how wide it may be before its note goes on a line of its own.
        tall: whether several figures stand one under the other.
    """
    ink = palette.SOFT if palette.opacity(arrow) < 0.6 else palette.INK
    finding = None if arrow.quiet else arrow.finding
    note = ", ".join(part for part in (also, arrow.note) if part)
    port = [Span(arrow.port, _SIZE, ink, bold=True)] if arrow.port and not arrow.quiet else []
    figures = [figure.words for figure in finding.figures] if finding else []
    listed = tall and len(figures) > 1
    if finding and not listed:
        figures = [finding.shown] if finding.shown else []
    spans = [Span(words, _SIZE, ink) for words in figures]
    left = _SIGN if finding else _EDGE
    if note and not listed and left + _wide([*port, *spans, _note(note)]) + _EDGE <= room:
        spans, note = [*spans, _note(note)], ""
    notes = [_note(words) for words in wrap(note, _SMALL, room)] if note else []
    if not (port or spans or notes or finding):
        return None
    count = len(spans) if listed else int(bool(port or spans or finding))
    indent = left + (_wide(port) + BLANK if port else 0.0)
    ends = [span.width + 2 * _EDGE for span in notes]
    ends += [indent + span.width + _EDGE for span in spans] if listed else [left + _wide([*port, *spans]) + _EDGE]
    wide, high = max(ends), 19 + (count + len(notes) - 1) * _LINE
    elements = [block(Rect(0, 0, wide, high), 7, Pen("#ffffff", palette.colour(arrow), 0.9))]
    if listed:
        elements += [line(left, _MIDDLE, *port)] if port else []
        elements += [line(indent, _MIDDLE + i * _LINE, span) for i, span in enumerate(spans)]
    elif port or spans:
        elements.append(line((left - _EDGE + wide) / 2, _MIDDLE, *port, *spans, centred=True))
    elements += [line(wide / 2, _MIDDLE + i * _LINE, span, centred=True) for i, span in enumerate(notes, start=count)]
    verdicts: tuple[Verdict, ...] = (finding.verdict,) if finding else ()
    if finding and listed and finding.mixed:
        verdicts = tuple(figure.verdict for figure in finding.figures)
    for i, verdict in enumerate(verdicts):
        elements += sign(verdict, (11.5, _MIDDLE + i * _LINE))
    return Label(wide, high, tuple(elements), verdicts)


def _note(words: str) -> Span:
    return Span(words, _SMALL, palette.SOFT)


def _wide(spans: list[Span]) -> float:
    return sum(span.width for span in spans) + BLANK * max(0, len(spans) - 1)


_SIGNS: dict[Verdict, tuple[tuple[Point, ...], ...]] = {
    "holds": (((-2.6, 0.2), (-0.7, 2.3), (2.7, -2.0)),),
    "fails": (((-2.2, -2.2), (2.2, 2.2)), ((2.2, -2.2), (-2.2, 2.2))),
    "undecided": (((-1.7, -1.4), (-0.9, -2.8), (0.9, -2.8), (1.7, -1.4), (0.0, 0.4), (0.0, 1.0)), ((0, 2.8), (0, 3.2))),
    "error": (((0, -3.0), (0, 0.6)), ((0, 2.7), (0, 3.1))),
}


def sign(verdict: Verdict, at: Point) -> Iterator[str]:
    """A small sign for a verdict, so that colour is not the only one: tick, cross, question mark, exclamation mark."""
    x, y = at
    yield dot(x, y, 5.6, palette.TONES[verdict])
    for points in _SIGNS[verdict]:
        yield path(polyline(*((x + dx, y + dy) for dx, dy in points)), Pen(stroke="#ffffff", width=1.4))
