"""`circuitdsl trace`: which heads made a head attend where it does, back to the first layer."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import level, positive, seed
from circuitdsl.cli.models import add_model_arguments, models
from circuitdsl.cli.outputs import picture
from circuitdsl.cli.specs import load_all, one_circuit
from circuitdsl.cli.terminal import console, say, status
from circuitdsl.errors import SPEC_WRONG, UsageError

if TYPE_CHECKING:
    import numpy as np

    from circuitdsl.circuit.claims import Circuit, TaskUse
    from circuitdsl.circuit.nodes import Node, Position
    from circuitdsl.cli import Verbs
    from circuitdsl.engine.cut import Change, Reach
    from circuitdsl.models.parts import Transformer
    from circuitdsl.report.report import Measured
    from circuitdsl.report.trace import CutFigures
    from circuitdsl.verify.bench import Bench

_HEAD = re.compile(r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})")
_POSITION = re.compile(r"([A-Z][A-Z0-9_]*)([+-]\d{1,4})?")


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("trace", help="find which heads made a head attend where it does")
    verb.add_argument("spec", help="a .circ file, or a shipped spec such as pocket/ioi: its model and its prompts")
    verb.add_argument("--head", required=True, metavar="L.H", help="the head to explain: 9.9")
    verb.add_argument("--from", required=True, dest="source", metavar="POS", help="where it attends from: END")
    verb.add_argument("--to", required=True, dest="target", metavar="POS", help="what it attends to: IO")
    verb.add_argument("--least", type=level, default=0.25, metavar="SHARE", help="of the firings, to be shown (25%%)")
    verb.add_argument("--task", help="which task, where the spec has several")
    verb.add_argument("--prompts", type=positive, help="how many prompts, instead of the spec's number")
    verb.add_argument("--seed", type=seed, help="seed of the prompts, instead of the spec's")
    verb.add_argument("--circuit", help="which circuit, where the spec has several")
    verb.add_argument(
        "--cut",
        nargs="*",
        choices=("local", "global"),
        help="take the signal out of what the head reads (local, the default) or of what its senders write (global)",
    )
    verb.add_argument("--boost", action="store_true", help="with --cut: add the signal once more instead")
    verb.add_argument("-o", "--output", help="draw into this file: .svg or .png")
    add_model_arguments(verb)
    verb.set_defaults(run=_trace)


def _trace(given: argparse.Namespace) -> int:
    from circuitdsl.api import make_bench
    from circuitdsl.diagram import trace as diagram
    from circuitdsl.diagram.formats import write_picture
    from circuitdsl.engine.trace_graph import trace_graph
    from circuitdsl.report.trace import show, show_cuts, shown
    from circuitdsl.verify.verify import with_overrides

    if given.boost and given.cut is None:
        raise UsageError("--boost says what a cut does instead", hint="give --cut as well")
    file = picture(given.output)
    specs = load_all([given.spec], given.model)
    if specs is None:
        return SPEC_WRONG
    circuit = with_overrides(one_circuit(specs[0], given.circuit), given.prompts, given.seed)
    use = _task(circuit, given.task)
    source, target = (_position(word) for word in (given.source, given.target))
    model = models(given).of(circuit)
    head = _head(given.head, model)
    bench = make_bench(circuit, use, model)
    for position in (source, target):
        _check(bench, use, position)
    with status(f"tracing {head} on {len(bench.pairs)} prompts"):
        found = trace_graph(model, bench.pairs, head, source, target)
    screen = console()
    show(screen, found, given.least)
    if given.cut is not None:
        with status("cutting the signal"):
            reaches = dict.fromkeys(given.cut or ["local"])
            cuts = [_cut(bench, head, source, target, reach, given.boost) for reach in reaches]
        screen.print()
        show_cuts(screen, found, cuts, given.boost)
    if file:
        links = shown(found, given.least)
        write_picture(diagram.picture(found, links, given.least, model.name), file)
        say(f"wrote {file}")
    return 0


def _cut(bench: Bench, head: Node, source: Position, target: Position, reach: Reach, boost: bool) -> CutFigures:
    """What a cut changes, with intervals over prompts."""
    from circuitdsl.circuit.vocabulary import METRICS
    from circuitdsl.engine.cut import cut
    from circuitdsl.report.trace import ChangeFigures, CutFigures

    found = cut(bench, head, source, target, reach, boost)
    strata, metric_unit = bench.strata[found.indices], METRICS[bench.metric.name].shown

    def figures(change: Change) -> ChangeFigures:
        return ChangeFigures(
            _measured(str(bench.metric), change.metric, strata, "points" if metric_unit == "share" else metric_unit),
            _measured("score", change.score, strata, "score"),
            float(change.norm.mean()),
            float(change.cosine.mean()),
        )

    fewer = int((found.control.vectors < found.signal.vectors).sum())
    return CutFigures(reach, float(found.score.mean()), figures(found.signal), figures(found.control), fewer)


def _measured(name: str, values: np.ndarray, strata: np.ndarray, unit: str) -> Measured:
    from circuitdsl.report.report import Measured
    from circuitdsl.verdict.estimates import limits_of
    from circuitdsl.verdict.families import FAMILY
    from circuitdsl.verdict.means import mean

    return Measured(name, float(values.mean()), limits_of(mean(values, strata), FAMILY), len(values), unit)


def _task(circuit: Circuit, wanted: str | None) -> TaskUse:
    uses = {use.name: use for use in circuit.tasks}
    if not uses:
        raise UsageError(f"circuit {circuit.name} has no task to take prompts from")
    if wanted is not None and wanted not in uses:
        raise UsageError(f"there is no task {wanted}", hint=f"the circuit has {', '.join(uses)}")
    return uses[wanted] if wanted else next(iter(uses.values()))


def _position(word: str) -> Position:
    from circuitdsl.circuit.nodes import Position

    found = _POSITION.fullmatch(word)
    if found is None:
        raise UsageError(f"'{word}' is no position", hint="positions are written END, IO, S1+1")
    return Position(found[1], int(found[2] or 0))


def _head(word: str, model: Transformer) -> Node:
    from circuitdsl.circuit.nodes import Node

    found = _HEAD.fullmatch(word)
    if found is None:
        raise UsageError(f"'{word}' is no head", hint="heads are written 9.9")
    head = Node("head", int(found[1]), int(found[2]))
    if head.layer >= model.n_layers or head.head >= model.n_heads:
        raise UsageError(f"{head} does not exist: {model.name} has {model.n_layers} layers of {model.n_heads} heads")
    if head.layer == 0:
        raise UsageError(f"no head is upstream of {head}")
    return head


def _check(bench: Bench, use: TaskUse, position: Position) -> None:
    names = {name for pair in bench.pairs for name in pair.positions}
    if position.name not in names:
        raise UsageError(
            f"the task {use.name} has no position {position.name}", hint=f"it has {', '.join(sorted(names))}"
        )
