"""Attention of runs that share the positions before the first patched one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.models.parts import Attention, attend


def attend_from(
    attn: Attention,
    q: Float[Tensor, "N E W heads d_head"],
    k: Float[Tensor, "N E S kv_heads d_head"],
    v: Float[Tensor, "N E S kv_heads d_head"],
    k_before: Float[Tensor, "N kv_heads P d_head"],
    v_before: Float[Tensor, "N kv_heads P d_head"],
) -> Float[Tensor, "N E W heads d_head"]:
    """Causal attention of the last `W` of `S` positions over `P` earlier ones, which all runs of a prompt share."""
    n, e, w, heads, d = q.shape
    steps, kv = k.shape[2], k.shape[3]
    if not k_before.shape[2] and w == steps:
        z = attend(attn, *(x.flatten(0, 1).transpose(1, 2) for x in (q, k, v)))
        return z.contiguous().view(n, e, w, heads, d)
    g = heads // kv
    q = q.view(n, e, w, kv, g, d)
    shared = q.permute(0, 3, 4, 1, 2, 5).reshape(n, kv, g * e * w, d) @ k_before.transpose(2, 3)
    own = _own_products(q, k)
    products = torch.cat((shared.view(n, kv, g, e, w, -1), own.permute(0, 2, 3, 1, 4, 5)), dim=-1)
    pattern = attn.pattern(products).to(v.dtype)
    before, after = pattern.split((k_before.shape[2], steps), dim=-1)
    z = (before.reshape(n, kv, g * e * w, -1) @ v_before).view(n, kv, g, e, w, d).permute(0, 3, 4, 1, 2, 5)
    return (z + _own_values(after, v)).contiguous().view(n, e, w, heads, d)


def _own_products(q: Float[Tensor, "N E W kv g d"], k: Float[Tensor, "N E S kv d"]) -> Float[Tensor, "N E kv g W S"]:
    """Products with the keys of the recomputed positions."""
    n, e, w, kv, g, d = q.shape
    steps = k.shape[2]
    if steps == 1:
        return (q * k.unsqueeze(4)).sum(-1).permute(0, 1, 3, 4, 2).unsqueeze(-1)
    own = q.permute(0, 1, 3, 4, 2, 5).reshape(n, e, kv, g * w, d) @ k.permute(0, 1, 3, 4, 2)
    return own.view(n, e, kv, g, w, steps)


def _own_values(
    pattern: Float[Tensor, "N kv g E W S"], v: Float[Tensor, "N E S kv d"]
) -> Float[Tensor, "N E W kv g d"]:
    """What is read from the recomputed positions."""
    n, kv, g, e, w, steps = pattern.shape
    if steps == 1:
        return pattern.permute(0, 3, 4, 1, 2, 5) * v.unsqueeze(4)
    own = pattern.permute(0, 3, 1, 2, 4, 5).reshape(n, e, kv, g * w, steps) @ v.permute(0, 1, 3, 2, 4)
    return own.view(n, e, kv, g, w, -1).permute(0, 1, 4, 2, 3, 5)
