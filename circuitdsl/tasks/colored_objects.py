"""Colored Objects with one example question (Merullo et al. 2023, arXiv:2310.08744, section 3)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from circuitdsl.tasks.task import Draft, Option, Options, Task, WordList, Words
from circuitdsl.tasks.template import article, fill

COLORS = tuple("red orange yellow green blue purple brown black".split())
OBJECTS = tuple(
    "pencil notebook pen cup plate jug mug puzzle textbook leash necklace bracelet bottle ball envelope lighter "
    "bowl".split()
)
SURFACES = ("table", "desk", "floor")
STARTS = ("there is", "you see", "I see")


def _shot(items: int) -> str:
    *first, last = [f"{{ARTICLE{i}}} {{COLOR{i}}} {{OBJECT{i}}}" for i in range(1, items + 1)]
    listed = f"{', '.join(first)}{',' if len(first) > 1 else ''} and {last}"
    return f"Q: On the {{SURFACE}}, {{START}} {listed}. What color is the {{QUERY}}?\nA:"


_EXAMPLE = _shot(3).replace("{", "{EXAMPLE_") + " {LABEL}\n"


def draw(rng: random.Random, words: Words, corrupt: str, options: Options) -> Draft:
    n = int(options["items"])
    colors = rng.sample(words["colors"], n + 3)
    objects = rng.sample(words["objects"], n + 3)
    example, shown = rng.randrange(3), rng.randrange(n)
    first = _scene(rng, words, _items(colors[n:], objects[n:]), objects[n + example])
    values = {f"EXAMPLE_{key}": value for key, value in first.items()} | {"LABEL": colors[n + example].capitalize()}
    scene = _scene(rng, words, _items(colors[:n], objects), objects[shown])
    other = rng.choice([slot for slot in range(n) if slot != shown])
    if corrupt == "query":
        changed = {"QUERY": objects[other]}
    else:  # the colours of the queried and of another object change places
        swapped = list(colors[:n])
        swapped[shown], swapped[other] = swapped[other], swapped[shown]
        changed = _items(swapped, objects)
    rename = {f"COLOR{i + 1}": "ANSWER" if i == shown else "DISTRACTOR" for i in range(n)}
    rename |= {f"OBJECT{i + 1}": "NOUN" if i == shown else "OTHER_NOUN" for i in range(n)}
    prompt = _EXAMPLE + _shot(n)
    return Draft(
        clean=fill(prompt, values | scene, rename),
        corrupt=fill(prompt, values | scene | changed, rename),
        answers=(f" {colors[shown].capitalize()}",),
        distractors=tuple(f" {c.capitalize()}" for i, c in enumerate(colors[:n]) if i != shown),
        corrupt_answers=(f" {colors[other].capitalize()}",),
        stratum=f"slot-{shown + 1}",
    )


def _items(colors: Sequence[str], objects: Sequence[str]) -> dict[str, str]:
    items: dict[str, str] = {}
    for i, (color, noun) in enumerate(zip(colors, objects, strict=False), start=1):
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
        "DISTRACTOR": "the other colours of the scene",
        "NOUN": "the queried object in the scene",
        "OTHER_NOUN": "the other objects of the scene",
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
    options={"items": Option(3, (2, 3), "number of objects in the scene (that of the example question has three)")},
    # the place of the queried object in the scene
    strata=lambda words, options: tuple(f"slot-{slot + 1}" for slot in range(int(options["items"]))),
    answer_after="A:",
)
