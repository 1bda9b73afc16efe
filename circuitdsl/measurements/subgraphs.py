"""Circuits of nodes or edges, made from one another: alone, without some nodes, of the same shape."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from circuitdsl.circuit.claims import Membership
from circuitdsl.circuit.nodes import EVERYWHERE, Ablation, Edge, Input, Node, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.measurements.requests import Subgraph

RANDOM_SUBSETS = 10
RANDOM_CIRCUITS = 100

Nodes = frozenset[Node]


def alone(whole: Membership, keep: Literal["nodes", "edges"], ablate: Ablation, everywhere: bool) -> Subgraph:
    """The circuit with everything outside it ablated; at its own positions, or at all."""
    sites, edges = whole.sites, whole.edges
    if everywhere:
        sites = frozenset(Site(site.node, EVERYWHERE) for site in sites)
        edges = frozenset(replace(edge, position=EVERYWHERE) for edge in edges)
    if keep == "nodes":
        return Subgraph("nodes", sites=sites, mlps=whole.mlps, ablate=ablate)
    return Subgraph("edges", edges=edges, mlps=whole.mlps, ablate=ablate)


def without(circuit: Subgraph, nodes: Nodes) -> Subgraph:
    """The circuit less some of its nodes, or the edges at them."""
    return replace(
        circuit,
        sites=frozenset(site for site in circuit.sites if site.node not in nodes),
        edges=frozenset(edge for edge in circuit.edges if not _touches(edge, nodes)),
    )


def model_without(circuit: Subgraph, nodes: Nodes) -> Subgraph:
    """The whole model less the same."""
    return replace(
        circuit,
        inverted=True,
        sites=frozenset(site for site in circuit.sites if site.node in nodes),
        edges=frozenset(edge for edge in circuit.edges if _touches(edge, nodes)),
    )


def _touches(edge: Edge, nodes: Nodes) -> bool:
    return edge.sender in nodes or edge.sender.whole in nodes or edge.receiver.node in nodes


def members(circuit: Subgraph) -> tuple[Node, ...]:
    """The heads and MLPs of a circuit."""
    ends = (node for edge in circuit.edges for node in (edge.sender, edge.receiver.node))
    found = {site.node for site in circuit.sites} | {node for node in ends if node.kind in ("head", "mlp")}
    return tuple(sorted(found))


def groups(whole: Membership, circuit: Subgraph) -> dict[str, Nodes]:
    """The groups by name, as far as they are part of the circuit; each set of nodes once."""
    inside = frozenset(members(circuit))
    found: dict[Nodes, str] = {}
    for name, sites in whole.groups.items():
        nodes = frozenset(site.node for site in sites) & inside
        if nodes:
            found.setdefault(nodes, name)
    return {name: nodes for nodes, name in found.items()}


def subsets(whole: Membership, circuit: Subgraph) -> dict[str, Nodes]:
    """What incompleteness takes out: the groups, then random subsets; always the same ones for a circuit."""
    found = groups(whole, circuit)
    nodes = members(circuit)
    rng = random.Random(" ".join(map(str, nodes)))
    known = set(found.values())
    for _ in range(10 * RANDOM_SUBSETS):
        drawn = frozenset(node for node in nodes if rng.random() < 0.5)
        if drawn and drawn not in known:
            known.add(drawn)
            found[" ".join(str(node) for node in sorted(drawn))] = drawn
        if len(known) == len(groups(whole, circuit)) + RANDOM_SUBSETS:
            break
    return found


def contexts(node: Node, sets: Mapping[str, Nodes]) -> dict[str, Nodes]:
    """What is taken out before a node is, for minimality: nothing, and every group without the node."""
    found: dict[Nodes, str] = {frozenset(): ""}
    for name, nodes in sets.items():
        found.setdefault(nodes - {node}, f"{name} without {node}" if node in nodes else name)
    return {name: nodes for nodes, name in found.items()}


def random_circuits(circuit: Subgraph, shape: ModelShape) -> tuple[Subgraph, ...]:
    """Independent draws of circuits of the same shape, the circuit itself left out; may repeat.

    None where every circuit of this shape is the same one.
    """
    rng = random.Random(f"{sorted(circuit.sites)} {sorted(circuit.edges)}")
    found: list[Subgraph] = []
    for _ in range(20 * RANDOM_CIRCUITS):
        drawn = _exchanged(circuit, _permutation(shape, rng))
        if drawn != circuit:
            found.append(drawn)
        if len(found) == RANDOM_CIRCUITS:
            break
    return tuple(found)


def _permutation(shape: ModelShape, rng: random.Random) -> dict[Node, Node]:
    """The heads of every layer exchanged among themselves."""
    swap: dict[Node, Node] = {}
    for layer in range(shape.n_layers):
        heads = [Node("head", layer, head) for head in range(shape.n_heads)]
        swap |= zip(heads, rng.sample(heads, len(heads)), strict=True)
    return swap


def _exchanged(circuit: Subgraph, swap: Mapping[Node, Node]) -> Subgraph:
    def of(node: Node) -> Node:
        return replace(swap.get(node.whole, node.whole), index=node.index)

    edges: Iterable[Edge] = circuit.edges
    return replace(
        circuit,
        sites=frozenset(Site(of(site.node), site.position) for site in circuit.sites),
        edges=frozenset(Edge(of(e.sender), Input(of(e.receiver.node), e.receiver.port), e.position) for e in edges),
    )
