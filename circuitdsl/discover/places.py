"""Where a search looks: positions by the names that a task gives them, or by their distance from these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from circuitdsl.circuit.nodes import Position
from circuitdsl.circuit.vocabulary import GENERAL_POSITIONS
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.tasks.dataset import PromptPair

END = Position("END")
#: a place is searched where this share of the prompts has it, and in the rest at least stands for a token of its own
COMMON = 0.9
#: tokens from a named position that are searched, and places at most
REACH, MOST = 16, 64


def places(prompts: Prompts, reach: int = REACH) -> tuple[Position, ...]:
    """Positions to search: END, those of the task, and the tokens around each, the nearest first.

    Positions that few prompts have are left out, and so are those whose tokens have names already.
    """
    found: list[Position] = []
    known = [frozenset[int]() for _ in prompts.pairs]
    for place in _wanted(prompts.pairs, reach):
        tokens = [tokens_of(pair, place) for pair in prompts.pairs]
        new = [bool(here - before) for here, before in zip(tokens, known, strict=True)]
        if len(found) < MOST and np.mean([bool(here) for here in tokens]) >= COMMON and np.mean(new) >= 1 - COMMON:
            found.append(place)
            known = [before | here for before, here in zip(known, tokens, strict=True)]
    return tuple(found)


def named_places(where: Sequence[Position]) -> list[Position]:
    """Those of some places that have names of their own."""
    return [place for place in where if not place.offset]


def _wanted(pairs: Sequence[PromptPair], reach: int) -> Iterator[Position]:
    """Every name, those of the task before those that all tasks have, and then what is nearest to each."""
    named = list(dict.fromkeys(name for pair in pairs for name in pair.positions))
    ordered = sorted(named, key=lambda name: (name in GENERAL_POSITIONS, named.index(name)))
    yield END
    for offset in sorted(range(-reach, reach + 1), key=lambda offset: (abs(offset), -offset)):
        yield from (Position(name, offset) for name in ordered)


def tokens_of(pair: PromptPair, place: Position) -> frozenset[int]:
    """The tokens that a position stands for; those around it only where it stands for one."""
    index = indices_of(pair, place)
    return frozenset() if place.offset and len(index) > 1 else frozenset(index)


def word(place: Position) -> str:
    """A position in the name of a group: `query`, `after_noun`, `query_minus_2`."""
    name, far = place.name.lower(), abs(place.offset)
    if far == 1:
        return f"{'after' if place.offset > 0 else 'before'}_{name}"
    return f"{name}_{'plus' if place.offset > 0 else 'minus'}_{far}" if far else name
