"""What verifies cells, in this process or in another: it neither plans nor writes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from circuitdsl.brief import brief
from circuitdsl.circuit.claims import Circuit
from circuitdsl.engine.away import Call, Short, answered
from circuitdsl.errors import UserError, out_of_memory
from circuitdsl.matrix.asking import as_written, asked, statement
from circuitdsl.matrix.cell import NOT_APPLICABLE, Cell, ClaimRow
from circuitdsl.matrix.planning import combined, hash_of, session_of
from circuitdsl.matrix.runs import OF_SESSION
from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.report.report import Report, Reports
from circuitdsl.verify.portions import USUAL, Sizes, TooMuch, cutting
from circuitdsl.verify.prompts import made_by
from circuitdsl.verify.session import Session
from circuitdsl.visible import json_text

if TYPE_CHECKING:
    from circuitdsl.engine.prompts import Prompts
    from circuitdsl.models.model import Model
    from circuitdsl.verify.verify import Progress

#: called with the share of a cell that is done, and what is going on
Told = Callable[[float, str], None]
#: cells whose prompts a worker keeps while it answers calls about them
KEPT = 2


@dataclass(frozen=True)
class Settings:
    """How cells are run, where that changes no number.

    Attributes:
        sizes: of the portions of work, which may change the last digits.
        one_gpu: a worker has one GPU or a share of it, which holds its models: they are laid over no other.
    """

    cache: bool = True
    memory: int | None = None
    allow_outside: bool = False
    sizes: Sizes = USUAL
    one_gpu: bool = False


@dataclass(frozen=True)
class Verified:
    """What became of a cell.

    Attributes:
        claims: what became of each, in their order; among them those that are not applicable.
        reports: what is kept of its reports, as a text; empty where there are none.
        interrupted: whether Ctrl-C ended it early.
        error, hint: why it could not be run, and what to do; empty where it could.
        lacking: whether that is because the worker lacks files of the model which the plan has seen.
        large: whether it is much work, and several workers are to share it.
        short: whether memory ran out.
    """

    cell: Cell
    claims: tuple[ClaimRow, ...] = ()
    reports: str = ""
    interrupted: bool = False
    error: str = ""
    hint: str = ""
    log: tuple[str, ...] = ()
    seconds: float = 0.0
    lacking: bool = False
    large: bool = False
    short: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer to a call that raised an error; `log` says more where nobody foresaw it."""

    error: UserError
    log: tuple[str, ...] = ()


@dataclass
class Worker:
    """Verifies cells one after the other. The session of the last one is kept: the next may be about its model.

    Attributes:
        opened: as a session has it.
    """

    settings: Settings
    busy: Callable[[str], AbstractContextManager[Any]] = lambda _: nullcontext()
    opened: Callable[..., Model] | None = None
    _session: Session | None = None
    _kind: tuple[object, ...] | None = None
    _log: list[str] = field(default_factory=list)
    _made: dict[str, dict[str, Prompts]] = field(default_factory=dict)

    def verify(self, cell: Cell, told: Told = lambda *_: None, most: int | None = None) -> Verified:
        """Verify a cell. Whatever goes wrong in it is said of this cell alone.

        Args:
            most: portions of a look that are measured here; where there are more, the cell is `large`.
        """
        start = time.perf_counter()
        self._log, self._made = [], {}
        try:
            with cutting(replace(self.settings.sizes, most=most)):
                made = self._verified(cell, told)
        except TooMuch:
            made = Verified(cell, large=True)
        except UserError as error:
            lacking = isinstance(error, ModelUnavailable) and bool(cell.model_sha256)
            made = Verified(cell, error=error.message, hint=error.hint or "", lacking=lacking, short=_is_short(error))
        except Exception as error:  # a mistake of ours in one cell is no reason to lose the others
            self._log += traceback.format_exc().splitlines()
            why = "the memory does not suffice" if out_of_memory(error) else brief(f"{type(error).__name__}: {error}")
            made = Verified(cell, error=why, short=out_of_memory(error))
        return replace(made, log=tuple(self._log), seconds=time.perf_counter() - start)

    def _verified(self, cell: Cell, told: Told) -> Verified:
        written = as_written(cell.spec, self.settings.allow_outside)
        if hash_of(written, cell.task) != cell.spec_sha256:
            raise UserError(f"{cell.spec} has changed since the run was planned", hint="run again, with --resume")
        spec, unasked = asked(written, cell.instead, cell.task)
        rows = tuple(
            ClaimRow(each.circuit, each.claim.line, statement(each.claim), None, NOT_APPLICABLE, each.reason)
            for each in unasked
        )
        if not any(circuit.claims for circuit in spec.circuits):
            return Verified(cell, rows)
        session = self._session_of(cell)
        how = {name: value for name, value in cell.options.items() if name not in OF_SESSION}
        session.meter = lambda: _meter(told)
        reports = Reports(session.reports([spec], seed=cell.seed, **how))
        if not all(_is_of(cell, report) for report in reports):
            raise ModelUnavailable(f"the files of {cell.model} have changed since the run was planned", "run it again")
        rows = tuple(sorted((*_rows(reports), *rows), key=lambda row: (row.circuit, row.line)))
        text = json_text(reports.to_json(), allow_nan=False) + "\n"
        return Verified(cell, rows, text, any(report.interrupted for report in reports))

    def limit(self, memory: int | None) -> None:
        """Measure in so many bytes beside the model from now on."""
        if memory != self.settings.memory:
            self.close()
            self.settings = replace(self.settings, memory=memory)

    def answer(self, cell: Cell, circuit: Circuit, call: Call) -> Any:
        """The answer to a call of whoever verifies a cell: that of its function, or `Short`, or `Failed`.

        The prompts of a cell are made once, as long as no more than `KEPT` cells take turns.
        """
        self._log = []
        try:
            model = self._session_of(cell).source_of(circuit)
            if call.model and call.model != model.digest:
                raise ModelUnavailable(f"the files of {cell.model} are others on another machine", "make them the same")
            if call.recipe.of == "model":
                return answered(call.function, model, *call.given)
            prompts = self._made.pop(cell.key, {})
            self._made = dict([*self._made.items()][1 - KEPT :]) | {cell.key: prompts}
            if call.recipe.key not in prompts:
                prompts[call.recipe.key] = made_by(call.recipe, model, self.settings.memory)
            return answered(call.function, prompts[call.recipe.key], *call.given)
        except UserError as error:
            if not _is_short(error):
                return Failed(error)
            self._made = {}
            return Short(error.message, error.hint or "")
        except Exception as error:
            if out_of_memory(error):
                self._made = {}
                return Short("the memory does not suffice", "fewer --workers have more each")
            log = (*self._log, *traceback.format_exc().splitlines())
            return Failed(UserError(brief(f"{type(error).__name__}: {error}")), log)

    def _session_of(self, cell: Cell) -> Session:
        if self._session is None or self._kind != session_of(cell):
            self.close()
            own = {name: cell.options[name] for name in OF_SESSION if name in cell.options}
            if self.settings.one_gpu:
                own.pop("device_map", None)
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
            self._session.opened = self.opened
        return self._session

    def close(self) -> None:
        """Give back what is held."""
        if self._session:
            self._session.close()
        self._session, self._made = None, {}


def _is_short(error: UserError) -> bool:
    """Whether it says that memory ran out."""
    from circuitdsl.engine.memory import OutOfMemory  # imports torch, which cells that are done do not need

    return isinstance(error, OutOfMemory)


def _is_of(cell: Cell, report: Report) -> bool:
    """Whether a report is of the model that was planned, as far as that can be told."""
    hashes = report.model.hashes.values()
    unknown = cell.own or not cell.model_sha256 or not all(hashes)
    return unknown or combined(hashes) == cell.model_sha256


def _rows(reports: Reports) -> Iterator[ClaimRow]:
    """What became of the claims of a cell, as a table has it."""
    for report in reports:
        for claim in report.claims:
            found = claim.measured
            figure = (found.name, found.value, found.ci, found.unit) if found else ()
            what = report.spec.circuit, claim.line, claim.statement, claim.task, claim.outcome, claim.why
            yield ClaimRow(*what, *figure)


@contextmanager
def _meter(told: Told) -> Iterator[Progress]:
    yield lambda done, total, text: told(done / max(total, 1), text)
