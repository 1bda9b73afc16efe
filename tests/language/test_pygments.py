"""The Pygments lexer: no character is lost, and a word has the colour of what it is."""

from __future__ import annotations

import random
import tomllib
from importlib import import_module

import pytest

pytest.importorskip("pygments")
from pygments.token import Comment, Error, Keyword, Name, Number

from circuitdsl.language.lexer import KEYWORDS
from circuitdsl.language.pygments import CircLexer
from tests.conftest import ROOT

SPECS = sorted((ROOT / "specs").rglob("*.circ"))


def types(text: str) -> list[tuple[object, str]]:
    found = list(CircLexer().get_tokens_unprocessed(text))
    assert "".join(piece for *_, piece in found) == text
    assert [start for start, *_ in found] == [sum(len(p) for *_, p in found[:i]) for i in range(len(found))][
        : len(found)
    ]
    return [(kind, piece) for _, kind, piece in found if piece.strip()]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_spec_is_coloured_without_errors(path) -> None:
    found = types(path.read_text(encoding="utf-8"))
    assert Error not in {kind for kind, _ in found}
    keywords = {kind in Keyword for kind, word in found if word in KEYWORDS and kind not in Name}
    assert keywords == {True}


def test_words_are_what_they_are() -> None:
    text = "heads mover = 9.9 0.10 at END # why\nmover -> 9.9.q : effect in [-0.5%, 1.5%] and delta >= -2.5\n"
    found = types(text + "expect attention(mover, END -> IO) >= 40.5%\nexpect role(mover)\n")
    assert [kind for kind, word in found if word in ("9.9", "0.10")] == [Name.Builtin] * 3
    assert {kind for kind, word in found if word in ("0.5", "1.5", "2.5", "40.5")} == {Number.Float}
    assert [kind for kind, word in found if word in ("attention", "role")] == [Name.Function] * 2
    assert (Comment.Single, "# why") in found and (Name.Constant, "END") in found


def test_any_text_is_coloured() -> None:
    rng, words = random.Random(0), ["mover", "9.9", "->", '"a', "[", "…", "#x\n", "\n  ", "\r\n", "=>", "é", "in ["]
    for _ in range(200):
        types("".join(rng.choice(words) for _ in range(30)))


def test_the_entry_point_names_the_lexer() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pygments.lexers"]
    module, _, name = points["circ"].partition(":")
    assert getattr(import_module(module), name) is CircLexer
