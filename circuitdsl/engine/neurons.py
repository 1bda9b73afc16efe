"""Parts of nodes: singular components of heads, and neurons of MLPs.

The term of the component `8.6[2]` is `z P W_O`, the part of its head's output that lies along one singular direction
of W_OV (`weights.component_map`); the components of a head add up to what it writes. The term of the neuron `m9[1024]`
is its activation times its output weights; the output bias belongs to the MLP. A part whose whole is patched or
replaced at the same position is no change of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import Node
from circuitdsl.models.parts import Transformer
from circuitdsl.models.weights import component_of


def component(model: Transformer, node: Node, z: Float[Tensor, "*rows d_head"]) -> Float[Tensor, "*rows d_head"]:
    """What of a head's `z` a node writes: all of it, or one singular component's part."""
    return component_of(model.blocks[node.layer], node.head, node.index, z) if node.is_part else z


def neuron_term(model: Transformer, node: Node, activation: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows d"]:
    """What a neuron writes, given its activation."""
    return model.blocks[node.layer].mlp.out_neuron(node.index, activation)


def neurons(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The neurons among some nodes, sorted, each once."""
    return tuple(sorted({node for node in nodes if node.kind == "mlp" and node.is_part}))
