"""Drawing → DOT, the language of Graphviz: groups as clusters, ranked by layer. Graphviz itself does the layout."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from circuitdsl.circuit.nodes import ERROR, Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.model import Arrow, Box, Drawing, End
from circuitdsl.diagram.page import rows
from circuitdsl.visible import harmless, visible

_ENTITY = re.compile(r"&(?=#?\w+;)")
_FONT = "Helvetica,Arial,sans-serif"


def to_dot(drawing: Drawing) -> str:
    """The drawing in the DOT language."""
    legend = ", ".join(f"{palette.NAMES[tone]}: {palette.MEANINGS[tone]}" for tone in palette.tones(drawing))
    caption = (drawing.title, " · ".join(drawing.facts), *drawing.sources, legend)
    label = "".join(f"{_escaped(line)}\\l" for line in caption if line)
    tints = palette.tints(drawing)
    lines = [
        f"digraph {_quoted(drawing.name)} {{",
        f'rankdir=BT compound=true newrank=true nodesep=0.18 ranksep=0.6 fontname="{_FONT}" fontsize=13',
        f'bgcolor=white pad=0.25 labelloc=t labeljust=l label="{label}"',
        f'node [shape=box style="rounded,filled" fillcolor=white color="#8a96a3" fontname="{_FONT}" fontsize=12'
        " height=0.28 width=0.5 margin=0.06]",
        f'edge [fontname="{_FONT}" fontsize=11 arrowsize=0.8 fontcolor="{palette.INK}"]',
    ]
    for box in drawing.boxes:
        lines += _box(box, *tints[box.key])
    lines += _ranks(drawing)
    lines += [_arrow(drawing, arrow) for arrow in drawing.arrows]
    return "\n".join((*lines, "}\n"))


def _box(box: Box, fill: str, border: str) -> Iterator[str]:
    if box.kind != "group":
        label = "\\n".join(filter(None, map(_escaped, (box.title, box.place, *box.labels))))
        wide = ' fillcolor="#eef1f4" margin="0.25,0.08"' if box.kind != "node" else _sides(box.nodes[0])
        yield f'{_name(box, box.nodes[0])} [label="{label}"{wide}]'
        return
    roles = [f"({note})" for note in box.notes]
    words = " ".join(filter(None, (box.key, box.place, *roles))) + (", outside the circuit" if box.outside else "")
    style = "rounded,filled,dashed" if box.outside else "rounded,filled"
    ink = palette.SOFT if box.outside else palette.INK
    yield f"subgraph cluster_{box.key} {{"
    yield f'label={_quoted(words)} style="{style}" fillcolor="{fill}" color="{border}" margin=10 labeljust=l labelloc=b'
    for node in box.nodes:
        yield f'{_name(box, node)} [label={_quoted(str(node))} color="{border}" fontcolor="{ink}"{_sides(node)}]'
    for one, other in itertools.pairwise(box.nodes):
        yield f"{_name(box, one)} -> {_name(box, other)} [style=invis weight=10]"
    yield "}"


def _sides(node: Node) -> str:
    """Features of dictionaries have six sides, dashed where it is what they leave."""
    dashed = ' style="filled,dashed"' if node.index == ERROR else ""
    return f" shape=hexagon margin=0.02{dashed}" if node.of else ""


def _ranks(drawing: Drawing) -> Iterator[str]:
    """Boxes of one row on one rank, rows in order."""
    bands: dict[int, list[str]] = {}
    for key, row in sorted(rows(drawing.boxes, drawing.arrows).items(), key=lambda item: item[1]):
        bands.setdefault(row, []).extend(_name(drawing.box[key], node) for node in drawing.box[key].nodes)
    for band in bands.values():
        yield f"{{rank=same {' '.join(band)}}}"
    for low, high in itertools.pairwise(bands.values()):
        yield f"{low[0]} -> {high[0]} [style=invis weight=0]"


def _arrow(drawing: Drawing, arrow: Arrow) -> str:
    tail, head, clip = _ends(drawing, arrow)
    colour = palette.colour(arrow) + ("80" if palette.opacity(arrow) < 0.6 else "")
    label = f" label={_quoted(f' {arrow.label} ')}" if arrow.label else ""
    tooltip = _quoted("; ".join(said.text for said in arrow.claims))
    return (
        f'{tail} -> {head} [color="{colour}" penwidth={drawing.width(arrow):.2f} tooltip={tooltip}'
        f" style={'dashed' if arrow.negligible else 'solid'}{label}{clip}]"
    )


def _ends(drawing: Drawing, arrow: Arrow) -> tuple[str, str, str]:
    """The nodes to join, and the clusters at whose border the arrow begins and ends.

    Of a group's heads, those are joined that lie nearest: the highest sender below the lowest receiver.
    """
    sender, receiver = drawing.box[arrow.sender.box], drawing.box[arrow.receiver.box]
    tail, head = min(
        itertools.product(_middle_first(sender, arrow.sender), _middle_first(receiver, arrow.receiver)),
        key=lambda pair: (pair[0].stage() >= pair[1].stage(), abs(pair[1].stage() - pair[0].stage())),
    )
    clip = "".join(
        f" {key}=cluster_{box.key}"
        for box, end, key in ((sender, arrow.sender, "ltail"), (receiver, arrow.receiver, "lhead"))
        if not arrow.within and end.node is None and box.kind == "group"
    )
    return _name(sender, tail), _name(receiver, head), clip


def _middle_first(box: Box, end: End) -> list[Node]:
    places = sorted(range(len(box.nodes)), key=lambda i: abs(i - len(box.nodes) // 2))
    return [end.node] if end.node else [box.nodes[i] for i in places]


def _name(box: Box, node: Node) -> str:
    """Unique also where a head stands in two boxes. No colon: DOT would read a port."""
    return _quoted(f"{box.key}/{node}" if box.kind == "group" else str(node))


def _quoted(words: str) -> str:
    return f'"{_escaped(words)}"'


def _escaped(words: str) -> str:
    """What stands between quotes: no escapes, nothing unseen. Between quotes nothing is read as HTML but entities."""
    clean = harmless(visible(words)).replace("\\", "\\\\").replace('"', '\\"')
    return _ENTITY.sub("&amp;", clean)
