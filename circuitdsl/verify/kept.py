"""How much of what could be ablated a circuit keeps: a figure of the whole circuit says little where that is all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from circuitdsl.circuit.nodes import LOGITS, Position
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.positions import token_indices
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.tasks.dataset import PromptPair


def kept_share(circuit: Subgraph, shape: ModelShape, pairs: Sequence[PromptPair]) -> float:
    """What is kept over what can be ablated, both counted token by token over all of some prompts.

    Of nodes that is every head at every token, and every MLP where the circuit ablates those it does not name. Of edges
    it is every (sender, receiver input, token) from heads to `q`, `k` and `v` of later heads and to the logits; where
    MLPs are ablated, every edge of the model. What the last layer writes and reads counts at END alone (its keys and
    values everywhere): nothing else of it reaches the logits. A part of a node counts as the node.
    """
    lengths = [len(pair.clean_tokens) for pair in pairs]

    @cache
    def tokens(names: frozenset[Position], end: bool) -> int:
        """At how many tokens some positions are, or at how many ENDs."""
        rows = token_indices(pairs, names).tolist()
        return sum(i >= 0 and (i == n - 1 or not end) for row, n in zip(rows, lengths, strict=True) for i in row)

    places: dict[tuple[object, bool], set[Position]] = {}
    for what, end, position in _kept(circuit, shape):
        places.setdefault((what, end), set()).add(position)
    kept = sum(tokens(frozenset(names), end) for (_, end), names in places.items())
    return kept / sum(count * (len(pairs) if end else sum(lengths)) for count, end in _units(circuit, shape))


def _kept(circuit: Subgraph, shape: ModelShape) -> Iterator[tuple[object, bool, Position]]:
    """What a circuit keeps of what can be ablated: (node or edge, whether it counts at END alone, position)."""
    last = shape.n_layers - 1
    for site in circuit.sites:
        yield site.node.whole, site.node.layer == last, site.position
    for edge in circuit.edges:
        node, port = edge.receiver.node, edge.receiver.port
        if circuit.mlps or (edge.sender.kind == "head" and node.kind != "mlp"):
            end = node == LOGITS or (node.layer == last and port not in ("k", "v"))
            yield (edge.sender.whole, edge.receiver), end, edge.position


def _units(circuit: Subgraph, shape: ModelShape) -> Iterator[tuple[int, bool]]:
    """How many nodes or edges can be ablated, layer by layer and by receiver, and whether that is at END alone."""
    heads, mlps = shape.n_heads, int(circuit.mlps)
    for layer in range(shape.n_layers):
        before, end = layer * (heads + mlps) + mlps, layer == shape.n_layers - 1  # with `embed`, where MLPs count
        if circuit.keep == "nodes":
            yield heads + mlps, end
            continue
        yield heads * before, end  # q
        yield 2 * heads * before, False  # k and v
        yield mlps * (before + (0 if shape.parallel else heads)), end
    if circuit.keep != "nodes":
        yield shape.n_layers * (heads + mlps) + mlps, True
