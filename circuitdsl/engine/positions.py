"""Where the positions that requests name stand in each prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from circuitdsl.circuit.nodes import EVERYWHERE, Position
from circuitdsl.tasks.dataset import PromptPair

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


def indices_of(pair: PromptPair, position: Position) -> tuple[int, ...]:
    """Token indices of a position in a prompt; none where the prompt lacks it."""
    if position == EVERYWHERE:
        return tuple(range(len(pair.clean_tokens)))
    moved = tuple(i + position.offset for i in pair.positions.get(position.name, ()))
    return moved if all(0 <= i < len(pair.clean_tokens) for i in moved) else ()


def places_of(pairs: Sequence[PromptPair], wanted: Iterable[Position]) -> list[list[int]]:
    """Token indices of some positions together, without repetition, in each prompt."""
    positions = list(wanted)
    return [sorted({i for position in positions for i in indices_of(pair, position)}) for pair in pairs]


def token_indices(pairs: Sequence[PromptPair], wanted: Iterable[Position]) -> Int[Tensor, "n k"]:
    """Token indices of some positions together, without repetition, padded with -1."""
    import torch

    rows = places_of(pairs, wanted)
    width = max(1, *map(len, rows))
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])
