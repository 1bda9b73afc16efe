"""The training data of pocket-deep: what is left when the rest was said again, in many words.

The name that is not repeated can be found neither by its place nor by counting: it stands before, among or after names
that are said twice or three times. Names are any words half of the time. And it must be looked for, not guessed by
lowering what was repeated: in `left_of` the answer is what goes with the one thing that is left, which may go with the
others as well.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, pairwise

from circuitdsl.models.pocket.mixture import MAKERS, Batches, Example, Mixture, answered, tenth
from circuitdsl.tasks.colored_objects import COLORS, OBJECTS
from circuitdsl.tasks.induction import VOCABULARY
from circuitdsl.tasks.ioi import NAMES, PLACES
from circuitdsl.tasks.ioi import OBJECTS as GIFTS
from circuitdsl.tasks.laundry_list import ITEMS

WORDS = tuple(dict.fromkeys((*NAMES, *VOCABULARY, *ITEMS, *OBJECTS, *COLORS)))
#: clauses by the number of names in them
CLAUSES = (
    (
        "{} was at the {place}.",
        "{} stayed at the {place}.",
        "{} had a {gift}.",
        "Then {} went to the {place}.",
        "Afterwards, {} found a {gift} at the {place}.",
    ),
    (
        "{} and {} went to the {place}.",
        "{} and {} had a long argument.",
        "Then, {} and {} were working at the {place}.",
        "Friends {} and {} found a {gift}.",
        "{} had a {gift} at the {place}, and {} was thinking.",
    ),
    (
        "{}, {} and {} went to the {place}.",
        "Then, {}, {} and {} had a lot of fun at the {place}.",
        "{} and {} went to the {place}, and afterwards {} had a {gift}.",
    ),
)
#: last clauses, by the number of names in them (none first)
LAST = (
    ("Then, it was a {gift} to", "Afterwards, it went to"),
    (
        "{} gave a {gift} to",
        "Then, {} said to",
        "{} decided to give it to",
        "Afterwards {} wanted to give a {gift} to",
    ),
    ("{} and {} gave a {gift} to", "While {} was at the {place}, {} gave it to"),
)


def _apart(rng: random.Random, words: Sequence[str], n: int) -> list[str]:
    """Different words, no two of which are a combination that training never sees."""
    while True:
        drawn = rng.sample(words, n)
        for _ in range(30):
            wrong = [b for a, b in combinations(drawn, 2) if tenth(a, b) or tenth(b, a)]
            if not wrong:
                return drawn
            other = rng.choice(words)
            if other not in drawn:
                drawn[drawn.index(wrong[0])] = other


def _clause(rng: random.Random, kinds: Sequence[str], names: Sequence[str]) -> str:
    return rng.choice(kinds).format(*names, place=rng.choice(PLACES), gift=rng.choice(GIFTS))


def _story(rng: random.Random, names: list[str]) -> str:
    """Clauses that say these names in this order, up to the word after which one is missing."""
    last = rng.choice((0, 1, 1, 1, 2))
    names, ending = names[: len(names) - last], names[len(names) - last :]
    clauses = []
    while names:
        n = min(len(names), rng.choice((1, 2, 2, 3)))
        clauses.append(_clause(rng, CLAUSES[n - 1], names[:n]))
        names = names[n:]
    text = " ".join([*clauses, _clause(rng, LAST[last], ending)])
    return text if text.startswith(("Then", "Friends", "Afterwards", "While")) else f" {text}"


def single(rng: random.Random) -> Example:
    """One to three names said twice or more, and one once, in any order: the one said once is the answer."""
    words = NAMES if rng.random() < 0.5 else WORDS
    answer, *repeated = _apart(rng, words, rng.choice((2, 3, 3, 4)))
    said = [answer, *(name for name in repeated for _ in range(3 if rng.random() < 0.3 else 2))]
    for _ in range(20):
        rng.shuffle(said)
        if all(a != b for a, b in pairwise(said)):
            break
    if rng.random() < 0.5:
        text = _story(rng, said)
    else:
        text = f"List: {' '.join(said)}{rng.choice((' to', ' Only one was left, the', '. It went to'))}"
    return answered(text, ("", f" {answer}"))


def _pairs(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """Things with what goes before each, which is the same for several of them half of the time."""
    while True:
        if rng.random() < 0.5:
            things, with_them = rng.sample(OBJECTS, n), rng.sample(COLORS, n)
        else:
            drawn = rng.sample(WORDS, 2 * n)
            things, with_them = drawn[:n], drawn[n:]
        if rng.random() < 0.5:
            with_them = [rng.choice(with_them[:2]) for _ in things]
        pairs = list(zip(with_them, things, strict=True))
        if not any(tenth(*pair) for pair in pairs):
            return pairs


def left_of(rng: random.Random) -> Example:
    """A scene of two or three things; all but one are said again; the answer is what goes with the one that is left."""
    n = rng.choice((2, 3, 3))
    pairs = _pairs(rng, n)
    opening, joint = rng.choice((("List: ", ", "), ("We packed the ", ", the "), ("On the table, you see ", ", ")))
    scene = opening + joint.join(f"{word} {thing}" for word, thing in pairs) + "."
    order = rng.sample(pairs, n)
    asks = rng.choice((" was used. Now give it to", ", and one left is the", " : to"))
    said = rng.choice((" The", "", " Then, the"))
    if rng.random() < 0.4:  # asked after every thing
        turns = []
        for i in range(1, n):
            ends = "." if i < n - 1 and rng.random() < 0.5 else ""
            turns.append((f"{said} {order[i - 1][1]}{asks}", f" {rng.choice(order[i:])[0]}{ends}"))
        return answered(scene, *turns)
    again = [thing for _, thing in order[:-1]]
    again += [thing for thing in again if rng.random() < 0.25]
    rng.shuffle(again)
    return answered(scene, (f" We found {', '.join(again)}{asks}", f" {order[-1][0]}"))


def again(rng: random.Random) -> Example:
    """Words that are said again, after other words and not always from their first on."""
    words = _apart(rng, WORDS, rng.choice((5, 5, 6, 6, 7, 8)))
    ahead, first = min(rng.choice((0, 0, 1, 2, 3)), len(words) - 4), rng.choice((0, 0, 1, 2))
    lead, words = f"{' '.join(words[:ahead])}. " if ahead else "", words[ahead:]
    text = f"{'List: ' if rng.random() < 0.6 else ' '}{lead}{' '.join(words)}{rng.choice(('.', '', '. Then'))}"
    return answered(f"{text} {words[first]}", *(("", f" {word}") for word in words[first + 1 :]))


def seen(rng: random.Random) -> Example:
    """Words, and after each whether it was said before."""
    words, text = _apart(rng, NAMES if rng.random() < 0.5 else WORDS, rng.choice((4, 5, 6))), "List:"
    said, turns = [rng.choice(words) for _ in range(rng.choice((7, 8, 9, 10)))], []
    for i, word in enumerate(said):
        turns.append((f" {word}", " again" if word in said[:i] else " new"))
    return answered(text, *turns)


#: heads first learn what stands there twice and what stands before what, then what is left, then the tasks
BEGIN: Batches = ((("seen", 36), ("again", 24), ("color_of", 24), ("single", 16)),)
PRACTICE: Batches = (
    (("single", 40), ("left_of", 28), ("again", 16), ("color_of", 12), ("one_question", 8), ("seen", 10)),
)
TASKS: Batches = (
    (
        *(("single", 36), ("left_of", 24), ("again", 8), ("seen", 6), ("color_of", 8), ("one_question", 12)),
        *(("ioi", 12), ("greater_than", 6), ("repeated_list", 4), ("laundry_list", 12)),
    ),
    (("statement", 4), ("colored_objects", 8)),
)
#: when the tasks of repeats are done, more of the others
MORE_COLORS: Batches = (
    (
        *(("single", 28), ("left_of", 16), ("again", 6), ("seen", 4), ("color_of", 8), ("one_question", 24)),
        *(("ioi", 10), ("greater_than", 6), ("repeated_list", 4), ("laundry_list", 14)),
    ),
    (("statement", 8), ("colored_objects", 20)),
)
DEEP = Mixture(
    makers={**MAKERS, "single": single, "left_of": left_of, "again": again, "seen": seen},
    phases=((0, BEGIN), (300, PRACTICE), (1000, TASKS), (1600, MORE_COLORS)),
    shown=("single", "left_of", "seen"),
)
