"""A megabyte of whatever text is read, checked and formatted, or refused, in time that grows with the text alone."""

from __future__ import annotations

import difflib
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.circuit import lint
from circuitdsl.language import diagnostics, parse
from circuitdsl.language.automaton import Automaton
from circuitdsl.language.diagnostics import FIRST, Sink, render_foremost
from circuitdsl.language.format import NotFormatted, format_text
from tests.hostile.large_texts import BROKEN, HEAD, MANY, WHOLE, lines

T = TypeVar("T")
LONG = bool(os.environ.get("CIRCUITDSL_LONG"))
#: processor seconds that no text takes, on a slow machine either; the aim is 2
SECONDS = 6.0


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Processor seconds of some work, and what it gives."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def formatted(text: str) -> str:
    try:
        return format_text(text)
    except NotFormatted:
        return ""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_text_is_not_read_on(name: str) -> None:
    text = BROKEN[name]()
    seconds, spec = timed(lambda: loads(text))
    assert seconds < SECONDS and not spec.ok and len(spec.diagnostics) < 2 * parse.MAX_MISTAKES
    assert render_foremost(spec.diagnostics, text, "x.circ").count("x.circ:") <= FIRST
    assert not LONG or timed(lambda: formatted(text))[0] < SECONDS


@pytest.mark.parametrize("name", MANY)
def test_a_text_cannot_name_more_than_is_worked_out(name: str) -> None:
    text = MANY[name]()
    seconds, spec = timed(lambda: loads(text))
    assert seconds < SECONDS
    assert "this file names too many nodes, edges and checks in all" in {found.message for found in spec.diagnostics}


@pytest.mark.parametrize("name", WHOLE)
def test_a_large_text_is_read_to_its_end(name: str) -> None:
    text = WHOLE[name]()
    seconds, spec = timed(lambda: loads(text))
    assert seconds < SECONDS and "E016" not in {found.code for found in spec.diagnostics}
    (circuit,) = spec.circuits
    assert spec.ok == (len(circuit.claims) == 20_000 or len(circuit.groups) == 25_002)
    if LONG and spec.ok:
        seconds, again = timed(lambda: formatted(text))
        assert seconds < SECONDS and formatted(again) == again


@pytest.mark.skipif(not LONG, reason="CIRCUITDSL_LONG=1 measures how the time grows")
@pytest.mark.parametrize("name", [*BROKEN, *MANY, *WHOLE])
def test_twice_the_text_takes_twice_the_time(name: str) -> None:
    text = {**BROKEN, **MANY, **WHOLE}[name]()
    half = text[: len(text) // 2]
    once, twice = (min(timed(lambda text=text: loads(text))[0] for _ in range(3)) for text in (half, text))
    assert twice < 2.6 * once + 0.1


# --- work is counted --------------------------------------------------------------------------------


def counting(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> Counter[str]:
    """Count the calls of a function."""
    calls, known = Counter[str](), getattr(place, name)

    def counted(*given: Any, **how: Any) -> Any:
        calls[name] += 1
        return known(*given, **how)

    monkeypatch.setattr(place, name, counted)
    return calls


def test_statements_that_are_alike_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parse.automaton.cache_clear()
    calls = counting(monkeypatch, Automaton, "steps")
    file, found = parse.parse(lines(lambda i: f"inhibition -> mover.q at END : effect <= -{i}%", HEAD, 2000))
    assert len(file.statements) == 2005 and not found and calls["steps"] == 5


def test_mistakes_are_explained_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch, parse, "explain")
    file, found = parse.parse("a b\n" * 20_000)
    assert calls["explain"] == len(found) - 1 == parse.MAX_MISTAKES + 1 and not file.statements
    assert "the file has more than 1,000 mistakes" in [each.message for each in found]


def test_few_names_are_compared_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def close(word: str, known: list[str], **how: Any) -> list[str]:
        compared.append(len(known))
        return difflib.get_close_matches(word, known, **how)

    monkeypatch.setattr(diagnostics, "get_close_matches", close)
    spec = loads(lines(lambda i: f"heads gabc{i} = 1.1" if i < 900 else f"gabx{i} -> logits : lowers", HEAD, 3000))
    assert len(spec.diagnostics) == 2100 and sum(compared) < Sink.MAX_COMPARED + 2000
    assert "did you mean 'gabc" in spec.diagnostics[0].message and "did you" not in spec.diagnostics[-1].message


def test_contradictions_are_looked_for_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch, lint, "_agree")
    bounds = [*(f"<= {90 + i / 1000}%" for i in range(199)), ">= 50%", *(f"<= {i / 1000}%" for i in range(200, 1000))]
    claims = HEAD + "".join(f"inhibition -> mover.q at END : effect {bound}\n" for bound in bounds)
    spec = loads(claims)
    assert Counter(found.code for found in spec.diagnostics)["W002"] == 100
    assert calls["_agree"] == lint.MOST_OF_ALL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("heads a = " + "1.1 " * 10_000, "this statement has more than 10000 words and signs"),
        (lines(lambda i: "mlps a =" + " m1" * 500, "", 600), "the file has more than 250,000 words and signs"),
        ("heads a = 1.1\n" * 30_001, "the file has more than 30,000 statements"),
        ("circuit a\n" * 101, "the file has more than 100 lines like this"),
    ],
)
def test_a_file_that_is_too_long(text: str, says: str) -> None:
    (found,) = loads(text).diagnostics
    assert (found.code, found.message) == ("E016", says)


# --- what messages quote ------------------------------------------------------------------------------

LOREM, NAME = "lorem ipsum dolor ", "a"
#: each with a long text in it: X is a name, S a string
SPECS = (
    'circuit c\nmodel "S"', 'circuit c\nmodel "./S"', 'circuit c\nmodel "pocket", revision = "S"', 'task "S"', "S",
    'circuit c\nmodel "pocket"\ntask file("S")', 'use "S"', 'use "../S"', 'use "/S"', 'circuit c "S"\ncircuit c "S"',
    'circuit c\ntask ioi("S")', 'circuit c\ntask ioi(corrupt = "S")', 'circuit c\ntask file("x", corrupt = "S")',
    "metric X", 'circuit c\nmetric logit_diff("S")', "heads X = 1.1\nheads X = 1.2", 'role a "S"\nrole a "S"', "“S”",
    "circuit X\ncircuit X", "role X\n  expect X(self) > 5%", *(
        HEAD + line for line in (
            "X -> mover.q", "mover -> mover.X", "expect X >= 5%", "expect accuracy on X >= 5%", "task X", "‘S’ x",
            "mover -> logits at X : lowers", "heads h = 1.1 role X", "task ioi(X = 5)", "task ioi(corrupt = X)",
            "compare X with big", "intervention a\n  replace mover with X", 'expect attention("S", END -> IO) >= 5%',
            'compare c with "S"', 'mover -> logits : lowers "S"\nmover -> logits : raises "S"',
            'property "S" for 5% of "S"',
        )
    ),
)  # fmt: skip
#: statements that are long themselves
LONG_ONES = (
    f"heads g = {'1.1 ' * 3000}", f"({'1.1 ' * 900}) -> mover.q : lowers", f"(mover) -> (mover {'3.1 ' * 900}).q",
    f"heads h = {' + '.join(['mover'] * 900)} - 3.3", f"margin {'9' * 7000}", f"heads h = {'9' * 7000}.1",
    f"mover -> logits at {', '.join(f'S1+{i}' for i in range(900))} : lowers", f"heads h = m{'9' * 900}", "→" * 900,
    f"channel ({'mover ' * 900}) -> mover.q : composition rank <= 3", f"heads h = 1.1[{'9' * 900}]", "é" * 900,
)  # fmt: skip
COMMANDS = (
    ["check", "S"], ["fmt", "S"], ["S"], ["plan", "S"], ["check", "pocket/ioi", "--model", "S"], ["explain", "S"],
    ["verify", "pocket/ioi", "--prompts", "S"], ["verify", "pocket/ioi", "--memory", "S"], ["diff", "S", "S"],
    ["verify", "pocket/ioi", "--claim", "S"], ["verify", "pocket/ioi", "--circuit", "S"], ["init", "S", "--task", "S"],
    ["verify", "pocket/ioi", "-o", "S/x"], ["check", "pocket/ioi", "--S"], ["render", "pocket/ioi", "-o", "S"],
    ["tasks", "sample", "S"], ["tasks", "sample", "ioi", "--model", "S"], ["channels", "pocket", "--to", "S"],
)  # fmt: skip


def quotes(said: str, given: str) -> bool:
    """Whether a message has 201 characters of what was given."""
    given = " ".join(given.split())
    return any(said[at : at + 201] in given for at in range(len(said) - 200))


def filled(pattern: str, size: int) -> str:
    return pattern.replace("S", (LOREM * size)[:size].strip()).replace("X", NAME * size)


@pytest.mark.parametrize("size", [230, 300, 5000])
def test_no_diagnostic_quotes_much(size: int) -> None:
    texts = [filled(pattern, size) for pattern in SPECS] + [HEAD + line for line in LONG_ONES]
    for text in texts:
        found = loads(text).diagnostics
        for said in [said for each in found for said in (each.message, *each.notes, each.help or "")]:
            assert not quotes(said, text) and len(said) < 400, said


@pytest.mark.parametrize("size", [300, *([230, 5000] if LONG else [])])
def test_no_command_quotes_much(size: int, capsys: pytest.CaptureFixture[str], monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        given = [filled(word, size) for word in command]
        with pytest.raises(SystemExit) as end:
            cli.leave(given)
        out, err = capsys.readouterr()
        assert end.value.code in (2, 3) and err, command
        for line in (out + err).split("\n"):
            assert not any(quotes(line, word) for word in given), line


def test_what_is_not_long_is_quoted_whole() -> None:
    name = f"./{'b' * 150}"
    assert name in loads(f'circuit c\nmodel "{name}"\n').diagnostics[0].message
