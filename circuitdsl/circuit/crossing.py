"""Features of cross-layer transcoders: what one of them writes into the MLPs of its own layer and of all later ones."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from circuitdsl.circuit.nodes import Edge, Node, Site
from circuitdsl.dictionaries.known import known


@lru_cache(maxsize=2**12)
def writings(node: Node) -> tuple[Node, ...]:
    """The parts of MLPs that a feature writes, one in each layer; of every other node, itself."""
    if not node.crosses:
        return (node,)
    layers = (hook.layer for hook in known(node.of).dictionary.writes)
    return tuple(node._replace(layer=layer) for layer in layers)


def written_before(edges: Iterable[Edge], parallel: bool) -> list[Edge]:
    """The edges from all that their senders write before the receiver reads."""
    return [
        edge._replace(sender=part)
        for edge in edges
        for part in writings(edge.sender)
        if part.stage(parallel) < edge.receiver.node.stage(parallel)
    ]


def written_at(sites: Iterable[Site]) -> list[Site]:
    """All that nodes write at their positions."""
    return [site._replace(node=part) for site in sites for part in writings(site.node)]


def of_one_set(one: Node, other: Node) -> bool:
    """Whether two features are of different layers of one cross-layer transcoder: what they write adds up."""
    if not (one.crosses and other.crosses) or one.reads == other.reads:
        return False
    return known(one.of).dictionary.crossing == known(other.of).dictionary.crossing
