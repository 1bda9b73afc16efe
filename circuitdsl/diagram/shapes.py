"""Boxes, each drawn at its own corner: a frame, its name, where it acts, its heads as chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Pen, Span, block, line
from circuitdsl.diagram.geometry import Rect, bounds
from circuitdsl.diagram.model import Box
from circuitdsl.diagram.text import width, wrap

CHIP_HEIGHT, CHIP_GAP, PAD = 25.0, 6.0, 11.0
ARC, ARC_STEP, ARC_LABEL = 15.0, 5.0, 22.0  # arcs between chips: height of the first, of each more, of a label
_TITLE, _NOTE, _CHIP = 14.0, 11.0, 13.0
_TITLE_ROOM = 230.0
_MANY = 10  # chips in one row, where arrows must reach each


@dataclass(frozen=True, slots=True)
class Needs:
    """What arrows ask of a box: chips they reach from above and from below, arcs between its chips, loops beside it."""

    above: frozenset[Node] = frozenset()
    below: frozenset[Node] = frozenset()
    arcs: int = 0
    loops: int = 0
    arc_room: float = 0.0  # for the labels of arcs
    beside: float = 0.0  # for loops, right of the box


@dataclass(frozen=True, slots=True)
class Shape:
    """A box drawn: its size, its SVG elements, and where its chips are; `beside` is room to keep free on its right."""

    width: float
    height: float
    elements: tuple[str, ...]
    chips: Mapping[Node, Rect]
    beside: float = 0.0
    arcs: int = 0
    arcs_above: bool = False

    @property
    def room(self) -> float:
        return self.width + self.beside


def shape(box: Box, needs: Needs, fill: str, border: str) -> Shape:
    if box.kind == "group":
        return _group(box, needs, fill, border)
    if box.kind == "node":
        return _lone(box, needs, border)
    pill, pen = Rect(0, 0, 132, 34), Pen("#eef1f4", "#7b8794", 1.3)
    name = line(*pill.centre, Span(box.title, _TITLE, bold=True), centred=True)
    return Shape(pill.width, pill.height, (block(pill, 17, pen, box.title), name), {box.nodes[0]: pill}, needs.beside)


def _lone(box: Box, needs: Needs, border: str) -> Shape:
    """A node of no group: a chip, with the place where it acts under the name."""
    tag = _tag_width(box.place) if box.place else 0.0
    chip = Rect(0, 0, max(48.0, _chip_width(box.nodes[0]) + 8, tag + 6), 46.0 if tag else 32.0)
    middle = chip.width / 2
    elements = [block(chip, 9, Pen("#ffffff", border, 1.3), box.title)]
    if tag:
        elements += _tag(box.place, middle - tag / 2, 34, border)
    elements.append(line(middle, 15 if tag else 16, Span(box.title, _CHIP), centred=True))
    return Shape(chip.width, chip.height, tuple(elements), {box.nodes[0]: chip}, needs.beside)


def _group(box: Box, needs: Needs, fill: str, border: str) -> Shape:
    """A name over chips; under them, or beside them, where arrows to single chips come from above."""
    chips = _grid(box, needs)
    area = bounds(chips.values())
    wide = max(area.right, needs.arc_room)
    arcs = ARC + needs.arcs * (ARC_STEP + ARC_LABEL) - ARC_STEP if needs.arcs else 0.0
    head = _Header(box, max(wide, 120.0))
    across = max(wide, head.width)
    head_at, chips_at = (0.0, 0.0), ((across - wide) / 2, head.height + arcs + 9)
    tall = chips_at[1] + area.height
    if needs.above and needs.below:
        tall = max(area.height + arcs, head.height)
        head_at, chips_at = (0.0, (tall - head.height) / 2), (head.width + 14, 0.0)
        across = chips_at[0] + wide
    elif needs.above:
        head_at, chips_at = (0.0, area.height + arcs + 9), (chips_at[0], 0.0)
    frame = Rect(0, 0, across + 2 * PAD, max(tall + 2 * PAD, 30.0 * needs.loops + 12))
    placed = {node: chip.moved(chips_at[0] + PAD, chips_at[1] + PAD) for node, chip in chips.items()}
    ink = palette.SOFT if box.outside else palette.INK
    elements = [block(frame, 11, Pen(fill, border, 1.3, (5, 4) if box.outside else None))]
    for node, chip in placed.items():
        elements.append(block(chip, 7, Pen("#ffffff", border), str(node)))
        elements.append(line(*chip.centre, Span(str(node), _CHIP, ink), centred=True))
    elements += head.drawn(head_at[0] + PAD, head_at[1] + PAD, ink, border)
    return Shape(frame.width, frame.height, tuple(elements), placed, needs.beside, needs.arcs, not needs.above)


@dataclass(slots=True)
class _Header:
    """Name, place and notes, flowing into the room: the place beside the name where it fits."""

    box: Box
    room: float
    width: float = 0.0
    height: float = 0.0
    titles: list[str] = field(default_factory=list)
    tags: list[tuple[str, float, float]] = field(default_factory=list)  # words, left, centre line
    notes: list[tuple[str, float]] = field(default_factory=list)  # words, centre line

    def __post_init__(self) -> None:
        room = max(self.room, _TITLE_ROOM)
        self.titles = wrap(self.box.title, _TITLE, room, bold=True)
        y, last = 18.0 * len(self.titles), width(self.titles[-1], _TITLE, bold=True)
        for number, words in enumerate(wrap(self.box.place, _NOTE, room) if self.box.place else ()):
            if number == 0 and last + 10 + _tag_width(words) <= self.room:
                self.tags.append((words, last + 10, y - 9))
            else:
                self.tags.append((words, 0.0, y + 10))
                y += 19
        for words in (words for note in self.box.notes for words in wrap(note, _NOTE, room)):
            self.notes.append((words, y + 8))
            y += 15
        self.height = y
        ends = [width(words, _TITLE, bold=True) for words in self.titles]
        ends += [x + _tag_width(words) for words, x, _ in self.tags] + [width(words, _NOTE) for words, _ in self.notes]
        self.width = max(ends)

    def drawn(self, x: float, y: float, ink: str, border: str) -> list[str]:
        found = [line(x, y + 9 + 18 * i, Span(words, _TITLE, ink, bold=True)) for i, words in enumerate(self.titles)]
        for words, left, middle in self.tags:
            found += _tag(words, x + left, y + middle, border)
        notes = (line(x, y + middle, Span(words, _NOTE, palette.SOFT, italic=True)) for words, middle in self.notes)
        return [*found, *notes]


def _grid(box: Box, needs: Needs) -> dict[Node, Rect]:
    """Chips in rows about equally long. Chips that arrows reach stand in one row, or in the outer rows of many."""
    nodes, count = list(box.nodes), len(box.nodes)
    most = 4 if count <= 8 else 5 if count <= 15 else 8
    if needs.above or needs.below or needs.arcs:
        most = max(_MANY, -(-count // 3))
    per_row = -(-count // -(-count // most))
    if per_row < count:
        nodes.sort(key=lambda node: (node in needs.below) - (node in needs.above and node not in needs.below))
    wide = max(_chip_width(node) for node in nodes)
    chip = Rect(0, 0, wide, CHIP_HEIGHT)
    across, down = wide + CHIP_GAP, CHIP_HEIGHT + CHIP_GAP
    shift = max(0.0, needs.arc_room - per_row * across + CHIP_GAP) / 2
    return {node: chip.moved(shift + i % per_row * across, i // per_row * down) for i, node in enumerate(nodes)}


def _tag(words: str, x: float, y: float, border: str) -> list[str]:
    """A small pill with words; `y` is its centre line."""
    pill = Rect(x, y - 8, _tag_width(words), 16)
    text = line(*pill.centre, Span(words, _NOTE, palette.SOFT), centred=True)
    return [block(pill, 8, Pen("#ffffffbf", border, 0.7)), text]


def _tag_width(words: str) -> float:
    return width(words, _NOTE) + 12


def _chip_width(node: Node) -> float:
    return max(40.0, width(str(node), _CHIP) + 12)
