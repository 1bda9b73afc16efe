"""Colored Objects with one example question (Merullo et al. 2023, arXiv:2310.08744, section 3)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from circuitdsl.tasks.task import Draft, Options, Task, WordList, Words
from circuitdsl.tasks.template import article, fill

COLORS = tuple("red orange yellow green blue purple brown black".split())
OBJECTS = tuple(
    "pencil notebook pen cup plate jug mug puzzle textbook leash necklace bracelet bottle ball envelope lighter "
    "bowl".split()
)
SURFACES = ("table", "desk", "floor")
STARTS = ("there is", "you see", "I see")

_SHOT = (
    "Q: On the {SURFACE}, {START} {ARTICLE1} {COLOR1} {OBJECT1}, {ARTICLE2} {COLOR2} {OBJECT2}, and {ARTICLE3} "
    "{COLOR3} {OBJECT3}. What color is the {QUERY}?\nA:"
)
_PROMPT = _SHOT.replace("{", "{EXAMPLE_") + " {LABEL}\n" + _SHOT


def draw(rng: random.Random, words: Words, corrupt: str, options: Options) -> Draft:
    colors = rng.sample(words["colors"], 6)
    objects = rng.sample(words["objects"], 6)
    example, shown = rng.randrange(3), rng.randrange(3)
    first = _scene(rng, words, _items(colors[3:], objects[3:]), objects[3 + example])
    values = {f"EXAMPLE_{key}": value for key, value in first.items()} | {"LABEL": colors[3 + example].capitalize()}
    scene = _scene(rng, words, _items(colors, objects), objects[shown])
    other = rng.choice([slot for slot in range(3) if slot != shown])
    if corrupt == "query":
        changed = {"QUERY": objects[other]}
    else:  # the colours of the queried and of another object change places
        swapped = list(colors[:3])
        swapped[shown], swapped[other] = swapped[other], swapped[shown]
        changed = _items(swapped, objects)
    rename = {f"COLOR{i + 1}": "ANSWER" if i == shown else "DISTRACTOR" for i in range(3)}
    rename |= {f"OBJECT{i + 1}": "NOUN" if i == shown else "OTHER_NOUN" for i in range(3)}
    return Draft(
        clean=fill(_PROMPT, values | scene, rename),
        corrupt=fill(_PROMPT, values | scene | changed, rename),
        answers=(f" {colors[shown].capitalize()}",),
        distractors=tuple(f" {c.capitalize()}" for i, c in enumerate(colors[:3]) if i != shown),
        corrupt_answers=(f" {colors[other].capitalize()}",),
        stratum=f"slot-{shown + 1}",
    )


def _items(colors: Sequence[str], objects: Sequence[str]) -> dict[str, str]:
    items: dict[str, str] = {}
    for i, (color, noun) in enumerate(zip(colors[:3], objects[:3], strict=True), start=1):
        items |= {f"ARTICLE{i}": article(color).split()[0], f"COLOR{i}": color, f"OBJECT{i}": noun}
    return items


def _scene(rng: random.Random, words: Words, items: dict[str, str], query: str) -> dict[str, str]:
    return {"SURFACE": rng.choice(words["surfaces"]), "START": rng.choice(STARTS), "QUERY": query, **items}


COLORED_OBJECTS = Task(
    name="colored_objects",
    title="Colored Objects, one-shot",
    source="Merullo et al. 2023, arXiv:2310.08744",
    positions={
        "ANSWER": "the queried object's colour in the scene",
        "DISTRACTOR": "the two other colours of the scene",
        "NOUN": "the queried object in the scene",
        "OTHER_NOUN": "the two other objects of the scene",
        "QUERY": "the queried object in the question",
        "LABEL": "the answer to the example question",
        "EXAMPLE_QUERY": "the queried object in the example question",
        "END": "the last token",
    },
    corruptions={
        "query": "the question asks about another object of the scene (the paper's)",
        "colors": "the queried object's colour and another one change places",
    },
    lists={
        "colors": WordList(COLORS, before="is"),
        "labels": WordList(tuple(c.capitalize() for c in COLORS), before="A:"),
        "objects": WordList(OBJECTS),
        "surfaces": WordList(SURFACES),
    },
    needs={"labels": 6, "colors": 6, "objects": 6, "surfaces": 1},
    # only colours that can be answers: their capitalised form must be usable too
    narrow=lambda words: {**words, "colors": tuple(c for c in words["colors"] if c.capitalize() in words["labels"])},
    order=(("EXAMPLE_QUERY",), ("LABEL",), ("ANSWER", "DISTRACTOR", "NOUN", "OTHER_NOUN"), ("QUERY",)),
    draw=draw,
    # the place of the queried object in the scene
    strata=lambda words, options: ("slot-1", "slot-2", "slot-3"),
    answer_after="A:",
)
