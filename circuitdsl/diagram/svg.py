"""Drawing → SVG: title, plot and legend, one under the other, from back to front."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Pen, Span, block, document, group, line, path
from circuitdsl.diagram.geometry import Curve, Point, Rect, polyline
from circuitdsl.diagram.labels import SIZE, SMALL, Label, Run
from circuitdsl.diagram.model import Arrow, Drawing, Row, scaled
from circuitdsl.diagram.page import Page, PlacedArrow, PlacedBox, lay_out
from circuitdsl.diagram.shapes import SIZES, Style
from circuitdsl.diagram.text import width, wrap
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import Verdict

_PAD = 18.0
_LEAST = 540.0
_APART = 20.0  # between entries of the legend
_MOST = 8  # claims in words below the plot


def to_svg(drawing: Drawing) -> str:
    """The drawing as one SVG document."""
    page = lay_out(drawing)
    wide = max(page.width, _LEAST) + 2 * _PAD
    room = wide - 2 * _PAD
    heading, top = _heading(drawing, room)
    plot = group("plot", _plot(drawing, page), at=((wide - page.width) / 2, top))
    below = top + page.height + (32.0 if page.columns else 0.0)
    parts = [*heading, plot]
    for kind, (elements, tall) in (("unmet", _unmet(drawing, room)), ("legend", _legend(drawing, room))):
        if elements:
            rule = path(polyline((0, 0), (room, 0)), Pen(stroke="#e4e7eb"))
            parts.append(group(kind, [rule, *elements], at=(_PAD, below)))
            below += tall
    return document(wide, below + _PAD, drawing.title, "; ".join((drawing.name, *drawing.facts)), parts)


# --- title, what does not hold, legend --------------------------------------------------------------


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
        if lines and width(f"{lines[-1]} · {fact}", size) <= room:
            lines[-1] += f" · {fact}"
        else:
            lines += wrap(fact, size, room)
    return lines


def _unmet(drawing: Drawing, room: float) -> tuple[list[str], float]:
    """The claims that no arrow shows and that do not hold, each with its figure; and the height of all."""
    rows = [(row.verdict, row) for row in drawing.rows if not row.edge and row.verdict not in (None, "holds")]
    tasks = len({row.task for row in drawing.rows if row.task}) > 1
    elements: list[str] = []
    y = 20.0
    for verdict, row in rows[:_MOST]:
        assert verdict
        elements += _sign(verdict, (6, y))
        for words in wrap(_words_of(row, tasks), 12, room - 20):
            elements.append(line(20, y, Span(words, 12, palette.SOFT)))
            y += 16
        y += 3
    if len(rows) > _MOST:
        elements.append(line(20, y, Span(f"and {len(rows) - _MOST} more", 12, palette.SOFT)))
        y += 19
    return elements, y


def _words_of(row: Row, tasks: bool) -> str:
    where = f" ({row.task})" if tasks and row.task else ""
    said = f"{row.block}: {row.text}" if row.block else row.text
    return f"{said}{where}: {row.figure or row.reason or row.verdict}"


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry of the legend: a line as it is drawn, and what it means."""

    words: str
    pen: Pen
    verdict: Verdict | None = None
    opacity: float = 1.0

    @property
    def width(self) -> float:
        return 40 + width(self.words, 12) + _APART


def _legend(drawing: Drawing, room: float) -> tuple[list[str], float]:
    """Entries flowing into as many rows as they need; and the height of all."""
    elements: list[str] = []
    x, y = 0.0, 22.0
    for items in (*([item] for item in _items(drawing)), _widths(drawing)):
        if x and x + sum(item.width for item in items) - _APART > room:
            x, y = 0.0, y + 22
        for item in items:
            if x and x + item.width - _APART > room:
                x, y = 0.0, y + 22
            elements.append(group("plot", [path(polyline((x, y), (x + 32, y)), item.pen)], opacity=item.opacity))
            elements.append(line(x + 40, y, Span(item.words, 12, palette.SOFT)))
            elements += _sign(item.verdict, (x + 16, y)) if item.verdict else ()
            x += item.width
    return elements, y + 14


def _items(drawing: Drawing) -> Iterator[_Item]:
    for tone in drawing.tones:
        verdict = tone if tone in ("holds", "fails", "undecided", "error") else None
        yield _Item(palette.MEANINGS[tone], Pen(stroke=palette.TONES[tone], width=2.2), verdict)
    faint = [arrow for arrow in drawing.arrows if arrow.negligible]
    if faint:
        like = min(faint, key=palette.opacity)
        pen = Pen(stroke=palette.colour(like), width=1.8, dash=(7, 5))
        yield _Item("claimed negligible", pen, opacity=palette.opacity(like))


def _widths(drawing: Drawing) -> list[_Item]:
    """What the widths of arrows mean, together on a line where they fit."""
    if not any(arrow.finding and arrow.finding.effect is not None for arrow in drawing.arrows):
        return []
    return [
        _Item(f"effect ±{100 * drawing.full * share:.3g} %", Pen(stroke=palette.SOFT, width=scaled(share)))
        for share in (0.1, 0.5, 1.0)
    ]


# --- the plot ---------------------------------------------------------------------------------------


def _plot(drawing: Drawing, page: Page) -> Iterator[str]:
    """From back to front: columns, boxes, arrows, labels."""
    for mark in page.columns:
        dashed = Pen(palette.BAND, "#cbd2d9", 1.0, (4, 4)) if mark.outside else Pen(palette.BAND)
        yield block(Rect(mark.low, 0, mark.high - mark.low, page.height + 22), 10, dashed)
        words = wrap(mark.words, 12, mark.high - mark.low, bold=True)
        name = Span(words[0] + ("…" if len(words) > 1 else ""), 12, palette.SOFT, bold=True)
        yield line((mark.low + mark.high) / 2, page.height + 8, name, centred=True)
    for mark in page.layers:
        first, _, rest = mark.words.partition(" ")
        y = (mark.low + mark.high) / 2
        yield line(4, y - 7, Span(first, 11, palette.SOFT))
        yield line(4, y + 7, Span(rest, 11, palette.SOFT, bold=True))
    tints = palette.tints(drawing)
    for box in page.boxes:
        yield _box(box, *tints[box.box.key])
    for arrow in sorted(page.arrows, key=lambda a: (not a.arrow.negligible, -a.width)):
        yield _arrow(arrow)
    for arrow in page.arrows:
        if arrow.label:
            yield _label(arrow.arrow, arrow.label)


def _box(placed: PlacedBox, fill: str, border: str) -> str:
    box, rect = placed.box, placed.rect
    ink = palette.SOFT if box.outside else palette.INK
    elements = []
    if placed.shape.framed:
        elements.append(block(rect, 11, Pen(fill, border, 1.3, (5, 4) if box.outside else None)))
    for node, _ in placed.shape.chips:
        elements += _chip(placed, str(node), placed.chip(node), border, ink)
    for tag, words in placed.shape.tags:
        spot = tag.moved(rect.x, rect.y)
        elements.append(block(spot, 8, Pen("#ffffffbf", border, 0.7)))
        elements.append(line(*spot.centre, _span_of(words, "tag", palette.SOFT), centred=True))
    for text in placed.shape.words:
        span = _span_of(text.words, text.style, palette.SOFT if text.style == "role" else ink)
        elements.append(line(text.x + rect.x, text.y + rect.y, span, centred=text.centred))
    return group(f"box {box.kind}{' outside' if box.outside else ''}", elements, box=box.key)


def _chip(placed: PlacedBox, name: str, rect: Rect, border: str, ink: str) -> Iterator[str]:
    if placed.box.kind == "group":
        yield block(rect, 7, Pen("#ffffff", border), name)
        yield line(*rect.centre, _span_of(name, "chip", ink), centred=True)
    elif placed.box.kind == "node":
        yield block(rect, 9, Pen("#ffffff", border, 1.3), name)
    else:
        yield block(rect, 17, Pen("#eef1f4", "#7b8794", 1.3), name)


def _span_of(words: str, style: Style, fill: str) -> Span:
    return Span(words, SIZES[style], fill, style in ("title", "end"), style == "role")


# --- arrows -----------------------------------------------------------------------------------------


def _arrow(placed: PlacedArrow) -> str:
    arrow, colour = placed.arrow, palette.colour(placed.arrow)
    pen = Pen(stroke=colour, width=placed.width, dash=(7, 5) if arrow.negligible else None)
    return group(
        f"edge {arrow.finding.verdict}" if arrow.finding else "edge",
        [path(placed.curves, pen), path(_head(placed), Pen(fill=colour))],
        _story(arrow),
        palette.opacity(arrow),
        edge=f"{arrow.sender} -> {arrow.receiver}",
        claims=" ".join(said.id for said in arrow.claims),
    )


def _story(arrow: Arrow) -> str:
    """What the pointer shows: the claims, what became of them, the pairs."""
    lines = [f"{said.text}  (line {said.line})" for said in arrow.claims]
    if arrow.finding:
        lines += arrow.finding.reasons
        lines += [f"{m.text}: {percent(m.effect)}" for m in arrow.finding.members if m.effect is not None]
    return "\n".join(lines)


def _head(placed: PlacedArrow) -> tuple[Curve, ...]:
    """A triangle from the end of the line to the tip."""
    (x, y), (ex, ey) = placed.tip, placed.curves[-1].end
    length = max(1e-6, ((x - ex) ** 2 + (y - ey) ** 2) ** 0.5)
    half = 3.4 + 0.75 * placed.width
    nx, ny = (ey - y) / length * half, (x - ex) / length * half
    bx, by = ex - (x - ex) / length, ey - (y - ey) / length
    return polyline((x, y), (bx + nx, by + ny), (bx - nx, by - ny), (x, y))


def _label(arrow: Arrow, label: Label) -> str:
    ink = palette.SOFT if palette.opacity(arrow) < 0.6 else palette.INK
    elements = [block(label.rect, 7, Pen("#ffffff", palette.colour(arrow), 0.9))]
    elements += [
        line(each.x, each.y, *(_run(run, ink) for run in each.runs), centred=each.centred) for each in label.lines
    ]
    for verdict, at in label.marks:
        elements += _sign(verdict, at)
    return group("label", elements, edge=f"{arrow.sender} -> {arrow.receiver}")


def _run(run: Run, ink: str) -> Span:
    note = run.kind == "note"
    return Span(run.words, SMALL if note else SIZE, palette.SOFT if note else ink, run.kind == "port")


_SIGNS: dict[Verdict, tuple[tuple[Point, ...], ...]] = {
    "holds": (((-2.6, 0.2), (-0.7, 2.3), (2.7, -2.0)),),
    "fails": (((-2.2, -2.2), (2.2, 2.2)), ((2.2, -2.2), (-2.2, 2.2))),
    "undecided": (((-1.7, -1.4), (-0.9, -2.8), (0.9, -2.8), (1.7, -1.4), (0.0, 0.4), (0.0, 1.0)), ((0, 2.8), (0, 3.2))),
    "error": (((0, -3.0), (0, 0.6)), ((0, 2.7), (0, 3.1))),
}


def _sign(verdict: Verdict, at: Point) -> Iterator[str]:
    """A small sign for a verdict, so that colour is not the only one: tick, cross, question mark, exclamation mark."""
    x, y = at
    yield block(Rect(x - 5.6, y - 5.6, 11.2, 11.2), 5.6, Pen(palette.TONES[verdict]))
    for points in _SIGNS[verdict]:
        yield path(polyline(*((x + dx, y + dy) for dx, dy in points)), Pen(stroke="#ffffff", width=1.4))
