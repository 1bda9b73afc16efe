"""A trace graph for people: a table of the senders, and a picture with a column a token and a row a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.circuit.traced import Link, Place, TraceGraph
from circuitdsl.diagram import palette
from circuitdsl.diagram.geometry import Curve, Point, Rect
from circuitdsl.diagram.marks import Block, Group, Line, Mark, Pen, Scene, Span, Stroke
from circuitdsl.diagram.picture import write_picture
from circuitdsl.report.numbers import interval, percent, plain, value
from circuitdsl.report.report import Measured

_PAD, _CHIP, _GAP, _ROW, _TOP = 24.0, 46.0, 8.0, 92.0, 112.0
_COLOURS = {"destination": palette.TONES["q"], "source": palette.TONES["k"]}


def show(console: Console, found: TraceGraph, least: float) -> None:
    """Print who sends what, on at least this share of the firings."""
    start = next(place for place in found.fired if place.head == found.head)
    size = found.fired[start]
    console.print(
        Text.assemble(
            (f"{found.head} fires {found.source} -> {found.target}", "bold"),
            f" on {found.firings} of {found.prompts} prompts; its signal takes {plain(size.dimensions, 1)} of "
            f"{found.d_head} dimensions ({size.least} to {size.most})",
        )
    )
    for side, parts in found.parts.items():
        at = found.source if side == "destination" else found.target
        words = ", ".join(f"{name} {plain(value)}" for name, value in parts.items())
        console.print(Text(f"  at {at}, added to the signal on average: {words}", "dim"))
    console.print()
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading, justify in (("receiver", "left"), ("sender", "left"), ("firings", "right"), ("adds", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    links = shown(found, least)
    for link in links:
        end = "asks" if link.side == "destination" else "is asked"
        share = f"{percent(link.count / found.firings)}"
        table.add_row(f"{link.receiver} ({end})", str(link.sender), share, plain(link.weight))
    console.print(table)
    if len(links) < len(found.links):
        rest = len(found.links) - len(links)
        console.print(Text(f"  {rest} more, each on under {percent(least)} of the firings (--least)", "dim"))
    console.print()
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("signals of", "firings", "dimensions", "least", "most"):
        table.add_column(heading, justify="left" if heading == "signals of" else "right")
    kept = {link.receiver for link in links}
    for place, fired in sorted(found.fired.items(), key=lambda item: (-item[0].head.layer, -item[1].count)):
        if place in kept:
            table.add_row(str(place), str(fired.count), plain(fired.dimensions, 1), str(fired.least), str(fired.most))
    console.print(table)


def shown(found: TraceGraph, least: float) -> list[Link]:
    """The links on at least a share of the firings that lead to the first head, the last layer first."""
    frequent = [link for link in found.links if link.count >= least * found.firings]
    reached = {place for place in found.fired if place.head == found.head}
    kept: list[Link] = []
    for link in sorted(frequent, key=lambda link: (-link.receiver.head.layer, -link.count)):
        if link.receiver in reached:
            kept.append(link)
            reached.add(link.sender)
    return kept


# --- cuts -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChangeFigures:
    """Means over prompts: of the metric's change, of the attention score's; of the length and the cosine of what is cut
    into, after against before."""

    metric: Measured
    score: Measured
    norm: float
    cosine: float


@dataclass(frozen=True, slots=True)
class CutFigures:
    """A cut beside its control.

    Attributes:
        reach: `local` or `global`.
        score: the mean attention score before.
        fewer: on how many prompts the signal leaves fewer singular vectors for the control than it takes itself.
    """

    reach: str
    score: float
    signal: ChangeFigures
    control: ChangeFigures
    fewer: int


def show_cuts(console: Console, of: TraceGraph, found: Sequence[CutFigures], boost: bool) -> None:
    """Print what changes without a signal, or with twice as much of it."""
    places = {"local": f"what {of.head} reads", "global": "what they write"}
    verb, link = ("added once more to", "to") if boost else ("taken out of", "of")
    where = f", or {link} ".join(f"{places[cut.reach]} ({cut.reach})" for cut in found)
    console.print(Text(f"what the senders of {of.head} write along its signal, {verb} {where}", "bold"))
    first = found[0]
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("")
    for heading in (f"change of {first.signal.metric.name}", "change of score", "norm", "cosine"):
        table.add_column(heading, justify="right")
    for cut in found:
        for along, change in (("signal", cut.signal), ("control", cut.control)):
            figures = (f"{value(each)} {interval(each)}" for each in (change.metric, change.score))
            table.add_row(f"{cut.reach}, {along}", *figures, plain(change.norm, 3), plain(change.cosine, 3))
    console.print(table)
    fewer = f"; on {first.fewer} of {first.signal.metric.n} prompts there are fewer" if first.fewer else ""
    console.print(Text(f"  control: along as many singular vectors outside the signal, at random{fewer}", "dim"))
    console.print(Text(f"  score: of attention {of.source} -> {of.target}, {plain(first.score)} before", "dim"))
    console.print(Text(f"  norm, cosine: of what it is {verb}, after against before", "dim"))


# --- the picture ------------------------------------------------------------------------------------


def write_trace(found: TraceGraph, least: float, model: str, path: Path) -> None:
    """Draw into a file; raises what `write_picture` raises."""
    write_picture(scene(found, shown(found, least), least, model), path)


def scene(found: TraceGraph, links: Sequence[Link], least: float, model: str) -> Scene:
    """Heads as chips in the column of the token where they write, links as curves from sender to receiver."""
    places = list(dict.fromkeys(place for link in links for place in (link.receiver, link.sender)))
    cells: dict[tuple[str, int], list[Place]] = {}
    for place in sorted(places, key=lambda place: place.head.head):
        cells.setdefault((place.token, place.head.layer), []).append(place)
    columns = [name for name in found.order if any(token == name for token, _ in cells)]
    rows = found.head.layer
    widths = {c: max((len(v) for (token, _), v in cells.items() if token == c), default=1) for c in columns}
    left: dict[str, float] = {}
    x = _PAD + 50
    for column in columns:
        left[column] = x
        x += widths[column] * (_CHIP + _GAP) + 34
    wide = max(x + _PAD - 20, 560.0)
    bottom = _TOP + rows * _ROW + 30
    at: dict[Place, Point] = {}
    for (column, layer), members in cells.items():
        middle = left[column] + widths[column] * (_CHIP + _GAP) / 2
        first = middle - len(members) * (_CHIP + _GAP) / 2
        for i, place in enumerate(members):
            at[place] = first + (i + 0.5) * (_CHIP + _GAP), _TOP + (rows - layer) * _ROW
    title = f"{found.head}, {found.source} → {found.target}: who made it attend there ({model})"
    about = (
        f"Fires on {found.firings} of {found.prompts} prompts. Senders make up 70 % of what heads add to the signal; "
        f"shown where they do so on at least {percent(least)} of the firings."
    )
    marks = [
        Line(_PAD, _PAD + 2, (Span(title, 15, bold=True),)),
        Line(_PAD, _PAD + 22, (Span(about, 10.5, palette.SOFT),)),
        *_legend(_PAD, _PAD + 44),
        *_grid(columns, left, widths, rows, bottom),
        *(_curve(link, at, found.firings) for link in reversed(links)),
        *(_chip(place, point, place.head == found.head) for place, point in at.items()),
    ]
    return Scene(max(wide, 24 + 6.2 * len(about)), bottom + _PAD, title, about, tuple(marks))


def _grid(
    columns: Sequence[str], left: dict[str, float], widths: dict[str, int], rows: int, bottom: float
) -> Iterator[Mark]:
    for column in columns:
        room = widths[column] * (_CHIP + _GAP)
        yield Block(Rect(left[column] - 8, _TOP - 26, room + 16, bottom - _TOP + 26), 8, Pen(palette.BAND))
        yield Line(left[column] + room / 2, bottom + 12, (Span(column, 12, bold=True),), centred=True)
    for layer in range(rows + 1):
        yield Line(_PAD, _TOP + (rows - layer) * _ROW, (Span(f"layer {layer}", 10.5, palette.SOFT),))


def _legend(x: float, y: float) -> Iterator[Mark]:
    words = {"destination": "at the token that attends", "source": "at the token attended to"}
    for i, (side, said) in enumerate(words.items()):
        start = x + 210 * i
        ends = (start, y), (start + 24, y)
        yield Stroke((Curve(ends[0], ends[0], ends[1], ends[1]),), Pen(stroke=_COLOURS[side], width=3))
        yield Line(start + 32, y, (Span(said, 10.5, palette.SOFT),))


def _curve(link: Link, at: dict[Place, Point], firings: int) -> Mark:
    (x0, y0), (x1, y1) = at[link.sender], at[link.receiver]
    start, end = (x0, y0 - 13), (x1, y1 + 13)
    bend = (start[1] - end[1]) * 0.45
    curve = Curve(start, (x0, start[1] - bend), (x1, end[1] + bend), end)
    share = link.count / firings
    story = (
        f"{link.sender} -> {link.receiver}, {link.side}: {link.count} of {firings} firings, adds {plain(link.weight)}"
    )
    pen = Pen(stroke=_COLOURS[link.side], width=0.8 + 4.2 * min(share, 1.0))
    return Group("link", (Stroke((curve,), pen),), story=story, opacity=0.3 + 0.5 * min(share, 1.0))


def _chip(place: Place, point: Point, first: bool) -> Mark:
    x, y = point
    rect = Rect(x - _CHIP / 2, y - 13, _CHIP, 26)
    pen = Pen("#fdeedd" if first else palette.PAPER, "#d8a468" if first else "#8a96a3", 1.4)
    return Group("head", (Block(rect, 8, pen), Line(x, y, (Span(str(place.head), 12, bold=first),), centred=True)))
