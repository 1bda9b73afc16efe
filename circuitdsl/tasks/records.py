"""The lines of a prompt file, JSON Lines or CSV, each as the value that a line of JSON would have."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from circuitdsl.errors import UserError
from circuitdsl.ordinary import Unreadable, opened

T = TypeVar("T")
#: bytes of a line, and of a file, at the most
LINE_BYTES, FILE_BYTES = 10**6, 10**9
#: keys whose value may be a list
ANSWERS = ("answer", "distractor", "corrupt_answer")


class PromptFileError(UserError):
    """A prompt file that cannot be used; the message lists its bad lines."""

    status = 2
    keep = "\n"


class BadLine(Exception):
    """Why one line cannot be used."""


class Reasons(list[str]):
    """The reasons why one line cannot be used."""

    def unless(self, make: Callable[[], T]) -> T | None:
        """What `make` returns; where it raises `BadLine`, None, and the reason is added."""
        try:
            return make()
        except BadLine as reason:
            self.append(str(reason))
            return None

    def refuse(self) -> None:
        """Raise `BadLine` with all reasons, if there are any."""
        if self:
            raise BadLine("; ".join(self))


def is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a prompt file: its number, its text, and its JSON value or a `BadLine` that says why it has none."""

    number: int
    text: str
    value: Any


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file that are not empty; raises `PromptFileError` where it cannot be read."""
    try:
        with opened(path, FILE_BYTES) as stream:
            yield from (_rows if path.suffix.lower() == ".csv" else _objects)(_texts(stream))
    except UnicodeDecodeError:
        raise PromptFileError(f"cannot read the prompt file {path}: it is not UTF-8 text") from None
    except (Unreadable, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptFileError(f"cannot read the prompt file {path}: {reason}") from None


def _texts(stream: io.BufferedReader) -> Iterator[str | BadLine]:
    """Each line of a file with its end, or why it is not read."""
    start = codecs.BOM_UTF8
    while line := stream.readline(LINE_BYTES + 1):
        if len(line) <= LINE_BYTES or line.endswith(b"\n"):
            yield line.removeprefix(start).decode()
        else:
            while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield BadLine(f"the line has more than {LINE_BYTES / 1e6:.0f} MB")
        start = b""


def _objects(texts: Iterable[str | BadLine]) -> Iterator[Line]:
    for number, text in enumerate(texts, start=1):
        if isinstance(text, BadLine):
            yield Line(number, "", text)
        elif text.strip():
            line = text.removesuffix("\n")
            try:
                yield Line(number, line, json.loads(line.removesuffix("\r")))
            except (ValueError, RecursionError) as error:
                yield Line(number, line, BadLine(f"not JSON: {error}"))


def _rows(texts: Iterable[str | BadLine]) -> list[Line]:
    """The rows of a table that are not empty, each with the line on which it begins; the first names the columns."""
    found: list[Line] = []
    taken: list[str] = []

    def given() -> Iterator[str]:
        for text in texts:
            if isinstance(text, BadLine):
                found.append(Line(reader.line_num + 1, "", text))
            for line in [""] if isinstance(text, BadLine) else io.StringIO(text, newline=""):
                taken.append(line)
                yield line

    def add(value: Any) -> None:
        found.append(Line(number, "".join(taken).removesuffix("\n"), value))

    columns: list[str] = []
    reader = csv.reader(given(), strict=True)
    usual = csv.field_size_limit(LINE_BYTES)
    try:
        while True:
            number = reader.line_num + 1
            taken.clear()
            try:
                row = next(reader)
            except csv.Error as error:
                add(BadLine(f"not CSV: {error}"))
                continue
            if any(row) and columns:
                add(_record(columns, row))
            elif any(row):
                columns = [name.strip() for name in row]
                if twice := [name for name in columns if name and columns.count(name) > 1]:
                    add(BadLine(f"two columns are named {twice[0]}"))
                if "positions" in columns:
                    add(BadLine("every position is a column of its own, named in capitals"))
    except StopIteration:
        return found
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
                return BadLine(f"{key} {cell!r} begins with [ and is not a list as JSON writes it")
        else:
            record[key] = cell
    return record | {"positions": positions}


def _cell(cell: str) -> Any:
    """A CSV cell: a number, a list or an object as JSON writes it, else the text itself."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell
