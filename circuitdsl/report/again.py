"""How often the parts of a circuit are found again in resamples of the prompts, as `discover --found` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitdsl.circuit.nodes import Edge, Node, Position
from circuitdsl.errors import UsageError
from circuitdsl.ordinary import Unreadable, read_ordinary

#: bytes of a file that is read
LARGEST = 2**26


@dataclass(frozen=True)
class Again:
    """The shares of resamples that find a node or an edge again.

    Attributes:
        nodes: by node and position, as a spec writes them.
        edges: by sender, receiver input and position.
    """

    nodes: Mapping[tuple[str, str], float]
    edges: Mapping[tuple[str, str, str], float]

    def of_edges(self, edges: Iterable[Edge]) -> float:
        """The share of some edges, on the average; an edge that was never found has 0."""
        shares = [self.edges.get((str(e.sender), str(e.receiver), str(e.position)), 0.0) for e in edges]
        return sum(shares) / max(1, len(shares))

    def of_node(self, node: Node, positions: Iterable[Position | str]) -> float:
        """The share of a node, on the average of some positions."""
        shares = [self.nodes.get((str(node), str(place)), 0.0) for place in positions]
        return sum(shares) / max(1, len(shares))


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
