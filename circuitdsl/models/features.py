"""Features of dictionaries as parts of what is written: their activations, and what they write.

A feature `t1[17]` is a part of a node, as a neuron is: of an MLP's term where its dictionary writes that, of the
residual stream where it sits there. Its value is its activation, times what its dictionary divides inputs by, and its
term is that value times its row of the decoder. The value of `t1[error]` is a term itself: what is left of the whole
without its features, `b_dec`, and what skips the features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.circuit.nodes import ERROR, Node
from circuitdsl.dictionaries.coder import Coder, load
from circuitdsl.dictionaries.known import Known, known
from circuitdsl.models.parts import Norm, Transformer

#: activations of features that are held at once
AT_ONCE = 2**22


@lru_cache(maxsize=64)
def coder_of(of: str, features: tuple[int, ...] | None, device: torch.device) -> Coder:
    """Some features of a dictionary in memory, or all."""
    return load(known(of).dictionary, features, device)


@lru_cache(maxsize=2**12)
def _direction(of: str, index: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " d"]:
    """What a feature of activation 1 writes."""
    held = known(of).dictionary
    row = held.tensors["W_dec"].read([index])[0].to(device)
    return (row / row.norm() if held.encoding.rescaled else row).to(dtype)


def term_of(node: Node, value: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows d"]:
    """What a feature writes, given its value."""
    return value if node.index == ERROR else value * _direction(node.of, node.index, value.device, value.dtype)


def of_mlp(
    model: Transformer, nodes: Iterable[Node], x: Float[Tensor, "*rows d"], term: Float[Tensor, "*rows d"]
) -> dict[Node, Tensor]:
    """The values of features of an MLP.

    Args:
        x: what the MLP reads, behind its norm.
        term: what it writes.
    """
    found: dict[Node, Tensor] = {}
    for used, own in _by_dictionary(nodes):
        norm = model.blocks[own[0].layer].mlp_norm
        read = term if used.dictionary.reads.kind == "mlp_out" else x if used.gained else _before_gain(norm, x)
        found |= _values(used, own, read, term)
    return found


def of_stream(nodes: Iterable[Node], resid: Float[Tensor, "*rows d"]) -> dict[Node, Tensor]:
    """The values of features of a residual stream."""
    found: dict[Node, Tensor] = {}
    for used, own in _by_dictionary(nodes):
        found |= _values(used, own, resid, resid)
    return found


def _by_dictionary(nodes: Iterable[Node]) -> list[tuple[Known, list[Node]]]:
    by_name: dict[str, list[Node]] = {}
    for node in sorted(set(nodes)):
        by_name.setdefault(node.of, []).append(node)
    return [(known(of), own) for of, own in by_name.items()]


def _before_gain(norm: Norm, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """What a norm gave before its gain and bias."""
    return (x if norm.bias is None else x - norm.bias) / norm.gain


def _values(used: Known, nodes: list[Node], read: Tensor, whole: Tensor) -> Mapping[Node, Tensor]:
    """The values of features of one dictionary, `[*rows]` each; that of the error is `[*rows, d]`."""
    features = tuple(node.index for node in nodes if node.index != ERROR)
    coder = coder_of(nodes[0].of, None if nodes[-1].index == ERROR else features, whole.device)
    rows, at_once = read.shape[:-1], max(1, AT_ONCE // len(coder.W_enc))
    pairs = zip(*(each.reshape(-1, each.shape[-1]).split(at_once) for each in (read, whole)), strict=True)
    parts = [_of_rows(coder, used, nodes, *pair) for pair in pairs]
    values = {node: torch.cat([part[node] for part in parts]) if len(parts) > 1 else parts[0][node] for node in nodes}
    return {node: value.view(*rows, *value.shape[1:]) for node, value in values.items()}


def _of_rows(coder: Coder, used: Known, nodes: list[Node], read: Tensor, whole: Tensor) -> Mapping[Node, Tensor]:
    """The same of some rows, of which there is no activation of features that are not asked for afterwards."""
    features, has_error = [node.index for node in nodes if node.index != ERROR], nodes[-1].index == ERROR
    x = _centred(read.float()) if used.centred and used.dictionary.reads.kind != "mlp_in" else read.float()
    active = coder.encode(x)
    if not coder.transcoder:
        active = active * coder.normed(x)[1]
    places = features if has_error else range(len(features))
    found = {node: active[..., i].to(whole.dtype) for node, i in zip(nodes, places, strict=False)}
    if has_error:
        made = active @ coder.d + coder.b_dec
        if coder.W_skip is not None:
            made = made + x @ coder.W_skip.T
        found[nodes[-1]] = (whole.float() - made).to(whole.dtype)
    return found


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)
