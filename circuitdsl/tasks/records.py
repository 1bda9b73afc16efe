"""The lines of a prompt file, JSON Lines or CSV, as objects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from circuitdsl.errors import UserError
from circuitdsl.language.diagnostics import did_you_mean, shorten, suggest

#: keys whose value may be a list
ANSWERS = ("answer", "distractor", "corrupt_answer")
#: optional keys; an unknown key that resembles one is refused, as it is probably misspelt
OPTIONAL = ("positions", "stratum", "corrupt_answer")
#: all keys that are read; authors may add others
KEYS = frozenset({"clean", "corrupt", "clean_tokens", "corrupt_tokens", *ANSWERS, *OPTIONAL})


class PromptFileError(UserError):
    """A prompt file that cannot be used; the message lists its bad lines."""

    status = 2


class BadLine(Exception):
    """Why one line cannot be used."""


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line, and its JSON value or a `BadLine` that says why there is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PromptFileError(f"cannot read the prompt file {path}: it is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptFileError(f"cannot read the prompt file {path}: {reason}") from None
    yield from (_csv_records(text) if path.suffix.lower() == ".csv" else _json_records(text))


def object_of(record: Any) -> dict[str, Any]:
    """The JSON object of a line; raises `BadLine` where it holds something else, or a misspelt key."""
    if isinstance(record, BadLine):
        raise record
    if not isinstance(record, dict):
        raise BadLine("a prompt pair is a JSON object, {…}")
    for key in record:
        meant = None if key in KEYS else _meant(key)
        if meant and not record.get(meant):
            raise BadLine(f"there is no field {shorten(key)!r}{did_you_mean(meant)}")
    return record


@lru_cache(1000)
def _meant(key: str) -> str | None:
    return suggest(key, OPTIONAL)


def _json_records(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line.removesuffix("\r"))
            except (ValueError, RecursionError) as error:
                yield number, BadLine(f"not JSON: {error}")


def _csv_records(text: str) -> Iterator[tuple[int, Any]]:
    columns: list[str] | None = None
    for number, row in _rows(text):
        if isinstance(row, BadLine):
            yield number, row
        elif columns is None:
            columns = [name.strip() for name in row]
            if twice := [name for name in columns if name and columns.count(name) > 1]:
                yield number, BadLine(f"two columns are named {twice[0]}")
            if "positions" in columns:
                yield number, BadLine("every position is a column of its own, named in capitals")
        elif len(row) != len(columns):
            hint = " (a text with a comma needs quotes)" if len(row) > len(columns) else ""
            yield number, BadLine(f"{len(row)} cells under {len(columns)} columns{hint}")
        else:
            yield number, _record({key: cell for key, cell in zip(columns, row, strict=True) if key and cell})


def _rows(text: str) -> Iterator[tuple[int, list[str] | BadLine]]:
    """The rows that are not empty, each with the line on which it begins."""
    usual = csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        found: list[tuple[int, list[str] | BadLine]] = []
        while True:
            number = reader.line_num + 1
            try:
                if any(row := next(reader)):
                    found.append((number, row))
            except csv.Error as error:
                found.append((number, BadLine(f"not CSV: {error}")))
            except StopIteration:
                break
    finally:
        csv.field_size_limit(usual)
    yield from found


def _record(cells: Mapping[str, str]) -> dict[str, Any] | BadLine:
    """A CSV row as the object that a line of JSON would be."""
    record: dict[str, Any] = {}
    positions: dict[str, Any] = {}
    for key, cell in cells.items():
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
