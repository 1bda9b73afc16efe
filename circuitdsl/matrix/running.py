"""Cells are verified, and what becomes of each is kept at once.

An executor verifies cells; it neither plans nor writes. The one here does so in this process, with the models of
neighbouring cells kept in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from circuitdsl import verdicts
from circuitdsl.errors import NOT_RUN
from circuitdsl.matrix.cell import NOT_APPLICABLE, Cell, Record
from circuitdsl.matrix.results import Results, report_name
from circuitdsl.matrix.worker import Settings, Told, Verified, Worker
from circuitdsl.report.numbers import duration

if TYPE_CHECKING:
    from circuitdsl.verify.verify import Progress

#: parts that a cell counts for where it is said how far the work is
PARTS = 1000
#: called when a cell is begun; gives None where another process has done it meanwhile
Begins = Callable[[Cell], Told | None]


class Executor(Protocol):
    """Verifies cells, and gives back each as soon as it is done, in any order."""

    def __call__(self, cells: Sequence[Cell], begins: Begins) -> Iterator[Verified]: ...


@dataclass(frozen=True)
class InProcess:
    """The executor that verifies cells in this process."""

    settings: Settings
    busy: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext()

    def __call__(self, cells: Sequence[Cell], begins: Begins) -> Iterator[Verified]:
        worker = Worker(self.settings, self.busy)
        try:
            for cell in cells:
                if told := begins(cell):
                    yield worker.verify(cell, told)
        finally:
            worker.close()


def run(left: Sequence[Cell], known: int, results: Results, executor: Executor, told: Progress | None = None) -> bool:
    """Verify cells, and keep what becomes of each; whether Ctrl-C ended it early.

    The index, the table and the page are written in the end, however it ends.

    Args:
        left: those that are not done yet, as `waiting` gives them.
        known: how many others are done.
        told: called with (work done, all work, what is going on).
    """
    finished, many = known, known + len(left)
    start, at_work = time.perf_counter(), dict[str, float]()  # the share that is done of each cell that is begun

    def begins(cell: Cell) -> Told | None:
        nonlocal finished
        if _is_done(results, cell):
            finished += 1
            return None

        def inside(share: float, text: str) -> None:
            at_work[cell.key] = share
            if told:
                done = finished + sum(at_work.copy().values())
                each = (time.perf_counter() - start) / (done - known) if done > known else 0
                rest = f", about {duration(each * (many - done))} left" if each else ""
                where = f"at {cell}" if len(at_work) == 1 else f"{len(at_work)} at work"
                told(round(PARTS * done), PARTS * many, f"{finished} of {many} cells done{rest}, {where}")

        inside(0, "")
        return inside

    try:
        for one in executor(left, begins):
            at_work.pop(one.cell.key, None)
            if one.interrupted:
                return True
            if not (one.error and _is_done(results, one.cell)):  # another process may have had more luck
                results.keep(record_of(one), one.reports)
            finished += 1
    except KeyboardInterrupt:
        return True
    finally:
        if results.keys():
            results.summarize()
    return False


def waiting(cells: Sequence[Cell], results: Results) -> list[Cell]:
    """The cells that are not done yet: those of which nothing is kept, and those that failed."""
    known = results.keys()
    return [cell for cell in cells if cell.key not in known or not _is_done(results, cell)]


def _is_done(results: Results, cell: Cell) -> bool:
    found = results.record(cell.key)
    return found is not None and found.state == "done"


def record_of(one: Verified) -> Record:
    """What is kept of a verified cell."""
    return Record(
        one.cell,
        "failed" if one.error else "done",
        one.claims,
        report_name(one.cell) if one.reports else "",
        one.error,
        one.hint,
        one.log,
        one.seconds,
        datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def status_of(records: Sequence[Record], allow_undecided: bool = False) -> int:
    """The exit status of some cells: 3 where one could not be run or nothing could be asked, else as for reports."""
    outcomes = {row.outcome for record in records for row in record.claims} - {NOT_APPLICABLE}
    failed = any(record.state == "failed" for record in records)
    return NOT_RUN if failed else verdicts.status_of(outcomes, allow_undecided)
