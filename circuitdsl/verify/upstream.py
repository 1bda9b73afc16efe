"""Which heads write what a head reads: from weights alone, as channel claims have it, or traced back on prompts.

A trace also tells what changes without the signal of the senders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from circuitdsl.brief import quoted
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import Input, Node, Position
from circuitdsl.circuit.traced import TraceGraph
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.engine.cut import Change, Cut, Cuts, Reach
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.readers.composition import compositions
from circuitdsl.engine.trace import trace_graph
from circuitdsl.errors import UsageError
from circuitdsl.limits import distance_of
from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.models.files import MODEL_FILES, MODEL_HINT
from circuitdsl.models.parts import Transformer
from circuitdsl.models.weights import AttentionWeights
from circuitdsl.report.report import Measured, Standing
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import ChangeFigures, CutFigures, Standings, show_cuts, show_senders, show_trace, shown
from circuitdsl.verdict.estimates import limits_of
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.means import mean
from circuitdsl.verify.session import Session, with_overrides

if TYPE_CHECKING:
    from circuitdsl.api import Spec

#: senders that a table lists, and components that a picture outlines
TOP = 20
#: senders on a smaller share of the firings are not shown
LEAST = 0.25
_HEAD = re.compile(r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})(?:\[(0|[1-9]\d{0,4})\])?")
_POSITION = re.compile(r"([A-Z][A-Z0-9_]*)([+-]\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Upstream(Shown):
    """Where senders stand among everything upstream of some receiver inputs.

    Attributes:
        model: its name, with `n_heads` heads in a layer.
        found: for each receiver input, the standing of each sender.
        senders: those that were asked for; none where everything upstream was.
        components: whether single components were scored instead of whole heads.
        distance: at which queries and keys meet; None where none was asked for.
    """

    model: str
    n_heads: int
    found: Mapping[Input, Standings]
    senders: tuple[Node, ...]
    components: bool
    distance: int | None = None

    def to_json(self) -> dict[str, Any]:
        readers = {str(to): {str(node): asdict(at) for node, at in every.items()} for to, every in self.found.items()}
        apart = {} if self.distance is None else {"distance": self.distance}
        return {"model": self.model, **apart, "readers": readers}

    def show(self, console: Console, top: int = TOP) -> None:
        for i, (reader, standings) in enumerate(self.found.items()):
            if i:
                console.print()
            show_senders(console, f"{reader}{self._apart}", standings, top)

    @property
    def _apart(self) -> str:
        return "" if self.distance is None else f" at distance {self.distance}"

    def draw(self, path: str | Path, top: int = TOP) -> None:
        """Draw a heat map into a file: .svg or .png."""
        from circuitdsl.diagram.formats import write_picture
        from circuitdsl.diagram.heatmap import map_of_readers, map_of_senders, picture

        name = (Path(self.model).name or self.model) + self._apart
        if len(self.found) == 1 and not self.senders:
            ((reader, standings),) = self.found.items()
            heat_map = map_of_senders(name, reader, standings, (reader.node.layer, self.n_heads), top)
        else:
            strongest = self.components and all(node.index < 0 for node in self.senders)
            single = strongest or (bool(self.senders) and all(node.index >= 0 for node in self.senders))
            found = {to: _strongest(every) for to, every in self.found.items()} if strongest else self.found
            columns = sorted({node for standings in found.values() for node in standings})
            heat_map = map_of_readers(name, found, columns, top, single)
        write_picture(picture(heat_map), path)


def _strongest(standings: Standings) -> Standings:
    """The strongest component of each head, in the head's place."""
    ordered = sorted(standings.items(), key=lambda item: item[1].composition)
    return {Node("head", node.layer, node.head): where for node, where in ordered}


def channels(
    session: Session,
    to: Iterable[str],
    senders: Iterable[str] = (),
    components: bool = False,
    spec: Spec | str | Path | None = None,
    circuit: str | None = None,
    distance: int | None = None,
) -> Upstream:
    """Which heads write what some receiver inputs read, from weights alone.

    Args:
        to: receiver inputs: `9.9.q`, or `mover.q` for a group of the spec.
        senders: heads `8.10`, components `8.6[2]`, groups; by default everything upstream.
        components: score single singular components instead of whole heads.
        distance: how many tokens the query is behind the key; into .q and .k of models with rotary positions only.
        spec: gives the model and the groups; without one the session's model is read.

    Raises:
        UsageError: a word names nothing, or no sender is upstream.
    """
    distance = distance_of(distance)
    known = None if spec is None else session.circuit(spec, circuit)
    try:
        weights = session.weights_of(known)
    except ModelUnavailable as error:
        if known is None and error.hint == MODEL_HINT:
            raise ModelUnavailable(error.message, f"name {MODEL_FILES}") from None
        raise
    readers = dict.fromkeys(reader for word in to for reader in _readers(word, known, weights))
    wanted = [node for word in senders for node in _nodes(word, known, weights)]
    found = {reader: _standings(weights, reader, wanted, components, distance) for reader in readers}
    return Upstream(weights.name, weights.n_heads, found, tuple(wanted), components, distance)


def head_named(word: str, model: AttentionWeights | Transformer) -> Node | None:
    """The head `9.9`, or the component `8.6[2]` of one; None where the word is neither.

    Raises:
        UsageError: the model has no such head.
    """
    found = _HEAD.fullmatch(word)
    if not found:
        return None
    node = Node("head", int(found[1]), int(found[2]), int(found[3]) if found[3] else -1)
    if node.layer >= model.n_layers or node.head >= model.n_heads:
        size = f"{model.n_layers} layers of {model.n_heads} heads"
        raise UsageError(f"{node} does not exist: {model.name} has {size}, counted from 0")
    return node


def _readers(word: str, circuit: Circuit | None, weights: AttentionWeights) -> list[Input]:
    base, _, port = word.rpartition(".")
    if port not in ("q", "k", "v") or not base:
        raise UsageError(
            f"'{quoted(word)}' is no receiver input", hint="write a head or a group with .q, .k or .v: 9.9.q"
        )
    nodes = _nodes(base, circuit, weights)
    if any(node.index >= 0 for node in nodes):
        raise UsageError(f"'{word}': a channel ends in a whole head, not in a component of its output")
    return [Input(node, port) for node in nodes]  # type: ignore[arg-type]


def _nodes(word: str, circuit: Circuit | None, weights: AttentionWeights) -> list[Node]:
    """A head, a component of one, or the heads of a group."""
    if node := head_named(word, weights):
        return [node]
    groups = {group.name: group for group in circuit.groups} if circuit else {}
    if word not in groups:
        known = f"groups: {', '.join(groups)}" if groups else "heads are written 9.9, components 8.6[2]"
        raise UsageError(f"'{quoted(word)}' is neither a head nor a group", hint=known)
    heads = [node for node in groups[word].nodes if node.kind == "head"]
    if not heads:
        raise UsageError(f"the group {word} has no heads")
    return heads


def _standings(
    weights: AttentionWeights, reader: Input, wanted: Sequence[Node], components: bool, distance: int | None
) -> Standings:
    """What was asked for, or everything upstream, into one receiver input; ranks are among everything upstream."""
    found = compositions(weights, reader, distance)
    early = [node for node in wanted if node.layer < reader.node.layer]
    if wanted and not early:
        raise UsageError(f"none of {', '.join(map(str, wanted))} is upstream of {reader}")
    whole = {(node.layer, node.head) for node in early if node.index < 0}
    senders = [node for node in found.senders(components) if not wanted or (node.layer, node.head) in whole]
    senders += [node for node in early if node.index >= 0 and node not in senders]
    return {node: Standing(**asdict(found.standing(node))) for node in senders}


# --- traces ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Traced(Shown):
    """The traces of many prompts as one graph, and what changes where the signal is cut, or added once more."""

    model: str
    graph: TraceGraph
    cuts: tuple[CutFigures, ...]
    boost: bool

    def to_json(self) -> dict[str, Any]:
        graph = self.graph
        links = [{**asdict(each), "sender": str(each.sender), "receiver": str(each.receiver)} for each in graph.links]
        counts = {"prompts": graph.prompts, "firings": graph.firings}
        names = {"model": self.model, "head": str(graph.head), "source": graph.source, "target": graph.target}
        return {**names, **counts, "links": links, "boost": self.boost, "cuts": [asdict(each) for each in self.cuts]}

    def show(self, console: Console, least: float = LEAST) -> None:
        show_trace(console, self.graph, least)
        if self.cuts:
            console.print()
            show_cuts(console, self.graph, self.cuts, self.boost)

    def draw(self, path: str | Path, least: float = LEAST) -> None:
        """Draw the graph into a file: .svg or .png."""
        from circuitdsl.diagram.formats import write_picture
        from circuitdsl.diagram.trace import picture

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
    uses = {use.name: use for use in wanted.tasks}
    if not uses:
        raise UsageError(f"circuit {wanted.name} has no task to take prompts from")
    if task is not None and task not in uses:
        raise UsageError(f"there is no task {quoted(task)}", hint=f"the circuit has {', '.join(uses)}")
    use = uses[task] if task else wanted.tasks[0]
    start, end = _position(source), _position(target)
    node = head_named(head, session.model_of(wanted))
    if node is None or node.index >= 0:
        raise UsageError(f"'{quoted(head)}' is no head", hint="heads are written 9.9")
    if node.layer == 0:
        raise UsageError(f"no head is upstream of {node}")
    found = session.prompts_of(wanted, use)
    names = {name for pair in found.pairs for name in pair.positions}
    for position in (start, end):
        if position.name not in names:
            hint = f"it has {', '.join(sorted(names))}"
            raise UsageError(f"the task {use.name} has no position {position.name}", hint=hint)
    with session.busy(f"tracing {node} on {len(found.pairs)} prompts"):
        cuts = Cuts(found, cut, boost)
        graph = trace_graph(found.model, found.pairs, node, start, end, cuts.add, found.max_memory)
    figures = tuple(_figures(found, reach, each) for reach, each in cuts.found().items())
    return Traced(found.model.name, graph, figures, boost)


def _position(word: str) -> Position:
    found = _POSITION.fullmatch(word)
    if found is None:
        raise UsageError(f"'{quoted(word)}' is no position", hint="positions are written END, IO, S1+1")
    return Position(found[1], int(found[2] or 0))


def _figures(prompts: Prompts, reach: Reach, found: Cut) -> CutFigures:
    """What a cut changes, with intervals over prompts."""
    strata, metric_unit = prompts.strata[found.indices], METRICS[prompts.metric.name].shown

    def measured(name: str, values: np.ndarray, unit: str) -> Measured:
        return Measured(name, float(values.mean()), limits_of(mean(values, strata), FAMILY), len(values), unit)

    def figures(change: Change) -> ChangeFigures:
        metric = measured(str(prompts.metric), change.metric, "points" if metric_unit == "share" else metric_unit)
        score = measured("score", change.score, "score")
        return ChangeFigures(metric, score, float(change.norm.mean()), float(change.cosine.mean()))

    fewer = int((found.control.vectors < found.signal.vectors).sum())
    return CutFigures(reach, float(found.score.mean()), figures(found.signal), figures(found.control), fewer)
