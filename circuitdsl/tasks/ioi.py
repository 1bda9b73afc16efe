"""Indirect Object Identification (Wang et al. 2022, arXiv:2211.00593, section 2 and appendix E)."""

from __future__ import annotations

import random

from circuitdsl.tasks.task import Draft, Option, Options, Task, WordList, Words
from circuitdsl.tasks.template import fill

# Figure 14 of the paper: {A} and {B} are the two names of the first clause, in this order.
TEMPLATES = (
    "Then, {A} and {B} went to the {PLACE}. {S2} gave a {OBJECT} to",
    "Then, {A} and {B} had a lot of fun at the {PLACE}. {S2} gave a {OBJECT} to",
    "Then, {A} and {B} were working at the {PLACE}. {S2} decided to give a {OBJECT} to",
    "Then, {A} and {B} were thinking about going to the {PLACE}. {S2} wanted to give a {OBJECT} to",
    "Then, {A} and {B} had a long argument, and afterwards {S2} said to",
    "After {A} and {B} went to the {PLACE}, {S2} gave a {OBJECT} to",
    "When {A} and {B} got a {OBJECT} at the {PLACE}, {S2} decided to give it to",
    "When {A} and {B} got a {OBJECT} at the {PLACE}, {S2} decided to give the {OBJECT} to",
    "While {A} and {B} were working at the {PLACE}, {S2} gave a {OBJECT} to",
    "While {A} and {B} were commuting to the {PLACE}, {S2} gave a {OBJECT} to",
    "After the lunch, {A} and {B} went to the {PLACE}. {S2} gave a {OBJECT} to",
    "Afterwards, {A} and {B} went to the {PLACE}. {S2} gave a {OBJECT} to",
    "Then, {A} and {B} had a long argument. Afterwards {S2} said to",
    "The {PLACE} {A} and {B} went to had a {OBJECT}. {S2} gave it to",
    "Friends {A} and {B} found a {OBJECT} at the {PLACE}. {S2} gave it to",
)

NAMES = tuple(
    "Michael Christopher Jessica Matthew Ashley Jennifer Joshua Amanda Daniel David James Robert John Joseph "
    "Andrew Ryan Brandon Jason Justin Sarah William Jonathan Stephanie Brian Nicole Nicholas Anthony Heather "
    "Eric Elizabeth Adam Megan Melissa Kevin Steven Thomas Timothy Christina Kyle Rachel Laura Lauren Amber "
    "Brittany Danielle Richard Kimberly Jeffrey Amy Crystal Michelle Tiffany Jeremy Benjamin Mark Emily Aaron "
    "Charles Rebecca Jacob Stephen Patrick Sean Erin Jamie Kelly Samantha Nathan Sara Dustin Paul Angela Tyler "
    "Scott Katherine Andrea Gregory Erica Mary Travis Lisa Kenneth Bryan Lindsey Kristen Jose Alexander Jesse "
    "Katie Lindsay Shannon Vanessa Courtney Christine Alicia Cody Allison Bradley Samuel".split()
)
PLACES = tuple("store garden restaurant school hospital office house station".split())
OBJECTS = tuple("ring kiss bone basketball computer necklace drink snack".split())


def draw(rng: random.Random, words: Words, corrupt: str, options: Options) -> Draft:
    index = rng.randrange(len(TEMPLATES))
    order = rng.choice(("abba", "baba")) if options["order"] == "mixed" else str(options["order"])
    io, s, *others = rng.sample(words["names"], 5)
    clean = {"IO": io, "S1": s, "S2": s, "PLACE": rng.choice(words["places"]), "OBJECT": rng.choice(words["objects"])}
    changed, asked = _corrupt(corrupt, io, s, others)
    first, second = ("{IO}", "{S1}") if order == "abba" else ("{S1}", "{IO}")
    template = TEMPLATES[index].replace("{A}", first).replace("{B}", second)
    return Draft(
        clean=fill(template, clean),
        corrupt=fill(template, clean | changed),
        answers=(f" {io}",),
        distractors=(f" {s}",),
        corrupt_answers=tuple(f" {name}" for name in asked),
        stratum=f"{order.upper()}-{index + 1:02d}",
    )


def strata(words: Words, options: Options) -> tuple[str, ...]:
    """Every template in the orders asked for."""
    orders = ("ABBA", "BABA") if options["order"] == "mixed" else (str(options["order"]).upper(),)
    return tuple(f"{order}-{index + 1:02d}" for order in orders for index in range(len(TEMPLATES)))


def _corrupt(corrupt: str, io: str, s: str, others: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The names that change, and the answer of the corrupt prompt (none where it has no answer)."""
    x, y, z = others
    return {
        "abc": ({"IO": x, "S1": y, "S2": z}, ()),
        "flip": ({"S2": io}, (s,)),
        "s2": ({"S2": x}, ()),
        "swap": ({"IO": s, "S1": io}, (io,)),
        "io": ({"IO": x}, (x,)),
        "s": ({"S1": x, "S2": x}, (io,)),
    }[corrupt]


IOI = Task(
    name="ioi",
    title="Indirect object identification",
    source="Wang et al. 2022, arXiv:2211.00593",
    positions={
        "IO": "the indirect object, the name that is not repeated",
        "S1": "the subject, first time",
        "S2": "the subject, second time",
        "PLACE": "the place, where the template has one",
        "OBJECT": "the object, where the template has one (all its mentions)",
        "ANSWER": "the indirect object",
        "DISTRACTOR": "the subject, both times",
        "END": "the last token",
    },
    corruptions={
        "abc": "three unrelated names (p_ABC of the paper)",
        "flip": "the second subject becomes the indirect object, so that the roles are exchanged",
        "s2": "the second subject becomes an unrelated name",
        "swap": "the two names of the first clause change places",
        "io": "the indirect object becomes an unrelated name",
        "s": "the subject becomes an unrelated name, both times",
    },
    order=(("IO", "S1", "ANSWER"), ("S2",)),
    aliases={"ANSWER": ("IO",), "DISTRACTOR": ("S1", "S2")},
    lists={
        "names": WordList(NAMES, before="to"),
        "places": WordList(PLACES),
        "objects": WordList(OBJECTS, before="a"),
    },
    needs={"names": 5, "places": 1, "objects": 1},
    options={"order": Option("mixed", ("mixed", "abba", "baba"), "order of the two names in the first clause")},
    draw=draw,
    strata=strata,
)
