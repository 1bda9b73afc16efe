"""A cell that several workers measure: the driver verifies it, and workers answer what it asks of the model.

A thread of the driver plans the cell, weighs what comes back, look by look, decides, and writes the cache. It holds no
tensors. Whatever needs the model is a call (`engine.away`): scores of prompts, and the portions of each look
(`verify.portions`). Calls wait on the desk; workers take them in any order, make the same prompts for themselves, and
send numbers back. What a lost worker had is given to another.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from circuitdsl.circuit.claims import Circuit
from circuitdsl.engine.away import Call, Recipe, Short
from circuitdsl.errors import UserError
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.worker import Failed, Settings, Told, Verified, Worker
from circuitdsl.models.errors import ModelUnavailable
from circuitdsl.models.load import load_tokenizer
from circuitdsl.models.model import Model
from circuitdsl.verify.cache import machine_of

#: what of a model is not sent to the driver
STAYS = ("tokenizer", "read", "whole", "shapes", "away")


def facts(model: Model) -> dict[str, Any]:
    """What is known of a model without its tensors, to be sent."""
    known = {each.name: getattr(model, each.name) for each in fields(model) if each.name not in STAYS}
    return known | {"machine": machine_of(model)}


class _Over(BaseException):
    """The run is over before the cell is verified."""


@dataclass(eq=False)
class Task:
    """A call that waits for a worker, or is with one.

    Attributes:
        circuit: one whose model is meant.
        reply: takes the number of the call and the answer.
        lost: how many workers were lost while they worked on it.
        dropped: whether nobody needs the answer any more.
    """

    cell: Cell
    circuit: Circuit
    call: Call
    number: int
    reply: SimpleQueue[tuple[int, Any]]
    lost: int = 0
    dropped: bool = False


class Shared:
    """A cell that is verified by a thread of the driver."""

    def __init__(self, cell: Cell, settings: Settings, told: Told) -> None:
        self.cell, self.waiting, self.over = cell, deque[Task](), False
        self.found: Verified | None = None
        self.log: list[str] = []
        self.open: list[SimpleQueue[tuple[int, Any]]] = []
        self.thread = threading.Thread(target=self._verify, args=(settings, told), name=str(cell), daemon=True)
        self.thread.start()

    def _verify(self, settings: Settings, told: Told) -> None:
        worker = Worker(settings, opened=self._opened)
        try:
            found = worker.verify(self.cell, told)
        except _Over:
            return
        finally:
            worker.close()
        self.found = replace(found, log=(*self.log, *found.log))

    def _opened(self, circuit: Circuit, name: str, place: str, revision: str | None) -> Model:
        """The model as a worker that holds it knows it, without its tensors."""
        calling = partial(self._answers, circuit)
        ((_, known),) = calling([Call(Recipe(circuit, "model"), f"{__name__}:facts", ())])
        if isinstance(known, Short):
            raise UserError(f"memory ran out: {known.why}", known.hint)
        tokenizer = load_tokenizer(place, revision) if known["tokenizer_sha256"] else None

        def here() -> Any:
            raise ModelUnavailable(f"{name} is held by the workers alone")

        return Model(**known | {"name": name}, tokenizer=tokenizer, read=here, away=calling)

    def _answers(self, circuit: Circuit, calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
        """The answers to some calls as they come."""
        reply = SimpleQueue[tuple[int, Any]]()
        tasks = [Task(self.cell, circuit, call, number, reply) for number, call in enumerate(calls)]
        self.open.append(reply)
        self.waiting.extend(tasks)
        try:
            for _ in tasks:
                number, answer = reply.get()
                if self.over:
                    raise _Over
                if isinstance(answer, Failed):
                    self.log += answer.log
                    raise answer.error
                yield number, answer
        finally:
            self.open.remove(reply)
            for task in tasks:  # where one has failed, nobody needs the others
                task.dropped = True
                with suppress(ValueError):
                    self.waiting.remove(task)

    def stop(self) -> None:
        """Let the thread end, whatever it waits for."""
        self.over = True
        for reply in list(self.open):
            reply.put((0, None))


@dataclass
class Desk:
    """The cells that several workers measure, and what waits to be answered for them."""

    settings: Settings
    cells: list[Shared] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.cells)

    @property
    def waits(self) -> bool:
        """Whether a call waits for a worker."""
        return any(one.waiting for one in self.cells)

    def add(self, cell: Cell, told: Told) -> None:
        self.cells.append(Shared(cell, self.settings, told))

    def take(self, wanted: Callable[[Cell], bool]) -> Task | None:
        """The next call for one of the cells that a worker may work for."""
        for one in self.cells:
            if one.waiting and wanted(one.cell):
                try:
                    return one.waiting.popleft()
                except IndexError:  # the thread has just taken back what waited
                    continue
        return None

    def put_back(self, task: Task) -> None:
        """Let a call wait again, before all others of its cell."""
        for one in self.cells:
            if one.cell.key == task.cell.key and not task.dropped:
                one.waiting.appendleft(task)

    def done(self) -> Iterator[Verified]:
        """What became of the cells that are verified since it was asked last."""
        for one in [each for each in self.cells if not each.thread.is_alive()]:
            self.cells.remove(one)
            yield one.found or Verified(one.cell, error="it was not verified to the end")

    def stop(self) -> None:
        """End all of them."""
        for one in self.cells:
            one.stop()
        for one in self.cells:
            one.thread.join(timeout=5.0)
