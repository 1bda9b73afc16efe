"""Two circuits side by side: as a screen of text, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.circuit.compare import Comparison, Overlap
from circuitdsl.circuit.nodes import Node
from circuitdsl.report.numbers import percent

# --- text ------------------------------------------------------------------------------------------


def show(found: Comparison, console: Console, controls: Sequence[Comparison] = ()) -> None:
    """Print a comparison; `controls` compare the first and the second circuit with one of another task."""
    console.print(Text.assemble((found.first, "bold"), " and ", (found.second, "bold")))
    console.print()
    rows = [("heads", _overlap(found.heads)), ("edges", _overlap(found.edges))]
    if found.chance:
        rare = "above chance" if found.chance.exceeded else "not above chance"
        level = (
            f"{found.chance.expected:.1f} shared heads, overlap {percent(found.chance.jaccard)}; "
            f"as many as here or more: {percent(found.chance.p)} of random sets, {rare}"
        )
        rows.append(("by chance", level))
    for each in controls:
        level = f", {'above' if each.chance.exceeded else 'not above'} chance" if each.chance else ""
        rows.append(("control", f"heads of {each.first} and {each.second}: {_overlap(each.heads)}{level}"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for row in rows:
        table.add_row(Text(row[0], "dim"), Text(row[1]))
    console.print(table)
    console.print()
    console.print(_roles(found))
    named_alike = {node for first, second in found.by_role().values() for node in first & second}
    if elsewhere := found.heads.shared - named_alike:
        console.print(Text(f"  in both circuits, under other names: {_listed(elsewhere)}", "dim"))
    console.print()
    console.print(_layers(found))
    for node, one, other in found.disagreements:
        console.print(Text(f"  {node} is {one} in {found.first} and {other} in {found.second}", "yellow"))


def _overlap(found: Overlap[Any]) -> str:
    sizes = f"{len(found.shared)} shared of {len(found.first)} and {len(found.second)}"
    return f"{sizes}: overlap {percent(found.jaccard)} (Jaccard), {percent(found.of_first)} of the first"


def _roles(found: Comparison) -> Table:
    """Which heads play each role, in one circuit, in the other, in both."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("role or group", f"only {found.first}", "both", f"only {found.second}"):
        table.add_column(heading, overflow="fold")
    for role, (first, second) in found.by_role().items():
        table.add_row(role, _listed(first - second), Text(_listed(first & second), "green"), _listed(second - first))
    return table


def _layers(found: Comparison) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("layer", f"only {found.first}", "both", f"only {found.second}"):
        table.add_column(heading, justify="right")
    for layer, counts in found.by_layer().items():
        table.add_row(str(layer), *(str(n) if n else "–" for n in counts))
    return table


def _listed(nodes: frozenset[Node]) -> str:
    return " ".join(map(str, sorted(nodes)))


# --- JSON ------------------------------------------------------------------------------------------


def to_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain values; fractions as fractions."""
    chance = found.chance
    return {
        "first": found.first,
        "second": found.second,
        "heads": _json_overlap(found.heads),
        "edges": _json_overlap(found.edges),
        "chance": {"shared": chance.expected, "jaccard": chance.jaccard, "p": chance.p} if chance else None,
        "roles": {
            role: {"first": [str(n) for n in sorted(first)], "second": [str(n) for n in sorted(second)]}
            for role, (first, second) in found.by_role().items()
        },
        "disagreements": [{"node": str(n), "first": one, "second": other} for n, one, other in found.disagreements],
    }


def _json_overlap(found: Overlap[Any]) -> dict[str, Any]:
    names = sorted(found.shared)
    shared = [" -> ".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in names]
    sizes = {"first": len(found.first), "second": len(found.second)}
    return {**sizes, "shared": shared, "jaccard": found.jaccard, "of_first": found.of_first}
