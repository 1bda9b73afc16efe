"""Attribution graphs as the JSON of circuit-tracer and Neuronpedia.

    {"metadata": {"scan": "gemma-2-2b", "prompt": "…", "prompt_tokens": ["<bos>", "The", …]},
     "nodes": [{"node_id": "3_41_7", "feature": 1031, "layer": "3", "ctx_idx": 7, "activation": 2.5,
                "feature_type": "cross layer transcoder"}, …],
     "links": [{"source": "3_41_7", "target": "27_1010_9", "weight": 0.31}, …]}

A feature is named `{layer}_{feature}_{position}`; its field `feature` is the Cantor pairing of its layer and number.
Beside features there are errors of a layer's dictionary, tokens (`E_{token}_{position}`), and logits, whose layer is
one more than the model has. A link's weight is what its source adds to what its target reads, on one prompt: linear,
with attention, norms and which features are on held as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from circuitdsl.brief import quoted
from circuitdsl.interop.exchange import Wrong, is_number, read_json, wrong_of

Kind = Literal["token", "feature", "error", "logit"]
#: by what stands in `feature_type`
_KINDS: Mapping[str, Kind] = {
    "cross layer transcoder": "feature",
    "transcoder": "feature",
    "mlp reconstruction error": "error",
    "embedding": "token",
    "logit": "logit",
}
_NAMED = re.compile(r"([0-9]{1,4}|E)_(-?[0-9]{1,9})_([0-9]{1,7})", re.ASCII)
_LAYER = re.compile(r"[0-9]{1,4}", re.ASCII)


class Point(NamedTuple):
    """A node of an attribution graph.

    Attributes:
        layer: -1 of a token; of a logit, the number of the model's layers.
        number: of a feature, or a token id; of an error -1.
        position: the token of the graph's prompt.
        activation: of a feature, where the file gives it.
        asked: of a logit, whether it is the graph's target.
    """

    kind: Kind
    layer: int
    number: int
    position: int
    activation: float | None = None
    asked: bool = False

    def __str__(self) -> str:
        what = {"token": "token", "feature": f"feature {self.number} of layer", "error": "the error of layer"}
        where = "" if self.kind == "token" else f" {self.layer}"
        return "a logit" if self.kind == "logit" else f"{what[self.kind]}{where} at token {self.position}"


class Link(NamedTuple):
    source: Point
    target: Point
    weight: float


@dataclass(frozen=True)
class AttributionGraph:
    """What a file says.

    Attributes:
        layers: of the model.
        tokens: the graph's prompt, token by token; empty where the file does not give it.
    """

    path: Path
    layers: int
    scan: str
    prompt: str
    tokens: tuple[str, ...]
    points: tuple[Point, ...]
    links: tuple[Link, ...]

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.tokens) or 1 + max(point.position for point in self.points)


def cantor(layer: int, index: int) -> int:
    """The number that stands for a feature of a layer.

    >>> cantor(3, 41)
    1031
    """
    return (layer + index) * (layer + index + 1) // 2 + index


def read(path: Path) -> AttributionGraph:
    """Read such a file.

    Raises:
        UsageError: it cannot be read, is a pickle, is no such graph, a feature's numbers contradict each other, a link
            goes from later to earlier, or a weight is no number.
    """
    wrong = wrong_of(path)
    saved = "load it with circuit-tracer where you trust it, and save it with create_graph_files"
    given = read_json(path, "circuit-tracer or Neuronpedia", saved)
    if not isinstance(given, dict) or not all(isinstance(given.get(key), list) for key in ("nodes", "links")):
        raise wrong(
            "it needs `nodes` and `links`, each a list", "circuit-tracer's create_graph_files writes such a file"
        )
    about = given["metadata"] if isinstance(given.get("metadata"), dict) else {}
    tokens = about.get("prompt_tokens")
    tokens = tuple(map(str, tokens)) if isinstance(tokens, list) else ()
    points: dict[str, Point] = {}
    for name, point in (_point(each, wrong) for each in given["nodes"]):
        if points.setdefault(name, point) != point:
            raise wrong(
                f"two nodes are called {name}, so that its links are ambiguous", "save it with a newer circuit-tracer"
            )
    tops = {point.layer for point in points.values() if point.kind == "logit"}
    if not tops:
        raise wrong("it has no logits, without which nothing tells which way a link works")
    if len(tops) > 1:
        raise wrong(f"its logits stand in layers {', '.join(str(top + 1) for top in sorted(tops))}, and not in one")
    (layers,) = tops
    for point in points.values():
        if point.kind != "logit" and point.layer >= layers:
            raise wrong(f"it has {point}, and its logits stand above {layers} layers")
        if tokens and point.position >= len(tokens):
            raise wrong(f"it has {point}, and its prompt has {len(tokens)} tokens")
    links = tuple(_link(each, points, wrong) for each in given["links"])
    word = {key: found if isinstance(found := about.get(key), str) else "" for key in ("scan", "prompt")}
    return AttributionGraph(path, layers, word["scan"], word["prompt"], tokens, tuple(points.values()), links)


def _point(node: Any, wrong: Wrong) -> tuple[str, Point]:
    """The name of a node, and what it is."""
    name = node.get("node_id") if isinstance(node, dict) else None
    named = _NAMED.fullmatch(name) if isinstance(name, str) else None
    if not isinstance(name, str) or named is None:
        raise wrong(f"a node is {quoted(repr(name or node))}, and nodes are named {{layer}}_{{feature}}_{{position}}")
    kind = _KINDS.get(str(node.get("feature_type")))
    if kind is None:
        known = ", ".join(_KINDS)
        raise wrong(f"{name} is of the kind {quoted(repr(node.get('feature_type')))}", f"known are {known}")
    number, position, layer = int(named[2]), int(named[3]), str(node.get("layer", named[1]))
    if node.get("ctx_idx", position) != position:
        raise wrong(f"{name} is at token {position} by its name, and at {quoted(repr(node['ctx_idx']))} by `ctx_idx`")
    if kind == "token":
        return name, Point(kind, -1, number, position)
    if not _LAYER.fullmatch(layer) or (kind == "feature" and (named[1] != layer or number < 0)):
        raise wrong(f"{name} is in layer {quoted(repr(layer))} by its field, and its name does not say so")
    if kind == "logit":
        return name, Point(kind, int(layer) - 1, number, position, asked=node.get("is_target_logit") is True)
    if kind == "error":
        return name, Point(kind, int(layer), -1, position)
    own, paired, activation = node.get("feature"), cantor(int(layer), number), node.get("activation")
    if own != paired:
        raise wrong(
            f"the field `feature` of {name} is {quoted(repr(own))}, "
            f"and the Cantor pairing of layer {layer} and feature {number} is {paired}"
        )
    if activation is not None and not is_number(activation):
        raise wrong(f"the activation of {name} is {quoted(repr(activation))}; an activation is a finite number")
    return name, Point(kind, int(layer), number, position, activation)


def _link(given: Any, points: Mapping[str, Point], wrong: Wrong) -> Link:
    start, end = (given.get(key) for key in ("source", "target")) if isinstance(given, dict) else (None, None)
    if not isinstance(start, str) or not isinstance(end, str):
        raise wrong(f"a link is {quoted(repr(given))}, and has no `source` and `target`")
    if missing := {start, end} - points.keys():
        raise wrong(f"a link names {quoted(repr(min(missing)))}, and there is no such node")
    source, target, weight = points[start], points[end], given.get("weight")
    if not is_number(weight):
        raise wrong(f"the weight of {start} -> {end} is {quoted(repr(weight))}; a weight is a finite number")
    if target.kind in ("token", "error") or source.layer >= target.layer or source.position > target.position:
        raise wrong(f"there is a link from {source} to {target}, which cannot read it")
    return Link(source, target, float(weight))
