"""Cells on the workers of a Ray cluster: Ray places workers and says when one is lost; the driver alone decides.

Each worker is an actor that keeps a session, with the models in it, from cell to cell. A cell with little work is
verified by one worker as a whole. One with much work is verified by the driver, and workers answer what that asks of
the model (`shared`). What a lost worker was at is given to another.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from circuitdsl.circuit.claims import Circuit
from circuitdsl.engine.away import Call, Short
from circuitdsl.errors import UserError
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.cluster import HERE, alive, connected, of, ray_itself, refuse_others, said
from circuitdsl.matrix.planning import session_of
from circuitdsl.matrix.queue import Queue
from circuitdsl.matrix.running import Begins
from circuitdsl.matrix.shared import Desk, Task
from circuitdsl.matrix.worker import Failed, Settings, Told, Verified, Worker
from circuitdsl.models.errors import ModelUnavailable

#: seconds in which a worker starts where none is at work; between two looks at the desk, and at workers
STARTS, SOON, LOOK = 600.0, 0.02, 1.0
#: a cell that loses so many workers is not tried again
LOST = 3
#: what is said where memory runs out
FEWER = "fewer --workers have more each"


class Remote:
    """A worker in a process of its own, as Ray runs it."""

    def __init__(self, settings: Settings, folder: str, home: str) -> None:
        import ray

        self.node = ray.get_runtime_context().get_node_id()
        # the cache is a file of the driver's machine
        self.worker = Worker(replace(settings, cache=settings.cache and self.node == home))
        self.so_far = 0.0, ""
        if Path(folder).is_dir():
            os.chdir(folder)

    def where(self) -> str:
        """The machine on which it runs."""
        return self.node

    def verify(self, cell: Cell) -> Verified:
        """Verify a cell, unless there is much to do."""
        self.so_far = 0.0, ""
        return self.worker.verify(cell, self._tell, self.worker.settings.most)

    def answer(self, cell: Cell, circuit: Circuit, call: Call) -> Any:
        """The answer to a call of the driver."""
        return self.worker.answer(cell, circuit, call)

    def far(self) -> tuple[float, str]:
        """The share of the cell at work that is done, and what is going on. Asked beside what it does."""
        return self.so_far

    def _tell(self, share: float, text: str) -> None:
        self.so_far = share, text


@dataclass(eq=False)
class _Held:
    """A worker as the driver knows it.

    Attributes:
        node: the machine on which it runs; empty until it is known.
        kind: what the session is for that it holds.
        at: the cell, or the call, at which it is.
        told: is told how far the cell is.
        last: the key of the cell for which it made prompts.
    """

    actor: Any
    node: str = ""
    kind: tuple[object, ...] | None = None
    at: Cell | Task | None = None
    told: Told = lambda *_: None
    last: str = ""


@dataclass
class OnRay:
    """The executor that verifies cells on a Ray cluster.

    Attributes:
        address: of a cluster that runs, `auto` for the one of this machine, or `HERE`.
        workers: how many at the most; by default one for each core, or for each GPU where there are some.
    """

    settings: Settings
    address: str = HERE
    workers: int | None = None
    _lost: Counter[str] = field(default_factory=Counter)
    _refused: dict[str, set[tuple[object, ...]]] = field(default_factory=dict)
    _lacking: dict[tuple[object, ...], Verified] = field(default_factory=dict)

    def __call__(self, cells: Sequence[Cell], begins: Begins) -> Iterator[Verified]:
        if not cells:
            return
        ray, desk = ray_itself(), Desk(self.settings)
        with connected(ray, self.address):
            refuse_others(ray)
            try:
                yield from self._run(ray, Queue(cells), desk, begins)
            finally:
                desk.stop()

    def _run(self, ray: Any, queue: Queue, desk: Desk, begins: Begins) -> Iterator[Verified]:
        make = self._maker(ray)
        held = [_Held(make()) for _ in range(min(self._many(ray), len(queue)))]
        asked: dict[Any, _Held] = {each.actor.where.remote(): each for each in held}
        far: dict[Any, tuple[_Held, object]] = {}
        looked = heard = time.monotonic()
        while queue or desk or any(each.at for each in held):
            at_work = any(each.at for each in held)
            # where a machine has left, its workers may wait for another one for ever
            if not at_work and (time.monotonic() - heard > STARTS or not (asked or desk)):
                break
            if asked:
                ready, _ = ray.wait([*asked, *far], num_returns=1, timeout=SOON if desk else LOOK)
            else:  # the driver weighs what it has
                time.sleep(SOON)
                ready = []
            for one in ready:
                if one in far:
                    self._tell(ray, one, *far.pop(one))
                else:
                    heard, mine = time.monotonic(), asked.pop(one)
                    yield from self._heard(ray, one, mine, queue, desk)
                    if not mine.actor:
                        mine.actor, mine.node, mine.kind, mine.last = make(), "", None, ""
                        asked[mine.actor.where.remote()] = mine
            yield from desk.done()
            if desk and len(held) < (most := self._many(ray)):  # a cell that is shared has work for all
                more = [_Held(make()) for _ in range(most - len(held))]
                held, asked = held + more, asked | {each.actor.where.remote(): each for each in more}
            self._give(held, asked, queue, desk, begins)
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                busy = [
                    each for each in held if isinstance(each.at, Cell) and all(each is not w for w, _ in far.values())
                ]
                far |= {each.actor.far.options(concurrency_group="telling").remote(): (each, each.at) for each in busy}
        nobody = "no machine is left in the cluster that could verify it"
        for cell in (*queue.rest(), *(each.cell for each in desk.cells)):
            why = Verified(cell, error=nobody, hint="run again with --resume, once there is one")
            yield replace(self._lacking.get(session_of(cell), why), cell=cell)

    def _heard(self, ray: Any, answer: Any, one: _Held, queue: Queue, desk: Desk) -> Iterator[Verified]:
        """Take what a worker sends; one that is lost is without an actor afterwards."""
        at, one.at = one.at, None
        try:
            found = ray.get(answer)
        except ray.exceptions.RayError as error:
            one.actor = None
            yield from self._after_loss(at, one, error, queue, desk)
            return
        if at is None:
            one.node = found
        elif isinstance(at, Task):
            lacks = isinstance(found, Failed) and isinstance(found.error, ModelUnavailable) and at.cell.model_sha256
            if lacks and self._elsewhere(ray, one.node, Verified(at.cell, error=found.error.message)):
                desk.put_back(at)
            else:
                at.reply.put((at.number, found))
        elif found.large or found.short:
            desk.add(at, one.told)
            one.last = at.key
        elif found.lacking and self._elsewhere(ray, one.node, found):
            queue.put_back(found.cell)
        else:
            yield found

    @staticmethod
    def _tell(ray: Any, answer: Any, one: _Held, at: object) -> None:
        """Tell how far a worker is."""
        try:
            share, text = ray.get(answer)
        except ray.exceptions.RayError:  # it is lost, which is heard of elsewhere
            return
        if one.at is at:
            one.told(share, text)

    def _give(self, held: Sequence[_Held], asked: dict[Any, _Held], queue: Queue, desk: Desk, begins: Begins) -> None:
        """Let every worker that has nothing to do begin something."""
        for idle in [each for each in held if each.node and not each.at]:
            if request := self._next(idle, held, queue, desk, begins):
                asked[request] = idle

    def _next(self, one: _Held, held: Sequence[_Held], queue: Queue, desk: Desk, begins: Begins) -> Any:
        """Let a worker begin something; None where there is nothing for it.

        It goes on with a cell that it has prompts of, or that nobody has any of. Then come cells of its own; where
        there are none, it helps with another's.
        """
        refused = frozenset(self._refused.get(one.node, ()))
        cared_for = {each.last for each in held if each is not one}
        if task := desk.take(lambda cell: session_of(cell) not in refused and cell.key not in cared_for - {one.last}):
            return self._answer(one, task)
        holders = Counter(each.kind for each in held if each is not one and each.kind is not None)
        while (cell := queue.take(one.kind, holders, refused)) is not None:
            if told := begins(cell):
                one.kind, one.at, one.told, one.last = session_of(cell), cell, told, ""
                return one.actor.verify.remote(cell)
        task = desk.take(lambda cell: session_of(cell) not in refused)
        return self._answer(one, task) if task else None

    @staticmethod
    def _answer(one: _Held, task: Task) -> Any:
        one.kind, one.at, one.last = session_of(task.cell), task, task.cell.key
        return one.actor.answer.remote(task.cell, task.circuit, task.call)

    def _after_loss(
        self, at: Cell | Task | None, one: _Held, error: Exception, queue: Queue, desk: Desk
    ) -> Iterator[Verified]:
        """What a lost worker was at waits again, unless it has lost several: then it may be what ends them.

        Where memory ran out, a cell is measured in portions, and a portion in halves.
        """
        if at is None:
            self._lost[""] += 1
            if self._lost[""] > LOST * 10:
                raise UserError(f"workers end as soon as they start: {said(error)}", "see the logs of Ray") from None
            return
        why, hint = f"{LOST} workers ended while they verified it: {said(error)}", f"does the memory suffice? {FEWER}"
        if isinstance(at, Task):
            at.lost += 1
            if ran_out(error):
                at.reply.put((at.number, Short("Ray ended a worker, as its machine ran low on memory", FEWER)))
            elif at.lost < LOST:
                desk.put_back(at)
            else:
                at.reply.put((at.number, Failed(UserError(why, hint))))
            return
        self._lost[at.key] += 1
        if ran_out(error):
            desk.add(at, one.told)
        elif self._lost[at.key] < LOST:
            queue.put_back(at)
        else:
            yield Verified(at, error=why, hint=hint)

    def _elsewhere(self, ray: Any, node: str, found: Verified) -> bool:
        """Note that a machine lacks a model's files; whether another may have them."""
        kind = session_of(found.cell)
        self._lacking[kind] = found
        self._refused.setdefault(node, set()).add(kind)
        return any(kind not in self._refused.get(each["NodeID"], ()) for each in alive(ray) if of(each, "CPU") >= 1)

    def _many(self, ray: Any) -> int:
        """How many workers there may be."""
        there = ray.cluster_resources()
        most = int(there.get("GPU", 0)) or int(there.get("CPU", 1))
        return max(1, min(most, self.workers or most))

    def _maker(self, ray: Any) -> Callable[[], Any]:
        """What starts a worker: on a GPU of its own, where there are some."""
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        kind = ray.remote(num_cpus=1, num_gpus=gpus, concurrency_groups={"telling": 1})(Remote)
        home = ray.get_runtime_context().get_node_id()
        return lambda: kind.remote(self.settings, os.getcwd(), home)


def ran_out(error: Exception) -> bool:
    """Whether a worker was ended because memory ran low, as Ray says it."""
    return type(error).__name__ == "OutOfMemoryError" or "running low on memory" in str(error)
