"""Whatever the text, reading it ends soon and in a result or in diagnostics."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from circuitdsl.language.parse import decode
from tests.drawing import examples
from tests.language.mutations import WORDS, mutated, read


@settings(max_examples=examples(60, 150), deadline=None)
@given(st.text())
@example("((")
@example("heads a = a")
@example("circuit a\nheads a = b + 1.1\nheads b = c\nheads c = a")
@example("margin " + "9" * 400 + "%")
@example("heads a = " + "9" * 5000 + ".1 m" + "9" * 5000)
@example("a -> b at S1+" + "9" * 5000)
@example('model ""\ntask file("")\n')
@example('model "./no/\u2028such\ufeff"\n')
def test_any_text(text: str) -> None:
    read(text)


@settings(max_examples=examples(60, 150), deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_words(words: list[str]) -> None:
    read(" ".join(words))


@settings(max_examples=examples(25, 60), deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    text, found = decode(data)
    assert text == "" or not found
    read(text)


def test_mutated_specs() -> None:
    for seed in range(400):
        read(mutated(random.Random(seed)))


def test_large_and_hostile_texts_end_soon() -> None:
    size = examples(40_000, 100_000)
    chain = "circuit a\n" + "".join(f"heads g{i} = g{i + 1} + 1.{i % 12}\n" for i in range(3000))
    pairs = "circuit a\nheads a = " + " ".join(f"{i // 100}.{i % 100}" for i in range(4000)) + " at END\na -> a.q\n"
    for text in (
        "(" * size,
        "(\n" * size,
        "→" * size,
        '"' * size,
        "heads a = " + "9.9 " * (size // 2),
        "heads a = 9.9" + " + 9.8" * (size // 2),
        "heads\n" * 2_000,
        "path " * 9_000,
        "circuit a\n" * 2_000,
        "a -> b.q\n" * 2_000,
        chain,
        pairs,
    ):
        read(text)
