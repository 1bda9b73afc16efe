"""What each kind of node writes into the residual stream: the one place that a new kind of node needs.

A run keeps a *value* of each node, which `term` maps onto the term that the node writes:

    embed, MLP                  the term itself; an MLP's output bias is included
    head                        its `z`; the term is `z W_O` (`b_V` is inside, `b_O` belongs to no node)
    component of a head, 8.6[2] the head's `z`; the term is `z P W_O`, the part of the head's output along one singular
                                direction of W_OV (`weights.component_of`). A head's components add up to its term.
    residual stream, resid6     the stream itself as it enters layer 6; the biases `b_O` written before are inside
    part along a direction      the whole node's value; the term is the part of the node's term along it, (t·u)u
    neuron of an MLP, m9[1024]  its activation; the term is the activation times the neuron's output weights
    feature, t1[17]             its activation (`features`); the term is the activation times its row of the decoder

Both maps are linear, so that a difference of values gives a difference of terms. In post-norm models a value carries
the scale of its own run. Where a whole head or MLP is patched, its parts at the same position are no further change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, Along, Node, is_inside, is_number
from circuitdsl.models.errors import PatchError
from circuitdsl.models.features import of_mlp, term_of
from circuitdsl.models.parts import Mlp, Transformer
from circuitdsl.models.weights import component_of


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """The values of the nodes of some runs; `*runs` stands for the axes of the runs and their positions.

    Attributes:
        kept: by node `[*runs, d]`; all heads of a layer together, under a node without a head (see `layer_of`),
            `[*runs, heads, d_head]`; the activation of a neuron or a feature `[*runs]`.
    """

    kept: dict[Node, Tensor]

    def value(self, node: Node) -> Float[Tensor, "*runs _"]:
        """The value of a node; that of all heads of a layer has an axis more.

        Raises:
            PatchError: the node writes nothing, or the run was made without it.
        """
        node = node.whole if node.along else node
        key = layer_of(node) if node.kind == "head" else node
        if key not in self.kept:
            if node.kind == "logits":
                raise PatchError(f"{node} writes no term of the residual stream")
            raise PatchError(f"the run does not hold the activation of {node}: name it among the run's neurons")
        if node.kind == "head":
            return self.kept[key][..., node.head, :] if node.head >= 0 else self.kept[key]
        return self.kept[key][..., None] if is_number(node) else self.kept[key]

    def __contains__(self, node: Node) -> bool:
        node = node.whole if node.along else node
        return (layer_of(node) if node.kind == "head" else node) in self.kept

    @property
    def embed(self) -> Float[Tensor, "*runs d"]:
        return self.kept[EMBED]

    @property
    def z(self) -> tuple[Float[Tensor, "*runs heads d_head"], ...]:
        """Of the heads of each layer that is kept."""
        return tuple(value for node, value in self.kept.items() if node.kind == "head")

    @property
    def mlp(self) -> tuple[Float[Tensor, "*runs d"], ...]:
        """Of the MLP of each layer that is kept."""
        return tuple(value for node, value in self.kept.items() if node.kind == "mlp" and not node.is_part)

    @property
    def neurons(self) -> dict[Node, Float[Tensor, "*runs"]]:
        """The activations of the neurons and features that are kept."""
        return {node: self.kept[node] for node in self.kept if is_number(node)}


def term(model: Transformer, node: Node, value: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows d"]:
    """The term that a node writes into the residual stream, given its value."""
    if node.along:
        return along(node.along, term(model, node.whole, value))
    value = in_whole(model, node, value)
    return model.blocks[node.layer].attn.out_head(node.head, value) if node.kind == "head" else value


def in_whole(model: Transformer, node: Node, value: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows _"]:
    """What a part adds to the value of its node; of a whole node, the value itself.

    The part of a head along a direction is no part of its `z`: it is one of its term alone.
    """
    if not node.is_part:
        return value
    if node.along:
        assert node.kind != "head", "what a head writes along a direction is a part of its term (`written_along`)"
        return along(node.along, value)
    if node.of:
        return term_of(model, node, value)
    block = model.blocks[node.layer]
    if node.kind == "head":
        return component_of(block, node.head, node.index, value)
    assert isinstance(block.mlp, Mlp), "a neuron is one of a plain MLP (`experiment.check_node`)"
    return block.mlp.out_neuron(node.index, value[..., 0])


def along(direction: Along, term: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """The part of a term along a direction, (t·u)u."""
    unit = unit_vector(direction, term.dtype, term.device)
    return (term @ unit)[..., None] * unit


@lru_cache(maxsize=2**8)
def unit_vector(direction: Along, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " d"]:
    """A direction as a tensor."""
    return torch.frombuffer(bytearray(direction.unit), dtype=torch.float32).to(device=device, dtype=dtype)


def is_head_along(node: Node | None) -> bool:
    """Whether a part is that of a head along a direction: it is replaced in what the heads of its layer write."""
    return node is not None and node.kind == "head" and node.along is not None


def layer_of(node: Node) -> Node:
    """What stands for all nodes of a kind in a layer: `Node("head", 3)` for the heads of layer 3."""
    return Node(node.kind, node.layer)


def inside(nodes: Iterable[Node], whole: Node) -> tuple[Node, ...]:
    """The neurons or features of an MLP or a stream among some nodes, sorted, each once.

    What a feature of a cross-layer transcoder writes into later layers is counted to the MLP at which it is encoded.
    """
    parts = {node: Node("mlp", node.reads) if node.crosses else layer_of(node) for node in nodes if is_inside(node)}
    return tuple(sorted(node for node, of in parts.items() if of == whole))


def written_inside(
    model: Transformer,
    layer: int,
    nodes: Iterable[Node],
    x: Float[Tensor, "*rows d"],
    before: Float[Tensor, "*rows d"] | None = None,
) -> tuple[Float[Tensor, "*rows d"], dict[Node, Tensor]]:
    """What the MLP of a layer writes, and the values of some of its neurons and features.

    Args:
        x: what it reads, behind its norm.
        before: the same before the norm; without it there are no values of features of cross-layer transcoders.
    """
    own = [node for node in inside(nodes, Node("mlp", layer)) if before is not None or not node.crosses]
    numbers = [node for node in own if not node.of]
    term, activations = model.blocks[layer].mlp.written(x, [node.index for node in numbers])
    found = dict(zip(numbers, activations, strict=True))
    return term, found | of_mlp(model, (node for node in own if node.of), x, term, before)


def kept_if_named(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Those of some nodes whose values are kept only where they are named: neurons, features and residual streams."""
    return tuple(sorted({node for node in nodes if is_inside(node) or node.kind == "resid"}))


def without_terms(model: Transformer, node: Node) -> Float[Tensor, " d"] | float:
    """What is left of a node's value where the terms in it are zero: of a residual stream, the biases `b_O`."""
    if node.kind != "resid" or node.is_part:
        return 0.0
    none = model.W_E.new_zeros(model.n_heads, model.d_head)
    biases = [block.attn.write(none.to(block.device)).to(model.device_of(node.known_after)) for block in model.blocks]
    return sum(biases[1 : node.layer], biases[0])
