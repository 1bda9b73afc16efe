"""What a drawing or a picture can be written as: a row for each format; the suffix of a file says which."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from circuitdsl.brief import quoted
from circuitdsl.circuit.claims import Circuit
from circuitdsl.diagram.collect import draw
from circuitdsl.diagram.dot import to_dot
from circuitdsl.diagram.html import to_html
from circuitdsl.diagram.mermaid import to_mermaid
from circuitdsl.diagram.model import Drawing
from circuitdsl.diagram.svg import to_svg
from circuitdsl.errors import UsageError
from circuitdsl.ordinary import write_whole
from circuitdsl.report.again import Again
from circuitdsl.report.report import Report

#: pixels of a PNG for each unit of a drawing; fewer, but at least one, where there would be more than `_MOST`
_SCALE, _MOST = 2.0, 2.0**24


@dataclass(frozen=True, slots=True)
class Format:
    """A format, the suffixes that ask for it, and what writes a drawing in it; `paint` makes it from any SVG."""

    name: str
    suffixes: tuple[str, ...]
    write: Callable[[Drawing], str | bytes]
    paint: Callable[[str], str | bytes] | None = None


def to_png(svg: str) -> bytes:
    """The picture at twice its size, a large one at less, painted by resvg in the fonts of the machine."""
    import resvg_py

    size = re.search(r'width="(\d+)" height="(\d+)"', svg)
    assert size
    most = (_MOST / max(1, int(size[1]) * int(size[2]))) ** 0.5
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=min(_SCALE, max(1.0, most))))


FORMATS = (
    Format("svg", (".svg",), to_svg, lambda svg: svg),
    Format("png", (".png",), lambda drawing: to_png(to_svg(drawing)), to_png),
    Format("html", (".html",), to_html),
    Format("dot", (".dot", ".gv"), to_dot),
    Format("mermaid", (".mmd", ".mermaid"), to_mermaid),
)


def format_of(path: str | os.PathLike[str], painted: bool = False) -> Format:
    """The format that the suffix of a file asks for; `painted` ones only where no drawing of a circuit is written.

    Raises:
        UsageError: it asks for none of them.
    """
    known = {suffix: each for each in FORMATS if each.paint or not painted for suffix in each.suffixes}
    found = known.get(Path(path).suffix.lower())
    if found is None:
        *others, last = known
        raise UsageError(
            f"cannot draw into {quoted(str(path))}: the suffix says what to draw",
            hint=f"use {', '.join(others)} or {last}",
        )
    return found


def render(
    circuit: Circuit, path: str | os.PathLike[str], report: Report | None = None, again: Again | None = None
) -> None:
    """Draw a circuit into a file, whole or not at all.

    Args:
        again: in what share of resamples parts of the circuit are found, which is drawn as how opaque they are.

    Raises:
        UsageError: the suffix asks for no known format.
        UserError: the file cannot be written.
    """
    write_whole(Path(path), format_of(path).write(draw(circuit, report, again)))


def write_picture(svg: str, path: str | os.PathLike[str]) -> None:
    """Write a picture as SVG or PNG, whole or not at all.

    Raises:
        UsageError: the suffix is neither .svg nor .png.
        UserError: the file cannot be written.
    """
    paint = format_of(path, painted=True).paint
    assert paint
    write_whole(Path(path), paint(svg))
