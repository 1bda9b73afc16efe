"""Drawing → SVG: title, plot and legend, one under the other, from back to front."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from circuitdsl.circuit.nodes import ERROR, Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.collect import measured_in, pairs
from circuitdsl.diagram.elements import Pen, Rect, Span, block, bounds, document, group, line, path, polyline, wrap
from circuitdsl.diagram.model import Arrow, Box, Drawing, scaled
from circuitdsl.diagram.page import OUTSIDE, Page, PlacedArrow, lay_out
from circuitdsl.diagram.shapes import node_shape, sign
from circuitdsl.report import numbers
from circuitdsl.report.report import OUTCOMES, Outcome

_PAD = 18.0
_LEAST, _AXIS = 540.0, 56.0
_APART = 20.0  # between entries of the legend
_DOUBLE = 3.2  # a double line is as wide at the least
_MOST = 8  # claims in words below the plot


def to_svg(drawing: Drawing) -> str:
    page = lay_out(drawing)
    axis = _AXIS if any(box.kind in ("group", "node") for box in drawing.boxes) else 0.0
    room = max(page.area.width + axis, _LEAST)
    wide = room + 2 * _PAD
    heading, top = _heading(drawing, room)
    left = (wide + axis - page.area.width) / 2
    plot = group("plot", _plot(drawing, page), at=(left - page.area.x, top - page.area.y))
    below = top + page.area.height + (32.0 if page.columns else 0.0)
    parts = [*heading, plot]
    for kind, (elements, tall) in (("unmet", _unmet(drawing, room)), ("legend", _legend(drawing, room))):
        if elements:
            rule = path(polyline((0, 0), (room, 0)), Pen(stroke="#e4e7eb"))
            parts.append(group(kind, [rule, *elements], at=(_PAD, below)))
            below += tall
    return document(wide, below + _PAD, drawing.title, "; ".join((drawing.name, *drawing.facts)), parts)


def _heading(drawing: Drawing, room: float) -> tuple[list[str], float]:
    """Title, then what was drawn, then where it comes from; and the height of all."""
    spans = [Span(words, 18.0, bold=True) for words in wrap(drawing.title, 18, room, bold=True)]
    spans += [Span(words, 12.5, palette.SOFT) for words in _packed(drawing.facts, 12.5, room)]
    spans += [Span(words, 12.5, palette.SOFT) for source in drawing.sources for words in wrap(source, 12.5, room)]
    heights = list(itertools.accumulate((1.35 * span.size for span in spans), initial=_PAD))
    lines = [line(_PAD, y + 0.68 * span.size, span) for span, y in zip(spans, heights, strict=False)]
    return lines, heights[-1] + 14


def _packed(facts: Iterable[str], size: float, room: float) -> list[str]:
    """Facts side by side, as many to a line as fit; one that is too long by itself is broken."""
    lines: list[str] = []
    for fact in facts:
        if lines and Span(f"{lines[-1]} · {fact}", size).width <= room:
            lines[-1] += f" · {fact}"
        else:
            lines += wrap(fact, size, room)
    return lines


def _unmet(drawing: Drawing, room: float) -> tuple[list[str], float]:
    """The claims that no arrow shows and that do not hold, or were not to, with their figures; and how high all are."""
    unmet = [result for result in drawing.results if result.kind not in ("edge", "path") and result.outcome != "holds"]
    elements: list[str] = []
    y = 20.0
    for result in unmet[:_MOST]:
        elements += sign(result.outcome, (6, y))
        where = f" ({result.task})" if drawing.several_tasks and result.task else ""
        said = f"{result.block}: {result.text}" if result.block else result.text
        figure = numbers.figure(measured_in(result))
        for words in wrap(f"{said}{where}: {figure or result.reason or result.spoken}", 12, room - 20):
            elements.append(line(20, y, Span(words, 12, palette.SOFT)))
            y += 16
        y += 3
    if len(unmet) > _MOST:
        elements.append(line(20, y, Span(f"and {len(unmet) - _MOST} more", 12, palette.SOFT)))
        y += 19
    return elements, y


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry of the legend: a line, or a node, as it is drawn, and what it means."""

    words: str
    pen: Pen
    verdict: Outcome | None = None
    double: bool = False
    node: Node | None = None

    @property
    def width(self) -> float:
        return 40 + Span(self.words, 12).width + _APART


def _legend(drawing: Drawing, room: float) -> tuple[list[str], float]:
    """Entries flowing into as many rows as they need; and the height of all."""
    elements: list[str] = []
    x, y = 0.0, 22.0
    for items in _items(drawing):
        if x and x + sum(item.width for item in items) - _APART > room:
            x, y = 0.0, y + 22
        for item in items:
            if x and x + item.width - _APART > room:
                x, y = 0.0, y + 22
            if item.node:
                elements.append(node_shape(item.node, Rect(x + 4, y - 8, 24, 16), 7, item.pen))
            else:
                elements.append(path(polyline((x, y), (x + 32, y)), item.pen))
            if item.double:
                inner = Pen(stroke=palette.PAPER, width=_inside(item.pen.width))
                elements.append(path(polyline((x, y), (x + 32, y)), inner))
            elements.append(line(x + 40, y, Span(item.words, 12, palette.SOFT)))
            elements += sign(item.verdict, (x + 16, y)) if item.verdict else ()
            x += item.width
    return elements, y + 14


def _items(drawing: Drawing) -> Iterator[list[_Item]]:
    """The entries, those in a list together on a line where they fit; the last list says what the widths mean."""
    for tone in palette.tones(drawing):
        verdict = tone if tone in OUTCOMES else None
        yield [_Item(palette.MEANINGS[tone], Pen(stroke=palette.TONES[tone], width=2.2), verdict)]
    faint = [arrow for arrow in drawing.arrows if arrow.negligible]
    if faint:
        like = min(faint, key=palette.opacity)
        colour = palette.faded(palette.colour(like), palette.opacity(like))
        yield [_Item("claimed negligible", Pen(stroke=colour, width=1.8, dash=(7, 5)))]
    if any(arrow.path for arrow in drawing.arrows):
        yield [_Item("arrow of a path", Pen(stroke=palette.SOFT, width=_DOUBLE), double=True)]
    parts = {node.index == ERROR: node for box in drawing.boxes for node in box.nodes if node.of}
    for rest, meaning in ((False, "feature of a dictionary"), (True, "what its features leave")):
        if rest in parts:
            yield [_Item(meaning, Pen("#ffffff", palette.SOFT, 1.2), node=parts[rest])]
    if drawing.again:
        words = {1.0: "arrow or node found in 100 % of resamples", 0.5: "in 50 %"}
        found = {share: palette.faded(palette.SOFT, palette.found(share)) for share in words}
        yield [_Item(said, Pen(stroke=found[share], width=2.2)) for share, said in words.items()]
    measured = any(arrow.finding and arrow.finding.effect is not None for arrow in drawing.arrows)
    yield [
        _Item(f"effect ±{100 * drawing.full * share:.3g} %", Pen(stroke=palette.SOFT, width=scaled(share)))
        for share in ((0.1, 0.5, 1.0) if measured else ())
    ]


def _plot(drawing: Drawing, page: Page) -> Iterator[str]:
    """From back to front: columns, layers, boxes, arrows, labels."""
    area = page.area
    for column, low, high in page.columns:
        dashed = Pen(palette.BAND, "#cbd2d9", 1.0, (4, 4)) if column == OUTSIDE else Pen(palette.BAND)
        yield block(Rect(low + 4, area.y, high - low - 8, area.height + 22), 10, dashed)
        words = wrap(", ".join(column), 12, high - low - 8, bold=True)
        name = Span(words[0] + ("…" if len(words) > 1 else ""), 12, palette.SOFT, bold=True)
        yield line((low + high) / 2, area.bottom + 8, name, centred=True)
    for low, high, y in layers(drawing, page):
        several = low != high
        yield line(area.x - _AXIS + 4, y - 7, Span("layers" if several else "layer", 11, palette.SOFT))
        numbers = f"{low}–{high}" if several else str(low)
        yield line(area.x - _AXIS + 4, y + 7, Span(numbers, 11, palette.SOFT, bold=True))
    for box in drawing.boxes:
        rect, kind = page.boxes[box.key], f"box {box.kind}{' outside' if box.outside else ''}"
        yield group(kind, page.shapes[box.key].elements, at=(rect.x, rect.y), box=box.key)
    for arrow in sorted(page.arrows, key=lambda a: (not a.arrow.negligible, -a.width)):
        yield _arrow(arrow)
    for arrow in page.arrows:
        if arrow.label:
            about = {"edge": _name(arrow.arrow), "of": _claims(arrow.arrow)}
            yield group("label", arrow.label.elements, at=arrow.label_at, **about)


def layers(drawing: Drawing, page: Page) -> Iterator[tuple[int, int, float]]:
    """The lowest and the highest layer of the boxes of each row, and the middle of the row."""
    rows: dict[int, list[Box]] = {}
    for box in drawing.boxes:
        if box.kind in ("group", "node"):
            rows.setdefault(page.row[box.key], []).append(box)
    for row in rows.values():
        found = [node.known_after for box in row for node in box.nodes]
        yield min(found), max(found), bounds(page.boxes[box.key] for box in row).centre[1]


def _arrow(placed: PlacedArrow) -> str:
    arrow = placed.arrow
    colour = palette.faded(palette.colour(arrow), palette.opacity(arrow))
    wide = max(placed.width, _DOUBLE if arrow.path else 0.0)
    elements = [path(placed.curves, Pen(stroke=colour, width=wide, dash=(7, 5) if arrow.negligible else None))]
    if arrow.path:  # the arrows of a path are double lines: it is one way, and has one figure
        elements.append(path(placed.curves, Pen(stroke=palette.PAPER, width=_inside(wide))))
    kind = f"edge {arrow.finding.verdict}" if arrow.finding else "edge"
    elements.append(_head(placed, colour))
    return group(kind, elements, _story(arrow), edge=_name(arrow), claims=_claims(arrow))


def _inside(wide: float) -> float:
    """How wide the blank between the two lines of a double line is."""
    return max(1.0, 0.5 * wide)


def _name(arrow: Arrow) -> str:
    return f"{arrow.sender} -> {arrow.receiver}"


def _claims(arrow: Arrow) -> str:
    return " ".join(said.id for said in arrow.claims)


def _story(arrow: Arrow) -> str:
    """What the pointer shows: the claims, what became of them, the pairs."""
    lines = [f"{said.text}  (line {said.line})" for said in arrow.claims]
    if arrow.finding:
        lines += arrow.finding.reasons
        lines += [f"{pair}: {effect}" for pair, effect in pairs(arrow.finding.members)]
    return "\n".join(lines)


def _head(placed: PlacedArrow, colour: str) -> str:
    """A triangle from the end of the line to the tip."""
    (x, y), (ex, ey) = placed.tip, placed.curves[-1].end
    length = max(1e-6, ((x - ex) ** 2 + (y - ey) ** 2) ** 0.5)
    half = 3.4 + 0.75 * placed.width
    nx, ny = (ey - y) / length * half, (x - ex) / length * half
    bx, by = ex - (x - ex) / length, ey - (y - ey) / length
    return path(polyline((x, y), (bx + nx, by + ny), (bx - nx, by - ny), (x, y)), Pen(fill=colour))
