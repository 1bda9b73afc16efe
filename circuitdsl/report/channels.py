"""Compositions for people: a table of the strongest senders, and the grids that a heat map shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.report.heatmap import Cell, HeatMap
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


def map_of_senders(model: str, receiver: Input, found: Standings, shape: tuple[int, int], top: int) -> HeatMap:
    """Every sender into one receiver input: layers × heads, layer 0 at the bottom; of components the strongest."""
    layers, heads = shape
    strongest = {(node.layer, node.head): node for node in sorted(found, key=lambda node: found[node].composition)}
    grid = tuple(
        tuple(_cell(strongest.get((layer, head)), found, receiver, top) for head in range(heads))
        for layer in reversed(range(layers))
    )
    whole = next(iter(found)).index < 0
    what = "every head before it" if whole else "the strongest singular component of every head before it"
    return HeatMap(
        title=f"Composition with {receiver}, {model}",
        subtitle=f"How strongly {what} writes what {receiver} reads; from weights alone.",
        rows=tuple(str(layer) for layer in reversed(range(layers))),
        columns=tuple(map(str, range(heads))),
        row_title="layer",
        column_title="head",
        cells=grid,
        unit=_UNIT,
        outline=_outline(whole, top),
    )


def map_of_readers(
    model: str, found: Mapping[Input, Standings], senders: Sequence[Node], top: int, components: bool
) -> HeatMap:
    """Readers × senders; `components` are the strongest of each sending head, or those that the columns name."""
    grid = tuple(
        tuple(_cell(node if node in standings else None, standings, to, top, components) for node in senders)
        for to, standings in found.items()
    )
    narrow = len(senders) > 24
    what = "the strongest component of each sender" if components else "each sender"
    return HeatMap(
        title=f"Composition between heads, {model}",
        subtitle=f"How strongly {what} (column) writes what each receiver input (row) reads; from weights alone.",
        rows=tuple(map(str, found)),
        columns=tuple(map(str, senders)),
        row_title="reads",
        column_title="senders, by layer" if narrow else "senders",
        cells=grid,
        unit=_UNIT,
        outline=_outline(not components, top),
    )


_UNIT = "composition (Frobenius norm of the product over the product of norms)"


def _outline(whole: bool, top: int) -> str:
    """What is outlined. One of a head's many components is above chance by chance, so that they need more."""
    if whole:
        return "above chance: in the strongest 5 % of all senders into this input"
    return f"among the {top} strongest of all components upstream of this input"


def _cell(node: Node | None, found: Standings, receiver: Input, top: int, components: bool = False) -> Cell | None:
    if node is None:
        return None
    where = found[node]
    story = f"{node} -> {receiver}: composition {plain(where.composition, 3)}, rank {where.rank} of {where.of}"
    outlined = where.chance is not None and where.composition > where.chance
    if components or node.index >= 0:
        outlined = where.rank is not None and where.rank <= top
    words = f"[{node.index}]" if node.index >= 0 and not components else ""
    return Cell(where.composition, words, f"{story}, z {plain(where.z)}", outlined)
