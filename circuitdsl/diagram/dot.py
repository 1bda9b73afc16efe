"""Drawing → DOT, through the `graphviz` package: groups as clusters, ranked by layer."""

from __future__ import annotations

import itertools

import graphviz

from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.model import Arrow, Box, Drawing, End
from circuitdsl.diagram.rows import rows

_FONT = "Helvetica,Arial,sans-serif"


def to_dot(drawing: Drawing) -> str:
    """The drawing in the DOT language."""
    return _graph(drawing).source


def _graph(drawing: Drawing) -> graphviz.Digraph:
    graph = graphviz.Digraph(drawing.name)
    graph.attr(
        rankdir="BT",
        compound="true",
        newrank="true",
        nodesep="0.18",
        ranksep="0.6",
        splines="true",
        bgcolor="white",
        pad="0.25",
        fontname=_FONT,
        fontsize="13",
        labelloc="t",
        labeljust="l",
        label=_caption(drawing),
    )
    graph.attr("node", shape="box", style="rounded,filled", fillcolor="white", color="#8a96a3", fontname=_FONT)
    graph.attr("node", fontsize="12", height="0.28", width="0.5", margin="0.06,0.03")
    graph.attr("edge", fontname=_FONT, fontsize="11", arrowsize="0.8", fontcolor=palette.INK)
    tints = palette.tints(drawing)
    for box in drawing.boxes:
        _add_box(graph, box, *tints[box.key])
    _rank(graph, drawing)
    for arrow in drawing.arrows:
        _add_arrow(graph, drawing, arrow)
    return graph


def _caption(drawing: Drawing) -> str:
    lines = (drawing.title, " · ".join(drawing.facts), *drawing.sources, _legend(drawing))
    return "".join(f"{_plain(line)}\\l" for line in lines if line)


def _legend(drawing: Drawing) -> str:
    return ", ".join(f"{_COLOURS[tone]}: {palette.MEANINGS[tone]}" for tone in drawing.tones) if drawing.arrows else ""


_COLOURS = {
    "holds": "green",
    "fails": "red",
    "undecided": "amber",
    "error": "grey",
    "unmeasured": "light grey",
    "q": "blue",
    "k": "orange",
    "v": "green",
    "several": "purple",
    "in": "dark",
}


def _add_box(graph: graphviz.Digraph, box: Box, fill: str, border: str) -> None:
    if box.kind != "group":
        shape = {"shape": "box", "margin": "0.25,0.08"} if box.kind != "node" else {}
        label = "\\n".join(filter(None, (_plain(box.title), _plain(box.place))))
        graph.node(_name(box, box.nodes[0]), label, fillcolor="#eef1f4" if shape else "white", **shape)
        return
    with graph.subgraph(name=f"cluster_{box.key}") as cluster:
        role = f"({box.role})" if box.role and box.role != box.key else ""
        apart = "outside the circuit" if box.outside else ""
        words = " ".join(filter(None, (box.key, box.place, role)))
        words = ", ".join(filter(None, (words, apart)))
        style = "rounded,filled,dashed" if box.outside else "rounded,filled"
        cluster.attr(
            label=_plain(words), style=style, fillcolor=fill, color=border, margin="10", labeljust="l", labelloc="b"
        )
        for node in box.nodes:
            cluster.node(_name(box, node), _plain(str(node)), color=border, fontcolor=_ink(box))
        for one, other in itertools.pairwise(box.nodes):
            cluster.edge(_name(box, one), _name(box, other), style="invis", weight="10")


def _ink(box: Box) -> str:
    return palette.SOFT if box.outside else palette.INK


def _rank(graph: graphviz.Digraph, drawing: Drawing) -> None:
    """Boxes of one band of layers on one rank, bands in order."""
    bands = [
        [_name(drawing.box[key], node) for key in row for node in drawing.box[key].nodes]
        for row in rows(drawing.boxes, drawing.arrows)
    ]
    for band in bands:
        with graph.subgraph() as rank:
            rank.attr(rank="same")
            for name in band:
                rank.node(name)
    for low, high in itertools.pairwise(bands):
        graph.edge(low[0], high[0], style="invis", weight="0")


def _add_arrow(graph: graphviz.Digraph, drawing: Drawing, arrow: Arrow) -> None:
    tail, head, clip = _ends(drawing, arrow)
    colour = palette.colour(arrow)
    if palette.opacity(arrow) < 0.6:
        colour += "80"
    graph.edge(
        tail,
        head,
        label=f" {_plain(arrow.label)} " if arrow.label else None,
        color=colour,
        penwidth=f"{drawing.width(arrow):.2f}",
        style="dashed" if arrow.negligible else "solid",
        tooltip=_plain("; ".join(said.text for said in arrow.claims)),
        **clip,
    )


def _ends(drawing: Drawing, arrow: Arrow) -> tuple[str, str, dict[str, str]]:
    """The nodes to join, and the clusters at whose border the arrow begins and ends.

    Of a group's heads, those are joined that lie nearest: the highest sender below the lowest receiver.
    """
    senders, receivers = _candidates(drawing, arrow.sender), _candidates(drawing, arrow.receiver)
    tail, head = min(
        itertools.product(senders, receivers),
        key=lambda pair: (pair[0].stage() >= pair[1].stage(), abs(pair[1].stage() - pair[0].stage())),
    )
    clip = {}
    if not arrow.within:
        for end, key in ((arrow.sender, "ltail"), (arrow.receiver, "lhead")):
            if end.node is None and drawing.box[end.box].kind == "group":
                clip[key] = f"cluster_{end.box}"
    return _name(drawing.box[arrow.sender.box], tail), _name(drawing.box[arrow.receiver.box], head), clip


def _candidates(drawing: Drawing, end: End) -> tuple[Node, ...]:
    nodes = (end.node,) if end.node else drawing.box[end.box].nodes
    middle = len(nodes) // 2
    return tuple(sorted(nodes, key=lambda node: abs(nodes.index(node) - middle)))


def _name(box: Box, node: Node) -> str:
    """Unique also where a head is in two groups. No colon: DOT would read a port."""
    return f"{box.key}/{node}" if box.kind == "group" else str(node)


def _plain(words: str) -> str:
    """Text that DOT takes as it is: no escapes, no HTML, no control characters."""
    clean = "".join(char if char.isprintable() else " " for char in words)
    return graphviz.nohtml(graphviz.escape(clean)) if clean else ""
