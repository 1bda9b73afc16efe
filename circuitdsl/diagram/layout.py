"""Where boxes and arrows go: boxes with their rows and sizes in, positions and routes out (Sugiyama's method).

Rows are given. An arrow becomes a chain of vertices, one in every row that it passes and one in every gap between
rows; its label is one of them, so that no free place for labels has to be searched. Two questions remain: the order
of the vertices in each row and gap, found by barycentres (Sugiyama et al. 1981), and their x coordinates, found by a
linear programme (Gansner et al. 1993, the method of Graphviz's `dot`).
"""

from __future__ import annotations

import itertools
from bisect import bisect, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from circuitdsl.diagram.elements import Curve, Point, Rect, flowing, straight
from circuitdsl.diagram.shapes import Shape

LANE, CLEAR, GAP = 15.0, 13.0, 36.0  # between two arrows; between an arrow and a box; between two boxes
BAND = 16.0  # above and below the boxes of a row: room for the heads of arrows
_STEP, _CHIP_STEP, _EDGE = 46.0, 11.0, 14.0  # between arrows at a box, at a chip; from the corner of a box
_LABEL, _ROOM = 6.0, 640.0  # between labels; labels that need more room than this stand one above the other
_SWEEPS = 24
_FIRM, _LOOSE, _WEAK = 8.0, 2.0, 0.05  # the price of bending a long arrow, of bending at a box, of leaving the middle


@dataclass(frozen=True, slots=True)
class Port:
    """Where an arrow meets a box: anywhere on its side (x is None), or within `reach` of x, at y (from its corner)."""

    box: str
    y: float
    x: float | None = None
    reach: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow to be routed from a box up to one in a higher row; `label` is the width and height of its label."""

    low: Port
    high: Port
    label: tuple[float, float] = (0.0, 0.0)


Plan = tuple[dict[str, Rect], list[tuple[Curve, ...]], list[Point], list[tuple[float, float]]]


def place(
    shapes: Mapping[str, Shape], row: Mapping[str, int], column: Mapping[str, int], links: Sequence[Link]
) -> Plan:
    """Place boxes and route arrows, so that no box, label or arrow lies over another box or label.

    A box without a column may stand in any. Returns where the boxes are; of every link the route from its lower end,
    and the corner of its label; and the left and right of each column.
    """
    chains = _Chains(shapes, row, column, links)
    chains.sort()
    meetings = _meetings(chains)
    x, borders = _across(chains, meetings, max(column.values(), default=0) + 1)
    return _drawn(chains, meetings, x, borders)


@dataclass(slots=True)
class _Vertex:
    """A box with its column, or an arrow in one row or gap; `label` is the height of the label that stands there.

    `start` says where it stands at first: a box in its column, an arrow between its boxes. Neighbours come with the
    place where the arrow meets them: from their middle, as a share of their width.
    """

    level: int
    width: float
    start: float
    box: str = ""
    column: int | None = None
    label: float = 0.0
    below: list[tuple[int, float]] = field(default_factory=list)
    above: list[tuple[int, float]] = field(default_factory=list)


class _Chains:
    """Vertices by level: row i is level 2 i, the gap above it level 2 i + 1."""

    def __init__(
        self, shapes: Mapping[str, Shape], row: Mapping[str, int], column: Mapping[str, int], links: Sequence[Link]
    ) -> None:
        self.shapes, self.row, self.links = shapes, row, links
        self.vertices: list[_Vertex] = []
        self.box = {
            key: self._add(_Vertex(2 * row[key], shape.room, column.get(key, 0), key, column.get(key)))
            for key, shape in shapes.items()
        }
        self.chain: dict[int, list[int]] = {}  # of each link: lower box, vertices, upper box
        self.widths: dict[int, float] = defaultdict(float)  # of the labels in a gap
        for i in sorted(range(len(links)), key=lambda i: len(self._passed(links[i]))):
            self.chain[i] = self._chain(links[i])
        self.order: list[list[int]] = [[] for _ in range(max((v.level for v in self.vertices), default=-1) + 1)]
        for i in sorted(range(len(self.vertices)), key=lambda i: self.vertices[i].start):
            self.order[self.vertices[i].level].append(i)

    def _add(self, vertex: _Vertex) -> int:
        self.vertices.append(vertex)
        return len(self.vertices) - 1

    def _passed(self, link: Link) -> range:
        return range(2 * self.row[link.low.box] + 1, 2 * self.row[link.high.box])

    def _chain(self, link: Link) -> list[int]:
        """The vertices of an arrow; its label stands in the gap that has most room left."""
        levels = self._passed(link)
        middle = (levels[0] + levels[-1]) / 2
        wide, high = link.label
        labelled = min(levels[::2], key=lambda level: (self.widths[level], abs(level - middle)))
        chain = [self.box[link.low.box]]
        columns = (self.vertices[self.box[port.box]].column for port in (link.low, link.high))
        ends = [column for column in columns if column is not None]
        start = sum(ends) / len(ends) if ends else 0.0
        for level in levels:
            here = level == labelled and high > 0
            chain.append(self._add(_Vertex(level, wide if here else 0.0, start, label=high if here else 0.0)))
        chain.append(self.box[link.high.box])
        self.widths[labelled] += wide + _LABEL if high else 0.0
        for a, b in itertools.pairwise(chain):
            self.vertices[b].below.append((a, self._share(link.low) if a == chain[0] else 0.0))
            self.vertices[a].above.append((b, self._share(link.high) if b == chain[-1] else 0.0))
        return chain

    def _share(self, port: Port) -> float:
        return 0.0 if port.x is None else port.x / self.shapes[port.box].room - 0.5

    def layers(self, level: int) -> int:
        """How many labels stand one above the other in a gap: with one or two, none has to cover another arrow."""
        needed = self.widths[level] / _ROOM
        return int(needed) if needed >= 3 else 2 if needed > 1 else 1

    def place(self) -> dict[int, int]:
        """The place of every vertex in its level."""
        return {v: i for level in self.order for i, v in enumerate(level)}

    def sort(self) -> None:
        """Order every level by the barycentres of its neighbours below, then above, in turn; keep the best order."""
        best, fewest = [list(level) for level in self.order], self._crossings()
        for sweep in range(_SWEEPS):
            if not fewest:
                break
            upwards, place = sweep % 2 == 0, self.place()
            for level in self.order if upwards else reversed(self.order):
                key = self._barycentres(level, place, upwards)
                level.sort(key=lambda v: (key[v], place[v] if sweep % 4 < 2 else -place[v]))
                place.update((v, i) for i, v in enumerate(level))
            if (found := self._crossings()) < fewest:
                best, fewest = [list(level) for level in self.order], found
        self.order = best

    def _barycentres(self, level: Sequence[int], place: Mapping[int, int], upwards: bool) -> dict[int, float]:
        """Where the neighbours of vertices stand on average; no box before one of an earlier column."""
        key: dict[int, float] = {}
        for v in level:
            near = self.vertices[v].below if upwards else self.vertices[v].above
            key[v] = sum(place[u] + share for u, share in near) / len(near) if near else place[v]
        in_columns = [(c, key[v], v) for v in level if (c := self.vertices[v].column) is not None]
        least = float("-inf")
        for _, found, v in sorted(in_columns):
            least = key[v] = max(found, least + 1e-6)
        return key

    def _crossings(self) -> int:
        """How often arrows cross between neighbouring levels."""
        place, found = self.place(), 0
        for level in self.order:
            ends = [
                (place[v] + share, place[u] + to)
                for u in level
                for v, share in self.vertices[u].below
                for to in [next(to for w, to in self.vertices[v].above if w == u)]
            ]
            seen: list[float] = []
            for _, end in sorted(ends):
                found += len(seen) - bisect(seen, end)
                insort(seen, end)
        return found


_Meetings = Mapping[tuple[int, bool], float]  # of a link and its end (upper or not): from the middle of the box


def _meetings(chains: _Chains) -> _Meetings:
    """The arrows at each side of each box spread in their order, those to single chips near these."""
    place = chains.place()
    sides: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for link, ends in enumerate(chains.links):
        sides[ends.low.box, False].append(link)
        sides[ends.high.box, True].append(link)
    found = {}
    for (box, upper), links in sides.items():
        links.sort(key=lambda link: place[chains.chain[link][-2 if upper else 1]])
        ports = [chains.links[link].high if upper else chains.links[link].low for link in links]
        chips = iter(sorted((i for i, port in enumerate(ports) if port.x is not None), key=lambda i: (ports[i].x, i)))
        turn = [next(chips) if port.x is not None else i for i, port in enumerate(ports)]
        shape = chains.shapes[box]
        for i, x in zip(turn, _spread([ports[i] for i in turn], shape.width), strict=True):
            found[links[i], upper] = x - shape.room / 2
    return found


def _spread(ports: Sequence[Port], wide: float) -> Iterator[float]:
    step = min(_STEP, (wide - 2 * _EDGE) / max(1, len(ports) - 1))
    first = wide / 2 - step * (len(ports) - 1) / 2
    targets = [first + i * step if port.x is None else port.x for i, port in enumerate(ports)]
    gaps = [step if a.x is b.x is None else min(step, _CHIP_STEP) for a, b in itertools.pairwise(ports)]
    firm = [1.0 if port.x is None else 50.0 for port in ports]
    for port, x in zip(ports, spread(targets, gaps, _EDGE, wide - _EDGE, firm), strict=True):
        yield x if port.x is None else min(max(x, port.x - port.reach), port.x + port.reach)


def spread(
    targets: Sequence[float], gaps: Sequence[float], low: float, high: float, firm: Sequence[float]
) -> list[float]:
    """Places in [low, high], as near to `targets` (least squares, weighted by `firm`) as the order and gaps let them.

    `gaps[i]` lies between places i and i + 1; gaps shrink where they do not fit.
    """
    from scipy.optimize import isotonic_regression

    needed = sum(gaps)
    shrink = min(1.0, max(high - low, 0.0) / needed) if needed else 1.0
    before = list(itertools.accumulate((gap * shrink for gap in gaps), initial=0.0))
    flat = isotonic_regression([at - ahead for at, ahead in zip(targets, before, strict=True)], weights=firm).x
    return [min(max(float(x), low), high - before[-1]) + ahead for x, ahead in zip(flat, before, strict=True)]


def _across(chains: _Chains, meetings: _Meetings, columns: int) -> tuple[list[float], list[float]]:
    """The x of every vertex, and the borders of columns: arrows as straight as the order and the distances let them.

    A linear programme: the least sum of prices for sideways steps, with distances kept. It is solved in its dual form,
    in which a step is a force that is no stronger than its price, a distance is a force that only pushes, and
    places are where the forces are in balance. With 1000 arrows that takes a tenth of the time.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    count = len(chains.vertices)
    costs: list[float] = []
    bounds: list[tuple[float, float | None]] = []
    entries: list[tuple[int, int, float]] = []

    def force(cost: float, weakest: float, strongest: float | None, *terms: tuple[int, float]) -> None:
        entries.extend((variable, len(costs), factor) for variable, factor in terms)
        costs.append(cost)
        bounds.append((weakest, strongest))

    def apart(a: int, b: int, distance: float) -> None:
        force(-distance, 0.0, None, (a, -1.0), (b, 1.0))

    def near(price: float, offset: float, *terms: tuple[int, float]) -> None:
        force(offset, -price, price, *terms)

    for a, b, distance in _distances(chains):
        apart(a, b, distance)
    for v, vertex in enumerate(chains.vertices):
        if vertex.column is not None:
            left = count + vertex.column
            apart(left, v, (vertex.width + GAP) / 2)
            apart(v, left + 1, (vertex.width + GAP) / 2)
            near(_WEAK, 0.0, (v, 1.0), (left, -0.5), (left + 1, -0.5))
    for link, chain in chains.chain.items():
        last = len(chain) - 2
        for i, (a, b) in enumerate(itertools.pairwise(chain)):
            offset = (meetings[link, False] if i == 0 else 0.0) - (meetings[link, True] if i == last else 0.0)
            near(_LOOSE if i in (0, last) else _FIRM, offset, (a, 1.0), (b, -1.0))
    for border in range(count, count + columns):
        apart(border, border + 1, 0.0)
    prices = [0.0] * (count + columns + 1)
    prices[count] -= 1.0  # the page is no wider than it has to be
    prices[count + columns] += 1.0
    rows, of, factors = zip(*entries, strict=True)
    matrix = coo_array((factors, (rows, of)), shape=(len(prices), len(costs))).tocsr()
    solved = linprog(costs, A_ub=matrix, b_ub=prices, bounds=bounds, method="highs-ds")
    x = [-float(place) for place in solved.ineqlin.marginals]
    return x[:count], x[count:]


def _distances(chains: _Chains) -> Iterator[tuple[int, int, float]]:
    """Neighbours in a level, and how far their middles lie apart at least."""
    for number, level in enumerate(chains.order):
        lane = min(LANE, _ROOM / (len(level) + 1))
        layers = chains.layers(number)
        for a, b in itertools.pairwise(level):
            one, other = chains.vertices[a], chains.vertices[b]
            boxes = bool(one.box) + bool(other.box)
            wide = one.width + other.width if layers == 1 else max(one.width, other.width) if layers == 2 else 0.0
            yield a, b, wide / 2 + (_LABEL, CLEAR, GAP)[boxes] if wide else lane
        labels = [v for v in level if chains.vertices[v].label]
        for a, b in zip(labels, labels[layers:], strict=False) if layers > 1 else ():
            yield a, b, (chains.vertices[a].width + chains.vertices[b].width) / 2 + _LABEL


def _drawn(chains: _Chains, meetings: _Meetings, x: Sequence[float], borders: Sequence[float]) -> Plan:
    """Rows from the bottom up, with room in the gaps for labels and for arrows that run sideways."""
    vertices = chains.vertices
    boxes: dict[str, Rect] = {}
    tops: dict[int, float] = {}  # of labels
    spans: list[tuple[float, float]] = []  # bottom and top of each level
    y = 0.0
    for number, level in enumerate(chains.order):
        far = max((abs(x[v] - x[u]) for v in level for u, _ in vertices[v].below), default=0.0)
        y -= (
            14.0 + min(0.15 * far, 70.0) if number else 0.0
        )  # arrows run sideways into a level: more where they run far
        bottom = y
        if number % 2 == 0:
            inside = [(v, chains.shapes[vertices[v].box]) for v in level if vertices[v].box]
            y -= max(shape.height for _, shape in inside) + 2 * BAND
            for v, shape in inside:
                top = (bottom + y) / 2 - shape.height / 2
                boxes[vertices[v].box] = Rect(x[v] - shape.room / 2, top, shape.width, shape.height)
        else:
            shown = [v for v in level if vertices[v].label]
            layers = chains.layers(number)
            for layer in range(min(layers, len(shown))):
                tall = max(vertices[v].label for v in shown[layer::layers])
                tops.update((v, y - (tall + vertices[v].label) / 2) for v in shown[layer::layers])
                y -= tall + _LABEL
        spans.append((bottom, y))
    routes, labels = [], []
    for i, link in enumerate(chains.links):
        low, *passed, high = chains.chain[i]
        start, end = x[low] + meetings[i, False], x[high] + meetings[i, True]
        points = [(start, boxes[link.low.box].y + link.low.y), (start, spans[vertices[low].level][1])]
        points += [(x[v], edge) for v in passed for edge in spans[vertices[v].level]]
        points += [(end, spans[vertices[high].level][0]), (end, boxes[link.high.box].y + link.high.y)]
        pieces = enumerate(itertools.pairwise(points))
        routes.append(tuple((flowing if i % 2 else straight)(a, b) for i, (a, b) in pieces if a != b))
        labels.append(next(((x[v] - vertices[v].width / 2, tops[v]) for v in passed if v in tops), (0.0, 0.0)))
    return boxes, routes, labels, list(itertools.pairwise(borders))
