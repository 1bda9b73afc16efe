"""Where a search may patch: the task's positions, each token under one name."""

from __future__ import annotations

import numpy as np

from circuitdsl.circuit.nodes import Position
from circuitdsl.engine.prompts import Prompts
from circuitdsl.tasks.dataset import PromptPair

END = Position("END")
#: names that every task has for tokens which mostly have a name of the task's own
GENERAL = ("ANSWER", "DISTRACTOR")
#: a position is searched where this share of the prompts has it
MOST = 0.9


def places(prompts: Prompts) -> tuple[Position, ...]:
    """Positions to search: those of the task and the token after each, every token under one name.

    Left out are positions that few prompts have, and such as name tokens that have names already.
    """
    named = dict.fromkeys(name for pair in prompts.pairs for name in pair.positions)
    ordered = sorted(named, key=lambda name: (name in GENERAL, list(named).index(name)))
    wanted = [END, *(Position(name) for name in ordered), *(Position(name, 1) for name in ordered)]
    found: list[Position] = []
    covered = [frozenset[int]() for _ in prompts.pairs]
    for place in wanted:
        tokens = [_tokens(pair, place) for pair in prompts.pairs]
        has = [bool(here) for here in tokens]
        new = [not here & known for here, known in zip(tokens, covered, strict=True) if here]
        if np.mean(has) >= MOST and np.mean(new) >= MOST:
            found.append(place)
            covered = [known | here for known, here in zip(covered, tokens, strict=True)]
    return tuple(found)


def _tokens(pair: PromptPair, place: Position) -> frozenset[int]:
    """The tokens that a position stands for; the token after it only where it stands for one."""
    length = len(pair.clean_tokens)
    if place == END:
        return frozenset({length - 1})
    index = [i + place.offset for i in pair.positions.get(place.name, ())]
    right = all(0 <= i < length for i in index) and not (place.offset and len(index) > 1)
    return frozenset(index) if right else frozenset()
