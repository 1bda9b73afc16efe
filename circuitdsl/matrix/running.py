"""Cells are verified, and what becomes of each is kept at once.

An executor verifies cells; it neither plans nor writes. The one here does so in this process, with the models of
neighbouring cells kept in memory.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from circuitdsl.brief import brief
from circuitdsl.errors import NOT_RUN, UserError, out_of_memory
from circuitdsl.matrix.asking import Unasked, as_written, asked, statement
from circuitdsl.matrix.cell import NOT_APPLICABLE, Cell, ClaimRow, Record
from circuitdsl.matrix.planning import combined, hash_of, session_of
from circuitdsl.matrix.results import Results, report_name
from circuitdsl.matrix.runs import OF_SESSION
from circuitdsl.report.report import Report, Reports
from circuitdsl.verify.forecast import duration
from circuitdsl.verify.session import Session

if TYPE_CHECKING:
    from circuitdsl.verify.verify import Progress

#: parts that a cell counts for where it is said how far the work is
PARTS = 1000
#: the reports of a cell that has none
NONE = Reports(())
#: called with the share of a cell that is done, and what is going on
Told = Callable[[float, str], None]


@dataclass(frozen=True)
class Settings:
    """How cells are run, where that changes no number."""

    cache: bool = True
    memory: int | None = None
    allow_outside: bool = False


@dataclass(frozen=True)
class Verified:
    """What an executor gives back of a cell; `error` says why it could not be run."""

    cell: Cell
    reports: Reports = NONE
    unasked: tuple[Unasked, ...] = ()
    error: str = ""
    hint: str = ""
    log: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it early."""
        return any(report.interrupted for report in self.reports)


class Executor(Protocol):
    """Verifies cells, and gives back each as soon as it is done, in any order. A cell is taken when it is begun."""

    def __call__(self, cells: Iterator[Cell], told: Callable[[Cell], Told]) -> Iterator[Verified]: ...


@dataclass
class Worker:
    """Verifies cells one after the other. The session of the last one is kept: the next may be about its model."""

    settings: Settings
    busy: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext()
    _session: Session | None = None
    _kind: tuple[object, ...] | None = None
    _log: list[str] = field(default_factory=list)

    def verify(self, cell: Cell, told: Told) -> Verified:
        """Verify a cell. Whatever goes wrong in it is said of this cell alone."""
        start = time.perf_counter()
        self._log = []
        try:
            made = self._verified(cell, told)
        except UserError as error:
            made = Verified(cell, error=error.message, hint=error.hint or "")
        except Exception as error:  # a mistake of ours in one cell is no reason to lose the others
            self._log += traceback.format_exc().splitlines()
            why = "the memory does not suffice" if out_of_memory(error) else brief(f"{type(error).__name__}: {error}")
            made = Verified(cell, error=why)
        seconds = time.perf_counter() - start
        return Verified(cell, made.reports, made.unasked, made.error, made.hint, tuple(self._log), seconds)

    def _verified(self, cell: Cell, told: Told) -> Verified:
        written = as_written(cell.spec, self.settings.allow_outside)
        if hash_of(written, cell.task) != cell.spec_sha256:
            raise UserError(f"{cell.spec} has changed since the run was planned", hint="run again, with --resume")
        spec, unasked = asked(written, cell.instead, cell.task)
        if not any(circuit.claims for circuit in spec.circuits):
            return Verified(cell, unasked=unasked)
        session = self._session_of(cell)
        how = {name: value for name, value in cell.options.items() if name not in OF_SESSION}
        session.meter = lambda: _meter(told)
        reports = Reports(session.reports([spec], seed=cell.seed, **how))
        wrong = {report.model.sha256 for report in reports if not _of(cell, report)}
        if wrong:
            raise UserError(f"the files of {cell.model} have changed since the run was planned", "run it again")
        return Verified(cell, reports, unasked)

    def _session_of(self, cell: Cell) -> Session:
        if self._session is None or self._kind != session_of(cell):
            self.close()
            own = {name: cell.options[name] for name in OF_SESSION if name in cell.options}
            self._kind = session_of(cell)
            self._session = Session(
                cell.instead,
                **own,
                cache=self.settings.cache,
                memory=self.settings.memory,
                allow_outside=self.settings.allow_outside,
                busy=self.busy,
                warn=lambda said: self._log.append(said),
            )
        return self._session

    def close(self) -> None:
        """Give back what is held."""
        if self._session:
            self._session.close()
        self._session = None


def _of(cell: Cell, report: Report) -> bool:
    """Whether a report is of the model that was planned, as far as that can be told."""
    hashes = report.model.hashes.values()
    several = cell.own or not cell.model_sha256 or not all(hashes)
    return several or combined(hashes) == cell.model_sha256


@contextmanager
def _meter(told: Told) -> Iterator[Progress]:
    yield lambda done, total, text: told(done / max(total, 1), text)


@dataclass(frozen=True)
class InProcess:
    """The executor that verifies cells in this process."""

    settings: Settings = Settings()
    busy: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext()

    def __call__(self, cells: Iterator[Cell], told: Callable[[Cell], Told]) -> Iterator[Verified]:
        worker = Worker(self.settings, self.busy)
        try:
            for cell in cells:
                yield worker.verify(cell, told(cell))
        finally:
            worker.close()


def run(
    cells: Sequence[Cell],
    results: Results,
    executor: Executor,
    told: Progress | None = None,
) -> bool:
    """Verify the cells that are not done yet, and keep what becomes of each; whether Ctrl-C ended it early.

    A cell that failed earlier is tried again. The index, the table and the page are written in the end, however it
    ends.

    Args:
        told: called with (work done, all work, what is going on).
    """
    left = waiting(cells, results)
    known = finished = len(cells) - len(left)
    start = time.perf_counter()

    def tell(cell: Cell) -> Told:
        def inside(share: float, text: str) -> None:
            if told:
                done, many = finished + share, len(cells)
                each = (time.perf_counter() - start) / (done - known) if done > known else 0
                rest = f", about {duration(each * (many - done))} left" if each else ""
                told(round(PARTS * done), PARTS * many, f"{finished} of {many} cells done{rest}, at {cell}")

        return inside

    def begun() -> Iterator[Cell]:
        """The cells that no other process has done meanwhile."""
        nonlocal finished
        for cell in left:
            if _is_done(results, cell):
                finished += 1
            else:
                yield cell

    try:
        for one in executor(begun(), tell):
            if one.interrupted:
                return True
            results.keep(record_of(one), one.reports)
            finished += 1
    except KeyboardInterrupt:
        return True
    finally:
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
    rows = [
        ClaimRow(
            report.spec.circuit,
            claim.line,
            claim.statement,
            claim.task,
            claim.verdict,
            claim.reason,
            *((found.name, found.value, found.ci, found.unit) if (found := claim.measured) else ()),
        )
        for report in one.reports
        for claim in report.claims
    ]
    rows += [
        ClaimRow(each.circuit, each.claim.line, statement(each.claim), None, NOT_APPLICABLE, each.reason)
        for each in one.unasked
    ]
    return Record(
        one.cell,
        "failed" if one.error else "done",
        tuple(sorted(rows, key=lambda row: (row.circuit, row.line))),
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
    if any(record.state == "failed" for record in records) or not outcomes:
        return NOT_RUN
    if "fails" in outcomes:
        return 1
    if "error" in outcomes:
        return NOT_RUN
    return 1 if "undecided" in outcomes and not allow_undecided else 0
