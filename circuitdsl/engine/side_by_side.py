"""Rows of several batches as one tensor, for what acts on one position at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.engine.batch_index import Batch


def in_a_row(tensors: Sequence[Float[Tensor, "N E W ..."]]) -> Float[Tensor, "rows ..."]:
    """The rows of all batches, one batch after the other; those of a single batch are not copied."""
    flat = [tensor.flatten(0, 2) for tensor in tensors]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def apart(
    rows: Float[Tensor, "rows ..."], batches: Sequence[Batch], widths: Sequence[int]
) -> list[Float[Tensor, "N E W ..."]]:
    """Each batch's part of the rows, at `W` positions, without a copy."""
    shapes = [(len(batch.rows), len(batch.plans), width) for batch, width in zip(batches, widths, strict=True)]
    parts = rows.split([prod(shape) for shape in shapes])
    return [part.view(*shape, *rows.shape[1:]) for part, shape in zip(parts, shapes, strict=True)]


def last(tensor: Float[Tensor, "N E S ..."], width: int) -> Float[Tensor, "N E W ..."]:
    return tensor[:, :, tensor.shape[2] - width :]
