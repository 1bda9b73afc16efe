"""The inside of a box: its name, where it acts, its heads as chips. Coordinates are relative to the box's corner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram.geometry import Rect, bounds
from circuitdsl.diagram.model import Box
from circuitdsl.diagram.text import width, wrap

Style = Literal["title", "role", "tag", "chip", "end"]
SIZES: dict[Style, float] = {"title": 14, "role": 11, "tag": 11, "chip": 13, "end": 14}
CHIP_HEIGHT, CHIP_GAP, PAD = 25.0, 6.0, 11.0
ARC, ARC_STEP, ARC_LABEL = 15.0, 5.0, 22.0  # arcs between chips: height of the first, of each more, of a label
_TITLE_ROOM = 230.0
_MANY = 10  # chips in one row, where arrows must reach each


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text: its centre line and left end, or its centre where it is centred."""

    x: float
    y: float
    words: str
    style: Style
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """A box drawn: its size and what stands where in it."""

    width: float
    height: float
    chips: tuple[tuple[Node, Rect], ...]
    words: tuple[Words, ...] = ()
    tags: tuple[tuple[Rect, str], ...] = ()
    framed: bool = True
    beside: float = 0.0
    arcs: int = 0
    arcs_above: bool = False

    @property
    def room(self) -> float:
        return self.width + self.beside

    def chip(self, node: Node) -> Rect:
        return next(rect for found, rect in self.chips if found == node)


@dataclass(frozen=True, slots=True)
class Needs:
    """What arrows ask of a box: chips they reach from above and from below, arcs between its chips, loops beside it."""

    above: frozenset[Node] = frozenset()
    below: frozenset[Node] = frozenset()
    arcs: int = 0
    loops: int = 0
    room: float = 0.0  # for the labels of arcs
    beside: float = 0.0  # for loops, right of the box


def shape(box: Box, needs: Needs) -> Shape:
    if box.kind == "group":
        return _group(box, needs)
    return replace(_lone(box) if box.kind == "node" else _terminal(box), beside=needs.beside)


def _terminal(box: Box) -> Shape:
    """`embed` and `logits`: a wide pill."""
    rect = Rect(0, 0, 132, 34)
    return Shape(132, 34, ((box.nodes[0], rect),), (Words(66, 17, box.title, "end", centred=True),), framed=False)


def _lone(box: Box) -> Shape:
    """A node of no group: a chip, with the place where it acts under the name."""
    tag = width(box.place, SIZES["tag"]) + 12 if box.place else 0.0
    wide = max(48.0, _chip_width(box.nodes[0]) + 8, tag + 6)
    height = 46.0 if tag else 32.0
    rect = Rect(0, 0, wide, height)
    name = Words(wide / 2, 15 if tag else 16, box.title, "chip", centred=True)
    tags = ((Rect((wide - tag) / 2, 26, tag, 16), box.place),) if tag else ()
    return Shape(wide, height, ((box.nodes[0], rect),), (name,), tags, framed=False)


def _group(box: Box, needs: Needs) -> Shape:
    """A name over chips; under them, or beside them, where arrows to single chips come from above."""
    chips = _grid(box, needs)
    area = bounds(rect for _, rect in chips)
    area = Rect(0, 0, max(area.right, needs.room), area.height)
    arcs = ARC + needs.arcs * (ARC_STEP + ARC_LABEL) - ARC_STEP if needs.arcs else 0.0
    room = arcs + 9
    head = _header(box, max(area.width, 120.0))
    across = max(area.width, head.width)
    middle = (across - area.width) / 2
    if needs.above and needs.below:
        tall = max(area.height + arcs, head.height)
        beside = head.width + 14
        made = _joined(head, chips, (0, (tall - head.height) / 2), (beside, 0), beside + area.width, tall)
    elif needs.above:
        tall = area.height + room + head.height
        made = _joined(head, chips, (0, area.height + room), (middle, 0), across, tall)
    else:
        tall = head.height + room + area.height
        made = replace(_joined(head, chips, (0, 0), (middle, head.height + room), across, tall), arcs_above=True)
    return replace(made, height=max(made.height, 30.0 * needs.loops + 12), arcs=needs.arcs, beside=needs.beside)


@dataclass(frozen=True, slots=True)
class _Header:
    width: float
    height: float
    words: tuple[Words, ...]
    tags: tuple[tuple[Rect, str], ...]


def _header(box: Box, room: float) -> _Header:
    """Name, place and role, flowing into the room: the place beside the name where it fits."""
    lines = wrap(box.title, SIZES["title"], max(room, _TITLE_ROOM), bold=True)
    words = [Words(0, 9 + 18 * i, line, "title") for i, line in enumerate(lines)]
    wide = max(width(line, SIZES["title"], bold=True) for line in lines)
    y, tags = 18.0 * len(lines), []
    for number, line in enumerate(wrap(box.place, SIZES["tag"], max(room, _TITLE_ROOM)) if box.place else ()):
        tag = width(line, SIZES["tag"]) + 12
        last = width(lines[-1], SIZES["title"], bold=True)
        if number == 0 and last + 10 + tag <= room:
            tags.append((Rect(last + 10, y - 17, tag, 16), line))
        else:
            tags.append((Rect(0, y + 2, tag, 16), line))
            y += 19
    for note in box.notes:
        for line in wrap(note, SIZES["role"], max(room, _TITLE_ROOM)):
            words.append(Words(0, y + 8, line, "role"))
            wide, y = max(wide, width(line, SIZES["role"])), y + 15
    return _Header(max([wide, *(rect.right for rect, _ in tags)]), y, tuple(words), tuple(tags))


def _grid(box: Box, needs: Needs) -> list[tuple[Node, Rect]]:
    """Chips in rows about equally long. Chips that arrows reach stand in one row, or in the outer rows of many."""
    nodes, count = list(box.nodes), len(box.nodes)
    most = 4 if count <= 8 else 5 if count <= 15 else 8
    if needs.above or needs.below or needs.arcs:
        most = max(_MANY, -(-count // 3))
    per_row = -(-count // -(-count // most))
    if per_row < count:
        nodes.sort(key=lambda node: (node in needs.below) - (node in needs.above and node not in needs.below))
    wide = max(_chip_width(node) for node in nodes)
    rect = Rect(0, 0, wide, CHIP_HEIGHT)
    across, down = wide + CHIP_GAP, CHIP_HEIGHT + CHIP_GAP
    shift = max(0.0, needs.room - per_row * across + CHIP_GAP) / 2
    return [(node, rect.moved(shift + i % per_row * across, i // per_row * down)) for i, node in enumerate(nodes)]


def _joined(
    head: _Header,
    chips: list[tuple[Node, Rect]],
    head_at: tuple[float, float],
    chips_at: tuple[float, float],
    wide: float,
    tall: float,
) -> Shape:
    """Header and chips at their places, with the padding of a box around them."""
    dx, dy = head_at[0] + PAD, head_at[1] + PAD
    return Shape(
        wide + 2 * PAD,
        tall + 2 * PAD,
        tuple((node, rect.moved(chips_at[0] + PAD, chips_at[1] + PAD)) for node, rect in chips),
        tuple(replace(line, x=line.x + dx, y=line.y + dy) for line in head.words),
        tuple((rect.moved(dx, dy), line) for rect, line in head.tags),
    )


def _chip_width(node: Node) -> float:
    return max(40.0, width(str(node), SIZES["chip"]) + 12)
