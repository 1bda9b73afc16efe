"""Prompts for the hand-set models, as token ids: whole populations, and samples drawn from them.

A population stands for all prompts that a task can make: a figure over it is the truth, to the last digit. Samples are
drawn from it with replacement, as many from every stratum.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from circuitdsl.tasks.dataset import Dataset, PromptPair
from tests.known_answers.hand_set import BOS, FILLERS, LAST, NAMES

#: (length, order) of the prompts in each stratum
STRATA = ((9, 0), (9, 1), (12, 0), (12, 1))


def repeated_name(draw: random.Random, length: int, order: int) -> PromptPair:
    """Two names among fillers, one of them twice; the answer is the other. Corrupt: three unrelated names instead."""
    a, b, c, d, e = draw.sample(NAMES, 5)
    first, second, third = sorted(draw.sample(range(1, length - 1), 3))
    io, s1 = (first, second) if order == 0 else (second, first)
    clean = [BOS, *draw.choices(FILLERS, k=length - 2), LAST]
    corrupt = list(clean)
    for at, name, other in ((io, a, c), (s1, b, d), (third, b, e)):
        clean[at], corrupt[at] = name, other
    filler = draw.choice([i for i in range(1, length - 1) if i not in (first, second, third)])
    positions = {
        "IO": (io,),
        "S1": (s1,),
        "S2": (third,),
        "OTHER": (filler,),
        "ANSWER": (io,),
        "DISTRACTOR": (s1, third),
        "END": (length - 1,),
    }
    return PromptPair(tuple(clean), tuple(corrupt), (a,), (b,), positions, f"{length}-{order}")


def repeated_list(draw: random.Random, length: int, order: int) -> PromptPair:
    """A list of different tokens and then one of them again; the answer is what followed it. Corrupt: other tokens."""
    size = length - 2
    tokens = draw.sample(NAMES + FILLERS, 2 * size + 1)
    half = size // 2
    match = draw.randrange(0, half) if order == 0 else draw.randrange(half, size - 1)
    listed = tokens[:size]
    clean = (BOS, *listed, listed[match])
    corrupt = (BOS, *tokens[size : 2 * size], tokens[-1])
    others = [i + 1 for i in range(size) if i not in (match, match + 1)]
    positions = {
        "MATCH": (match + 1,),
        "ANSWER": (match + 2,),
        "DISTRACTOR": (match + 1, *others),
        "OTHER": (draw.choice(others),),
        "END": (length - 1,),
    }
    distractors = tuple(t for i, t in enumerate(listed) if i != match + 1)
    return PromptPair(clean, corrupt, (listed[match + 1],), distractors, positions, f"{length}-{order}")


Draw = Callable[[random.Random, int, int], PromptPair]
DRAWS: dict[str, Draw] = {"repeated_name": repeated_name, "repeated_list": repeated_list}


def population(task: str, size: int = 2048, seed: int = 0) -> Dataset:
    """Different prompts of a task, as many of every stratum."""
    draw = random.Random(f"{task}/{seed}")
    pairs = [DRAWS[task](draw, *STRATA[i % len(STRATA)]) for i in range(size)]
    return Dataset(task, "abc", seed, True, tuple(pairs))


def draw_indices(size: int, n: int, seed: int, balanced: bool = True) -> list[int]:
    """Which prompts of a population a sample has; strata follow each other in turn, or come as chance has it."""
    draw = random.Random(f"sample/{seed}")
    if not balanced:
        return draw.choices(range(size), k=n)
    return [draw.randrange(size // len(STRATA)) * len(STRATA) + i % len(STRATA) for i in range(n)]


def sampled(whole: Dataset, indices: list[int], seed: int = 0) -> Dataset:
    """Some prompts of a population as a dataset of their own."""
    return Dataset(whole.task, whole.corrupt, seed, whole.bos, tuple(whole.pairs[i] for i in indices))
