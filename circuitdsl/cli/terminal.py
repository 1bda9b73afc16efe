"""Consoles, progress bars and spinners: colours on a terminal, plain wide text elsewhere."""

from __future__ import annotations

import codecs
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from circuitdsl.report.formats import View
from circuitdsl.visible import json_text, line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from circuitdsl.errors import UserError
    from circuitdsl.language.diagnostics import Diagnostic
    from circuitdsl.verify.verify import Progress

#: what replaces the signs of a report where only ASCII can be written; without a minus sign a figure would be wrong
_ASCII = {
    "\N{MINUS SIGN}": "-", "×": "x", "·": "|", "–": "-", "…": "...", "→": "->", "≤": "<=", "≥": ">=",
    "\N{INFINITY}": "inf", "≠": "!=", "✓": "+", "✗": "x",
}  # fmt: skip
#: the name of our handler of characters that an encoding lacks; `reconfigure` of a stream takes it
PLAIN = "circuitdsl.plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN, _plain)


def say(text: str) -> None:
    """Print a line on standard error. Whatever it quotes, nothing in it is obeyed, and it stays one line."""
    print(line(text), file=sys.stderr)


def tell(text: str) -> None:
    """Print a line on standard output, as `say` does on standard error; it is there at once."""
    print(line(text), flush=True)


def say_error(error: UserError) -> None:
    """Print what is wrong and what to do on standard error."""
    for number, said in enumerate(error.message.split("\n") if error.message else ()):
        say(said if number else f"error: {said}")
    if error.hint:
        say(f"  help: {error.hint}")


#: how a terminal shows the pieces of a diagnostic
STYLES = {
    "place": "bold", "error": "bold red", "warning": "bold yellow", "message": "bold",
    "gutter": "blue", "source": "", "caret": "bold red", "help": "",
}  # fmt: skip


def say_diagnostics(found: Sequence[Diagnostic], text: str, path: str, every: bool = False) -> None:
    """Print the foremost diagnostics, or every one, on standard error, each with its source line.

    On a terminal they are in colours.
    """
    from circuitdsl.language.diagnostics import foremost, lines_of, pieces

    lines, (first, more) = lines_of(text), (found, "") if every else foremost(found)
    if sys.stderr.isatty():
        from rich.text import Text

        from circuitdsl.report.screen import Screen

        shown = Screen(stderr=True)
        for diagnostic in first:
            carets = {"caret": STYLES[diagnostic.severity]}
            styled = ((piece, {**STYLES, **carets}[style]) for style, piece in pieces(diagnostic, lines, path))
            shown.print(Text.assemble(*styled), soft_wrap=True)
    else:
        for diagnostic in first:
            for said in "".join(piece for _, piece in pieces(diagnostic, lines, path)).split("\n"):
                say(said)
    if more:
        say(more)


def console(plain: bool = False) -> Console:
    """Standard output: colours and the terminal's width on a terminal, plain wide text elsewhere."""
    from circuitdsl.report.screen import Screen

    found = Screen(no_color=plain or None)
    if plain or not found.is_terminal:
        found = Screen(no_color=True, width=160, color_system=None)
    return found


def present(found: Sequence[Any], form: str, **view: Any) -> None:
    """Print results, or write them as JSON where `--format json` asks for it; `view` are options of their `show`."""
    if form == "json":
        sys.stdout.write(as_json(found))
    else:
        for each in found:
            sys.stdout.write(View(console).text([partial(each.show, **view)]))


def as_json(found: Sequence[Any]) -> str:
    """Records that have `to_json` as text: one as an object, several as a list."""
    bodies = [each.to_json() for each in found]
    return json_text(bodies[0] if len(bodies) == 1 else bodies, indent=1) + "\n"


#: seconds between two lines about long work, off a terminal
EVERY = 10.0


class Told:
    """What long work says of itself off a terminal; of several inside one another, the innermost is told."""

    innermost: ClassVar[list[Told]] = []

    def __init__(self, text: str) -> None:
        self.text = text

    def update(self, text: str) -> None:
        """Say something else from now on."""
        self.text = text


@contextmanager
def told(text: str) -> Iterator[Told]:
    """A line on standard error every `EVERY` seconds, as long as the work takes."""
    work, start, over = Told(text), time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(EVERY):
            if Told.innermost[-1:] == [work]:
                say(f"{work.text} ({time.monotonic() - start:.0f} s so far)")

    Told.innermost.append(work)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield work
    finally:
        over.set()
        teller.join()
        Told.innermost.remove(work)


#: what moves on the terminal now, the innermost last: two at once would write over each other
_LIVE: list[Any] = []


@contextmanager
def _live(display: Any) -> Iterator[Any]:
    """Show a spinner or a bar; the one around it rests meanwhile."""
    for outer in _LIVE[-1:]:
        outer.stop()
    _LIVE.append(display)
    display.start()
    try:
        yield display
    finally:
        display.stop()
        _LIVE.pop()
        for outer in _LIVE[-1:]:
            outer.start()


def status(text: str) -> AbstractContextManager[Status | Told]:
    """A spinner with a line of text on a terminal; elsewhere a line now and then."""
    from circuitdsl.report.screen import Screen, Spinner

    console = Screen(stderr=True)
    return _live(Spinner(text, console)) if console.is_terminal else told(text)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar with an upper bound of the time left on a terminal; elsewhere a line now and then."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from circuitdsl.report.screen import Screen

    console = Screen(stderr=True)
    if not console.is_terminal:
        with told("measuring") as line:
            yield lambda done, total, text: line.update(f"{text}, {done / max(total, 1):.0%} of the most it can take")
        return
    text, percentage = TextColumn("{task.description}", markup=False), TextColumn("{task.percentage:>3.0f} %")
    columns = text, BarColumn(), percentage, TimeRemainingColumn()
    with _live(Progress(*columns, console=console, transient=True)) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)
