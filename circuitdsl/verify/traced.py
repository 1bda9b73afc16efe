"""Which heads made a head attend where it does, back to the first layer, and what changes without their signal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.traced import TraceGraph
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.diagram.formats import write_picture
from circuitdsl.diagram.trace import picture
from circuitdsl.engine.cut import Change, Reach
from circuitdsl.engine.cut import cut as cut_signal
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.trace import trace_graph
from circuitdsl.errors import UsageError
from circuitdsl.models.parts import Transformer
from circuitdsl.report.report import Measured
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import ChangeFigures, CutFigures, show_cuts, show_trace, shown
from circuitdsl.verdict.estimates import limits_of
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.means import mean
from circuitdsl.verify.options import with_overrides
from circuitdsl.verify.session import Session
from circuitdsl.verify.upstream import head_named

if TYPE_CHECKING:
    from circuitdsl.api import Spec

#: senders on a smaller share of the firings are not shown
LEAST = 0.25
_POSITION = re.compile(r"([A-Z][A-Z0-9_]*)([+-]\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Traced(Shown):
    """The traces of many prompts as one graph, and what changes where the signal is cut, or added once more."""

    model: str
    graph: TraceGraph
    cuts: tuple[CutFigures, ...]
    boost: bool

    def to_json(self) -> dict[str, Any]:
        """Links and cuts as plain values."""
        graph = self.graph
        links = [{**asdict(each), "sender": str(each.sender), "receiver": str(each.receiver)} for each in graph.links]
        counts = {"prompts": graph.prompts, "firings": graph.firings}
        names = {"model": self.model, "head": str(graph.head), "source": graph.source, "target": graph.target}
        return {**names, **counts, "links": links, "boost": self.boost, "cuts": [asdict(each) for each in self.cuts]}

    def show(self, console: Console, least: float = LEAST) -> None:
        """Print who sends what, on at least this share of the firings, and what the cuts change."""
        show_trace(console, self.graph, least)
        if self.cuts:
            console.print()
            show_cuts(console, self.graph, self.cuts, self.boost)

    def draw(self, path: str | Path, least: float = LEAST) -> None:
        """Draw the graph into a file: .svg or .png."""
        write_picture(picture(self.graph, shown(self.graph, least), least, self.model), path)


def trace(
    session: Session,
    spec: Spec | str | Path,
    head: str,
    source: str,
    target: str,
    cut: Sequence[Reach] = (),
    boost: bool = False,
    task: str | None = None,
    prompts: int | None = None,
    seed: int | None = None,
    circuit: str | None = None,
) -> Traced:
    """Which heads made a head attend from one position to another, back to the first layer.

    Args:
        head, source, target: as in a spec: "9.9", "END", "IO".
        cut: take the signal out of what the head reads (`local`) or of what its senders write (`global`).
        boost: add the signal once more instead.
        task: which task, where the spec has several.
        prompts, seed: of the task, instead of the spec's.

    Raises:
        UserError: a name that does not exist, or the head never attends so.
    """
    wanted = with_overrides(session.circuit(spec, circuit), prompts, seed)
    use = _task(wanted, task)
    start, end = _position(source), _position(target)
    node = _head(head, session.model_of(wanted))
    found = session.prompts_of(wanted, use)
    names = {name for pair in found.pairs for name in pair.positions}
    for position in (start, end):
        if position.name not in names:
            hint = f"it has {', '.join(sorted(names))}"
            raise UsageError(f"the task {use.name} has no position {position.name}", hint=hint)
    with session.busy(f"tracing {node} on {len(found.pairs)} prompts"):
        graph = trace_graph(found.model, found.pairs, node, start, end)
    with session.busy("cutting the signal"):
        figures = tuple(_cut(found, node, start, end, reach, boost) for reach in dict.fromkeys(cut))
    return Traced(found.model.name, graph, figures, boost)


def _task(circuit: Circuit, wanted: str | None) -> TaskUse:
    uses = {use.name: use for use in circuit.tasks}
    if not uses:
        raise UsageError(f"circuit {circuit.name} has no task to take prompts from")
    if wanted is not None and wanted not in uses:
        raise UsageError(f"there is no task {wanted}", hint=f"the circuit has {', '.join(uses)}")
    return uses[wanted] if wanted else next(iter(uses.values()))


def _position(word: str) -> Position:
    found = _POSITION.fullmatch(word)
    if found is None:
        raise UsageError(f"'{word}' is no position", hint="positions are written END, IO, S1+1")
    return Position(found[1], int(found[2] or 0))


def _head(word: str, model: Transformer) -> Node:
    head = head_named(word, model)
    if head is None or head.index >= 0:
        raise UsageError(f"'{word}' is no head", hint="heads are written 9.9")
    if head.layer == 0:
        raise UsageError(f"no head is upstream of {head}")
    return head


def _cut(prompts: Prompts, head: Node, source: Position, target: Position, reach: Reach, boost: bool) -> CutFigures:
    """What a cut changes, with intervals over prompts."""
    found = cut_signal(prompts, head, source, target, reach, boost)
    strata, metric_unit = prompts.strata[found.indices], METRICS[prompts.metric.name].shown

    def measured(name: str, values: np.ndarray, unit: str) -> Measured:
        return Measured(name, float(values.mean()), limits_of(mean(values, strata), FAMILY), len(values), unit)

    def figures(change: Change) -> ChangeFigures:
        metric = measured(str(prompts.metric), change.metric, "points" if metric_unit == "share" else metric_unit)
        score = measured("score", change.score, "score")
        return ChangeFigures(metric, score, float(change.norm.mean()), float(change.cosine.mean()))

    fewer = int((found.control.vectors < found.signal.vectors).sum())
    return CutFigures(reach, float(found.score.mean()), figures(found.signal), figures(found.control), fewer)
