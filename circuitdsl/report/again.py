"""How often the parts of a circuit are found again in resamples of the prompts, as `discover --found` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from circuitdsl.circuit.nodes import Edge, Node, Position, Site
from circuitdsl.errors import UsageError
from circuitdsl.ordinary import Unreadable, read_ordinary

#: bytes of a file that is read
LARGEST = 2**26
K = TypeVar("K")


@dataclass(frozen=True)
class Again:
    """The shares of resamples that find a node or an edge again; what is not here was not looked for.

    Attributes:
        nodes: by node and position, as a spec writes them.
        edges: by sender, receiver input and position.
    """

    nodes: Mapping[tuple[str, str], float] = field(default_factory=dict)
    edges: Mapping[tuple[str, str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Mapping[Site, float], edges: Mapping[Edge, float]) -> Again:
        """Those of nodes at places and of edges."""
        of_nodes = {(str(site.node), str(site.position)): share for site, share in sorted(nodes.items())}
        return cls(of_nodes, {_key(edge): share for edge, share in sorted(edges.items())})

    def of_edges(self, edges: Iterable[Edge]) -> float | None:
        """The share of those edges that were looked for, on the average; None where none was."""
        return _average(self.edges, map(_key, edges))

    def of_node(self, node: Node, positions: Iterable[Position | str]) -> float | None:
        """The share of a node, on the average of those positions at which it was looked for; None where at none."""
        return _average(self.nodes, ((str(node), str(place)) for place in positions))

    def to_json(self) -> dict[str, Any]:
        edges = ("sender", "receiver", "position", "found")
        return {
            "nodes": [{"node": node, "position": at, "found": share} for (node, at), share in self.nodes.items()],
            "edges": [dict(zip(edges, (*key, share), strict=True)) for key, share in self.edges.items()],
        }


def _key(edge: Edge) -> tuple[str, str, str]:
    return str(edge.sender), str(edge.receiver), str(edge.position)


def _average(shares: Mapping[K, float], keys: Iterable[K]) -> float | None:
    known = [shares[key] for key in keys if key in shares]
    return sum(known) / len(known) if known else None


def read_again(path: Path) -> Again:
    """Read such a file; raises `UsageError` where it is none."""
    try:
        given = json.loads(read_ordinary(path, LARGEST))
        found = given["again"]
        nodes = {(str(one["node"]), str(one["position"])): _share(one) for one in found["nodes"]}
        edges = {(str(e["sender"]), str(e["receiver"]), str(e["position"])): _share(e) for e in found["edges"]}
    except Unreadable as error:
        raise UsageError(f"{path}: {error}", hint="give a file of discover --found") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"{path} does not say how often parts of a circuit are found again", hint="give a file of discover --found"
        ) from None
    return Again(nodes, edges)


def _share(given: Any) -> float:
    """A share between 0 and 1; raises `ValueError` or `TypeError` for anything else."""
    value = float(given["found"])
    if not 0 <= value <= 1:
        raise ValueError
    return value
