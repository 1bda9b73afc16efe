"""What cannot be seen is spelled out, and nothing else changes."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import circuitdsl
from circuitdsl.visible import escape, harmless, json_text, json_to_show, lines, visible
from tests.hostile.texts import TEXTS, commands, unseen


def test_every_character_of_unicode() -> None:
    """Of all categories of what is not seen; what is seen stays as it is."""
    for start in range(0, 0x110000, 0x1000):
        text = "".join(map(chr, range(start, start + 0x1000)))
        shown = visible(text)
        assert not unseen(shown, ""), [hex(ord(c)) for c in unseen(shown, "")]
        assert shown.isprintable() or all(visible(c) == c for c in shown)
    for seen in ("é", "漢", "\u00a0", "\u3000", "😀", "❤\ufe0f", "e\u0301", "م", "−", "\\x1b"):
        assert visible(seen) == seen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\n", "\\x1b[2J\\n"),
        ("\u202e\x9b", "\\u202e\\x9b"),
        ("\U000e0041\ud800\t", "\\U000e0041\\ud800\\t"),
    ],
)
def test_the_form_is_that_of_python(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_json_means_the_same(text: str) -> None:
    written = json_text({"a": [text]}, indent=1)
    assert json.loads(written) == json.loads(json.dumps({"a": [text]}))
    assert not unseen(written) and not commands(written)
    written.encode()


def test_nothing_is_printed_past_it() -> None:
    """A terminal is written to by `say`, `tell` and `Screen`; all others call these."""
    package, found = Path(circuitdsl.__file__).parent, set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if called == "Console" or (called == "print" and node.args):
                found.add(path.relative_to(package).as_posix())
    assert found == {"cli/terminal.py", "models/pocket/dictionaries.py", "models/pocket/train.py"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_nothing_is_a_command(text: str) -> None:
    for before in ("", " ", "a\n", "a\n\n\t ", "\u00a0", "\u3000"):
        shown = lines(before + text)
        assert not commands(shown) and not unseen(shown, "\n\t")
        assert commands(harmless(before + text)) == []
    assert not set("<>\"'") & set(escape(text))


def test_a_page_shows_what_json_would_hide() -> None:
    assert json.loads(json_to_show(["\x1b[2J\r\n\\u001b\u202e"])) == ["\\x1b[2J\\r\n\\u001b\\u202e"]
