"""Compositions as heat maps: every sender into one receiver input, or readers against senders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.diagram.heatmap import Cell, HeatMap
from circuitdsl.report.channels import Standings
from circuitdsl.report.numbers import plain


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
