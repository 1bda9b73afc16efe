"""`circuitdsl channels`: which heads write what a head reads, from weights alone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import positive
from circuitdsl.cli.outputs import picture
from circuitdsl.cli.specs import load_all, one_circuit
from circuitdsl.cli.terminal import console, say, status
from circuitdsl.errors import SPEC_WRONG, UsageError

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.circuit.nodes import Input, Node
    from circuitdsl.cli import Verbs
    from circuitdsl.models.weights import AttentionWeights
    from circuitdsl.report.channels import Standings

_HEAD = re.compile(r"(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})(?:\[(0|[1-9]\d{0,4})\])?")


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("channels", help="find which heads write what a head reads, from weights alone")
    verb.add_argument("source", metavar="MODEL|SPEC", help="a model's name or directory, or a spec, whose groups count")
    verb.add_argument("--to", nargs="+", required=True, metavar="HEAD.q", help="receiver inputs: 9.9.q, or mover.q")
    verb.add_argument("--from", nargs="+", dest="senders", metavar="HEAD", help="senders: 8.10, 8.6[2], a group")
    verb.add_argument("--components", action="store_true", help="single singular components instead of whole heads")
    verb.add_argument("--top", type=positive, default=20, help="how many to list (default: 20)")
    verb.add_argument("--model", help="the model of a spec, instead of its own")
    verb.add_argument("--circuit", help="which circuit, where the spec has several")
    verb.add_argument("-o", "--output", help="draw a heat map into this file: .svg or .png")
    verb.set_defaults(run=_channels)


def _channels(given: argparse.Namespace) -> int:
    from circuitdsl.diagram.formats import write_picture
    from circuitdsl.diagram.heatmap import map_of_readers, map_of_senders
    from circuitdsl.diagram.heatmap import picture as heat_map_picture
    from circuitdsl.report.channels import show_table

    target = picture(given.output)
    circuit = None
    if _is_spec(given.source):
        specs = load_all([given.source], given.model)
        if specs is None:
            return SPEC_WRONG
        circuit = one_circuit(specs[0], given.circuit)
    weights = _weights(given, circuit)
    readers = [reader for word in given.to for reader in _readers(word, circuit, weights)]
    senders = [node for word in given.senders or () for node in _nodes(word, circuit, weights)]
    found = {reader: _standings(weights, reader, senders, given.components) for reader in dict.fromkeys(readers)}
    screen = console()
    for i, (reader, standings) in enumerate(found.items()):
        if i:
            screen.print()
        show_table(screen, reader, standings, given.top)
    if target:
        name = Path(weights.name).name or weights.name
        if len(found) == 1 and not senders:
            ((reader, standings),) = found.items()
            heat_map = map_of_senders(name, reader, standings, (reader.node.layer, weights.n_heads), given.top)
        else:
            strongest = given.components and all(node.index < 0 for node in senders)
            single = strongest or (bool(senders) and all(node.index >= 0 for node in senders))
            heat_map = map_of_readers(name, *_columns(found, strongest), given.top, single)
        write_picture(heat_map_picture(heat_map), target)
        say(f"wrote {target}")
    return 0


# --- what is asked for -----------------------------------------------------------------------------


def _is_spec(source: str) -> bool:
    """Whether a name is a spec and not a model: a file, or a shipped spec that no directory hides."""
    from circuitdsl.api import shipped_specs

    path = Path(source)
    if source.endswith(".circ") or path.is_file():
        return True
    return not path.is_dir() and (shipped_specs() / f"{source}.circ").is_file()


def _weights(given: argparse.Namespace, circuit: Circuit | None) -> AttentionWeights:
    from circuitdsl.circuit.shapes import near
    from circuitdsl.models.errors import ModelUnavailable
    from circuitdsl.models.files import MODEL_FILES, MODEL_HINT
    from circuitdsl.models.weights import read_weights

    name, revision = given.model, None
    if circuit is None:
        if name is not None:
            raise UsageError("--model is for specs; here the model is named already", hint=f"{given.source} is a model")
        name = given.source
    elif name is None:
        if circuit.model is None:
            raise UsageError(f"circuit {circuit.name} names no model", hint='add a line `model "…"`, or give --model')
        name, revision = near(circuit.model.name, circuit.path), circuit.model.revision
    try:
        with status(f"reading the weights of {name}"):
            return read_weights(name, revision)
    except ModelUnavailable as error:
        if circuit is None and error.hint == MODEL_HINT:
            raise ModelUnavailable(error.message, f"name {MODEL_FILES}") from None
        raise


def _readers(word: str, circuit: Circuit | None, weights: AttentionWeights) -> list[Input]:
    from circuitdsl.circuit.nodes import Input

    base, _, port = word.rpartition(".")
    if port not in ("q", "k", "v") or not base:
        raise UsageError(f"'{word}' is no receiver input", hint="write a head or a group with .q, .k or .v: 9.9.q")
    nodes = _nodes(base, circuit, weights)
    if any(node.index >= 0 for node in nodes):
        raise UsageError(f"'{word}': a channel ends in a whole head, not in a component of its output")
    return [Input(node, port) for node in nodes]  # type: ignore[arg-type]


def _nodes(word: str, circuit: Circuit | None, weights: AttentionWeights) -> list[Node]:
    """A head, a component of one, or the heads of a group."""
    from circuitdsl.circuit.nodes import Node

    found = _HEAD.fullmatch(word)
    if found:
        node = Node("head", int(found[1]), int(found[2]), int(found[3]) if found[3] else -1)
        if node.layer >= weights.n_layers or node.head >= weights.n_heads:
            size = f"{weights.n_layers} layers of {weights.n_heads} heads"
            raise UsageError(f"{node} does not exist: {weights.name} has {size}, counted from 0")
        return [node]
    groups = {group.name: group for group in circuit.groups} if circuit else {}
    if word not in groups:
        known = f"groups: {', '.join(groups)}" if groups else "heads are written 9.9, components 8.6[2]"
        raise UsageError(f"'{word}' is neither a head nor a group", hint=known)
    heads = [node for node in groups[word].nodes if node.kind == "head"]
    if not heads:
        raise UsageError(f"the group {word} has no heads")
    return heads


# --- scores ----------------------------------------------------------------------------------------


def _standings(weights: AttentionWeights, reader: Input, wanted: Sequence[Node], components: bool) -> Standings:
    """What was asked for, or everything upstream, into one receiver input; ranks are among everything upstream."""
    from circuitdsl.engine.readers.composition import compositions
    from circuitdsl.report.report import Standing

    found = compositions(weights, reader)
    early = [node for node in wanted if node.layer < reader.node.layer]
    if wanted and not early:
        raise UsageError(f"none of {', '.join(map(str, wanted))} is upstream of {reader}")
    everything = found.senders(components)
    whole = {(node.layer, node.head) for node in early if node.index < 0}
    senders = [node for node in everything if not wanted or (node.layer, node.head) in whole]
    senders += [node for node in early if node.index >= 0 and node not in senders]
    return {node: Standing(**asdict(found.standing(node))) for node in senders}


def _columns(found: dict[Input, Standings], strongest: bool) -> tuple[dict[Input, Standings], list[Node]]:
    """Readers and the senders that any of them has; of many components, those that are the strongest of their head."""
    from circuitdsl.circuit.nodes import Node

    if strongest:
        best = {
            reader: {
                Node("head", node.layer, node.head): where
                for node, where in sorted(standings.items(), key=lambda item: item[1].composition)
            }
            for reader, standings in found.items()
        }
        found = dict(best)
    return found, sorted({node for standings in found.values() for node in standings})
