"""Numbers on a grid as colours, and the compositions of heads as such heat maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Pen, Rect, Span, block, document, group, line, width, wrap
from circuitdsl.report.numbers import percent, plain
from circuitdsl.report.tables import Standings

_PAD, _SIZE, _SMALL = 24.0, 12.0, 10.5
_WIDE, _NARROW, _TALL = 46.0, 11.0, 27.0
_ABSENT = "#eef1f4"
#: from below 0 to above, pale in the middle; a colour-blind reader tells the two hues apart
_BOTH_WAYS = ((178, 24, 43), (239, 138, 98), (250, 250, 250), (103, 169, 207), (33, 102, 172))
#: from little to much, of one hue and growing darkness, so that a grey print and a colour-blind reader see the same
_RAMP = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
_STEPS = 40
_OUTLINE = Pen(stroke=palette.TONES["k"], width=1.8)


@dataclass(frozen=True, slots=True)
class Cell:
    """One number; `words` are written under it where there is room, `story` shows when it is pointed at."""

    value: float
    words: str = ""
    story: str = ""
    outlined: bool = False


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A grid of numbers.

    Attributes:
        rows, columns: their names; the first row is drawn at the top.
        row_title, column_title: what they are.
        cells: [rows][columns]; None where there is no number.
        outline: what an outlined cell means.
        unit: what the numbers are.
        signed: whether they are shares with a sign, which are coloured either way from 0.
    """

    title: str
    subtitle: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_title: str
    column_title: str
    cells: tuple[tuple[Cell | None, ...], ...]
    outline: str
    unit: str = "composition (Frobenius norm of the product over the product of norms)"
    signed: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """The numbers that the two ends of the colours stand for."""
        values = [cell.value for row in self.cells for cell in row if cell and math.isfinite(cell.value)]
        if self.signed:
            most = max(map(abs, values), default=0.0) or 1.0
            return -most, most
        return (min(values), max(values)) if values else (0.0, 1.0)

    def written(self, value: float) -> str:
        """A number as a cell has it."""
        return percent(value) if self.signed else _short(value)

    def colour(self, share: float) -> str:
        """A colour, in the space between the two nearest steps of the ramp."""
        ramp = _BOTH_WAYS if self.signed else _RAMP
        place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
        step = min(int(place), len(ramp) - 2)
        part = place - step
        mixed = (round(a + (b - a) * part) for a, b in zip(ramp[step], ramp[step + 1], strict=True))
        return "#" + "".join(f"{value:02x}" for value in mixed)

    def is_dark(self, share: float) -> bool:
        """Whether such a colour needs light ink."""
        return abs(share - 0.5) > 0.34 if self.signed else share > 0.62


def picture(found: HeatMap) -> str:
    """Title, grid and scale as SVG."""
    named = max((width(name, _SIZE) + 8 for name in found.columns), default=0)
    values = (found.written(cell.value) for row in found.cells for cell in row if cell)
    named = max(named, max((width(text, _SMALL, bold=True) + 6 for text in values), default=0))
    wide = max(_WIDE, named) if len(found.columns) <= 24 else _NARROW
    left = _PAD + 22 + max((width(name, _SIZE) for name in found.rows), default=0) + 8
    legend = left + 22 + width(found.outline, _SMALL)
    titled = _PAD + width(found.title, 15, bold=True)
    whole = max(left + wide * len(found.columns) + _PAD, legend + _PAD, titled + _PAD, 430.0)
    subtitle = wrap(found.subtitle, _SMALL, whole - 2 * _PAD)
    top = _PAD + 20 + 15 * len(subtitle) + 46
    grid = Rect(left, top, wide * len(found.columns), _TALL * len(found.rows))
    elements = [
        line(_PAD, _PAD + 4, Span(found.title, 15, bold=True)),
        *(line(_PAD, _PAD + 25 + 15 * i, _small(words)) for i, words in enumerate(subtitle)),
        *_axes(found, grid, wide),
        group("plot", _cells(found, grid, wide)),
        *_scale(found, grid),
    ]
    return document(whole, grid.bottom + 84 + _PAD, found.title, found.subtitle, elements)


def _small(words: str) -> Span:
    return Span(words, _SMALL, palette.SOFT)


def _axes(found: HeatMap, grid: Rect, wide: float) -> Iterator[str]:
    """The names of rows and columns; where columns are narrow, one name for those that share their beginning."""
    yield line(grid.x + grid.width / 2, grid.y - 36, _small(found.column_title), centred=True)
    yield line(_PAD, grid.y - 16, _small(found.row_title))
    for i, name in enumerate(found.rows):
        yield line(grid.x - 8 - width(name, _SIZE), grid.y + _TALL * (i + 0.5), Span(name, _SIZE))
    first, free = 0, -math.inf
    names = found.columns if wide > _NARROW else [column.partition(".")[0] for column in found.columns]
    for name, same in itertools.groupby(names):
        last = first + len(list(same))
        middle, half = grid.x + wide * (first + last) / 2, width(name, _SIZE) / 2 + 3
        if middle - half >= free:  # names of narrow columns that would run into one another are left out
            yield line(middle, grid.y - 14, Span(name, _SIZE), centred=True)
            free = middle + half
        if first and wide == _NARROW and last - first > 1:
            yield block(Rect(grid.x + wide * first - 0.5, grid.y - 22, 1, 20), 0, Pen(palette.FAINT))
        first = last


def _cells(found: HeatMap, grid: Rect, wide: float) -> Iterator[str]:
    outlined, (low, high) = [], found.ends
    for i, row in enumerate(found.cells):
        for j, cell in enumerate(row):
            rect = Rect(grid.x + wide * j + 0.75, grid.y + _TALL * i + 0.75, wide - 1.5, _TALL - 1.5)
            if cell is None:
                yield block(rect, 2, Pen(_ABSENT))
                continue
            share = 0.5 if high <= low or not math.isfinite(cell.value) else (cell.value - low) / (high - low)
            elements, (x, y) = [block(rect, 2, Pen(found.colour(share)))], rect.centre
            ink = palette.PAPER if found.is_dark(share) else palette.INK
            if wide > _NARROW:
                number = Span(found.written(cell.value), _SMALL, ink, bold=cell.outlined)
                elements.append(line(x, y - 5.5 if cell.words else y, number, centred=True))
            if wide > _NARROW and cell.words:
                elements.append(line(x, y + 6.5, Span(cell.words, 8.5, ink), centred=True))
            yield group("cell", elements, story=cell.story)
            if cell.outlined:
                outlined.append(block(rect.grown(0.25), 2, _OUTLINE))
    yield from outlined  # over their neighbours


def _scale(found: HeatMap, grid: Rect) -> Iterator[str]:
    """The colours with their numbers, and what outlines mean."""
    y, long = grid.bottom + 30, 200.0
    step = long / _STEPS
    yield line(grid.x, y - 11, _small(found.unit))
    for i in range(_STEPS):
        yield block(Rect(grid.x + step * i, y, step + 0.4, 11), 0, Pen(found.colour((i + 0.5) / _STEPS)))
    low, high = (Span(found.written(value), _SMALL) for value in found.ends)
    yield line(grid.x, y + 20, low)
    yield line(grid.x + long - high.width, y + 20, high)
    yield block(Rect(grid.x, y + 34, 14, 11), 2, _OUTLINE)
    yield line(grid.x + 22, y + 39.5, _small(found.outline))


def _short(value: float) -> str:
    """Three decimals without the leading zero, as such scores are printed in papers."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def map_of_senders(model: str, receiver: Input, found: Standings, shape: tuple[int, int], top: int) -> HeatMap:
    """Every sender into one receiver input: layers × heads, layer 0 at the bottom; of components the strongest."""
    layers, heads = shape
    strongest = {(node.layer, node.head): node for node in sorted(found, key=lambda node: found[node].composition)}
    grid = tuple(
        tuple(_composition(strongest.get((layer, head)), found, receiver, top) for head in range(heads))
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
        outline=_meaning(whole, top),
    )


def map_of_readers(
    model: str, found: Mapping[Input, Standings], senders: Sequence[Node], top: int, components: bool
) -> HeatMap:
    """Readers × senders; `components` are the strongest of each sending head, or those that the columns name."""
    grid = tuple(
        tuple(_composition(node if node in standings else None, standings, to, top, components) for node in senders)
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
        outline=_meaning(not components, top),
    )


def _meaning(whole: bool, top: int) -> str:
    """What is outlined. One of a head's many components is above chance by chance, so that they need more."""
    if whole:
        return "above chance: in the strongest 5 % of all senders into this input"
    return f"among the {top} strongest of all components upstream of this input"


def _composition(
    node: Node | None, found: Standings, receiver: Input, top: int, components: bool = False
) -> Cell | None:
    if node is None:
        return None
    where = found[node]
    story = f"{node} -> {receiver}: composition {plain(where.composition, 3)}, rank {where.rank} of {where.of}"
    outlined = where.chance is not None and where.composition > where.chance
    if components or node.index >= 0:
        outlined = where.rank is not None and where.rank <= top
    words = f"[{node.index}]" if node.index >= 0 and not components else ""
    return Cell(where.composition, words, f"{story}, z {plain(where.z)}", outlined)
