"""A results directory: a report and a record for each cell, and an index, a table and a page that are made of these.

    cells/KEY.json      what became of a cell (`cell.Record`)
    reports/KEY.json    its reports: what `verify --format json` writes, on one line
    index.json          every cell in one file, without its claims
    table.csv           a line for each claim in each cell
    table.html          the same as a page

A cell is done as soon as its record is there, and the record is written after its reports. Two processes on one
directory write the same files about the same cells, each whole; what is made of all records is made of what is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from circuitdsl.errors import UserError
from circuitdsl.matrix.cell import OUTCOMES, SCHEMA, Cell, Record
from circuitdsl.matrix.storage import Storage
from circuitdsl.report.reading import read
from circuitdsl.visible import json_text

CELLS, REPORTS = "cells", "reports"
INDEX, TABLE, PAGE = "index.json", "table.csv", "table.html"


class Results:
    """What is kept of a matrix. A cell that is done stays as it is: its record is read once."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._done: dict[str, Record] = {}

    def keys(self) -> frozenset[str]:
        """The keys of the cells of which something is kept."""
        found = self.storage.names(CELLS)
        return frozenset(name.rpartition("/")[2].removesuffix(".json") for name in found if name.endswith(".json"))

    def record(self, key: str) -> Record | None:
        """What became of a cell; None where it was not reached, or other software has written there.

        Raises:
            UserError: the file cannot be read.
        """
        if key in self._done:
            return self._done[key]
        text = self.storage.read(f"{CELLS}/{key}.json")
        if text is None:
            return None
        try:
            body = json.loads(text)
            found: Record = read(Record, body)
        except (ValueError, RecursionError):
            return None
        if body.get("schema") != SCHEMA or found.cell.key != key or found.report not in ("", report_name(found.cell)):
            return None
        self._remember(found)
        return found

    def _remember(self, record: Record) -> None:
        if record.state == "done":
            self._done[record.cell.key] = record

    def records(self, keys: Iterable[str] | None = None) -> list[Record]:
        """The records of some cells, in their order; or of all, and of those whose files have changed the newest."""
        every = self.keys()
        if keys is not None:
            return [found for key in keys if key in every and (found := self.record(key))]
        newest: dict[tuple[object, ...], Record] = {}
        for each in sorted(filter(None, map(self.record, every)), key=lambda found: (found.finished, found.cell.key)):
            newest[each.cell.place] = each
        return sorted(newest.values(), key=lambda found: _order(found.cell))

    def keep(self, record: Record, reports: str = "") -> None:
        """Keep what became of a cell: the text of its reports first, so that a record is never without them.

        A record is a line, which is written in a fifth of the time; but not where people are to read an error.
        """
        if record.report:
            self.storage.write(record.report, reports)
        text = json_text(record.to_json(), indent=1 if record.error else None)
        self.storage.write(f"{CELLS}/{record.cell.key}.json", text + "\n")
        self._remember(record)

    def summarize(self) -> None:
        """Write the index, the table and the page, of everything that is kept now."""
        from circuitdsl.matrix.page import page
        from circuitdsl.matrix.table import csv_text, table

        records = self.records()
        made = table(records)
        self.storage.write(INDEX, index(records))
        self.storage.write(TABLE, csv_text(records))
        self.storage.write(PAGE, page(made))


def index(records: Iterable[Record]) -> str:
    """The index of some cells (`matrix/schema.json`), with a line for each."""
    cells = ",\n".join(json_text(_in_index(record)) for record in records)
    return f'{{"schema": {SCHEMA}, "cells": [\n{cells}\n]}}\n'


def _in_index(record: Record) -> dict[str, Any]:
    counted = Counter(row.outcome for row in record.claims)
    about = replace(record, claims=(), log=()).to_json()
    del about["schema"], about["log"]
    return about | {"claims": {outcome: counted[outcome] for outcome in OUTCOMES}}


def _order(cell: Cell) -> tuple[str, ...]:
    seed = "" if cell.seed is None else f"{cell.seed:010d}"
    return cell.spec, cell.model, cell.task, seed, json.dumps(cell.options, sort_keys=True)


def report_name(cell: Cell) -> str:
    return f"{REPORTS}/{cell.key}.json"


def refuse_strangers(results: Results, cells: Iterable[Cell], resume: bool) -> None:
    """Raise `UserError` where results are there already and nobody has asked to go on with them."""
    if not resume and (known := results.keys()):
        done = len(known.intersection(cell.key for cell in cells))
        raise UserError(
            f"{results.storage.name} holds {len(known)} cells already, {done} of them of this run",
            hint="go on with them with --resume, or name another directory with --results",
        )
