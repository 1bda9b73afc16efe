"""Laundry List: recall the one item of a list that is not repeated (Merullo et al. 2024, arXiv:2406.09519, section 5).

The paper's own template is not published; this one keeps its structure: a list, then all items but one again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from circuitdsl.tasks.task import Draft, Option, Options, Task, WordList, Words
from circuitdsl.tasks.template import Marked, joined

ITEMS = tuple(
    "towel shirt scarf jacket hat belt sock coat dress skirt sweater glove tie pillow blanket curtain "
    "lamp clock brush soap sponge basket broom".split()
)
_OPENINGS = ("We packed", "I washed", "They wanted", "The list had")
_SECONDS = ("We found", "I dried", "They got", "The box had")
LENGTHS = (3, 4, 5, 6)
#: longer lists are made on request only
LONGER = (7, 8, 9, 10)


def draw(rng: random.Random, words: Words, corrupt: str, options: Options) -> Draft:
    length = int(options["items"]) or rng.choice(LENGTHS)
    drawn = rng.sample(words["items"], 2 * length)
    items, spare = drawn[:length], drawn[length:]
    missing = rng.randrange(length)
    again = [item for i, item in enumerate(items) if i != missing]
    rng.shuffle(again)
    style = rng.randrange(len(_OPENINGS))
    changed = list(again)
    asked: tuple[str, ...] = ()
    if corrupt == "abc":
        changed = spare[: length - 1]
    else:  # the missing item takes the place of another one, which is then the one missing
        slot = rng.randrange(length - 1)
        changed[slot] = items[missing]
        asked = (f" {again[slot]}",)
    return Draft(
        clean=_text(style, items, again, missing),
        corrupt=_text(style, items, changed, missing),
        answers=(f" {items[missing]}",),
        distractors=tuple(f" {item}" for item in again),
        corrupt_answers=asked,
        stratum=f"{length}-{missing + 1}",
    )


def strata(words: Words, options: Options) -> tuple[str, ...]:
    """Length of the list, and the place of the missing item in it."""
    asked = int(options["items"])
    lengths = (asked,) if asked else LENGTHS
    return tuple(f"{length}-{place + 1}" for length in lengths for place in range(length))


def _text(style: int, items: list[str], again: list[str], missing: int) -> Marked:
    names = ["ANSWER" if i == missing else "OTHER" for i in range(len(items))]
    first = _enumerated("a", items, names)
    second = _enumerated("the", again, ["AGAIN"] * len(again))
    end = " Only one was left, the"
    return joined([(_OPENINGS[style], ()), *first, (f" {_SECONDS[style]}", ()), *second, (end, ())])


def _enumerated(article: str, items: list[str], names: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The pieces of `a towel, a shirt and a scarf.`, each item under its name."""
    for i, (item, name) in enumerate(zip(items, names, strict=True)):
        joint = "" if i == 0 else " and" if i == len(items) - 1 else ","
        yield f"{joint} {article} ", ()
        yield item, (name,)
    yield ".", ()


LAUNDRY_LIST = Task(
    name="laundry_list",
    title="Laundry List: the item that is not repeated",
    source="Merullo et al. 2024, arXiv:2406.09519",
    positions={
        "ANSWER": "the item that is not repeated",
        "DISTRACTOR": "the other items, both times",
        "AGAIN": "the items' second mentions",
        "END": "the last token",
    },
    corruptions={
        "abc": "the second sentence names unrelated items, so that every item is missing",
        "swap": "the missing item is mentioned and another one left out",
    },
    lists={"items": WordList(ITEMS)},
    needs={"items": 2 * max(LONGER)},
    aliases={"DISTRACTOR": ("OTHER", "AGAIN")},
    order=(("ANSWER",), ("AGAIN",)),
    options={
        "items": Option(
            0, (0, *LENGTHS, *LONGER), "number of items in the list (0: three to six, drawn for each prompt)"
        )
    },
    draw=draw,
    strata=strata,
    answer_after="the",
)
