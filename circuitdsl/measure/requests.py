"""What can be asked of a task's prompts: one number per prompt, as plain data that can be compared and merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circuitdsl.circuit.claims import EVERYWHERE, Edge, Metric, Node, Position, Site

Direction = Literal["noise", "denoise"]
Ablation = Literal["corrupt", "mean", "zero"]


@dataclass(frozen=True, slots=True)
class EdgeRequest:
    """The metric when these edges are patched, all in one live pass."""

    edges: tuple[Edge, ...]
    via_mlps: bool = False
    direction: Direction = "noise"

    @property
    def writes(self) -> tuple[tuple[Node, Position], ...]:
        """The terms that are replaced."""
        return tuple(dict.fromkeys((edge.sender, edge.position) for edge in self.edges))


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """The metric when these nodes are replaced, everything downstream live."""

    sites: tuple[Site, ...]
    ablate: Ablation = "corrupt"
    direction: Direction = "noise"

    @property
    def writes(self) -> tuple[tuple[Node, Position], ...]:
        """The terms that are replaced."""
        return tuple((site.node, site.position) for site in self.sites)


@dataclass(frozen=True, slots=True)
class AttentionRequest:
    """Attention of the clean run: summed over targets, averaged over sources and heads."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    target: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class BehaviourRequest:
    """A metric of the clean run."""

    metric: Metric


PatchRequest = EdgeRequest | NodeRequest
Request = EdgeRequest | NodeRequest | AttentionRequest | BehaviourRequest


def positions_of(request: Request) -> tuple[Position, ...]:
    """Every position that a request needs, but for `*`."""
    match request:
        case EdgeRequest() | NodeRequest():
            found = tuple(position for _, position in request.writes)
        case AttentionRequest(source=source, target=target):
            found = (*source, *target)
        case _:
            found = ()
    return tuple(dict.fromkeys(position for position in found if position != EVERYWHERE))
