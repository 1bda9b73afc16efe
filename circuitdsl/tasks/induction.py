"""Induction: a list of random words is repeated (Elhage et al. 2021; Olsson et al. 2022, arXiv:2209.11895)."""

from __future__ import annotations

import random
from itertools import chain

from circuitdsl.tasks.ioi import NAMES
from circuitdsl.tasks.task import Draft, Options, Task, WordList, Words
from circuitdsl.tasks.template import Marked, joined

VOCABULARY = tuple(
    "apple bread river mountain window garden music letter picture summer winter kitchen table bridge market village "
    "doctor teacher farmer soldier captain horse tiger rabbit eagle salmon forest desert island harbor castle temple "
    "engine wheel hammer needle button pocket mirror candle blanket pillow basket barrel ladder fence copper silver "
    "iron stone cotton leather paper glass water fire snow rain wind cloud star moon sun north south east west "
    "morning evening night week month year number circle square corner middle story poem song dance game sport race "
    "prize gift market road train ship boat plane".split()
)
LENGTHS = (8, 10, 12)
REPEATED = (4, 6)


def draw(rng: random.Random, words: Words, corrupt: str, options: Options) -> Draft:
    length = rng.choice(LENGTHS)
    repeated = rng.choice(REPEATED)
    drawn = rng.sample(words["words"], 2 * length + 1)
    first, spare = drawn[:length], drawn[length:]
    answer, current = first[repeated], repeated - 1
    changed = list(first)
    asked: tuple[str, ...] = ()
    match corrupt:
        case "abc":
            changed = spare[:length]
        case "match":
            changed[current] = spare[0]
        case _:  # the answer and a later word of the list change places
            other = rng.choice(range(repeated + 1, length))
            changed[repeated], changed[other] = changed[other], changed[repeated]
            asked = (f" {first[other]}",)
    return Draft(
        clean=_list(first, first[:repeated], repeated),
        corrupt=_list(changed, first[:repeated], repeated),
        answers=(f" {answer}",),
        distractors=tuple(f" {w}" for w in first if w != answer),
        corrupt_answers=asked,
        stratum=f"{length}-{repeated}",
    )


def _list(first: list[str], again: list[str], answer: int) -> Marked:
    """The prompt, given the place of the answer in the first list."""
    names = {i: ["DISTRACTOR"] for i in range(len(first))}
    names |= {answer - 1: ["DISTRACTOR", "MATCH"], answer: ["ANSWER"], len(first) + answer - 2: ["BEFORE"]}
    words = ([(" ", ()), (word, names.get(i, ()))] for i, word in enumerate([*first, *again]))
    return joined([("List:", ()), *chain.from_iterable(words)])


INDUCTION = Task(
    name="induction",
    title="Induction on a repeated list of random words",
    source="Olsson et al. 2022, arXiv:2209.11895",
    positions={
        "MATCH": "the current word, first time",
        "ANSWER": "the word that followed it",
        "DISTRACTOR": "the other words of the first list",
        "BEFORE": "the token before END",
        "END": "the last token: the current word, second time",
    },
    corruptions={
        "abc": "the first list is of other words, so that nothing repeats",
        "match": "the current word's first mention becomes an unrelated word",
        "swap": "the answer and another word of the first list change places",
    },
    lists={"words": WordList(tuple(dict.fromkeys(VOCABULARY + NAMES)), before="List: the")},
    needs={"words": 2 * max(LENGTHS) + 1},
    order=(("MATCH", "DISTRACTOR", "ANSWER"), ("BEFORE",)),
    draw=draw,
    # the length of the list, and how much of it is repeated
    strata=lambda words, options: tuple(f"{length}-{repeated}" for length in LENGTHS for repeated in REPEATED),
    answer_after="List: the",
)
