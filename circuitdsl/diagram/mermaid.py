"""Drawing → Mermaid, the flowchart language that GitHub and others render inside Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram.model import Arrow, Box, Drawing, End
from circuitdsl.visible import visible


def to_mermaid(drawing: Drawing) -> str:
    """The drawing as a flowchart from the bottom to the top: a frame for each group, an arrow for each edge."""
    names = {box.key: f"g{number}" for number, box in enumerate(drawing.boxes)}
    lines = ["flowchart BT"]
    for box in drawing.boxes:
        lines += _box(names, box)
    for arrow in drawing.arrows:
        lines.append(_arrow(drawing, names, arrow))
    outside = [names[box.key] for box in drawing.boxes if box.outside]
    if outside:
        lines += ["  classDef outside stroke-dasharray:4 3,opacity:0.6", f"  class {','.join(outside)} outside"]
    return "\n".join(lines) + "\n"


def _box(names: dict[str, str], box: Box) -> list[str]:
    if box.kind != "group":
        says = " ".join(part for part in (box.title, box.place, *box.labels) if part)
        return [f"  {names[box.key]}{_shaped(box.nodes[0], says, '[]')}"]
    role = f"({box.role})" if box.role and box.role != box.key else ""
    title = " ".join(part for part in (box.key, box.place, role, *box.labels) if part)
    nodes = [f"    {_name(names, box, node)}{_shaped(node, str(node), ('([', '])'))}" for node in box.nodes]
    return [f'  subgraph {names[box.key]}["{_text(title)}"]', *nodes, "  end"]


def _arrow(drawing: Drawing, names: dict[str, str], arrow: Arrow) -> str:
    line = "-.->" if arrow.negligible else "-->"
    label = f'|"{_text(arrow.label)}"|' if arrow.label else ""
    sender, receiver = drawing.box[arrow.sender.box], drawing.box[arrow.receiver.box]
    if arrow.within:  # an arrow from a frame to what stands in it is refused: the lowest and the highest stand for all
        low, high = arrow.sender.node or sender.nodes[0], arrow.receiver.node or receiver.nodes[-1]
        return f"  {_name(names, sender, low)} {line}{label} {_name(names, receiver, high)}"
    return f"  {_end(names, sender, arrow.sender)} {line}{label} {_end(names, receiver, arrow.receiver)}"


def _end(names: dict[str, str], box: Box, end: End) -> str:
    return names[box.key] if end.node is None else _name(names, box, end.node)


def _name(names: dict[str, str], box: Box, node: Node) -> str:
    """A node in a frame, or a box that is one node; brackets would end a name."""
    return f"{names[box.key]}_{re.sub(r'[^0-9A-Za-z]+', '_', str(node))}" if box.kind == "group" else names[box.key]


def _shaped(node: Node, words: str, usual: Sequence[str]) -> str:
    """What Mermaid draws a node as: features of dictionaries have six sides."""
    low, high = ("{{", "}}") if node.of else usual
    return f'{low}"{_text(words)}"{high}'


def _text(words: str) -> str:
    """Text between double quotes: what Mermaid would read as its own is written by number."""
    return "".join(f"#{ord(char)};" if char in '"#;<>&`\\[]{}|' else char for char in visible(words))
