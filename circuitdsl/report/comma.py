"""Rows as comma-separated text."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from types import SimpleNamespace

_FORMULA = frozenset("=+-@\t\r")


def comma_separated(rows: Iterable[Iterable[object]]) -> str:
    """Rows as lines. A text that a spreadsheet would run as a formula has an apostrophe before it."""
    lines: list[str] = []
    out = SimpleNamespace(write=lines.append)
    csv.writer(out, lineterminator="\r\n").writerows(map(_inert, row) for row in rows)
    return "".join(f"{line[:-2]}\n" for line in lines)  # only with that end is a cell with "\r" in it quoted


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in _FORMULA else cell
