"""What is placed on a page, each drawn at its own corner: boxes, and the labels of arrows.

A box has a frame, its name, where it acts, and its heads as chips. Labels have the signs of verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from circuitdsl.circuit.nodes import ERROR, Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import (
    BLANK,
    Pen,
    Point,
    Rect,
    Span,
    block,
    bounds,
    dot,
    line,
    path,
    polyline,
    six_sided,
    wrap,
)
from circuitdsl.diagram.model import Arrow, Box
from circuitdsl.verdicts import Outcome

CHIP_HEIGHT, CHIP_GAP, PAD = 25.0, 6.0, 11.0
ARC, ARC_STEP, ARC_LABEL = 15.0, 5.0, 22.0  # arcs between chips: height of the first, of each more, of a label
_TITLE, _NOTE, _CHIP = 14.0, 11.0, 13.0
_AROUND = 12.0  # by how much a pill is wider than its words
_TITLE_ROOM = 230.0
_SIZE, _SMALL, _LINE, _MIDDLE = 12.5, 11.0, 15.0, 9.5
_EDGE, _SIGN = 7.0, 20.0  # from the border to the words: without and with the sign of a verdict
_ROOM = 130.0  # a note goes on a line of its own where the label would be wider
_MANY = 10  # chips in one row, where arrows must reach each


@dataclass(frozen=True, slots=True)
class Needs:
    """What arrows ask of a box: chips they reach from above and from below, arcs between its chips, loops beside it."""

    above: frozenset[Node] = frozenset()
    below: frozenset[Node] = frozenset()
    arcs: int = 0
    arched: frozenset[Node] = frozenset()  # the chips that arcs join
    loops: int = 0
    arc_room: float = 0.0  # for the labels of arcs
    beside: float = 0.0  # for loops, right of the box


@dataclass(frozen=True, slots=True)
class Shape:
    """A box drawn: its size, its SVG elements, where its chips are, and what arrows ask of it."""

    width: float
    height: float
    elements: tuple[str, ...]
    chips: Mapping[Node, Rect]
    needs: Needs

    @property
    def room(self) -> float:
        """Its width with the room to keep free on its right."""
        return self.width + self.needs.beside


def shape(box: Box, needs: Needs, fill: str, border: str) -> Shape:
    if box.kind == "group":
        return _group(box, needs, fill, border)
    if box.kind == "node":
        return _lone(box, needs, border)
    pill, pen = Rect(0, 0, 132, 34), Pen("#eef1f4", "#7b8794", 1.3)
    name = line(*pill.centre, Span(box.title, _TITLE, bold=True), centred=True)
    return Shape(pill.width, pill.height, (block(pill, 17, pen, box.title), name), {box.nodes[0]: pill}, needs)


def _lone(box: Box, needs: Needs, border: str) -> Shape:
    """A node of no group: a chip, with the place where it acts and what it is called under the name."""
    tag = Span(box.place, _NOTE, palette.SOFT)
    called = [Span(words, _NOTE, palette.SOFT, italic=True) for each in box.labels for words in wrap(each, _NOTE, 130)]
    wide = max(48.0, _chip_width(box.nodes[0]) + 8, tag.width + _AROUND + 6 if box.place else 0.0)
    wide, low = max(wide, *(span.width + 36 for span in called), 0.0), 46.0 if box.place else 32.0
    chip = Rect(0, 0, wide, low + 15 * len(called))
    middle = chip.width / 2
    elements = [node_shape(box.nodes[0], chip, 9, _outline(border, next(iter(box.again), None), 1.3))]
    if box.place:
        elements += _pill(tag, middle - (tag.width + _AROUND) / 2, 34, border)
    elements.append(line(middle, 15 if box.place else 16, Span(box.title, _CHIP), centred=True))
    elements += [line(middle, low + 4 + 15 * i, span, centred=True) for i, span in enumerate(called)]
    return Shape(chip.width, chip.height, tuple(elements), {box.nodes[0]: chip}, needs)


def _group(box: Box, needs: Needs, fill: str, border: str) -> Shape:
    """A name over chips; under them, or beside them, where arrows to single chips come from above."""
    chips = _grid(box, needs)
    area = bounds(chips.values())
    wide = max(area.right, needs.arc_room)
    arcs = ARC + needs.arcs * (ARC_STEP + ARC_LABEL) - ARC_STEP if needs.arcs else 0.0
    ink = palette.SOFT if box.outside else palette.INK
    head, head_wide, head_tall = _header(box, max(wide, 120.0), ink)
    across = max(wide, head_wide)
    head_y, chips_at = PAD, ((across - wide) / 2, head_tall + arcs + 9)
    tall = chips_at[1] + area.height
    if needs.above and needs.below:
        tall = max(area.height + arcs, head_tall)
        head_y, chips_at = PAD + (tall - head_tall) / 2, (head_wide + 14, 0.0)
        across = chips_at[0] + wide
    elif needs.above:
        head_y, chips_at = PAD + area.height + arcs + 9, (chips_at[0], 0.0)
    frame = Rect(0, 0, across + 2 * PAD, max(tall + 2 * PAD, 30.0 * needs.loops + 12))
    placed = {node: chip.moved(chips_at[0] + PAD, chips_at[1] + PAD) for node, chip in chips.items()}
    elements = [block(frame, 11, Pen(fill, border, 1.3, (5, 4) if box.outside else None))]
    again = dict(zip(box.nodes, box.again, strict=False))
    for node, chip in placed.items():
        elements.append(node_shape(node, chip, 7, _outline(border, again.get(node))))
        elements.append(line(*chip.centre, Span(str(node), _CHIP, ink), centred=True))
    for span, x, y, pill in head:
        elements += _pill(span, PAD + x, head_y + y, border) if pill else [line(PAD + x, head_y + y, span)]
    return Shape(frame.width, frame.height, tuple(elements), placed, needs)


def _header(box: Box, room: float, ink: str) -> tuple[list[tuple[Span, float, float, bool]], float, float]:
    """Name, place and notes, flowing into the room: the place, in pills, beside the name where it fits.

    Returns every line of words with its left end, its centre line, and whether it is a pill; then the size of all.
    """
    most = max(room, _TITLE_ROOM)
    titles = [Span(words, _TITLE, ink, bold=True) for words in wrap(box.title, _TITLE, most, bold=True)]
    found = [(span, 0.0, 9.0 + 18 * i, False) for i, span in enumerate(titles)]
    y, beside = 18.0 * len(titles), titles[-1].width + 10
    for tag in (Span(words, _NOTE, palette.SOFT) for words in (wrap(box.place, _NOTE, most) if box.place else ())):
        if len(found) == len(titles) and beside + tag.width + _AROUND <= room:
            found.append((tag, beside, y - 9, True))
        else:
            found.append((tag, 0.0, y + 10, True))
            y += 19
    for words in (words for note in box.notes for words in wrap(note, _NOTE, most)):
        found.append((Span(words, _NOTE, palette.SOFT, italic=True), 0.0, y + 8, False))
        y += 15
    return found, max(x + span.width + _AROUND * pill for span, x, _, pill in found), y


def _grid(box: Box, needs: Needs) -> dict[Node, Rect]:
    """Chips in rows about equally long. Chips that arrows reach stand in one row, or in the outer rows of many.

    Those that arcs join stand in one row on the side of the arcs, however many they are.
    """
    nodes, count = list(box.nodes), len(box.nodes)
    most = 4 if count <= 8 else 5 if count <= 15 else 8
    if needs.above or needs.below or needs.arcs:
        most = max(_MANY, -(-count // 3))
    per_row = max(-(-count // -(-count // most)), len(needs.arched))
    if per_row < count:
        side = 2 if needs.above else -2  # of the arcs, as in `_group`
        below, above = needs.below, needs.above - needs.below
        nodes.sort(key=lambda node: side * (node in needs.arched) + (node in below) - (node in above))
    first = -count % per_row if needs.arcs and needs.above else 0  # the row of the arcs is full
    wide = max(_chip_width(node) for node in nodes)
    chip = Rect(0, 0, wide, CHIP_HEIGHT)
    across, down = wide + CHIP_GAP, CHIP_HEIGHT + CHIP_GAP
    shift = max(0.0, needs.arc_room - per_row * across + CHIP_GAP) / 2
    places = (divmod(i, per_row) for i in range(first, first + count))
    return {node: chip.moved(shift + x * across, y * down) for node, (y, x) in zip(nodes, places, strict=True)}


def node_shape(node: Node, rect: Rect, radius: float, pen: Pen) -> str:
    """A rectangle; a hexagon for a feature of a dictionary, with a dashed line for what its features leave."""
    if not node.of:
        return block(rect, radius, pen, str(node))
    return six_sided(rect, replace(pen, dash=(3, 2)) if node.index == ERROR else pen, str(node))


def _outline(border: str, share: float | None = None, wide: float = 1.0) -> Pen:
    """How a node is painted; `share` of the resamples find it."""
    if share is not None:
        border, wide = palette.faded(border, palette.found(share)), 2.0
    return Pen("#ffffff", border, wide)


def _pill(span: Span, x: float, y: float, border: str) -> list[str]:
    """A small pill with words; `y` is its centre line."""
    pill = Rect(x, y - 8, span.width + _AROUND, 16)
    return [block(pill, 8, Pen("#ffffffbf", border, 0.7)), line(*pill.centre, span, centred=True)]


def _chip_width(node: Node) -> float:
    return max(40.0, Span(str(node), _CHIP).width + (20 if node.of else 12))


@dataclass(frozen=True, slots=True)
class Label:
    """A label drawn: its size, its SVG elements, and the verdicts whose signs it shows."""

    width: float
    height: float
    elements: tuple[str, ...]
    verdicts: tuple[Outcome, ...] = ()


def label(arrow: Arrow, also: str = "", room: float = _ROOM, tall: bool = True) -> Label | None:
    """The label of an arrow; none where there is nothing to say.

    Args:
        also: added to its note.
        room: how wide it may be before its note goes on a line of its own.
        tall: whether several figures stand one under the other.
    """
    ink = palette.SOFT if palette.opacity(arrow) < 0.6 else palette.INK
    finding = arrow.finding if arrow.ends and not arrow.quiet else None
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
    verdicts: tuple[Outcome, ...] = (finding.verdict,) if finding else ()
    if finding and listed and finding.mixed:
        verdicts = tuple(figure.verdict for figure in finding.figures)
    for i, verdict in enumerate(verdicts):
        elements += sign(verdict, (11.5, _MIDDLE + i * _LINE))
    return Label(wide, high, tuple(elements), verdicts)


def _note(words: str) -> Span:
    return Span(words, _SMALL, palette.SOFT)


def _wide(spans: list[Span]) -> float:
    return sum(span.width for span in spans) + BLANK * max(0, len(spans) - 1)


_SIGNS: dict[Outcome, tuple[tuple[Point, ...], ...]] = {
    "holds": (((-2.6, 0.2), (-0.7, 2.3), (2.7, -2.0)),),
    "fails": (((-2.2, -2.2), (2.2, 2.2)), ((2.2, -2.2), (-2.2, 2.2))),
    "expected": (((-2.6, -1.3), (2.6, -1.3)), ((-2.6, 1.3), (2.6, 1.3))),
    "unexpected": (((-2.2, -2.2), (2.2, 2.2)), ((2.2, -2.2), (-2.2, 2.2))),
    "undecided": (((-1.7, -1.4), (-0.9, -2.8), (0.9, -2.8), (1.7, -1.4), (0.0, 0.4), (0.0, 1.0)), ((0, 2.8), (0, 3.2))),
    "error": (((0, -3.0), (0, 0.6)), ((0, 2.7), (0, 3.1))),
}


def sign(verdict: Outcome, at: Point) -> Iterator[str]:
    """A small sign for a verdict, so that colour is not the only one: tick, cross, and so on."""
    x, y = at
    yield dot(x, y, 5.6, palette.TONES[verdict])
    for points in _SIGNS[verdict]:
        yield path(polyline(*((x + dx, y + dy) for dx, dy in points)), Pen(stroke="#ffffff", width=1.4))
