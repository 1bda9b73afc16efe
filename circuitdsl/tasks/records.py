"""The lines of a prompt file, JSON Lines or CSV, each as the value that a line of JSON would have."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from circuitdsl.errors import UserError
from circuitdsl.ordinary import Unreadable, opened
from circuitdsl.shown import SHOW

T = TypeVar("T")
#: bytes of a line, and of a file, at the most
LINE_BYTES, FILE_BYTES = 10**6, 10**9
#: of a file with more bytes it is shown how far it is read
LONG = 2**22
#: keys whose value may be a list, each with the prompt that the answers follow
ANSWERS = {"answer": "clean", "distractor": "clean", "corrupt_answer": "corrupt"}
#: characters of a value that a message repeats, at the most
ECHOED = 200
_SURROGATE = re.compile("[\ud800-\udfff]")


class PromptFileError(UserError):
    """A prompt file that cannot be used; the message lists its bad lines."""

    status = 2
    keep = "\n"
    longest = 2000  # a line may have several reasons, and each shortens what it quotes


class BadLine(Exception):
    """Why one line cannot be used."""


class Reasons(list[str]):
    """The reasons why one line cannot be used."""

    def unless(self, make: Callable[..., T], *given: Any) -> T | None:
        """What `make` returns; where it raises `BadLine`, None, and the reason is added."""
        try:
            return make(*given)
        except BadLine as reason:
            self.append(str(reason))
            return None

    def refuse(self) -> None:
        """Raise `BadLine` with all reasons, if there are any."""
        if self:
            raise BadLine("; ".join(self))


def echo(value: object) -> str:
    """A value as a message repeats it."""
    try:
        said = repr(value[:ECHOED] if isinstance(value, str | list) else value)
    except (RecursionError, ValueError):  # it is too deep, or a number of thousands of digits
        return f"{type(value).__name__} …"
    whole = len(said) <= ECHOED and not (isinstance(value, str | list) and len(value) > ECHOED)
    return said if whole else f"{said[: ECHOED - 1]}…"


def is_text(given: object) -> TypeGuard[str]:
    r"""Whether it is a text that is not empty, without lone surrogates, which JSON can write (`"\ud800"`)."""
    return isinstance(given, str) and bool(given) and (given.isascii() or not _SURROGATE.search(given))


def is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a prompt file: its number, its text, and its JSON value or a `BadLine` that says why it has none."""

    number: int
    text: str
    value: Any


@contextmanager
def lines_of(path: Path, only: Container[int] | None = None) -> Iterator[Iterator[Line]]:
    """The lines of a file that are not empty, read one by one; how far a long file is read is shown.

    Args:
        only: the numbers of the lines that are wanted; the values of others are not read.

    Raises:
        PromptFileError: the file cannot be read, now or at a later line.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(opened(path, FILE_BYTES))
        except Unreadable as reason:
            raise _cannot(path, reason) from None
        size, text = os.fstat(stream.fileno()).st_size, f"reading {path}"
        shown = stack.enter_context(SHOW.get()(text)) if size > LONG else None

        def look() -> None:
            if shown:
                shown.update(f"{text}, {stream.tell() / size:.0%}")

        make = _rows if path.suffix.lower() == ".csv" else _objects
        yield _readable(path, make(_texts(stream, look), only))


def _readable(path: Path, lines: Iterator[Line]) -> Iterator[Line]:
    """The same lines; raises `PromptFileError` where they cannot be read."""
    try:
        yield from lines
    except UnicodeDecodeError:
        raise _cannot(path, "it is not UTF-8 text") from None
    except OSError as error:
        raise _cannot(path, error.strerror or error) from None


def _cannot(path: Path, reason: object) -> PromptFileError:
    return PromptFileError(f"cannot read the prompt file {path}: {reason}")


def _texts(stream: io.BufferedReader, look: Callable[[], None]) -> Iterator[str | BadLine]:
    """Each line of a file with its end, or why it is not read; `look` is called every megabyte."""
    start, size = codecs.BOM_UTF8, 0
    while line := stream.readline(LINE_BYTES + 1):
        size += len(line)
        if len(line) <= LINE_BYTES or line.endswith(b"\n"):
            yield line.removeprefix(start).decode()
        else:
            while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                look()
            yield BadLine(f"the line has more than {LINE_BYTES / 1e6:.0f} MB")
        start = b""
        if size >= LINE_BYTES:
            look()
            size = 0


def _objects(texts: Iterable[str | BadLine], only: Container[int] | None) -> Iterator[Line]:
    for number, text in enumerate(texts, start=1):
        if only is not None and number not in only:
            continue
        if isinstance(text, BadLine):
            yield Line(number, "", text)
        elif text.strip():
            line = text.removesuffix("\n")
            try:
                value = _json(line)
            except (ValueError, RecursionError) as error:
                value = BadLine(f"not JSON: {error}")
            yield Line(number, line, value)


_DECODER = json.JSONDecoder()


def _json(line: str) -> Any:
    """The value of a line of JSON; most lines have nothing around it, and need not be searched for it."""
    try:
        value, end = _DECODER.raw_decode(line)
    except ValueError:
        end = -1
    return value if end == len(line) else json.loads(line.removesuffix("\r"))


def _rows(texts: Iterable[str | BadLine], only: Container[int] | None) -> Iterator[Line]:
    """The rows of a table that are not empty, each with the line on which it begins; the first names the columns."""
    waiting: list[Line] = []
    taken: list[str] = []

    def given() -> Iterator[str]:
        for text in texts:
            if isinstance(text, BadLine):
                waiting.append(Line(reader.line_num + 1, "", text))
            for line in [""] if isinstance(text, BadLine) else io.StringIO(text, newline=""):
                taken.append(line)
                yield line

    def add(value: Any) -> None:
        waiting.append(Line(number, "".join(taken).removesuffix("\n"), value))

    columns: list[str] = []
    reader = csv.reader(given(), strict=True)
    row: Sequence[str] | None = ()
    while row is not None:
        number = reader.line_num + 1
        taken.clear()
        try:
            row = _next(reader)
        except csv.Error as error:
            add(BadLine(f"not CSV: {error}"))
        else:
            if row and any(row) and columns:
                add(_record(columns, row) if only is None or number in only else None)
            elif row and any(row):
                columns = [name.strip() for name in row]
                if twice := [name for name in columns if name and columns.count(name) > 1]:
                    add(BadLine(f"two columns are named {twice[0][:ECHOED]}"))
                if "positions" in columns:
                    add(BadLine("every position is a column of its own, named in capitals"))
        yield from (line for line in waiting if only is None or line.number in only)
        waiting.clear()


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row of a table, whose cells may be as long as a line; None after the last."""
    usual = csv.field_size_limit(LINE_BYTES)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(usual)


def _record(columns: Sequence[str], row: Sequence[str]) -> dict[str, Any] | BadLine:
    """A CSV row as the object that a line of JSON would be."""
    if len(row) != len(columns):
        hint = " (a text with a comma needs quotes)" if len(row) > len(columns) else ""
        return BadLine(f"{len(row)} cells under {len(columns)} columns{hint}")
    record: dict[str, Any] = {}
    positions: dict[str, Any] = {}
    for key, cell in zip(columns, row, strict=True):
        if not key or not cell:
            continue
        if key.isupper():
            positions[key] = _cell(cell)
        elif key.endswith("_tokens"):
            record[key] = _cell(cell)
        elif key in ANSWERS and cell.startswith("["):
            record[key] = _cell(cell)
            if not isinstance(record[key], list):
                return BadLine(f"{key} {echo(cell)} begins with [ and is not a list as JSON writes it")
        else:
            record[key] = cell
    return record | {"positions": positions}


def _cell(cell: str) -> Any:
    """A CSV cell: a number, a list or an object as JSON writes it, else the text itself."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell
