"""One layout: what it looks like, what it keeps, and that it says the same."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import START
from circuitdsl.language.format import NotFormatted, dumps, format_text
from circuitdsl.language.parse import parse
from circuitdsl.testing.strategies import specs
from tests.drawing import examples

FIXTURES = Path(__file__).parent.parent / "fixtures"
CASES = sorted((FIXTURES / "fmt").glob("*.in.circ"))
SHIPPED = sorted((Path(__file__).parent.parent.parent / "specs").rglob("*.circ"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".in.circ"))
def test_a_text_in_its_layout(path: Path) -> None:
    text = path.read_bytes().decode()
    wanted = path.with_name(path.name.replace(".in.", ".out.")).read_text(encoding="utf-8")
    assert format_text(text) == wanted
    assert format_text(wanted) == wanted
    assert parse(wanted)[0] == parse(text)[0]


@pytest.mark.parametrize(
    "path", [FIXTURES / "whole.circ", *SHIPPED], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_the_language_s_own_example_and_what_ships_are_in_their_layout(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_text(text) == text


@settings(max_examples=examples(60, 150), deadline=None)
@given(specs())
def test_what_is_written_is_read_again(spec: s.File) -> None:
    text = dumps(spec)
    again, found = parse(text)
    assert found == ()
    assert again == spec
    assert format_text(text) == text


@settings(max_examples=examples(40, 100), deadline=None)
@given(specs(5), st.randoms(use_true_random=False))
def test_blanks_line_ends_and_comments_change_nothing_but_the_comments(spec: s.File, rng: random.Random) -> None:
    text, comments = scattered(dumps(spec), rng)
    file, found = parse(text)
    assert (file, found) == (spec, ())
    once = format_text(text)
    assert parse(once)[0] == spec
    assert format_text(once) == once
    assert sorted(comment.text for comment in parse(once)[0].comments) == sorted(comments)


def scattered(text: str, rng: random.Random) -> tuple[str, list[str]]:
    """The same spec with other blanks, CRLF, blank lines and comments; and the comments."""
    out, comments = [], []

    def comment() -> str:
        comments.append(f'#{rng.randrange(1000)} ( " ->')
        return comments[-1]

    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))]
        out += [""] * rng.choice((0, 0, 0, 1, 3))
        if rng.random() < 0.2:
            out.append(" " * rng.randrange(6) + comment())
        tail = "  " + comment() if line.strip() and rng.random() < 0.2 else ""
        out.append(indent * rng.choice((1, 1)) + line.strip() + tail + " " * rng.randrange(3))
    return rng.choice(("\n", "\r\n")).join(out), comments


def test_a_text_with_syntax_errors_is_refused_with_all_of_them() -> None:
    with pytest.raises(NotFormatted, match=r"^a.circ:2:7 cannot be formatted: .* \(and 1 more\)$") as refused:
        format_text("circuit a\nheads Mover = 9.9\nexpect\n", "a.circ")
    assert [d.code for d in refused.value.diagnostics] == ["E022", "E020"]


@pytest.mark.parametrize("text", ['a "quoted" word', "two\nlines", "two\rlines"])
def test_what_no_string_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="holds no double quote, line end or control"):
        dumps(s.File("", (s.Info(START, "note", s.Text(START, text)),)))


def test_what_could_not_be_read_is_not_written() -> None:
    file, _ = parse("circuit a\nheads Mover 9.9")
    with pytest.raises(ValueError, match="line 2 could not be read"):
        dumps(file)


def test_a_changed_spec_keeps_its_comments_and_sections() -> None:
    file, _ = parse('# first\ncircuit a\n\nmodel   "gpt2" # here\n# last\n')
    circuit, model = file.statements
    added = s.Margin(START, s.Number(START, 2.0, "%", "2%"))
    text = dumps(replace(file, statements=(circuit, model, added)))
    assert text == '# first\ncircuit a\n\nmodel  "gpt2"  # here\nmargin 2%\n# last\n'


def test_a_spec_without_a_text_is_put_into_sections() -> None:
    file, _ = parse(
        'circuit a "A"\nnote "n"\nmodel "gpt2"\ntask ioi\nheads a = 1.1 at END\na -> logits\nexpect accuracy > 5%\n'
        "when a is knocked out\n  expect accuracy falls\n  expect accuracy < 5%\nexpect kl > 0\n"
    )
    assert dumps(replace(file, text="", comments=())) == (
        'circuit a "A"\n  note "n"\n\nmodel "gpt2"\ntask  ioi\n\nheads a = 1.1      at END\n\na -> logits\n\n'
        "expect accuracy > 5%\n\n"
        "when a is knocked out\n  expect accuracy falls\n  expect accuracy < 5%\n\nexpect kl > 0\n"
    )
