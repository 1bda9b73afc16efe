"""The graph of a transformer, as plain records: what writes into the residual stream, and what reads from it.

The terms are those of the mathematical framework for transformer circuits (Elhage et al. 2021): the residual stream is
a sum of terms, a *node* writes one of them, a *receiver input* reads the sum through a norm.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

NodeKind = Literal["embed", "head", "mlp", "resid", "logits"]
Port = Literal["q", "k", "v", "in"]
#: the inputs of a head
QKV: tuple[Port, ...] = ("q", "k", "v")

#: which run is patched: the clean one with terms of the corrupt run, or the other way round
Direction = Literal["noise", "denoise"]

#: what a replaced term becomes: that of the other run, a mean over prompts, or zero
Ablation = Literal["corrupt", "mean", "zero"]


class Node(NamedTuple):
    """A writer of one term of the residual stream, or `logits`, which only reads.

    `resid` is the stream as it enters a layer: the sum of all terms written before. The last one enters the final norm.
    `index` picks a singular component of a head's output or a neuron of an MLP; -1 means the whole node.
    """

    kind: NodeKind
    layer: int = -1
    head: int = -1
    index: int = -1  # type: ignore[assignment]

    def __str__(self) -> str:
        if self.kind not in _PREFIX:
            return self.kind
        name = f"{_PREFIX[self.kind]}{self.layer}{f'.{self.head}' if self.kind == 'head' else ''}"
        return f"{name}[{self.index}]" if self.is_part else name

    @property
    def is_part(self) -> bool:
        """Whether it is a singular component of a head or a neuron of an MLP."""
        return self.index >= 0

    @property
    def whole(self) -> Node:
        """The head or MLP that it is a part of, or the node itself."""
        return Node(self.kind, self.layer, self.head) if self.is_part else self

    def stage(self, parallel: bool = False) -> float:
        """Order along the residual stream: a node may only send to nodes of a later stage.

        An MLP comes after the heads of its layer, or beside them in parallel-attention models.
        """
        if self.kind in ("head", "mlp"):
            return 2 * self.layer + (self.kind == "mlp" and not parallel)
        if self.kind == "resid":
            return 2 * self.layer - 1
        return -1 if self.kind == "embed" else float("inf")

    @property
    def known_after(self) -> int:
        """The layer after which all of it is written; -1 for what stands before the first."""
        return self.layer - (self.kind == "resid")

    def holds(self, other: Node) -> bool:
        """Whether it is a residual stream in which another node's term is: one that is written before its layer."""
        return self.kind == "resid" and self != other != LOGITS and other.known_after < self.layer


_PREFIX = {"head": "", "mlp": "m", "resid": "resid"}
EMBED = Node("embed")
LOGITS = Node("logits")


class Input(NamedTuple):
    """A receiver input: `q`, `k` or `v` of a head; `in` of an MLP or of the logits."""

    node: Node
    port: Port

    def __str__(self) -> str:
        return str(self.node) if self.port == "in" else f"{self.node}.{self.port}"


class Position(NamedTuple):
    """A position the task names, with an offset in tokens; `*` stands for every position."""

    name: str
    offset: int = 0

    def __str__(self) -> str:
        return self.name if not self.offset else f"{self.name}{self.offset:+d}"


Positions = tuple[Position, ...]

EVERYWHERE = Position("*")


class Edge(NamedTuple):
    """(sender, receiver input, position): the term as written there and read there."""

    sender: Node
    receiver: Input
    position: Position

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver} at {self.position}"


class Site(NamedTuple):
    """A node at one position: what a knock-out replaces."""

    node: Node
    position: Position
