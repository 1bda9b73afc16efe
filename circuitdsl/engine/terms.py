"""What is kept of whole runs: the values of nodes, and what it takes to recompute a run from some layer on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import LOGITS, Node, is_number
from circuitdsl.measurements.kept import Kept
from circuitdsl.models.parts import Transformer, Turns
from circuitdsl.models.writers import Written

T = TypeVar("T", bound="Terms")
#: some of the prompts
Rows = slice | Int[Tensor, " m"]


@dataclass(frozen=True, slots=True, eq=False)
class Terms(Written):
    """What the nodes of whole runs write, for prompts of one length: values are `[n, T, ...]`.

    Attributes:
        end: the residual stream at END, before the final norm; empty where it is not kept.
    """

    end: Float[Tensor, "n d"]

    def first(self: T, n: int) -> T:
        """The first `n` prompts, without a copy."""

        def cut(values: Any) -> Any:
            return {key: value[:n] for key, value in values.items()} if isinstance(values, dict) else values[:n]

        return replace(self, **{f.name: cut(getattr(self, f.name)) for f in fields(self) if f.name != "turns"})


@dataclass(frozen=True, slots=True, eq=False)
class Cache(Terms):
    """A run with what is needed to recompute it from some layer on, by layer; what is not read later is not kept.

    Attributes:
        resid_pre: the residual stream that the heads read.
        gathered: in layers with a post-norm, each head's `z` before it takes on a scale.
        mlp_in: the residual stream that the MLP reads: `resid_mid`, or `resid_pre` in parallel models.
        q, k, v: queries, keys (both turned by their positions) and values.
        turns: how positions turn queries and keys.
    """

    resid_pre: dict[int, Float[Tensor, "n T d"]]
    gathered: dict[int, Float[Tensor, "n T heads d_head"]]
    mlp_in: dict[int, Float[Tensor, "n T d"]]
    q: dict[int, Float[Tensor, "n heads T d_head"]]
    k: dict[int, Float[Tensor, "n kv_heads T d_head"]]
    v: dict[int, Float[Tensor, "n kv_heads T d_head"]]
    turns: tuple[Turns, ...]


def new_terms(model: Transformer, shape: Sequence[int], nodes: Iterable[Node]) -> Terms:
    """Room for the values of nodes on runs of tokens `[n, T]`; see `Kept.corrupt`."""
    n, length = shape
    new = partial(torch.empty, dtype=model.dtype)
    one = defaultdict[str, tuple[int, ...]](lambda: (model.d_model,), head=(model.n_heads, model.d_head))
    wanted = sorted(set(nodes) - {LOGITS})
    sizes = {node: (n, length, *(() if is_number(node) else one[node.kind])) for node in wanted}
    kept = {node: new(size, device=model.device_of(node.known_after)) for node, size in sizes.items()}
    return Terms(kept, new((n if LOGITS in nodes else 0, model.d_model), device=model.blocks[-1].device))


def new_cache(model: Transformer, shape: Sequence[int], kept: Kept) -> Cache:
    """Room for what is kept of the clean runs of tokens `[n, T]`."""
    (n, length), terms = shape, new_terms(model, shape, kept.clean)
    attn = [block.attn for block in model.blocks]

    def new(layer: int, heads: int = 0) -> Tensor:
        """Of the residual stream before a layer or inside of it, or of some of its heads."""
        size = (n, heads, length, model.d_head) if heads else (n, length, model.d_model)
        return torch.empty(size, dtype=model.dtype, device=model.device_of(layer))

    posts = [node.layer for node in kept.clean if node.kind == "head" and attn[node.layer].post is not None]
    resid_pre = {layer: new(layer) for layer in kept.resid_pre}
    return Cache(
        terms.kept,
        terms.end,
        resid_pre=resid_pre,
        gathered={layer: torch.empty_like(terms.kept[Node("head", layer)]) for layer in posts},
        mlp_in={
            layer: resid_pre[layer] if model.parallel and layer in resid_pre else new(layer) for layer in kept.mlp_in
        },
        q={layer: new(layer, attn[layer].n_heads) for layer in kept.q},
        k={layer: new(layer, attn[layer].n_kv_heads) for layer in kept.k},
        v={layer: new(layer, attn[layer].n_kv_heads) for layer in kept.v},
        turns=model.turns(length),
    )
