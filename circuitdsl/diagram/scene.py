"""Drawing → scene: a few kinds of marks at their places, back to front, which every picture writer can paint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from circuitdsl.diagram import palette
from circuitdsl.diagram.curves import PlacedArrow, PlacedBox
from circuitdsl.diagram.geometry import Curve, Point, Rect, polyline
from circuitdsl.diagram.labels import BLANK, SIZE, SMALL, Label, Run
from circuitdsl.diagram.layout import Layout, lay_out
from circuitdsl.diagram.marks import Block, Group, Line, Mark, Pen, Scene, Span, Stroke
from circuitdsl.diagram.model import Arrow, Drawing, Row, scaled
from circuitdsl.diagram.shapes import SIZES, Words
from circuitdsl.diagram.text import width, wrap
from circuitdsl.report.numbers import percent
from circuitdsl.verdicts import Verdict

_PAD = 18.0
_LEAST = 540.0
_RULE = "#e4e7eb"
_APART = 20.0  # between entries of the legend
_MOST = 8  # claims in words below the plot


def scene(drawing: Drawing) -> Scene:
    """Title, plot and legend, one under the other."""
    layout = lay_out(drawing)
    wide = max(layout.width, _LEAST) + 2 * _PAD
    heading, top = _heading(drawing, wide - 2 * _PAD)
    below = top + layout.height + (32.0 if layout.columns else 0.0)
    unmet, taken = _unmet(drawing, wide - 2 * _PAD)
    legend, tall = _legend(drawing, wide - 2 * _PAD)
    plot = Group("plot", tuple(_plot(drawing, layout)), at=((wide - layout.width) / 2, top))
    return Scene(
        wide,
        below + taken + tall + _PAD,
        drawing.title,
        "; ".join((drawing.name, *drawing.facts)),
        (
            *heading,
            plot,
            *([Group("unmet", tuple(unmet), at=(_PAD, below))] if unmet else ()),
            Group("plot", tuple(legend), at=(_PAD, below + taken)),
        ),
    )


# --- title and legend -------------------------------------------------------------------------------


def _heading(drawing: Drawing, room: float) -> tuple[list[Line], float]:
    """Title, then what was drawn, then where it comes from."""
    spans = [Span(line, 18.0, bold=True) for line in wrap(drawing.title, 18, room, bold=True)]
    spans += [Span(line, 12.5, palette.SOFT) for line in _packed(drawing.facts, 12.5, room)]
    spans += [Span(line, 12.5, palette.SOFT) for source in drawing.sources for line in wrap(source, 12.5, room)]
    lines, y = [], _PAD
    for span in spans:
        lines.append(Line(_PAD, y + 0.68 * span.size, (span,)))
        y += 1.35 * span.size
    return lines, y + 14


def _packed(facts: Iterable[str], size: float, room: float) -> list[str]:
    """Facts side by side, as many to a line as fit; one that is too long by itself is broken."""
    lines: list[str] = []
    for fact in facts:
        if lines and width(f"{lines[-1]} · {fact}", size) <= room:
            lines[-1] += f" · {fact}"
        else:
            lines += wrap(fact, size, room)
    return lines


def _unmet(drawing: Drawing, room: float) -> tuple[list[Mark], float]:
    """The claims that no arrow shows and that do not hold, each with its figure."""
    rows = [row for row in drawing.rows if not row.edge and row.verdict not in (None, "holds")]
    if not rows:
        return [], 0.0
    tasks = len({row.task for row in drawing.rows if row.task}) > 1
    marks: list[Mark] = [Stroke(polyline((0, 0), (room, 0)), Pen(stroke=_RULE))]
    y = 20.0
    for row in rows[:_MOST]:
        marks += _sign(cast(Verdict, row.verdict), (6, y))
        for line in wrap(_words_of(row, tasks), 12, room - 20):
            marks.append(Line(20, y, (Span(line, 12, palette.SOFT),)))
            y += 16
        y += 3
    if len(rows) > _MOST:
        marks.append(Line(20, y, (Span(f"and {len(rows) - _MOST} more", 12, palette.SOFT),)))
        y += 19
    return marks, y


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


def _legend(drawing: Drawing, room: float) -> tuple[list[Mark], float]:
    """Entries flowing into as many rows as they need."""
    marks: list[Mark] = [Stroke(polyline((0, 0), (room, 0)), Pen(stroke=_RULE))]
    x, y = 0.0, 22.0
    for items in (*([item] for item in _items(drawing)), _widths(drawing)):
        if x and x + sum(item.width for item in items) - _APART > room:
            x, y = 0.0, y + 22
        for item in items:
            if x and x + item.width - _APART > room:
                x, y = 0.0, y + 22
            marks += _entry(item, x, y)
            x += item.width
    return (marks, y + 14) if len(marks) > 1 else ([], 0.0)


def _entry(item: _Item, x: float, y: float) -> Iterator[Mark]:
    yield Group("plot", (Stroke(polyline((x, y), (x + 32, y)), item.pen),), opacity=item.opacity)
    yield Line(x + 40, y, (Span(item.words, 12, palette.SOFT),))
    if item.verdict:
        yield from _sign(item.verdict, (x + 16, y))


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


def _plot(drawing: Drawing, layout: Layout) -> Iterator[Mark]:
    """From back to front: columns, boxes, arrows, labels."""
    yield from _columns(layout)
    yield from _layers(layout)
    tints = palette.tints(drawing)
    for box in layout.boxes:
        yield _box(box, *tints[box.box.key])
    for arrow in sorted(layout.arrows, key=lambda a: (not a.arrow.negligible, -a.width)):
        yield _arrow(arrow)
    for arrow in layout.arrows:
        if arrow.label:
            yield _label(arrow.arrow, arrow.label)


def _columns(layout: Layout) -> Iterator[Mark]:
    for mark in layout.columns:
        pen = Pen(palette.BAND, "#cbd2d9", 1.0, (4, 4)) if mark.outside else Pen(palette.BAND)
        yield Block(Rect(mark.low, 0, mark.high - mark.low, layout.height + 22), 10, pen)
        words = wrap(mark.words, 12, mark.high - mark.low, bold=True)
        shown = words[0] + ("…" if len(words) > 1 else "")
        yield Line((mark.low + mark.high) / 2, layout.height + 8, (Span(shown, 12, palette.SOFT, bold=True),), True)


def _layers(layout: Layout) -> Iterator[Mark]:
    for mark in layout.layers:
        first, _, rest = mark.words.partition(" ")
        y = (mark.low + mark.high) / 2
        yield Line(4, y - 7, (Span(first, 11, palette.SOFT),))
        yield Line(4, y + 7, (Span(rest, 11, palette.SOFT, bold=True),))


def _box(placed: PlacedBox, fill: str, border: str) -> Group:
    box, rect = placed.box, placed.rect
    ink = palette.SOFT if box.outside else palette.INK
    marks: list[Mark] = []
    if placed.shape.framed:
        marks.append(Block(rect, 11, Pen(fill, border, 1.3, (5, 4) if box.outside else None)))
    for node, _ in placed.shape.chips:
        marks += _chip(placed, str(node), placed.chip(node), border, ink)
    for tag, words in placed.shape.tags:
        spot = tag.moved(rect.x, rect.y)
        marks.append(Block(spot, 8, Pen("#ffffffbf", border, 0.7)))
        marks.append(_words(Words(*spot.centre, words, "tag", centred=True), palette.SOFT))
    for line in placed.shape.words:
        moved = replace(line, x=line.x + rect.x, y=line.y + rect.y)
        marks.append(_words(moved, palette.SOFT if line.style == "role" else ink))
    return Group("box", tuple(marks), (("box", box.key),), f"{box.kind}{' outside' if box.outside else ''}")


def _chip(placed: PlacedBox, name: str, rect: Rect, border: str, ink: str) -> Iterator[Mark]:
    match placed.box.kind:
        case "embed" | "logits":
            yield Block(rect, 17, Pen("#eef1f4", "#7b8794", 1.3), name)
        case "node":
            yield Block(rect, 9, Pen("#ffffff", border, 1.3), name)
        case _:
            yield Block(rect, 7, Pen("#ffffff", border), name)
            yield _words(Words(*rect.centre, name, "chip", centred=True), ink)


def _words(line: Words, fill: str) -> Line:
    span = Span(line.words, SIZES[line.style], fill, line.style in ("title", "end"), line.style == "role")
    return Line(line.x, line.y, (span,), line.centred)


# --- arrows -----------------------------------------------------------------------------------------


def _arrow(placed: PlacedArrow) -> Group:
    arrow, colour = placed.arrow, palette.colour(placed.arrow)
    line = Stroke(placed.curves, Pen(stroke=colour, width=placed.width, dash=(7, 5) if arrow.negligible else None))
    return Group(
        "edge",
        (line, Stroke(_head(placed), Pen(fill=colour))),
        (*_about(arrow), ("claims", " ".join(said.id for said in arrow.claims))),
        arrow.finding.verdict if arrow.finding else "",
        _story(arrow),
        palette.opacity(arrow),
    )


def _about(arrow: Arrow) -> tuple[tuple[str, str], ...]:
    return (("edge", f"{arrow.sender} -> {arrow.receiver}"),)


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


def _label(arrow: Arrow, label: Label) -> Group:
    ink = palette.SOFT if palette.opacity(arrow) < 0.6 else palette.INK
    marks: list[Mark] = [Block(label.rect, 7, Pen("#ffffff", palette.colour(arrow), 0.9))]
    for line in label.lines:
        marks.append(Line(line.x, line.y, tuple(_span(run, ink) for run in line.runs), line.centred))
    for verdict, at in label.marks:
        marks += _sign(verdict, at)
    return Group("label", tuple(marks), _about(arrow))


def _span(run: Run, ink: str) -> Span:
    note = run.kind == "note"
    return Span(run.words, SMALL if note else SIZE, palette.SOFT if note else ink, run.kind == "port")


def gap(line: Line) -> float:
    """Room between the spans of a line."""
    return BLANK if len(line.spans) > 1 else 0.0


_SIGNS: dict[Verdict, tuple[tuple[Point, ...], ...]] = {
    "holds": (((-2.6, 0.2), (-0.7, 2.3), (2.7, -2.0)),),
    "fails": (((-2.2, -2.2), (2.2, 2.2)), ((2.2, -2.2), (-2.2, 2.2))),
    "undecided": (((-1.7, -1.4), (-0.9, -2.8), (0.9, -2.8), (1.7, -1.4), (0.0, 0.4), (0.0, 1.0)), ((0, 2.8), (0, 3.2))),
    "error": (((0, -3.0), (0, 0.6)), ((0, 2.7), (0, 3.1))),
}


def _sign(verdict: Verdict, at: Point) -> Iterator[Mark]:
    """A small sign for a verdict, so that colour is not the only one: tick, cross, question mark, exclamation mark."""
    x, y = at
    yield Block(Rect(x - 5.6, y - 5.6, 11.2, 11.2), 5.6, Pen(palette.TONES[verdict]))
    for points in _SIGNS[verdict]:
        yield Stroke(polyline(*((x + dx, y + dy) for dx, dy in points)), Pen(stroke="#ffffff", width=1.4))
