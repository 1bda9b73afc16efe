"""Random tokens that repeat: the sequences on which the scores of heads are read. Nothing here imports torch."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from circuitdsl.models.model import Model

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer

#: tokens in a block, where the model can hold two of them
BLOCK = 25
#: sequences of a score that stands outside of any task
SEQUENCES = 64


def sequence(model: Model | Transformer, seed: int, index: int, bos: bool) -> list[int]:
    """A block of different random tokens, none of them special, twice; before it, where asked for, the first token
    of every prompt."""
    begin = [int(model.tokenizer.bos_token_id)] if bos else []
    special = set() if model.tokenizer is None else set(model.tokenizer.all_special_ids)
    length = min(BLOCK, (model.n_ctx - len(begin)) // 2, (model.n_vocab - len(special)) // 2)
    rng = random.Random(f"{seed} {index}")
    block: dict[int, None] = {}
    while len(block) < length:
        token = rng.randrange(model.n_vocab)
        if token not in special:
            block[token] = None
    return begin + 2 * list(block)
