"""Pictures of circuits: layers from bottom to top, groups as boxes, claimed edges as arrows.

    >>> import circuitdsl
    >>> drawing = draw(circuitdsl.load("pocket/ioi").circuit())  # a report as second argument adds the verdicts
    >>> print(to_mermaid(drawing).splitlines()[0])
    flowchart BT

What is drawn (`model`, `collect`) is kept apart from where (`shapes`, `layout`, `page`) and from how (`svg`, `html`,
`dot`, `mermaid`; `formats` lists them). Heat maps, traces and comparisons of circuits are pictures of their own.
"""

from __future__ import annotations

from circuitdsl.diagram.collect import draw
from circuitdsl.diagram.dot import to_dot
from circuitdsl.diagram.formats import render
from circuitdsl.diagram.html import to_html
from circuitdsl.diagram.mermaid import to_mermaid
from circuitdsl.diagram.model import Drawing
from circuitdsl.diagram.svg import to_svg

__all__ = ["Drawing", "draw", "render", "to_dot", "to_html", "to_mermaid", "to_svg"]
