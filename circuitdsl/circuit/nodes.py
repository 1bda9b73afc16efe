"""The graph of a transformer, as plain records: what writes into the residual stream, and what reads from it.

The terms are those of the mathematical framework for transformer circuits (Elhage et al. 2021): the residual stream is
a sum of terms, a *node* writes one of them, a *receiver input* reads the sum through a norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

NodeKind = Literal["embed", "head", "attn", "mid", "mlp", "resid", "logits"]
Port = Literal["q", "k", "v", "in"]
#: the inputs of a head
QKV: tuple[Port, ...] = ("q", "k", "v")

#: which run is patched: the clean one with terms of the corrupt run, or the other way round
Direction = Literal["noise", "denoise"]

#: what a replaced term becomes: that of the other run, a mean over prompts, or zero
Ablation = Literal["corrupt", "mean", "zero"]


#: the index of parts along a direction
ALONG = 10**9


@dataclass(frozen=True, order=True)
class Along:
    """A direction of the residual stream, as a spec names it: two with the same name and content are equal.

    Attributes:
        sha256: of `unit`.
        unit: the unit vector, numbers of 4 bytes, the lowest first.
    """

    name: str
    sha256: str
    unit: bytes = field(repr=False, compare=False)

    @property
    def width(self) -> int:
        """How many numbers it has."""
        return len(self.unit) // 4


class Node(NamedTuple):
    """A writer of one term of the residual stream, or `logits`, which only reads.

    `resid` is the stream as it enters a layer: the sum of all terms written before. The last one enters the final norm.
    Of `attn`, what the heads of a layer write together, and of `mid`, the stream behind them, only features are named.
    `index` picks a singular component of a head's output, a neuron of an MLP or, of the dictionary that `of` names (see
    `dictionaries.known`), a feature of an MLP or a stream; `ERROR` is what its features leave. -1 means the whole node.
    `ALONG` means the part of the node's term along a direction.
    `reads` is set for the features of a cross-layer transcoder: the layer at which they are encoded, from which on they
    write into every MLP. With that as its layer it is the feature, with a later one what it writes there.
    """

    kind: NodeKind
    layer: int = -1
    head: int = -1
    index: int = -1  # type: ignore[assignment]
    of: str = ""
    along: Along | None = None
    reads: int = -1

    def __repr__(self) -> str:
        """Fields that are seldom set are shown where they are: numbers are kept under such texts, and nulls drawn."""
        own = f"kind={self.kind!r}, layer={self.layer!r}, head={self.head!r}, index={self.index!r}"
        more = "".join(f", {name}={getattr(self, name)!r}" for name in ("of", "along") if getattr(self, name))
        more += f", reads={self.reads!r}" if self.crosses else ""
        return f"Node({own}{more})"

    def __str__(self) -> str:
        if self.of:
            return f"{self.of.partition('#')[0]}[{'error' if self.index == ERROR else self.index}]"
        name: str = _SUMS[self.kind].format(self.layer) if self.kind in _SUMS else self.kind
        if self.kind in _PREFIX:
            name = f"{_PREFIX[self.kind]}{self.layer}{f'.{self.head}' if self.kind == 'head' else ''}"
        return f"{name}[{self.along.name if self.along else self.index}]" if self.is_part else name

    @property
    def is_part(self) -> bool:
        """Whether it is a singular component, a neuron, a feature, or the part of a node along a direction."""
        return self.index >= 0

    @property
    def crosses(self) -> bool:
        """Whether it is a feature of a cross-layer transcoder."""
        return self.reads >= 0

    @property
    def whole(self) -> Node:
        """The node that it is a part of, or the node itself."""
        return Node(self.kind, self.layer, self.head) if self.is_part else self

    def overlaps(self, other: Node) -> bool:
        """Whether both are parts of one node that is divided in two ways: their terms would be counted twice."""
        parts = self != other and self.is_part and other.is_part and self.whole == other.whole
        return parts and bool(self.of != other.of or self.along or other.along)

    def stage(self, parallel: bool = False) -> float:
        """Order along the residual stream: a node may only send to nodes of a later stage.

        An MLP comes after the heads of its layer, or beside them in parallel-attention models. A residual stream, which
        holds what the MLP below has written, stands between that and the heads that read it.
        """
        if self.kind in ("head", "mlp"):
            return 2 * self.layer + (self.kind == "mlp" and not parallel)
        if self.kind in _SUMS:
            return 2 * self.layer + (0.25 if self.kind == "attn" else 0.5)
        if self.kind == "resid":
            return 2 * self.layer - 0.5
        return -1 if self.kind == "embed" else float("inf")

    @property
    def known_after(self) -> int:
        """The layer after which all of it is written; -1 for what stands before the first."""
        return self.layer - (self.kind == "resid")

    def holds(self, other: Node) -> bool:
        """Whether it is a residual stream in which another node's term is: one that is written before its layer."""
        if self.is_part or self == other or other.kind == "logits" or self.kind not in ("resid", "mid"):
            return False
        return other.known_after < self.layer or (
            self.kind == "mid" and other.layer == self.layer and other.kind not in ("mlp", "resid")
        )


def is_inside(node: Node) -> bool:
    """Whether it is a neuron or a feature: a part that has a value of its own."""
    return node.kind in ("attn", "mid", "mlp", "resid") and node.is_part and node.along is None


def is_number(node: Node) -> bool:
    """Whether its value is one number, an activation, which is computed from what it reads."""
    return is_inside(node) and node.index != ERROR


def receives(node: Node) -> bool:
    """Whether something can be sent to a part of a node: to neurons, and to features of an MLP or of the stream."""
    return is_number(node) and node.kind != "attn" and not node.crosses


#: the index of what the features of a dictionary leave
ERROR = 2**30
_PREFIX = {"head": "", "mlp": "m", "resid": "resid"}
_SUMS = {"attn": "what the heads of layer {} write together", "mid": "the stream behind the heads of layer {}"}
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
