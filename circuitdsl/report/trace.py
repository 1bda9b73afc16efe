"""A trace graph for people: tables of the senders, and of what cutting their signal changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.circuit.traced import Link, TraceGraph
from circuitdsl.report.numbers import interval, percent, plain, value
from circuitdsl.report.report import Measured


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
