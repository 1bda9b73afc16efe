"""Circuits of the leaderboards as specs, and specs as such circuits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import Input, Node, Port
from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.discover.asked import circuit_of, opening
from circuitdsl.discover.groups import KEYWORDS
from circuitdsl.errors import UserError
from circuitdsl.interop.mib import Scored
from circuitdsl.language.format import format_text

Array = np.ndarray
Nodes = frozenset[Node]


@dataclass(frozen=True, slots=True)
class Together:
    """Edges that stand in one line: every sender into every receiver."""

    senders: Nodes
    receivers: Nodes
    port: Port


def chosen(found: Scored, top: int | None = None, threshold: float | None = None) -> tuple[Bool[Array, " edges"], int]:
    """The edges that a spec is made of: those with the largest scores, or those that the file itself keeps.

    Args:
        top: so many edges (of nodes alone: between so many nodes).
        threshold: edges (nodes) whose scores are at least so large.

    Returns:
        The edges that are on a way to the logits, and how many there are with those on none.

    Raises:
        UserError: no edge is left.
    """
    if threshold is not None:
        values = found.scores if found.edges_scored else np.asarray(list(found.nodes.values()))
        top = int((np.abs(values) >= threshold).sum())
    every = found.kept if top is None else found.first(top, absolute=True)
    kept = found.graph.connected(every)
    if not kept.any():
        why = "no edge of the file is in the graph" if top is None else "these edges are on no way to the logits"
        raise UserError(f"there is nothing to import: {why}", hint="give a larger --top, or a smaller --threshold")
    return kept, int(every.sum())


def spec_of(
    graph: WholeGraph, kept: Bool[Array, " edges"], model: str, task: str, metric: str, name: str, said: str
) -> str:
    """A spec that claims of each of these edges that it matters, in as few lines as their sets take.

    Args:
        task, metric: as in a spec.
        said: a note of where the edges come from.
    """
    lines = opening(model, name, metric, task, 256, 0, [said])
    together = list(_sets(graph, kept))
    names = _names(each for one in together for each in (one.senders, one.receivers))
    groups = [f"{KEYWORDS[min(nodes).kind]} {name} = {_listed(nodes)} at *" for nodes, name in names.items()]
    claims = []
    for one in together:
        receivers = names.get(one.receivers) or _listed(one.receivers)
        port = "" if one.port == "in" else f".{one.port}"
        claims.append(f"{names.get(one.senders) or _listed(one.senders)} -> {receivers}{port} at * : matters")
    alone = "expect faithfulness(keep = edges, ablate = corrupt, positions = all) >= 0%"
    text = "\n".join([*lines, "", *groups, "", *claims, "", alone, ""])
    circuit_of(lines)
    return format_text(text)


def _sets(graph: WholeGraph, kept: Bool[Array, " edges"]) -> Iterator[Together]:
    """The edges in sets: by the kind of their senders and by the input, receivers with the same senders together."""
    senders_of: dict[Input, set[Node]] = {}
    for (sender, to), there in zip(graph.edges, kept, strict=True):
        if there:
            senders_of.setdefault(to, set()).add(sender)
    found: dict[tuple[Nodes, Port, str], set[Node]] = {}
    for to, senders in senders_of.items():
        for kind in dict.fromkeys(node.kind for node in graph.senders):
            if some := frozenset(node for node in senders if node.kind == kind):
                found.setdefault((some, to.port, to.node.kind), set()).add(to.node)
    for (some, port, _), receivers in found.items():
        yield Together(some, frozenset(receivers), port)


def _names(sets: Iterable[Nodes]) -> Mapping[Nodes, str]:
    """Names for the sets of several nodes: the layers that they are in, and a number."""
    found: dict[Nodes, str] = {}
    for nodes in sets:
        if len(nodes) > 1 and nodes not in found:
            layers = sorted({node.layer for node in nodes})
            where = f"{layers[0]}" if len(layers) == 1 else f"{layers[0]}_{layers[-1]}"
            start = f"{'l' if min(nodes).kind == 'head' else 'm'}{where}"
            known = sum(name.startswith(f"{start}_") for name in found.values())
            found[nodes] = f"{start}_{_letters(known)}"
    return found


def _letters(number: int) -> str:
    """`a` … `z`, `aa` …"""
    more, last = divmod(number, 26)
    return (_letters(more - 1) if more else "") + chr(ord("a") + last)


def _listed(nodes: Collection[Node]) -> str:
    return " ".join(map(str, sorted(nodes)))


def of_spec(circuit: Circuit, graph: WholeGraph, d_model: int = 0) -> Scored:
    """The edges that a circuit claims to be there, at whatever position, each with the score 1; all others with 0.

    Parts of heads and MLPs stand for the whole.

    Raises:
        UserError: the circuit has no edge.
    """
    pairs = {(edge.sender.whole, edge.receiver) for edge in circuit.own_edges()}
    kept = np.asarray([pair in pairs for pair in graph.edges])
    if not kept.any():
        raise UserError(f"{circuit.name} claims no edge, and such a file is a list of edges")
    about = {"spec": circuit.name, "model": str(circuit.model.name) if circuit.model else ""}
    return Scored(graph, kept.astype(float), kept, d_model=d_model, about=about)
