"""What of whole runs is kept for those who read it. Runs go no further up than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import inf

from circuitdsl.circuit.crossing import writings
from circuitdsl.circuit.nodes import EMBED, LOGITS, Ablation, Node, is_inside

Nodes = frozenset[Node]
Layers = frozenset[int]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of the clean and of the corrupt run of some prompts.

    Attributes:
        clean, corrupt: nodes whose values are kept: `Node("head", 3)` for all heads of layer 3, a whole MLP, `embed`, a
            residual stream, a neuron, and `logits` for the residual stream at END. Those of the corrupt run are among
            those of the clean one, from which they are copied where the prompts do not differ yet.
        resid_pre, mlp_in, q, k, v: layers of which the clean run keeps these (see `engine.terms.Cache`).
    """

    clean: Nodes = frozenset()
    corrupt: Nodes = frozenset()
    resid_pre: Layers = frozenset()
    mlp_in: Layers = frozenset()
    q: Layers = frozenset()
    k: Layers = frozenset()
    v: Layers = frozenset()

    def __post_init__(self) -> None:
        if not self.corrupt <= self.clean:
            raise ValueError("what is kept of the corrupt run is kept of the clean one as well")

    def __or__(self, other: Kept) -> Kept:
        return Kept(*(getattr(self, each.name) | getattr(other, each.name) for each in fields(self)))

    def covers(self, other: Kept) -> bool:
        """Whether it keeps all that another keeps."""
        return self | other == self

    @property
    def clean_steps(self) -> float:
        """How many steps the clean run makes.

        A layer has three: queries, keys and values; what the heads write; what the MLP writes.
        """
        inputs = (3 * layer for layer in self.resid_pre)
        projected = (3 * layer + 1 for layer in self.q | self.k | self.v)
        middle = (3 * layer + 2 for layer in self.mlp_in)
        return max((_steps(self.clean), *inputs, *projected, *middle))

    @property
    def corrupt_steps(self) -> float:
        """How many steps the corrupt run makes."""
        return _steps(self.corrupt)

    def share(self, n_layers: int) -> float:
        """What both runs go through together, in whole models."""
        return sum(min(1.0, steps / (3 * n_layers)) for steps in (self.clean_steps, self.corrupt_steps))


def _steps(nodes: Nodes) -> float:
    """How many steps of a run it takes to know what some nodes write."""
    steps = {"embed": 0.0, "logits": inf}
    behind = ("mlp", "resid")
    found = (steps.get(node.kind, 3 * node.known_after + 2 + (node.kind in behind)) for node in nodes)
    return max(found, default=0.0)


def everything(n_layers: int, neurons: Nodes = frozenset()) -> Kept:
    """All of both runs; of the neurons and the residual streams, those that are named."""
    layers = frozenset(range(n_layers))
    wholes = {node for layer in layers for node in (Node("head", layer), Node("mlp", layer))}
    nodes = frozenset({EMBED, LOGITS, *wholes, *neurons})
    return Kept(nodes, nodes, layers, layers, layers, layers, layers)


def values(*nodes: Node) -> Nodes:
    """What is kept to know the terms of nodes: for a neuron or a feature, the value of the whole as well."""
    parts = [part for node in nodes for part in writings(node)]
    return frozenset(Node(part.kind, part.layer) for part in parts) | set(filter(is_inside, parts))


@lru_cache
def replacing(nodes: tuple[Node, ...], ablate: Ablation = "corrupt") -> Kept:
    """What is needed to put another term in the place of what nodes write.

    Of neurons and features the corrupt ones too: in a run beside it, the whole MLP or stream may be replaced by those.
    """
    return Kept(values(*nodes), values(*(node for node in nodes if ablate == "corrupt" or is_inside(node))))


@lru_cache
def recomputed(entry: int, upto: int, n_layers: int) -> Kept:
    """What patched runs take from the clean run that they share all with below a layer, which they enter at.

    Args:
        entry: that layer; -1 where the embedding changes, the number of layers where only the logits' input does.
        upto: the last layer that is looked at; the number of layers where logits are read.
    """
    if entry > upto:
        return Kept()
    own = frozenset(range(max(entry, 0), min(entry + 1, n_layers)))  # nothing below or above all layers
    after = frozenset(layer + 1 for layer in own)
    above = own | frozenset(range(max(entry, 0), min(upto + 1, n_layers)))
    nodes = values(*(Node("head", layer) for layer in own), *(Node("mlp", layer) for layer in own))
    nodes |= {EMBED} if entry < 0 else frozenset()
    nodes |= {LOGITS} if max(upto, *after, entry) >= n_layers else frozenset()
    return Kept(nodes, resid_pre=own | (after - {n_layers}), mlp_in=own, q=own, k=above, v=above)


def received(readers: Nodes, upto: int, n_layers: int) -> Kept:
    """What patched runs take from the clean run where something else is sent to some nodes; see `recomputed`."""
    first = min(n_layers if node == LOGITS else node.known_after for node in readers)
    return recomputed(first, upto, n_layers) | Kept(values(*(node for node in readers if node.kind in ("mlp", "mid"))))


def through_mlps(first: int, last: int) -> Kept:
    """What is needed to follow a change through the MLPs of some layers."""
    layers = frozenset(range(max(first, 0), last + 1))
    return Kept(values(*(Node("mlp", layer) for layer in layers)), mlp_in=layers)


def on_the_way(nodes: Nodes) -> Kept:
    """What is needed to compute what nodes write when a change comes to them."""
    heads, mlps = (frozenset(n.layer for n in nodes if n.kind in kinds) for kinds in (["head"], ["mlp", "mid"]))
    return Kept(values(*nodes), resid_pre=heads, mlp_in=mlps, q=heads, k=heads, v=heads)


def attention_of(heads: Sequence[Node]) -> Kept:
    """What the patterns of heads are made of."""
    layers = frozenset(head.layer for head in heads)
    return Kept(q=layers, k=layers)
