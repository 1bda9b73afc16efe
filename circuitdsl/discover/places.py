"""Where a search may patch: the task's positions, each token under one name."""

from __future__ import annotations

import numpy as np

from circuitdsl.circuit.claims import Position
from circuitdsl.measure.bench import Bench
from circuitdsl.tasks.dataset import PromptPair

END = Position("END")
#: names that every task has for tokens which mostly have a name of the task's own
GENERAL = ("ANSWER", "DISTRACTOR")
#: a position is searched where this share of the prompts has it
MOST = 0.9


def places(bench: Bench) -> tuple[Position, ...]:
    """Positions to search: those of the task and the token after each, every token once.

    A position that stands for several tokens is left out, and so is one that few prompts have.
    """
    named = dict.fromkeys(name for pair in bench.pairs for name in pair.positions)
    ordered = sorted(named, key=lambda name: (name in GENERAL, list(named).index(name)))
    wanted = [END, *(Position(name) for name in ordered), *(Position(name, 1) for name in ordered)]
    found: dict[Position, np.ndarray] = {}
    for place in wanted:
        where = np.asarray([_index(pair, place) for pair in bench.pairs])
        known = where >= 0
        if known.mean() >= MOST and all(np.mean(where[known] == other[known]) < MOST for other in found.values()):
            found[place] = where
    return tuple(found)


def _index(pair: PromptPair, place: Position) -> int:
    """The token that a position stands for; -1 where there is none, or several."""
    if place == END:
        return len(pair.clean_tokens) - 1
    index = [i + place.offset for i in pair.positions.get(place.name, ())]
    return index[0] if len(index) == 1 and 0 <= index[0] < len(pair.clean_tokens) else -1
