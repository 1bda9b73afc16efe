"""Do weights predict effects? `python -m benchmarks.composition_vs_effect [-o docs/composition-vs-effect.png]`.

For every task of the pocket model and every edge from a head to the q, k or v of a later one: its composition, which
weights alone give, and its measured effect, patched at all positions on 64 prompts. Prints Spearman's rank correlation
between composition and the size of the effect, with a 95 % interval from resampling receiving heads, for edges that
share a receiver are no independent evidence; where the edges with the largest effects stand by their composition; and
draws the edges, a panel a task.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from circuitdsl.api import loads
from circuitdsl.circuit.nodes import EVERYWHERE, Edge, Input, Node
from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Pen, Rect, Span, block, document, dot, line
from circuitdsl.diagram.formats import to_png
from circuitdsl.engine.readers.composition import compositions
from circuitdsl.measurements.requests import EdgeRequest
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.models.weights import weights_of
from circuitdsl.ordinary import write_whole
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import prompts_by_task

PROMPTS, RESAMPLES, STRONGEST = 64, 1000, 20
PORTS = ("q", "k", "v")


@dataclass(frozen=True)
class Edges:
    """All edges between heads on one task, in arrays of the same order.

    `whole` is the composition of the sender, `best` that of its strongest singular component, `size` the composition
    times the norm of the sender's W_OV; `effect` is the size of the effect, as a share of the gap.
    """

    task: str
    port: np.ndarray
    receiver: np.ndarray
    whole: np.ndarray
    best: np.ndarray
    size: np.ndarray
    effect: np.ndarray
    seconds: float


def edges_of(model: Transformer, task: str) -> Edges:
    start = time.perf_counter()
    weights = weights_of(model)
    spec = loads(f'circuit all\nmodel "pocket"\ntask {task}(prompts = {PROMPTS})\nexpect accuracy >= 0%\n')
    bench = prompts_by_task(spec.circuits[0], model)[task]
    requests, rows = [], []
    for layer, head in np.ndindex(model.n_layers, model.n_heads):
        for port in PORTS if layer else ():
            to = Input(Node("head", layer, head), port)  # type: ignore[arg-type]
            found = compositions(weights, to)
            for sender in found.senders(components=False):
                i = sender.layer, sender.head
                norm = float(weights.components(i[0]).values[i[1]].norm())
                requests.append(EdgeRequest((Edge(sender, to, EVERYWHERE),)))
                rows.append((found.heads[i], np.nanmax(found.components[i]), found.heads[i] * norm))
    series = measure(bench, requests, np.arange(PROMPTS))
    gap = float((bench.clean - bench.corrupt).mean())
    effect = [abs(float((series[request].values - bench.clean).mean()) / gap) for request in requests]
    edges = [request.edges[0].receiver for request in requests]
    whole, best, size = np.array(rows).T
    ports, receivers = np.array([to.port for to in edges]), np.array([str(to.node) for to in edges])
    return Edges(task, ports, receivers, whole, best, size, np.array(effect), time.perf_counter() - start)


def correlation(score: np.ndarray, edges: Edges, among: np.ndarray) -> tuple[float, float, float]:
    """Spearman's rho of a score with the size of effects, with its 95 % interval."""
    rng = np.random.default_rng(0)
    places = {name: np.flatnonzero(among & (edges.receiver == name)) for name in np.unique(edges.receiver)}
    names = list(places)

    def rho(index: np.ndarray) -> float:
        return float(spearmanr(score[index], edges.effect[index]).statistic)

    draws = [rho(np.concatenate([places[n] for n in rng.choice(names, len(names))])) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return rho(np.flatnonzero(among)), float(low), float(high)


def table(found: list[Edges]) -> str:
    """A row a task and a way to score: rho over all edges and by input."""
    lines = ["| task | score | all | q | k | v |", "|---|---|---|---|---|---|"]
    for edges in found:
        for name in ("whole", "best", "size"):
            score = getattr(edges, name)
            cells = [
                "{:.2f} [{:.2f}, {:.2f}]".format(*correlation(score, edges, among))
                for among in (edges.port != "", *(edges.port == port for port in PORTS))
            ]
            lines.append(f"| {edges.task} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def strongest(edges: Edges) -> str:
    """Where the edges with the largest effects stand by composition: among all, and among those into their input."""
    top = np.argsort(-edges.effect)[:STRONGEST]
    everywhere = [float(np.mean(edges.whole <= edges.whole[i])) for i in top]
    at_home = []
    for i in top:
        here = (edges.receiver == edges.receiver[i]) & (edges.port == edges.port[i])
        at_home.append(float(np.mean(edges.whole[here] <= edges.whole[i])))
    rare = sum(share > 0.95 for share in everywhere)
    largest, middle = 100 * edges.effect.max(), 100 * float(np.median(edges.effect))
    return (
        f"{edges.task}: {len(edges.effect)} edges in {edges.seconds:.0f} s; effects up to {largest:.1f} %, "
        f"median {middle:.4f} %; the {STRONGEST} largest are at the median {100 * np.median(everywhere):.0f}th "
        f"percentile of composition ({rare} of them above the 95th), {100 * np.median(at_home):.0f}th among senders "
        "into the same input"
    )


# --- the picture -----------------------------------------------------------------------------------

_SIDE, _TALL, _PAD, _GAP = 210.0, 190.0, 26.0, 58.0
_FLOOR, _TOP = 1e-6, 0.1


def scatter(found: list[Edges]) -> str:
    """A panel a task: composition against the size of the effect, on a logarithmic axis."""
    most = max(float(edges.whole.max()) for edges in found)
    heading = Span("Composition and measured effect of all edges between heads, pocket model", 15, bold=True)
    marks = [line(_PAD, _PAD, heading)]
    for i, port in enumerate(PORTS):
        marks.append(dot(_PAD + 6 + 70 * i, _PAD + 26, 3.5, palette.TONES[port]))  # type: ignore[index]
        marks.append(line(_PAD + 16 + 70 * i, _PAD + 26, Span(f"into .{port}", 11, palette.SOFT)))
    for i, edges in enumerate(found):
        x = _PAD + 44 + (i % 3) * (_SIDE + _GAP)
        y = _PAD + 70 + (i // 3) * (_TALL + _GAP + 22)
        marks += _panel(edges, Rect(x, y, _SIDE, _TALL), most)
    rows = math.ceil(len(found) / 3)
    wide = 2 * _PAD + 44 + min(3, len(found)) * (_SIDE + _GAP) - _GAP
    title = "Composition against effect"
    return document(wide, _PAD + 70 + rows * (_TALL + _GAP + 22), title, title, marks)


def _panel(edges: Edges, box: Rect, most: float) -> list[str]:
    rho = correlation(edges.whole, edges, edges.port != "")[0]
    words = (Span(edges.task, 12, bold=True), Span(f"rank correlation {rho:.2f}", 11, palette.SOFT))
    marks = [block(box, 0, Pen(palette.BAND)), line(box.x, box.y - 12, *words)]
    for power in range(-6, 0):
        y = _height(10.0**power, box)
        marks.append(block(Rect(box.x, y, box.width, 0.6), 0, Pen(palette.FAINT)))
        if power % 2:
            share = f"{100 * 10.0**power:g} %"
            marks.append(line(box.x - 46, y, Span(share, 9.5, palette.SOFT)))
    for i in range(int(most * 10) + 1):
        x = box.x + box.width * (i / 10) / most
        marks.append(line(x, box.bottom + 11, Span(f"{i / 10:g}", 9.5, palette.SOFT), centred=True))
    marks.append(line(box.x + box.width / 2, box.bottom + 26, Span("composition", 10.5, palette.SOFT), centred=True))
    for score, effect, port in zip(edges.whole, edges.effect, edges.port, strict=True):
        x = box.x + box.width * score / most
        marks.append(dot(x, _height(effect, box), 1.7, palette.TONES[port] + "90"))
    return marks


def _height(effect: float, box: Rect) -> float:
    share = (math.log10(max(effect, _FLOOR)) - math.log10(_FLOOR)) / (math.log10(_TOP) - math.log10(_FLOOR))
    return box.bottom - box.height * min(share, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/composition-vs-effect.png"))
    given = parser.parse_args()
    model = load_model("pocket", device="cpu")
    found = [edges_of(model, task) for task in TASKS]
    print(table(found))
    for edges in found:
        print(strongest(edges))
    write_whole(given.output, to_png(scatter(found)))
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
