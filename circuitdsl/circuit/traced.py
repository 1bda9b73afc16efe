"""What the traces of many prompts have in common, as a graph (sparse attention decomposition, `measure.trace`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from circuitdsl.circuit.nodes import Node

#: the token that attends, or the one that is attended to
Side = Literal["destination", "source"]


@dataclass(frozen=True, slots=True)
class Place:
    """A head at a token, which is called by its position in the task."""

    head: Node
    token: str

    def __str__(self) -> str:
        return f"{self.head} at {self.token}"


@dataclass(frozen=True, slots=True)
class Link:
    """A sender into a firing head: at the token that attends (`destination`), or the one that is attended to.

    `count` is on how many prompts, `weight` the mean of what it adds there.
    """

    sender: Place
    receiver: Place
    side: Side
    count: int
    weight: float


@dataclass(frozen=True, slots=True)
class Fired:
    """How often a head fires at a token, and how many dimensions its signal takes: mean, least, most."""

    count: int
    dimensions: float
    least: int
    most: int


@dataclass(frozen=True)
class TraceGraph:
    """The traces of one head's firings over prompts.

    Attributes:
        prompts: how many were looked at; `firings` on how many of them the head fires.
        fired: every head that fires in some trace.
        links: all senders, the most frequent first.
        parts: for each side, the mean of what all heads, the embedding and the MLPs add to the first head's signal.
        order: the tokens in the order of the prompts.
    """

    head: Node
    source: str
    target: str
    prompts: int
    firings: int
    d_head: int
    fired: Mapping[Place, Fired]
    links: tuple[Link, ...]
    parts: Mapping[Side, Mapping[str, float]]
    order: tuple[str, ...]
