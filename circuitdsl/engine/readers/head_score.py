"""What heads attend to on random tokens that repeat: no task is needed, and none can flatter a head.

A sequence is a block of different random tokens, given twice (Olsson et al. 2022, "In-context Learning and Induction
Heads": prefix matching on repeated random tokens). The score of a head is the mean attention from each token to

- the token before it (`previous_token`),
- the same token in the first block (`duplicate_token`; from the second block only),
- the token after that one (`induction`; from the second block only).
"""

from __future__ import annotations

import random

import torch
from jaxtyping import Float
from torch import Tensor

from circuitdsl.engine import runs as engine
from circuitdsl.engine.memory import run_at_once
from circuitdsl.engine.prompts import Array, Prompts
from circuitdsl.measurements.head_score import HeadScore, ScoreKind
from circuitdsl.models.model import Model
from circuitdsl.models.parts import Transformer

#: tokens in a block, where the model can hold two of them
BLOCK = 25
#: sequences of a score that stands outside of any task
SEQUENCES = 64


def of_prompts(prompts: Prompts, request: HeadScore, indices: Array) -> Array:
    """A score on sequences, one number for each: the i-th sequence of a seed is always the same."""
    model, bos = prompts.model, prompts.data.bos
    found = []
    at_once = run_at_once(model, 2 * BLOCK + 1, prompts.max_memory)
    for some in torch.as_tensor(indices).split(at_once):
        tokens = torch.tensor([sequence(model, prompts.data.seed, int(i), bos) for i in some])
        runs = engine.run(model, tokens, tokens)
        patterns = [engine.patterns(model, runs.clean, head) for head in request.heads]
        found.append(torch.stack([_score(p, request.kind, bos) for p in patterns]).mean(0))
    return torch.cat(found).cpu().double().numpy()


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


def _score(pattern: Float[Tensor, "n T T"], kind: ScoreKind, bos: bool) -> Float[Tensor, " n"]:
    """The mean of a pattern along one diagonal: `back` tokens before each, from the `first` on."""
    begin = int(bos)
    block = (pattern.shape[-1] - begin) // 2
    back, first = {
        "previous_token": (1, begin + 1),
        "duplicate_token": (block, begin + block),
        "induction": (block - 1, begin + block),
    }[kind]
    return pattern.diagonal(-back, 1, 2)[:, first - back :].mean(-1)
