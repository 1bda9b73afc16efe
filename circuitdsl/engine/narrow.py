"""The MLP of the entry layer where a single head has changed what it reads: products with few columns.

There the residual is the clean one plus what the head writes more, `z W_O`: a sum of the clean residuals of the batch's
prompts and of `d_head` directions. The MLP's first product is done once for these, and then, for each point, with its
`d_head` numbers. The norm's scale is that of the whole residual. Nothing is left out: only the order of sums differs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.engine.batch_index import Points
from circuitdsl.engine.terms import Cache
from circuitdsl.models.parts import Linear, Mlp, Transformer

#: multiplications of the usual product below which the preparations cost more than is saved
FEWEST = 2**28
#: the largest share of them that is worth while
WORTH = 0.8


def pays(model: Transformer, points: Points, moved: Float[Tensor, "points d_head"]) -> bool:
    """Whether this takes fewer products than to map the residual at every point, each changed by one head.

    In half precision it is not done: products of weights would be rounded coarsely.
    """
    rows, d = len(points.host), model.d_model
    if model.dtype != torch.float32 or rows * d * model.blocks[points.batch.entry].mlp.neurons < FEWEST:
        return False
    clean = len(np.unique(points.clean_rows))
    narrow = rows * (model.d_head + clean) + (len(points.heads) * model.d_head + clean) * d
    return narrow <= WORTH * rows * d and len(np.unique(points.rows_of(points.width))) == rows


def mlp_of_heads(
    model: Transformer,
    cache: Cache,
    points: Points,
    moved: Float[Tensor, "points d_head"],
    scale: Float[Tensor, "points 1"],
) -> Float[Tensor, "points d"]:
    """What the MLP writes at points, each changed by one head, which are sorted by head.

    Args:
        moved: the change of that head's `z`.
        scale: of the norm there.
    """
    layer, size, ship = points.batch.entry, model.d_head, points.batch.ship
    block, length = model.blocks[layer], points.batch.where.length
    rows, place = np.unique(points.clean_rows, return_inverse=True)
    clean = cache.mlp_in[layer][ship(rows // length), ship(rows % length)]
    writes = [block.attn.o.weight[:, head * size : (head + 1) * size].T for head, _, _ in points.heads]
    assert isinstance(block.mlp, Mlp), "a mixture of experts has no neurons, so that this does not pay"
    along, at = block.mlp.along(block.mlp_norm, torch.cat((*writes, clean))), ship(place)
    out = moved.new_empty(len(moved), model.d_model)
    for i, (_, a, b) in enumerate(points.heads):
        numbers = torch.cat((moved[a:b], torch.nn.functional.one_hot(at[a:b], len(rows)).to(moved.dtype)), dim=1)
        out[a:b] = _inputs(along, i * size, size, len(rows))(numbers * scale[a:b])
    return out


def _inputs(mlp: Mlp, start: int, size: int, last: int) -> Mlp:
    """The MLP of `size` of its inputs from `start` on, and of its last ones."""

    def of(linear: Linear) -> Linear:
        rows = linear.weight.T
        return Linear(torch.cat((rows[start : start + size], rows[len(rows) - last :])).T, linear.bias)

    return replace(mlp, up=of(mlp.up), gate=mlp.gate and of(mlp.gate))
