"""Scored edges as the JSON of EAP-IG, which the circuit track of MIB exchanges.

    {"cfg":   {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": false, "d_model": 768},
     "nodes": {"input": {"in_graph": true}, "a9.h9": {"in_graph": true, "score": 0.2}, …},
     "edges": {"input->a0.h0<q>": {"score": 0.01, "in_graph": true}, "a0.h0->m0": …, "m11->logits": …}}

`input` is the embedding, `a9.h9` the head 9.9, `m3` the MLP m3, `<q>` the input .q.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from circuitdsl.brief import quoted
from circuitdsl.circuit.nodes import EMBED, Input, Node
from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.errors import UsageError
from circuitdsl.interop.exchange import is_number, read_json, wrong_of
from circuitdsl.visible import json_text

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Scored:
    """A score for each edge of a model's whole graph, or for each node.

    Attributes:
        scores: of the edges, in the graph's order; more is more important, below 0 works against the behaviour.
        kept: the edges of the circuit that the file gives.
        nodes: scores of the nodes, where it has these.
        edges_scored: whether edges have scores of their own.
        found: the share of resamples of the prompts in which an edge is one of the circuit; empty where not asked.
        d_model: 0 where it is not known.
        about: where the scores come from.
        always: the nodes of every circuit, where nodes alone are scored: those that are named without a score (EAP-IG).
    """

    graph: WholeGraph
    scores: Float[Array, " edges"]
    kept: Bool[Array, " edges"]
    nodes: Mapping[Node, float] = field(default_factory=dict)
    edges_scored: bool = True
    d_model: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    found: Float[Array, " edges"] | tuple[()] = ()
    always: frozenset[Node] = frozenset()

    def top(self, many: int, absolute: bool = False) -> Bool[Array, " edges"]:
        """The edges with the highest scores (the largest, whatever their sign), those on no way taken out.

        Where nodes alone are scored, these are the edges between so many nodes.
        """
        return self.graph.connected(self.first(many, absolute))

    def first(self, many: int, absolute: bool = False) -> Bool[Array, " edges"]:
        """The same with those on no way."""
        if self.edges_scored:
            return self.graph.highest(np.abs(self.scores) if absolute else self.scores, many)
        ranked = sorted(self.nodes, key=lambda node: -abs(self.nodes[node]) if absolute else -self.nodes[node])
        return self.graph.between(self.always.union(ranked[:many]))

    @property
    def items(self) -> int:
        """How many edges, or nodes, have a score."""
        return len(self.scores) if self.edges_scored else len(self.nodes)


def name_of_node(node: Node) -> str:
    """`input`, `a9.h9`, `m3`, `logits`"""
    if node.kind == "head":
        return f"a{node.layer}.h{node.head}"
    return "input" if node == EMBED else str(node)


def name_of_edge(sender: Node, to: Input) -> str:
    """`a0.h0->a1.h2<q>`"""
    port = "" if to.port == "in" else f"<{to.port}>"
    return f"{name_of_node(sender)}->{name_of_node(to.node)}{port}"


def names_of(graph: WholeGraph) -> dict[str, int]:
    """The number of each edge by its name."""
    return {name_of_edge(sender, to): i for i, (sender, to) in enumerate(graph.edges)}


def refuse_another(path: Path, graph: WholeGraph, model: str, own: WholeGraph) -> None:
    """Raise `UsageError` where a file is about another graph than a model's own."""
    if graph != own:
        raise UsageError(
            f"{path}: it is about {graph}, and {model} is {own}", hint="name the model that it was made for"
        )


def read(path: Path, model: str = "", shape: WholeGraph | None = None) -> Scored:
    """Read such a file.

    Args:
        model: what the file is to be about, with its `shape`.

    Raises:
        UsageError: it cannot be read, is a pickle, is of another model, names what the model does not have, or gives a
            score that is no number.
    """

    wrong = wrong_of(path)
    saved = "load it with EAP-IG where you trust it, and save it with graph.to_json"
    given = read_json(path, "EAP-IG, MIB or circuitdsl", saved)
    if isinstance(given, dict) and "links" in given:
        raise wrong("it is an attribution graph, whose nodes are features", "give its dictionaries: --dictionary DIR")
    if not isinstance(given, dict) or not all(isinstance(given.get(key), dict) for key in ("cfg", "nodes", "edges")):
        raise wrong("it needs `cfg`, `nodes` and `edges`, each an object", "graph.to_json of EAP-IG writes such a file")
    graph, width = _graph(given["cfg"], wrong)
    if shape is not None:
        refuse_another(path, graph, model, shape)
    scores, kept = np.zeros(len(graph)), np.zeros(len(graph), bool)
    numbers, scored = names_of(graph), False
    for name, values in given["edges"].items():
        if name not in numbers:
            raise wrong(f"there is no edge {quoted(name)} in {graph}")
        score, inside = _values(name, values, wrong)
        scored |= score is not None
        scores[numbers[name]], kept[numbers[name]] = score or 0.0, inside
    nodes = dict[Node, float]()
    by_name = {name_of_node(node): node for node in graph.senders}
    chosen, always = set[Node](), set[Node]()
    for name, values in given["nodes"].items():
        if name not in by_name and name != "logits":
            raise wrong(f"there is no node {quoted(name)} in {graph}")
        score, inside = _values(name, _without_nan(values), wrong)
        node = by_name.get(name)
        if node and score is not None:
            nodes[node] = score
        elif node:
            always.add(node)
        if node and inside:
            chosen.add(node)
    if not scored and not nodes and not kept.any() and not chosen:
        raise wrong("neither edges nor nodes have a score, and none is in the graph")
    if not given["edges"]:
        kept = graph.between(chosen)
    if EMBED not in nodes:
        always.add(EMBED)
    scored &= bool(scores.any()) or not nodes  # files about nodes may give every edge the score 0
    about = given.get("about")
    known = about if isinstance(about, dict) else {}
    return Scored(graph, scores, kept, nodes, scored, width, known, always=frozenset(always))


def _graph(cfg: Mapping[str, Any], wrong: Any) -> tuple[WholeGraph, int]:
    layers, heads = cfg.get("n_layers"), cfg.get("n_heads")
    if type(layers) is not int or type(heads) is not int or not (0 < layers <= 4096 and 0 < heads <= 4096):
        raise wrong("`cfg` needs `n_layers` and `n_heads`, numbers from 1 to 4096")
    if (3 * heads + 1) * layers * (heads + 1) * layers > 2**28:
        raise wrong(f"{layers} layers of {heads} heads have more edges than are read")
    parallel, width = cfg.get("parallel_attn_mlp", False), cfg.get("d_model", 0)
    if type(parallel) is not bool:
        raise wrong(f"`parallel_attn_mlp` is true or false, not {quoted(repr(parallel))}")
    return WholeGraph(layers, heads, parallel), width if type(width) is int else 0


def _values(name: str, values: Any, wrong: Any) -> tuple[float | None, bool]:
    """The score, and whether it is in the graph."""
    if not isinstance(values, dict):
        raise wrong(f"{quoted(name)} needs an object with `score` and `in_graph`")
    score = values.get("score")
    if score is not None and not is_number(score):
        raise wrong(f"the score of {quoted(name)} is {quoted(repr(score))}; a score is a finite number")
    return score, values.get("in_graph") is True


def _without_nan(values: Any) -> Any:
    """The values of a node; EAP-IG writes NaN for a node that has no score."""
    score = values.get("score") if isinstance(values, dict) else None
    return {**values, "score": None} if isinstance(score, float) and math.isnan(score) else values


def text_of(found: Scored) -> str:
    """The JSON of scored edges; nodes are in the graph where an edge of theirs is."""
    graph, inputs, senders = found.graph, *found.graph.ends
    there = {graph.senders[i] for i in senders[found.kept]} | {graph.inputs[i].node for i in inputs[found.kept]}
    nodes: dict[str, dict[str, Any]] = {}
    for node in (*graph.senders, graph.inputs[-1].node):
        nodes[name_of_node(node)] = {"in_graph": node in there}
        if node in found.nodes:
            nodes[name_of_node(node)]["score"] = found.nodes[node]
    edges: dict[str, dict[str, Any]] = {
        name: {"score": float(found.scores[i]), "in_graph": bool(found.kept[i])} for name, i in names_of(graph).items()
    }
    for each, share in zip(edges.values(), found.found, strict=False):
        each["found"] = float(share)
    sizes = {"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel_attn_mlp": graph.parallel}
    cfg = sizes | ({"d_model": found.d_model} if found.d_model else {})
    about = {"about": dict(found.about)} if found.about else {}
    return json_text({"cfg": cfg, **about, "nodes": nodes, "edges": edges}, allow_nan=False) + "\n"
