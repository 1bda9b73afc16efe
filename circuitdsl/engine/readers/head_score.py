"""What heads attend to on random tokens that repeat: no task is needed, and none can flatter a head.

A sequence is a block of different random tokens, given twice (Olsson et al. 2022, "In-context Learning and Induction
Heads": prefix matching on repeated random tokens). The score of a head is the mean attention from each token to

- the token before it (`previous_token`),
- the same token in the first block (`duplicate_token`; from the second block only),
- the token after that one (`induction`; from the second block only).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from circuitdsl.engine.prompts import Array, Prompts
from circuitdsl.engine.random_tokens import BLOCK, sequence
from circuitdsl.measurements.head_score import HeadScore, ScoreKind
from circuitdsl.measurements.plan import RANDOM

if TYPE_CHECKING:
    from torch import Tensor


def of_prompts(prompts: Prompts, request: HeadScore, indices: Array) -> Array:
    """A score on sequences, one number for each: the i-th sequence of a seed is always the same.

    Where the prompts are the sequences themselves, the cache knows their numbers.
    """
    known = prompts.cache if prompts.data.task == RANDOM else None
    what = f"{__name__}:scores"
    if known is None:
        found: Array = prompts.ask(what, request, indices)
        return found
    return known.of_prompts(request, lambda: prompts.ask(what, request, np.arange(len(prompts.pairs))))[indices]


def scores(prompts: Prompts, request: HeadScore, indices: Array) -> Array:
    """The score on some sequences, computed now."""
    import torch

    from circuitdsl.engine import runs as engine
    from circuitdsl.engine.memory import run_at_once

    model, bos = prompts.model, prompts.data.bos
    found = []
    at_once = run_at_once(model, 2 * BLOCK + 1, prompts.max_memory)
    for some in torch.as_tensor(indices).split(at_once):
        tokens = torch.tensor([sequence(model, prompts.data.seed, int(i), bos) for i in some])
        cache = engine.one_run(model, tokens, kept=request.kept(model.n_layers))
        patterns = [engine.patterns(model, cache, head) for head in request.heads]
        found.append(torch.stack([_score(p, request.kind, bos) for p in patterns]).mean(0))
    values: Array = torch.cat(found).cpu().double().numpy()
    return values


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
