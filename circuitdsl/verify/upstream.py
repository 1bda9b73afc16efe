"""Which heads write what a receiver input reads, from weights alone: the search behind channel claims."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.diagram.formats import write_picture
from circuitdsl.diagram.heatmap import map_of_readers, map_of_senders, picture
from circuitdsl.engine.readers.composition import compositions
from circuitdsl.errors import UsageError
from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.models.files import MODEL_FILES, MODEL_HINT
from circuitdsl.models.parts import Transformer
from circuitdsl.models.weights import AttentionWeights
from circuitdsl.report.report import Standing
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import Standings, show_senders
from circuitdsl.verify.session import Session

if TYPE_CHECKING:
    from circuitdsl.api import Spec

#: senders that a table lists, and components that a picture outlines
TOP = 20
_HEAD = re.compile(r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})(?:\[(0|[1-9]\d{0,4})\])?")


@dataclass(frozen=True, slots=True)
class Upstream(Shown):
    """Where senders stand among everything upstream of some receiver inputs.

    Attributes:
        model: its name, with `n_heads` heads in a layer.
        found: for each receiver input, the standing of each sender.
        senders: those that were asked for; none where everything upstream was.
        components: whether single components were scored instead of whole heads.
    """

    model: str
    n_heads: int
    found: Mapping[Input, Standings]
    senders: tuple[Node, ...]
    components: bool

    def to_json(self) -> dict[str, Any]:
        """Standings by receiver input and sender."""
        readers = {str(to): {str(node): asdict(at) for node, at in every.items()} for to, every in self.found.items()}
        return {"model": self.model, "readers": readers}

    def show(self, console: Console, top: int = TOP) -> None:
        """Print a table of the strongest senders into each receiver input."""
        for i, (reader, standings) in enumerate(self.found.items()):
            if i:
                console.print()
            show_senders(console, reader, standings, top)

    def draw(self, path: str | Path, top: int = TOP) -> None:
        """Draw a heat map into a file: .svg or .png."""
        name = Path(self.model).name or self.model
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
) -> Upstream:
    """Which heads write what some receiver inputs read, from weights alone.

    Args:
        to: receiver inputs: `9.9.q`, or `mover.q` for a group of the spec.
        senders: heads `8.10`, components `8.6[2]`, groups; by default everything upstream.
        components: score single singular components instead of whole heads.
        spec: gives the model and the groups; without one the session's model is read.

    Raises:
        UsageError: a word names nothing, or no sender is upstream.
    """
    known = None if spec is None else session.circuit(spec, circuit)
    try:
        weights = session.weights_of(known)
    except ModelUnavailable as error:
        if known is None and error.hint == MODEL_HINT:
            raise ModelUnavailable(error.message, f"name {MODEL_FILES}") from None
        raise
    readers = dict.fromkeys(reader for word in to for reader in _readers(word, known, weights))
    wanted = [node for word in senders for node in _nodes(word, known, weights)]
    found = {reader: _standings(weights, reader, wanted, components) for reader in readers}
    return Upstream(weights.name, weights.n_heads, found, tuple(wanted), components)


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
        raise UsageError(f"'{word}' is no receiver input", hint="write a head or a group with .q, .k or .v: 9.9.q")
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
        raise UsageError(f"'{word}' is neither a head nor a group", hint=known)
    heads = [node for node in groups[word].nodes if node.kind == "head"]
    if not heads:
        raise UsageError(f"the group {word} has no heads")
    return heads


def _standings(weights: AttentionWeights, reader: Input, wanted: Sequence[Node], components: bool) -> Standings:
    """What was asked for, or everything upstream, into one receiver input; ranks are among everything upstream."""
    found = compositions(weights, reader)
    early = [node for node in wanted if node.layer < reader.node.layer]
    if wanted and not early:
        raise UsageError(f"none of {', '.join(map(str, wanted))} is upstream of {reader}")
    whole = {(node.layer, node.head) for node in early if node.index < 0}
    senders = [node for node in found.senders(components) if not wanted or (node.layer, node.head) in whole]
    senders += [node for node in early if node.index >= 0 and node not in senders]
    return {node: Standing(**asdict(found.standing(node))) for node in senders}
