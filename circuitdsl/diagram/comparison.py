"""Two circuits as a picture of the model's heads, coloured by the circuits that they are in."""

from __future__ import annotations

from circuitdsl.circuit.compare import Comparison
from circuitdsl.circuit.nodes import Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Pen, Rect, Span, block, document, line
from circuitdsl.report.numbers import percent

FIRST, SECOND, BOTH, NEITHER = "#7fb2dc", "#e8b06c", "#5a9e7a", "#eef1f4"
_CELL, _GAP, _PAD = 34.0, 4.0, 24.0


def picture(found: Comparison, n_layers: int, n_heads: int) -> str:
    """Every head of the model as a cell, layers from bottom to top, as SVG."""
    counts = f"{len(found.heads.shared)} shared; overlap {percent(found.heads.jaccard)}"
    if found.chance:
        counts += f", {percent(found.chance.jaccard)} by chance (as much or more: {percent(found.chance.p)})"
    title = Span(f"Heads of {found.first} and {found.second}", 18, bold=True)
    facts = Span(counts, 12.5, palette.SOFT)
    legend = [(FIRST, f"only {found.first}"), (BOTH, "both"), (SECOND, f"only {found.second}")]
    keys = [(colour, Span(words, 12)) for colour, words in legend]
    left, top = _PAD + 34, _PAD + 62.0
    across, down = n_heads * (_CELL + _GAP), n_layers * (_CELL + _GAP)
    texts = (title.width, facts.width, sum(words.width + 40 for _, words in keys))
    wide = max(left + across, *(text + 2 * _PAD for text in texts)) + _PAD
    elements = [line(_PAD, _PAD + 10, title), line(_PAD, _PAD + 34, facts)]
    for layer in range(n_layers):
        y = top + (n_layers - 1 - layer) * (_CELL + _GAP)
        elements.append(line(_PAD, y + _CELL / 2, Span(f"L{layer}", 12, palette.SOFT)))
        for head in range(n_heads):
            node, x = Node("head", layer, head), left + head * (_CELL + _GAP)
            here, there = node in found.heads.first, node in found.heads.second
            fill = BOTH if here and there else FIRST if here else SECOND if there else NEITHER
            ink = palette.PAPER if here and there else palette.INK if here or there else palette.FAINT
            name = line(x + _CELL / 2, y + _CELL / 2, Span(str(node), 10.5, ink), centred=True)
            elements += [block(Rect(x, y, _CELL, _CELL), 5, Pen(fill), str(node)), name]
    x, y = _PAD, top + down + 18
    for colour, words in keys:
        elements += [block(Rect(x, y - 7, 14, 14), 3, Pen(colour)), line(x + 20, y, words)]
        x += words.width + 40
    return document(wide, top + down + 44, title.words, counts, elements)
