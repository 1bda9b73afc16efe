"""Greater-than (Hanna et al. 2023, arXiv:2305.00586, section 2)."""

from __future__ import annotations

import random

from circuitdsl.tasks.task import Draft, Options, Task, WordList, Words
from circuitdsl.tasks.template import fill

NOUNS = tuple(
    "war battle siege conflict campaign revolt rebellion invasion expedition voyage journey project program reform "
    "treaty alliance empire dynasty reign plague famine drought strike trial feud debate crisis trade tour".split()
)
CENTURIES = tuple(str(c) for c in range(11, 18))
TWO_DIGITS = tuple(f"{y:02d}" for y in range(100))
#: 01 is for corrupt prompts alone; 02 to 98 leave room on both sides
YEARS = tuple(f"{c}{y:02d}" for c in CENTURIES for y in range(1, 99))
_PROMPT = "The {NOUN} lasted from the year {XX1}{YY} to the year {CENTURY}"


def draw(rng: random.Random, words: Words, corrupt: str, options: Options) -> Draft:
    while (year := rng.choice(words["years"]))[2:] == "01":
        pass  # another is drawn
    century, start = year[:2], year[2:]
    noun = rng.choice(words["nouns"])
    later = [y for y in words["two_digits"] if y > start]
    earlier = [y for y in words["two_digits"] if y <= start]
    # the paper's corrupt prompt begins in 01; "low" draws a year before the clean one
    other = "01" if corrupt == "yy01" else rng.choice([y[2:] for y in words["years"] if y[:2] == century and y < year])
    values = {"NOUN": noun, "XX1": century, "YY": start, "CENTURY": century}
    return Draft(
        clean=fill(_PROMPT, values),
        corrupt=fill(_PROMPT, values | {"YY": other}),
        answers=tuple(later),
        distractors=tuple(earlier),
        stratum=century,
    )


def _with_partners(words: Words) -> Words:
    """Only years of centuries whose 01 is usable, with two-digit answers on both sides."""
    years, ends = words["years"], words["two_digits"]
    first, last = min(ends, default=""), max(ends, default="")

    def usable(year: str) -> bool:
        return f"{year[:2]}01" in years and (year[2:] == "01" or first <= year[2:] < last)

    return {**words, "years": tuple(filter(usable, years))}


GREATER_THAN = Task(
    name="greater_than",
    title="Greater-than: the year a span of time ends",
    source="Hanna et al. 2023, arXiv:2305.00586",
    positions={
        "NOUN": "what lasted",
        "XX1": "the century of the first year",
        "YY": "the last two digits of the first year",
        "END": "the last token, the century of the second year",
    },
    corruptions={
        "yy01": "the first year ends in 01 (the paper's)",
        "low": "the first year is an earlier one of its century",
    },
    lists={
        "nouns": WordList(NOUNS, before="The"),
        "years": WordList(YEARS, before="the year", cut=2),
        "two_digits": WordList(TWO_DIGITS, before="the year 17", glue=""),
    },
    # 10 years are more than there are centuries, so that not all of them are 01
    needs={"nouns": 1, "two_digits": 90, "years": 10},
    narrow=_with_partners,
    order=(("NOUN",), ("XX1",), ("YY",)),
    draw=draw,
    # the centuries that have a year to start from
    strata=lambda words, options: tuple(dict.fromkeys(y[:2] for y in words["years"] if y[2:] != "01")),
    metric="prob_diff",
    answer_after="the year 17",
)
