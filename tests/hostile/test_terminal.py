"""Hostile texts on a terminal: it is given rich's own sequences, and no other."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from circuitdsl.cli.terminal import progress, status
from circuitdsl.report.screen import Screen, Spinner
from tests.hostile.inputs import HEAD
from tests.hostile.texts import TEXTS, unseen

#: colours, the cursor, and what hides it: what rich writes
OURS = re.compile(r"\x1b\[[0-9;]*[mAKG]|\x1b\[\?25[lh]|\r")


def raw(shown: str) -> set[str]:
    return unseen(OURS.sub("", shown))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_whatever_is_printed(text: str) -> None:
    screen = Screen(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=60)
    table = Table()
    table.add_column(text)
    table.add_row(text, Text(text, "bold red"))
    for each in (text, Text(text, "bold"), Text.assemble("a", (text, "dim")), table):
        screen.print(each)
    with Spinner(text, screen) as spinner:
        spinner.update(f"{text}{text}")
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert not raw(shown), raw(shown)
    assert "]8;" not in shown  # a link


def test_the_words_beside_a_bar_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with status("\x1b]0;a\x07 [/] [bold]"):
        pass
    with progress() as tell:
        assert tell is not None
        tell(1, 2, "\x1b[2J\u202e [/]")
    assert not raw(terminal.getvalue())


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    import pty

    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
@pytest.mark.parametrize("verb", [["check"], ["fmt", "-"], ["fmt", "--diff"]], ids=" ".join)
def test_a_spec_on_a_terminal(verb: list[str], tmp_path: Path) -> None:
    """Comments of a spec hold anything; `fmt -` writes them, and to a terminal not as they are."""
    wrong = "expect acuracy \x1b[2J \u202e\n" * (verb == ["check"])
    text = HEAD + "expect   accuracy >= 5%  # \x1b[2J\x1b]0;owned\x07 \u202e \u200b ##[add-mask]x\n" + wrong
    path = tmp_path / "x.circ"
    path.write_text(text)
    named = verb if "-" in verb else [*verb, str(path)]
    with terminal() as (ours, theirs), path.open("rb") as given:
        subprocess.run(
            [sys.executable, "-m", "circuitdsl", *named], stdin=given, stdout=theirs, stderr=theirs, check=False
        )
        os.close(theirs)
        shown = b""
        while piece := read(ours):
            shown += piece
    said = shown.decode().replace("\r\n", "\n")
    assert "accuracy" in said or "acuracy" in said
    assert not raw(said), raw(said)
    assert verb == ["check"] or r"\x1b[2J\x1b]0;owned\x07 \u202e \u200b" in said


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # nobody writes any more
        return b""


def test_a_spec_to_a_pipe_is_as_it_is(tmp_path: Path) -> None:
    text = HEAD + "# \x1b[2J \u202e \u200b\nexpect accuracy >= 5%\n"
    done = subprocess.run(
        [sys.executable, "-m", "circuitdsl", "fmt", "-"], input=text.encode(), capture_output=True, check=True
    )
    assert "# \x1b[2J \u202e \u200b" in done.stdout.decode()
