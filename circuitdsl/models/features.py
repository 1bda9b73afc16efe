"""Features of dictionaries as parts of what is written: their activations, and what they write.

A feature `t1[17]` is a part of a node, as a neuron is: of an MLP's term where its dictionary writes that, of what the
heads of a layer write together, or of the residual stream where it sits there. Its value is its activation, times what
its dictionary divides inputs by, and its term is that value times its row of the decoder. The value of `t1[error]` is a
term itself: what is left of the whole without its features, `b_dec`, and what skips the features. A dictionary of what
the heads of a layer gather (`z`) writes through their output weights.
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
def _direction(of: str, index: int, layer: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " d"]:
    """What a feature of activation 1 writes; of a cross-layer transcoder, into a layer."""
    held = known(of).dictionary
    row = held.tensors["W_dec"].read([index])[0].to(device)
    row = row if row.ndim == 1 else row[layer - held.reads.layer]
    return (row / row.norm() if held.encoding.rescaled else row).to(dtype)


def term_of(model: Transformer, node: Node, value: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows d"]:
    """What a feature writes, given its value."""
    if node.index == ERROR:
        return value
    found = _direction(node.of, node.index, node.layer, value.device, value.dtype)
    return value * (_through(model, node.layer, found) if known(node.of).dictionary.reads.kind == "z" else found)


def _through(model: Transformer, layer: int, z: Float[Tensor, "*rows z"]) -> Float[Tensor, "*rows d"]:
    """What the heads of a layer write of values side by side, without the bias, which belongs to none of them."""
    attn = model.blocks[layer].attn
    heads = z.unflatten(-1, (attn.n_heads, attn.d_head)).to(attn.o.weight.dtype)
    return attn.write(heads) - attn.write(torch.zeros_like(heads))


def of_heads(
    model: Transformer, nodes: Iterable[Node], z: Float[Tensor, "*rows heads d_head"], out: Float[Tensor, "*rows d"]
) -> dict[Node, Tensor]:
    """The values of features of what the heads of a layer write together.

    Args:
        z: what they have gathered, before a post-norm's scale, which the values of features that read it take on.
        out: what they write together.
    """
    found: dict[Node, Tensor] = {}
    for used, own in _by_dictionary(nodes):
        if used.dictionary.reads.kind == "attn_out":
            found |= _values(used, own, out, out)
            continue
        attn, read = model.blocks[own[0].layer].attn, z.flatten(-2)
        scale = torch.ones_like(read[..., :1]) if attn.post is None else attn.post.scale(attn.o(read))
        for node, value in _values(used, own, read, read).items():
            if node.index == ERROR:  # `b_dec` does not change with the scale: its share of that is part of the error
                b_dec = coder_of(node.of, None, z.device).b_dec
                value = _through(model, node.layer, value * scale + b_dec * (scale - 1))
            else:
                value = value * scale[..., 0]
            found[node] = value.to(z.dtype)
    return found


def of_mlp(
    model: Transformer,
    nodes: Iterable[Node],
    x: Float[Tensor, "*rows d"],
    term: Float[Tensor, "*rows d"],
    before: Float[Tensor, "*rows d"] | None = None,
) -> dict[Node, Tensor]:
    """The values of features of an MLP, whatever layer they write into.

    Args:
        x: what the MLP reads, behind its norm.
        term: what it writes.
        before: what it reads, before that norm.
    """
    found: dict[Node, Tensor] = {}
    for used, own in _by_dictionary(nodes):
        hook = used.dictionary.reads
        if hook.kind == "resid_mid":
            assert before is not None, "without it there are no features that read it (`writers.written_inside`)"
            read = before
        else:
            norm = model.blocks[hook.layer].mlp_norm
            read = term if hook.kind == "mlp_out" else x if used.gained else _before_gain(norm, x)
        encoded = {node: node._replace(layer=hook.layer) for node in own}
        values = _values(used, sorted(set(encoded.values())), read, term)
        found |= {node: values[one] for node, one in encoded.items()}
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
    x = _centred(read.float()) if used.centred and used.dictionary.reads.kind not in ("mlp_in", "z") else read.float()
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
