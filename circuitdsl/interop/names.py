"""Nodes and inputs by the names that TransformerLens gives to the places where hooks are set."""

from __future__ import annotations

from typing import Any, NamedTuple

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import Input, Node

#: what is read by the final norm, and the sum of all embeddings, as every model has them
FINAL, EMBEDDED = "ln_final.hook_in", "blocks.0.hook_resid_pre"


class Place(NamedTuple):
    """A hook's name, and which head of the tensor is meant: `[batch, position, head, …]`, or no head.

    `part` is the singular component of a head, which no axis stands for, or the neuron, which is the last axis.
    """

    hook: str
    head: int | None = None
    part: int | None = None


def writes_at(node: Node) -> Place | None:
    """Where what a node writes can be hooked; None for the logits, which write nothing.

    Of a head it is what it writes before `W_O`. A singular component of a head is a direction of that, and has no hook
    of its own, and neither has a feature or a direction: there it is what they are a part of.
    """
    part = node.index if node.is_part and not (node.of or node.along) else None
    match node.kind:
        case "head":
            return Place(f"blocks.{node.layer}.attn.hook_z", node.head, part)
        case "mlp":
            return Place(f"blocks.{node.layer}.{'hook_mlp_out' if part is None else 'mlp.hook_post'}", None, part)
        case "resid":
            return Place(f"blocks.{node.known_after}.hook_resid_post")
        case "embed":
            return Place(EMBEDDED)
        case _:
            return None


def reads_at(read: Input) -> Place:
    """Where what an input reads can be hooked, before its norm. `.q`, `.k` and `.v` need `use_split_qkv_input`."""
    node = read.node
    if node.kind == "head":
        return Place(f"blocks.{node.layer}.hook_{read.port}_input", node.head)
    return Place(f"blocks.{node.layer}.hook_mlp_in" if node.kind == "mlp" else FINAL)


def hook_graph(circuit: Circuit) -> dict[str, Any]:
    """A circuit as plain data: every node and every claimed edge, with the places where TransformerLens hooks them.

    Nodes and edges have the attributes of `circuit.graph` beside.
    """
    graph = circuit.graph
    nodes = {str(node): node for group in circuit.groups for node in group.nodes}
    nodes |= {str(node): node for _, member in circuit.edges() for node in (member.sender, member.receiver)}

    def hooked(name: str, place: Place | None) -> dict[str, Any]:
        return {} if place is None else {name: {k: v for k, v in place._asdict().items() if v is not None}}

    def edge(sender: str, receiver: str, about: dict[str, Any]) -> dict[str, Any]:
        read = Input(nodes[receiver], about["port"])
        places = hooked("write", writes_at(nodes[sender])) | hooked("read", reads_at(read))
        return {"sender": sender, "receiver": str(read)} | places | {k: v for k, v in about.items() if k != "port"}

    return {
        "circuit": circuit.name,
        "title": circuit.title,
        "model": circuit.model.name if circuit.model else None,
        "nodes": [
            {"node": name} | hooked("write", writes_at(nodes[name])) | about for name, about in graph.nodes(data=True)
        ],
        "edges": [edge(*each) for each in graph.edges(data=True)],
    }
