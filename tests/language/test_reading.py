"""Files, characters, and how diagnostics are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitdsl.language.diagnostics import Diagnostic, Sink, Span, ordered, pieces, render, render_all, suggest
from circuitdsl.language.lexer import IN_PHRASES, KEYWORDS, SOFT, STATEMENTS, logical_lines
from circuitdsl.language.parse import decode, parse, read_source
from circuitdsl.language.tables import GRAMMAR, build


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.circ"
    path.write_bytes('\ufeffnote "é"\r\n'.encode())
    assert read_source(path) == ('note "é"\r\n', ())


@pytest.mark.parametrize(
    ("data", "message", "span"),
    [
        (b"note\nmo\0del", "not a text file: byte 8 is NUL", Span(2, 3, 2, 4)),
        (b"\0", "not a text file: byte 1 is NUL", Span(1, 1, 1, 2)),
        ("né\nab".encode() + b"\xff", "not UTF-8 text: byte 7 is 0xff", Span(2, 3, 2, 4)),
        ("é".encode()[:1], "not UTF-8 text: byte 1 is 0xc3", Span(1, 1, 1, 2)),
        (b"\xef\xbb\xbfab\xe9", "not UTF-8 text: byte 6 is 0xe9", Span(1, 4, 1, 5)),
        ("circuit".encode("utf-16"), "not a text file: byte 4 is NUL", Span(1, 4, 1, 5)),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(data: bytes, message: str, span: Span) -> None:
    text, (found,) = decode(data)
    assert (text, found.code, found.message, found.span) == ("", "E002", message, span)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    _, (missing,) = read_source(tmp_path / "none.circ")
    assert (missing.code, missing.message) == ("E001", f"there is no file {tmp_path}/none.circ")
    _, (directory,) = read_source(tmp_path)
    assert directory.message == f"{tmp_path} is a directory, not a circuit file"
    _, (odd,) = read_source("a\0b")
    assert odd.code == "E001"


def test_large_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "large.circ"
    path.write_text("#" * 1_000_001)
    text, (found,) = read_source(path)
    assert (text, found.code) == ("", "E003")
    assert found.message == "the file is larger than 1 MB; a circuit file is text of a few kilobytes"
    path.write_text("#" * 1_000_000)
    assert read_source(path)[1] == ()


# --- words ----------------------------------------------------------------------------------------


def test_every_keyword_is_a_terminal_of_the_grammar_and_a_word() -> None:
    declared = {
        name
        for line in GRAMMAR.read_text().split("\n")
        if line.startswith("%declare") and "NAME" not in line and "ARROW" not in line
        for name in line.split()[1:]
    }
    soft = {keyword.upper() for keyword in (*SOFT, *IN_PHRASES)}
    assert declared == {keyword.upper() for keyword in KEYWORDS} | soft
    word = {symbol.name for rule in build(None).rules if rule.origin.name == "word" for symbol in rule.expansion}
    assert word == declared - soft | {"NAME", "POSITION", "MLP", "RESID"}
    assert STATEMENTS < KEYWORDS


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("9.9.q 0.10 m9 m x1 S1+1", "DECIMAL PORT DECIMAL MLP NAME NAME POSITION PLUS INT"),
        ('a->b:"c#d"#e', 'NAME ARROW NAME COLON STRING'),
        (">=<=<>= 1e-3 2.5% -1", "RELATION RELATION RELATION RELATION SCIENTIFIC DECIMAL PERCENT MINUS INT"),
        ("8.6[2] * END heads Mover _x", "DECIMAL LSQB INT RSQB STAR POSITION HEADS NAME NAME"),
    ],
)  # fmt: skip
def test_tokens(text: str, kinds: str) -> None:
    sink = Sink()
    (line,), _ = logical_lines(text, sink)
    assert [token.type for token in line.tokens] == kinds.split()
    assert not sink.found


def test_comments_and_signs_inside_strings_are_text() -> None:
    file, found = parse('note "a # b → c ( “d”"\nnote "e"')
    assert found == ()
    assert [statement.text.text for statement in file.statements] == ["a # b → c ( “d”", "e"]  # type: ignore[union-attr]


# --- showing --------------------------------------------------------------------------------------


def test_a_diagnostic_shows_its_line_and_what_was_meant() -> None:
    text = "circuit ioi\ninhibiton -> mover.q at END\n"
    found = Diagnostic(
        "E040",
        "error",
        "unknown group 'inhibiton'; did you mean 'inhibition'?",
        Span(2, 1, 2, 10),
        ("a note",),
        "a hint",
    )
    assert render(found, text, "specs/ioi.circ") == (
        "specs/ioi.circ:2:1: error[E040]: unknown group 'inhibiton'; did you mean 'inhibition'?\n"
        "  2 | inhibiton -> mover.q at END\n"
        "    | ^^^^^^^^^\n"
        "    = note: a note\n"
        "    = help: a hint"
    )


@pytest.mark.parametrize(
    ("line", "span", "shown", "carets"),
    [
        ("\tmover", Span(1, 2, 1, 7), " mover", " ^^^^^"),
        ('note "日本" x', Span(1, 11, 1, 12), 'note "日本" x', "            ^"),
        ("note e\u0301 x", Span(1, 9, 1, 10), "note e\u0301 x", "       ^"),
        ("mover", Span(1, 6, 1, 7), "mover", "     ^"),
        ("a(\nb", Span(1, 2, 2, 2), "a(", " ^"),
        ("x" * 300, Span(1, 200, 1, 203), "…" + "x" * 100 + "…", " " * 51 + "^^^"),
    ],
)
def test_carets_stand_under_the_wrong_part(line: str, span: Span, shown: str, carets: str) -> None:
    _, source, under = render(Diagnostic("E020", "error", "x", span), line, "f").split("\n")
    assert (source, under) == (f"  1 | {shown}", f"    | {carets}")


def test_what_concerns_the_whole_file_shows_no_line() -> None:
    _, (found,) = parse("", "empty.circ")
    assert render(found, "", "empty.circ").startswith("empty.circ:1:1: error[E004]: the file holds no statement\n")


def test_pieces_are_the_rendered_text_with_styles() -> None:
    text = "mover → logits"
    _, found = parse(text)
    styled = list(pieces(found[0], text.split("\n"), "x.circ"))
    assert "".join(piece for _, piece in styled) == render(found[0], text, "x.circ")
    assert [style for style, _ in styled] == ["place", "error", "message", "gutter", "source", "gutter", "caret"]


def test_many_are_shown_with_blank_lines_between() -> None:
    text = "at\nat"
    _, found = parse(text)
    assert render_all(found, text, "x").count("\n\n") == 1


def test_order_is_by_place_and_doubles_are_dropped() -> None:
    first, second = (
        Diagnostic("E040", "error", "a", Span(1, 2, 1, 3)),
        Diagnostic("E010", "error", "b", Span(1, 2, 1, 3)),
    )
    late = Diagnostic("E001", "error", "c", Span(2, 1, 2, 2))
    assert ordered([late, first, second, first]) == (second, first, late)


@pytest.mark.parametrize(
    ("name", "known", "guess"),
    [
        ("inhibiton", ("inhibition", "induction"), "inhibition"),
        ("Mover", ("mover",), "mover"),
        ("zebra", ("mover",), None),
        ("x" * 1000, ("mover",), None),
    ],
)
def test_suggestions(name: str, known: tuple[str, ...], guess: str | None) -> None:
    assert suggest(name, known) == guess


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("heads mover = 9.9 at", "the line ends where a position such as END is expected"),
        ("expect accuracy >= :", "expected a number or a measurement, found ':'"),
        ("margin", "the line ends where a number is expected"),
        ("model gpt2", "expected a \"string\", found 'gpt2'"),
        ("mover -> logits at END, : lowers", "expected a position such as END, found ':'"),
        ("edges via", "the line ends where 'mlps' is expected"),
        ("when mover is gone", "expected 'knocked', found 'gone'"),
        ("each", "the line ends where a node or a group is expected"),
        ("mover -> logits : lowers and", "the line ends where a claim such as 'lowers' is expected"),
    ],
)
def test_syntax_errors_say_what_may_stand_there(line: str, message: str) -> None:
    _, found = parse(line)
    assert [d.message for d in found] == [message]
