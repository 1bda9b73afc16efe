"""Longer lists than training had: `python -m benchmarks.laundry_list [-o docs/laundry-list-places.svg]`.

The pocket model was trained on lists of three to six items. Prints its accuracy by length and by the place of the item
that is missing; then what scaling one singular component of an inhibition head does to the accuracy on longer lists
(Merullo et al. 2024, arXiv:2406.09519, section 5). The largest components of five heads are tried on a seed; the best
is measured on another, beside what all the others give there, which is its control. Last, whether places in the list
crowd as lists grow: draws the items' second mentions in the plane that the best head's two largest components read, a
panel a length, and prints how much of it their place explains, for all five heads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from circuitdsl.api import loads
from circuitdsl.circuit.changes import Intervention, Scale
from circuitdsl.circuit.nodes import Node
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.diagram import palette
from circuitdsl.diagram.elements import Pen, Rect, Span, block, document, dot, line
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.requests import ChangedRequest
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.models.weights import weights_of
from circuitdsl.ordinary import write_whole
from circuitdsl.tasks.laundry_list import LENGTHS, LONGER
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import prompts_by_task

HEADS = tuple(Node("head", 0, h) for h in (3, 5, 6, 0, 7))
TRIED, FACTOR, FACTORS = (7, 8, 10), 4.0, (0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
CHOSEN_ON, SHOWN_ON = 5, 0
#: components of each head that are tried
LARGEST = 6
ACCURACY = Metric("accuracy")


@dataclass(frozen=True)
class Lists:
    """Prompts of one length on the model; `right` says which of them it gets right."""

    length: int
    bench: Prompts
    right: np.ndarray


def lists(model: Transformer, length: int, prompts: int, seed: int) -> Lists:
    text = (
        f'circuit lists\nmodel "pocket"\ntask laundry_list(items = {length}, prompts = {prompts}, seed = {seed})\n'
        "metric accuracy\nexpect accuracy >= 0%\n"
    )
    (bench,) = prompts_by_task(loads(text).circuits[0], model).values()
    return Lists(length, bench, np.asarray(bench.clean))


def by_place(found: Sequence[Lists]) -> str:
    """Accuracy by length, and by the place of the missing item in the first list."""
    most = max(each.length for each in found)
    rows = [f"| items | all | {' | '.join(str(i) for i in range(1, most + 1))} |", "|---" * (most + 2) + "|"]
    for each in found:
        places = np.asarray([int(pair.stratum.split("-")[1]) for pair in each.bench.pairs])
        cells = [f"{each.right[places == i].mean():.0%}" if i <= each.length else "" for i in range(1, most + 1)]
        rows.append(f"| {each.length} | {each.right.mean():.0%} | {' | '.join(cells)} |")
    return "\n".join(rows)


# --- scaling components ----------------------------------------------------------------------------


def scaled(nodes: Sequence[Node], factor: float) -> ChangedRequest:
    """The accuracy of the model with some nodes scaled."""
    return ChangedRequest(Behaviour(ACCURACY), Intervention("scaled", "", (Scale(tuple(nodes), factor),)))


def accuracies(requests: Sequence[ChangedRequest], on: Sequence[Lists]) -> np.ndarray:
    """The accuracy of several changed models on some lists [models, lists]."""
    found = [measure(each.bench, requests, np.arange(len(each.bench.pairs))) for each in on]
    return np.asarray([[series[request].values.mean() for series in found] for request in requests])


def components_tried() -> list[Node]:
    return [Node("head", head.layer, head.head, i) for head in HEADS for i in range(LARGEST)]


def gains(components: Sequence[Node], on: Sequence[Lists]) -> np.ndarray:
    """What scaling each component alone adds to the accuracy [components, lists]."""
    before = np.asarray([each.right.mean() for each in on])
    return accuracies([scaled([component], FACTOR) for component in components], on) - before


def components_report(model: Transformer, prompts: int) -> tuple[str, Node]:
    """Tables of what components do; and the best of them."""
    first, second = ([lists(model, n, prompts, seed) for n in TRIED] for seed in (CHOSEN_ON, SHOWN_ON))
    components = components_tried()
    chosen = gains(components, first)
    order = np.argsort(-chosen.mean(1))
    best = components[order[0]]
    again = gains(components, second)
    others = np.delete(again, order[0], axis=0)
    head = "| scaled | " + " | ".join(f"{n} items" for n in TRIED) + " |"
    rows = [
        f"gain by scaling one component by {FACTOR:g}, in points; chosen on seed {CHOSEN_ON}, seed {SHOWN_ON} shown"
    ]
    rows += ["", head, "|---" * (len(TRIED) + 1) + "|"]
    rows += [f"| {components[i]} | {_points(again[i])} |" for i in order[:5]]
    rows.append(f"| the {len(others)} others but {best}: mean | {_points(others.mean(0))} |")
    rows.append(f"| the {len(others)} others but {best}: highest | {_points(others.max(0))} |")
    rows += ["", f"accuracy on seed {SHOWN_ON}", "", head, "|---" * (len(TRIED) + 1) + "|"]
    rows.append(f"| nothing | {_shares(np.asarray([each.right.mean() for each in second]))} |")
    whole = Node("head", best.layer, best.head)
    rest = [each for each in components if (each.head, each.index) != (best.head, best.index)]
    here = [each for each in rest if each.head == best.head]
    models = {f"{best} by {factor:g}": scaled([best], factor) for factor in FACTORS}
    models |= {
        f"{whole}, whole, by {FACTOR:g}": scaled([whole], FACTOR),
        f"components tried of {whole} but {best}, by {FACTOR:g}": scaled(here, FACTOR),
        f"the five heads, whole, by {FACTOR:g}": scaled(HEADS, FACTOR),
        f"all {len(components)} components tried, by {FACTOR:g}": scaled(components, FACTOR),
        f"all but {best}, by {FACTOR:g}": scaled(rest, FACTOR),
    }
    for name, values in zip(models, accuracies(list(models.values()), second), strict=True):
        rows.append(f"| {name} | {_shares(values)} |")
    return "\n".join(rows), best


def _points(values: np.ndarray) -> str:
    return " | ".join(f"{100 * value:+.0f}" for value in values)


def _shares(values: np.ndarray) -> str:
    return " | ".join(f"{value:.0%}" for value in values)


# --- the picture -----------------------------------------------------------------------------------

_SIDE, _PAD, _GAP, _SHOWN = 230.0, 26.0, 34.0, 40
#: by place in the list, first to last
_PLACES = ("#3b4cc0", "#5a78e4", "#7b9ff9", "#9ebeff", "#c0a8d8", "#e8a88e", "#f18d6f", "#de604d", "#c0282f")


def coordinates(model: Transformer, head: Node, found: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Where a head of layer 0 reads the items' second mentions: along its two largest components [points, 2], with
    their places in the second list [points]."""
    reads = weights_of(model).components(head.layer).reads[head.head, :2]
    points, places = [], []
    for pair in found.bench.pairs[:_SHOWN]:
        tokens = torch.tensor(pair.clean_tokens)
        assert model.W_pos is not None, "the pocket model has learned positions"
        resid = model.W_E[tokens] + model.W_pos[: len(tokens)]
        resid = resid - resid.mean(-1, keepdim=True)
        resid = resid / (resid.var(-1, keepdim=True, correction=0) + model.blocks[0].attn_norm.eps).sqrt()
        again = sorted(pair.positions["AGAIN"])
        points.append((resid[again] @ reads.T).numpy())
        places.append(np.arange(len(again)))
    return np.concatenate(points), np.concatenate(places)


def separation(points: np.ndarray, places: np.ndarray) -> float:
    """The share of the points' variance that their place explains."""
    centre = points.mean(0)
    between = sum((places == i).sum() * ((points[places == i].mean(0) - centre) ** 2).sum() for i in np.unique(places))
    return float(between / ((points - centre) ** 2).sum())


def by_head(model: Transformer, found: Sequence[Lists]) -> str:
    """How much of where each head's two largest components read the items their place explains, by length."""
    rows = [f"| items | {' | '.join(str(each.length) for each in found)} |", "|---" * (len(found) + 1) + "|"]
    for head in HEADS:
        shares = [f"{separation(*coordinates(model, head, each)):.0%}" for each in found]
        rows.append(f"| {head} | {' | '.join(shares)} |")
    return "\n".join(rows)


def picture(model: Transformer, head: Node, found: Sequence[Lists]) -> str:
    """A panel a length: the items' second mentions as two components read them, coloured by place."""
    read = {each.length: coordinates(model, head, each) for each in found}
    every = np.concatenate([points for points, _ in read.values()])
    low, high = every.min(0), every.max(0)
    title = f"The second list as {head}[0] and {head}[1] read it"
    marks = [line(_PAD, _PAD, Span(title, 15, bold=True))]
    axes = f"{head}[0] to the right, {head}[1] upwards"
    key = Span(f"an item each, {axes}, coloured by its place in the list:", 11, palette.SOFT)
    marks.append(line(_PAD, _PAD + 24, key))
    for i, colour in enumerate(_PLACES):
        x = _PAD + key.width + 16 + 30 * i
        marks += [dot(x, _PAD + 24, 4, colour), line(x + 8, _PAD + 24, Span(str(i + 1), 10.5, palette.SOFT))]
    for i, each in enumerate(found):
        box = Rect(_PAD + i * (_SIDE + _GAP), _PAD + 74, _SIDE, _SIDE)
        points, places = read[each.length]
        words = f"{each.length} items, accuracy {each.right.mean():.0%}"
        share = f"place explains {separation(points, places):.0%} of the variance"
        marks += [
            block(box, 0, Pen(palette.BAND)),
            line(box.x, box.y - 12, Span(words, 12, bold=True)),
            line(box.x + _SIDE / 2, box.bottom + 14, Span(share, 10.5, palette.SOFT), centred=True),
        ]
        at = (points - low) / (high - low)
        for (x, y), place in zip(at, places, strict=True):
            marks.append(dot(box.x + 4 + x * (_SIDE - 8), box.bottom - 4 - y * (_SIDE - 8), 2.2, _PLACES[place]))
    wide = 2 * _PAD + len(found) * (_SIDE + _GAP) - _GAP
    return document(wide, _PAD + 74 + _SIDE + 40, title, f"{title}; {axes}", marks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=512, help="prompts a length; a quarter for components")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/laundry-list-places.svg"))
    given = parser.parse_args()
    model = load_model("pocket", device="cpu")
    found = [lists(model, n, given.prompts, SHOWN_ON) for n in (*LENGTHS, *LONGER)]
    print(by_place(found), flush=True)
    report, best = components_report(model, given.prompts // 4)
    print()
    print(report)
    print(f"\nvariance that an item's place explains, {_SHOWN} prompts a length\n\n{by_head(model, found)}")
    shown = [each for each in found if each.length in (4, 6, 8, 10)]
    write_whole(given.output, picture(model, Node("head", best.layer, best.head), shown))
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
