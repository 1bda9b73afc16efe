"""Circuits as figures: layers from bottom to top, groups as boxes, claimed edges as arrows.

    >>> drawing = draw(circuit)            # or draw(circuit, report) for verdicts
    >>> to_svg(drawing), to_html(drawing)  # need nothing installed
    >>> to_dot(drawing), to_png(drawing)   # the latter needs Graphviz's dot
    >>> render(circuit, "ioi.svg")

What is drawn (model, ends, collect) is kept apart from where (shapes, rows, place, routes, curves, labels, layout)
and from how (scene, then the writers svg, html, png; dot has a layout of its own).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from circuitdsl.circuit.claims import Circuit
from circuitdsl.diagram.collect import draw
from circuitdsl.diagram.dot import to_dot
from circuitdsl.diagram.html import to_html
from circuitdsl.diagram.mermaid import to_mermaid
from circuitdsl.diagram.model import Drawing
from circuitdsl.diagram.png import to_png
from circuitdsl.diagram.svg import to_svg
from circuitdsl.errors import UsageError
from circuitdsl.report.report import write_whole

__all__ = ["Drawing", "draw", "render", "to_dot", "to_html", "to_mermaid", "to_png", "to_svg"]

_WRITERS: dict[str, Callable[[Drawing], str | bytes]] = {
    ".svg": to_svg,
    ".png": to_png,
    ".dot": to_dot,
    ".html": to_html,
}


def render(circuit: Circuit, path: str | os.PathLike[str], report: dict | None = None) -> None:
    """Draw a circuit into a file, whole or not at all; the suffix says how.

    Raises:
        UsageError: the suffix is none of svg, png, dot, html.
        UserError: the file cannot be written; PNG without Graphviz.
    """
    target = Path(path)
    write = _WRITERS.get(target.suffix.lower())
    if write is None:
        known = ", ".join(_WRITERS)
        raise UsageError(f"cannot draw into {target}: the suffix says what to draw", hint=f"use one of {known}")
    write_whole(target, write(draw(circuit, report)))
