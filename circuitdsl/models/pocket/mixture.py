"""The pocket model's training data: the shipped tasks in plain English, with practice that leads up to them.

Some combinations of words never occur in training (`held_out`); the model card's figures are measured on those.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from circuitdsl.tasks.colored_objects import COLORS, OBJECTS, STARTS, SURFACES
from circuitdsl.tasks.induction import INDUCTION, VOCABULARY
from circuitdsl.tasks.ioi import NAMES, PLACES
from circuitdsl.tasks.registry import SHIPPED as TASKS
from circuitdsl.tasks.task import Draft, Words
from circuitdsl.tasks.template import article

#: what one token is: two digits, a word, a run of punctuation, each with the blank before it; or a line end
TOKEN_PATTERN = r" ?[0-9]{2}| ?[A-Za-z]+| ?[^\sA-Za-z0-9]+|\s"
END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<|unknown|>"
ALL_WORDS: dict[str, Words] = {
    name: {key: words.words for key, words in task.lists.items()} for name, task in TASKS.items()
}


@dataclass(frozen=True, slots=True)
class Example:
    """A training text and the characters at which its answers start."""

    text: str
    answers: tuple[int, ...]


Maker = Callable[[random.Random], Example]
#: kinds of examples, and how many of each, for batches of texts that are about as long
Batches = tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True, slots=True)
class Mixture:
    """The texts that a model is trained on.

    Attributes:
        makers: how to make an example of each kind.
        phases: what an update is made of, each with the number of the first update that is.
        shown: kinds on which accuracy is logged, besides the tasks.
    """

    makers: Mapping[str, Maker]
    phases: tuple[tuple[int, Batches], ...]
    shown: tuple[str, ...] = ()

    def batches(self, update: int) -> Batches:
        return next(batches for first, batches in reversed(self.phases) if update >= first)

    def vocabulary(self) -> list[str]:
        """Every token of the mixture, found by making much of it."""
        rng = random.Random(0)
        found = {f" {word}" for word in (*NAMES, *VOCABULARY, *COLORS, *OBJECTS)}
        found |= {f"{y:02d}" for y in range(100)} | {f" {c}" for c in range(10, 21)}
        for words in ALL_WORDS.values():
            listed = [word for name, each in words.items() if name != "two_digits" for word in each]
            found |= {piece for word in listed for piece, _ in pieces(f" {word}")}
        for make in self.makers.values():
            for _ in range(2000):
                found |= {piece for piece, _ in pieces(make(rng).text)}
        return sorted(found)


def pieces(text: str) -> Iterator[tuple[str, int]]:
    """The tokens of a text, each with its last character's index plus one."""
    for match in re.finditer(TOKEN_PATTERN, text):
        yield match.group(), match.end()


def tenth(*words: str) -> bool:
    """Whether a combination of words belongs to the tenth that training never sees."""
    return zlib.crc32(" ".join(words).encode()) % 10 == 0


def _texts(draft: Draft, name: str) -> list[str]:
    return [draft.clean.text[a:b] for a, b in draft.clean.marks.get(name, ())]


def _bound(draft: Draft) -> list[tuple[str, str]]:
    """All (colour, object) pairs of a Colored Objects prompt, the queried one first."""
    pairs = list(zip(_texts(draft, "ANSWER"), _texts(draft, "NOUN"), strict=True))
    pairs += zip(_texts(draft, "DISTRACTOR"), _texts(draft, "OTHER_NOUN"), strict=True)
    for i in (1, 2, 3):
        pairs += zip(_texts(draft, f"EXAMPLE_COLOR{i}"), _texts(draft, f"EXAMPLE_OBJECT{i}"), strict=True)
    return pairs


def _combinations(task: str, draft: Draft) -> list[tuple[str, ...]]:
    """The combinations of a prompt that decide on which side of the split it falls; the asked one first."""
    match task:
        case "ioi":
            return [tuple(sorted((_texts(draft, "IO")[0], _texts(draft, "S1")[0])))]
        case "colored_objects":
            return list(_bound(draft))
        case "greater_than":
            return [(_texts(draft, "NOUN")[0], _texts(draft, "XX1")[0], _texts(draft, "YY")[0])]
        case "induction":
            return [(_texts(draft, "MATCH")[0], _texts(draft, "ANSWER")[0])]
        case _:
            return [tuple(sorted(_texts(draft, "ANSWER") + _texts(draft, "OTHER")))]


def held_out(task: str, draft: Draft) -> bool:
    """Whether what the prompt asks about never occurs together in training.

    IOI: the two names in one prompt. Colored Objects: the queried object in its colour, in any scene. Greater-than:
    the noun with the first year. Induction: the answer after the current word. Laundry List: the set of items.
    """
    return tenth(*_combinations(task, draft)[0])


def _seen(task: str, draft: Draft) -> bool:
    return not any(tenth(*combination) for combination in _combinations(task, draft))


def draw(task: str, rng: random.Random, keep: Callable[[str, Draft], bool] = _seen) -> Draft:
    """A clean prompt of a task on one side of the split (training by default)."""
    settings = TASKS[task].settings({})
    corruption = TASKS[task].corruption(None)
    while True:
        draft = TASKS[task].draw(rng, ALL_WORDS[task], corruption, settings)
        if keep(task, draft):
            return draft


def from_task(task: str, rng: random.Random) -> Example:
    """A prompt of the task with its answer (Colored Objects: the example question's answer counts too)."""
    draft = draw(task, rng)
    text = draft.clean.text
    labels = tuple(start - 1 for start, _ in draft.clean.marks.get("LABEL", ()))
    return Example(text + rng.choice(draft.answers), (*labels, len(text)))


def repeated_list(rng: random.Random) -> Example:
    """A list of words, said twice: every word of the second half is an answer."""
    words = rng.sample(INDUCTION.lists["words"].words, rng.choice((8, 10, 12)))
    if any(tenth(a, b) for a, b in pairwise(words)):
        return repeated_list(rng)
    said = "List: " + " ".join([*words, words[0]])
    return answered(said, *(("", f" {word}") for word in words[1:]))


def answered(text: str, *turns: tuple[str, str]) -> Example:
    """A text that goes on with questions and their answers."""
    answers = []
    for question, answer in turns:
        text += question
        answers.append(len(text))
        text += answer
    return Example(text, tuple(answers))


def _items(rng: random.Random, n: int) -> list[tuple[str, str]]:
    while True:
        items = list(zip(rng.sample(COLORS, n), rng.sample(OBJECTS, n), strict=True))
        if not any(tenth(*item) for item in items):
            return items


def _scene(rng: random.Random, items: list[tuple[str, str]]) -> str:
    things = [f"{article(color)} {noun}" for color, noun in items]
    listed = ", ".join(things[:-1]) + f", and {things[-1]}"
    return f"On the {rng.choice(SURFACES)}, {rng.choice(STARTS)} {listed}."


def one_question(rng: random.Random) -> Example:
    """One scene, one question."""
    items = _items(rng, 3)
    color, noun = rng.choice(items)
    return answered(f"Q: {_scene(rng, items)} What color is the {noun}?\nA:", ("", f" {color.capitalize()}"))


def statement(rng: random.Random) -> Example:
    """A scene of five or six things, then the colour of some of them, said right after the thing."""
    items = _items(rng, rng.choice((5, 6)))
    scene = _scene(rng, items)
    return answered(scene, *((f" The {noun} is", f" {color}.") for color, noun in rng.sample(items, 3)))


def color_of(rng: random.Random) -> Example:
    """Coloured things in a row, then some of them again, each with its colour right after it."""
    items = _items(rng, rng.choice((5, 6, 7)))
    listed = "List: " + ", ".join(f"{color} {noun}" for color, noun in items) + "."
    return answered(listed, *((f" {noun}", f" {color},") for color, noun in rng.sample(items, 4)))


def crowd(rng: random.Random) -> Example:
    """An IOI prompt among sentences on other people or on the same ones, so that counting names does not answer it."""
    draft = draw("ioi", rng)
    (io,), (s,) = _texts(draft, "IO"), _texts(draft, "S1")
    others = [name for name in NAMES if name not in (io, s) and not tenth(*sorted((name, io)))]
    other = rng.choice([name for name in others if not tenth(*sorted((name, s)))])

    def aside() -> str:
        return f"{rng.choice((io, s, other))} {rng.choice(('was', 'stayed'))} at the {rng.choice(PLACES)}."

    text, where = draft.clean.text, rng.choice(("before", "between", "both"))
    if where != "before":
        text = text.replace(". ", f". {aside()} ", 1)
    if where != "between" or "." not in text:
        text = f"{aside()} {text}"
    return answered(text, ("", f" {io}"))


#: what an update is made of
BATCHES = (
    (("ioi", 24), ("crowd", 64), ("greater_than", 12), ("repeated_list", 24)),
    (("laundry_list", 40), ("one_question", 48), ("statement", 32), ("color_of", 32)),
    (("colored_objects", 32),),
)
#: how to make an example of a task, or of a kind of practice
MAKERS: dict[str, Maker] = {
    **{task: partial(from_task, task) for task in TASKS},
    **{make.__name__: make for make in (crowd, repeated_list, one_question, statement, color_of)},
}

POCKET = Mixture(MAKERS, ((0, BATCHES),))
