"""Diagnostics: what is wrong, where, and what was probably meant. They are all made here.

A user's mistakes are values, never exceptions: each phase collects them, and they are shown together.
The codes are explained in `codes.md`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

from circuitdsl.brief import brief, quoted
from circuitdsl.visible import visible

Severity = Literal["error", "warning"]


class Span(NamedTuple):
    """A stretch of text: lines and columns count characters from 1, the end is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int

    def to(self, other: Span) -> Span:
        """From the start of this one to the end of the other."""
        return Span(self.line, self.column, other.end_line, other.end_column)


#: a span of its four numbers, made in half the time: a text has hundreds of thousands
as_span: Callable[[tuple[int, int, int, int]], Span] = partial(tuple.__new__, Span)
START = Span(1, 1, 1, 1)


class Fix(NamedTuple):
    """What was probably meant: a text in the place of a part of the file."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something to tell the author of a file. Its place is `START` where it concerns the whole file.

    The message is one line, whatever it quotes; what cannot be seen in it is spelled out.
    `fixes` are the texts after "did you mean", each of which an editor can put in place.
    """

    code: str
    severity: Severity
    message: str
    span: Span = START
    notes: tuple[str, ...] = ()
    help: str | None = None
    fixes: tuple[Fix, ...] = ()

    def __post_init__(self) -> None:
        """What is very long in a message is cut, what cannot be seen in it is spelled out."""
        object.__setattr__(self, "message", brief(visible(self.message)))
        if self.notes:
            object.__setattr__(self, "notes", tuple(map(brief, self.notes)))
        if self.help:
            object.__setattr__(self, "help", brief(self.help))

    def __str__(self) -> str:
        return f"{self.severity}[{self.code}]: {self.message}"


class Sink:
    """Collects the diagnostics of a phase; `stopped` says that the file was not read to its end."""

    #: difflib is slow: where there are thousands of unknown names, the first ones alone are compared with known names
    MAX_COMPARED = 20_000

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []
        self.stopped = False
        self._compared = 0

    def error(
        self,
        code: str,
        message: str,
        span: Span,
        help: str | None = None,
        *notes: str,
        meant: str | None = None,
        fixes: tuple[Fix, ...] = (),
    ) -> None:
        """Report an error.

        Args:
            meant: what was probably meant, which the message then asks.
            fixes: what fits where; without them, `meant` fits in the place of the span.
        """
        fixes = fixes or ((Fix(span, meant),) if meant else ())
        self.found.append(Diagnostic(code, "error", message + did_you_mean(meant), span, notes, help, fixes))

    def warning(self, code: str, message: str, span: Span, help: str | None = None, *notes: str) -> None:
        self.found.append(Diagnostic(code, "warning", message, span, notes, help))

    def stop(self, message: str, span: Span, help: str | None = None) -> None:
        """Report, once, why the rest of the file is not read."""
        if not self.stopped:
            self.error("E016", message, span, help)
        self.stopped = True

    def unknown(self, code: str, what: str, name: str, span: Span, known: Iterable[str], reason: str = "") -> None:
        """`unknown group 'inhibiton'; did you mean 'inhibition'?`"""
        known = sorted(known) if self._compared < self.MAX_COMPARED else []
        self._compared += len(known)
        guess = suggest(name, known)
        help = None if guess or not known else f"known: {listing(known)}"
        self.error(code, f"unknown {what} '{shorten(name)}'{reason}", span, help, meant=guess)


def suggest(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to a misspelt one."""
    if len(name) > 60:
        return None
    candidates = {k.lower(): k for k in known if abs(len(k) - len(name)) <= 6}
    close = get_close_matches(name.lower(), list(candidates)[:2000], n=1, cutoff=0.66)
    return candidates[close[0]] if close else None


def did_you_mean(guess: str | None) -> str:
    return f"; did you mean '{guess}'?" if guess else ""


def shorten(text: str, length: int = 40) -> str:
    """A name or snippet as it may stand in a one-line message: short, and printable throughout."""
    text = visible(text[:length])
    return text if len(text) < length else text[: length - 1] + "…"


def listing(names: Iterable[str], limit: int = 12) -> str:
    """`a, b, c, …`"""
    names = list(names)
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def ordered(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Sorted by their place in the file, without repetitions."""
    unique = dict.fromkeys(diagnostics)
    return tuple(sorted(unique, key=lambda d: (d.span, d.code, d.message)))


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    return any(d.severity == "error" for d in diagnostics)


# --- showing them ---------------------------------------------------------------------------------

Style = Literal["place", "error", "warning", "note", "message", "gutter", "source", "caret", "help"]
Piece = tuple[Style, str]
WINDOW = 100
#: so many are shown, unless all are asked for, and what is said of the others
FIRST, MORE = 50, "and {} more: circuitdsl check --all shows them"


def lines_of(text: str) -> list[str]:
    """The lines that spans count, whichever ends they have."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def render(diagnostic: Diagnostic, text: str = "", path: str = "") -> str:
    """The diagnostic as plain text, with the line it is about and a caret under the wrong part.

    >>> print(render(Diagnostic("E040", "error", "unknown group 'a'", Span(1, 1, 1, 2)), "a -> b.q", "x.circ"))
    x.circ:1:1: error[E040]: unknown group 'a'
      1 | a -> b.q
        | ^
    """
    return "".join(piece for _, piece in pieces(diagnostic, lines_of(text), path))


def render_all(diagnostics: Iterable[Diagnostic], text: str = "", path: str = "") -> str:
    """All of them, a blank line between two."""
    lines = lines_of(text)
    return "\n\n".join("".join(piece for _, piece in pieces(d, lines, path)) for d in diagnostics)


def foremost(diagnostics: Sequence[Diagnostic], most: int = FIRST) -> tuple[Sequence[Diagnostic], str]:
    """Those that are shown where there are many, and a line that counts the others; it is empty where there are none.

    Warnings are left out before errors; the order stays.
    """
    if len(diagnostics) <= most:
        return diagnostics, ""
    chosen = set(sorted(diagnostics, key=lambda each: each.severity != "error")[:most])
    return [each for each in diagnostics if each in chosen], MORE.format(len(diagnostics) - most)


def render_foremost(diagnostics: Sequence[Diagnostic], text: str = "", path: str = "") -> str:
    """The `foremost` as plain text, a blank line between two."""
    shown, more = foremost(diagnostics)
    return "\n\n".join([render_all(shown, text, path), *([more] if more else [])])


def place(diagnostic: Diagnostic, path: str) -> str:
    """`specs/ioi.circ:19:5`"""
    return f"{quoted(path)}:{diagnostic.span.line}:{diagnostic.span.column}" if path else f"line {diagnostic.span.line}"


def pieces(diagnostic: Diagnostic, lines: list[str], path: str = "") -> Iterator[Piece]:
    """The rendered diagnostic in styled pieces, for a terminal that colours; `lines` are the text's."""
    yield "place", f"{visible(place(diagnostic, path))}: "
    yield diagnostic.severity, f"{diagnostic.severity}[{diagnostic.code}]"
    yield "message", f": {diagnostic.message}"
    gutter = "  "
    span = diagnostic.span
    if span != START and 1 <= span.line <= len(lines):
        number = str(span.line)
        source, before, width = _excerpt(lines[span.line - 1], span)
        gutter = " " * (len(number) + 2)
        yield "gutter", f"\n  {number} | "
        yield "source", source
        yield "gutter", f"\n{gutter} | "
        yield "caret", " " * before + "^" * width
    for label, remark in (*(("note", n) for n in diagnostic.notes), ("help", diagnostic.help)):
        if remark:
            yield "gutter", f"\n{gutter} = "
            yield "help", f"{label}: {visible(remark)}"


def _excerpt(line: str, span: Span) -> tuple[str, int, int]:
    """(the line as it can be shown, cells before the caret, cells under it)."""
    start = min(span.column - 1, len(line))
    end = len(line) if span.end_line > span.line else min(span.end_column - 1, len(line))
    first = max(0, start - WINDOW // 2) if len(line) > WINDOW else 0
    last = first + WINDOW
    shown = _visible(line[first:last])
    if first:
        shown = "…" + shown
    before = _cells(_visible(line[first:start])) + (1 if first else 0)
    width = _cells(_visible(line[start : min(end, last)]).rstrip())
    return (shown + ("…" if last < len(line) else "")).rstrip(), before, max(1, width)


def _visible(text: str) -> str:
    """The text with tabs as blanks, and with what is not seen spelled out."""
    return visible(text.replace("\t", " "))


def _cells(text: str) -> int:
    """How many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# --- what the codes mean --------------------------------------------------------------------------


PAGES = Path(__file__).with_name("codes.md")


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of diagnostic.

    Attributes:
        code: `E040`.
        title: what is wrong, in a few words.
        explanation: why it is wrong, and what to write instead.
        example: a line, or a few, that gives this diagnostic; empty where no text does.
    """

    code: str
    title: str
    explanation: str
    example: str


@cache
def codes() -> Mapping[str, Code]:
    """All codes in the order of the pages."""
    found = {}
    for page in PAGES.read_text(encoding="utf-8").split("\n## ")[1:]:
        header, _, body = page.partition("\n")
        code, _, title = header.partition(": ")
        lines = body.strip().split("\n")
        example = "\n".join(line[4:] for line in lines if line.startswith("    "))
        explanation = " ".join(line for line in lines if line and not line.startswith("    "))
        found[code] = Code(code, title, explanation, example)
    return found
