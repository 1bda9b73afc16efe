"""Compositions for people: a table of the strongest senders."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.report.numbers import plain
from circuitdsl.report.report import Standing

#: what stands where: of every sender into one receiver input
Standings = Mapping[Node, Standing]


def show_table(console: Console, receiver: Input, found: Standings, top: int) -> None:
    """The strongest senders into one receiver input."""
    ranked = sorted(found.items(), key=lambda item: -item[1].composition)
    first = ranked[0][1]
    level = f", chance {plain(first.chance, 3)}" if first.chance is not None else ", too few for a chance level"
    kind = "components" if ranked[0][0].index >= 0 else "heads"
    console.print(Text.assemble((f"into {receiver}", "bold"), (f"  {first.of} {kind} upstream{level}", "dim")))
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("rank", "sender", "composition", "z"):
        table.add_column(heading, justify="left" if heading == "sender" else "right")
    table.add_column("")
    for node, where in ranked[:top]:
        above = where.chance is not None and where.composition > where.chance
        row = (str(where.rank), str(node), plain(where.composition, 3), plain(where.z))
        table.add_row(*row, "above chance" if above else "", style=None if above else "dim")
    console.print(table)
    if len(ranked) > top:
        console.print(Text(f"  {len(ranked) - top} more (--top)", "dim"))
