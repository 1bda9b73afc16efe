"""Cells on the workers of a Ray cluster: Ray places workers and says when one is lost; the driver alone decides.

Each worker is an actor that keeps a session, with the models in it, from cell to cell. A cell with little work is
verified by one worker as a whole. One with much work is verified by the driver, and workers answer what that asks of
the model (`shared`). What a lost worker was at is given to another.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from circuitdsl.engine.away import Short
from circuitdsl.errors import UserError
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.cluster import HERE, alive, connected, gpu_bytes, of, ray_itself, refuse_others, said
from circuitdsl.matrix.crew import Crew, Held
from circuitdsl.matrix.gpus import needs_of
from circuitdsl.matrix.planning import session_of
from circuitdsl.matrix.queue import Queue
from circuitdsl.matrix.running import Begins
from circuitdsl.matrix.shared import Desk, Task
from circuitdsl.matrix.worker import Failed, Settings, Verified
from circuitdsl.models.errors import ModelUnavailable

#: seconds in which a worker starts where none is at work; between two looks at the desk, and at workers
STARTS, SOON, LOOK = 600.0, 0.02, 1.0
#: workers that are asked how far they are, at one look
TELLING = 32
#: a cell that loses so many workers is not tried again
LOST = 3
#: what is said where memory runs out
FEWER = "fewer --workers have more each"


@dataclass
class OnRay:
    """The executor that verifies cells on a Ray cluster.

    Attributes:
        address: of a cluster that runs, `auto` for the one of this machine, or `HERE`.
        workers: how many at the most; by default one for each core, or as many as the GPUs have room for.
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
        ray = ray_itself()
        with connected(ray, self.address):
            refuse_others(ray)
            yield from self.verified(ray, cells, begins)

    def verified(self, ray: Any, cells: Sequence[Cell], begins: Begins) -> Iterator[Verified]:
        """Verify cells on a cluster that is connected."""
        gpus = float(ray.cluster_resources().get("GPU", 0))
        together = max((int(of(node, "GPU")) for node in alive(ray)), default=0)
        needs = needs_of(cells, self.settings, gpus, gpu_bytes(ray) if gpus else 0, together)
        for cell in cells:
            if (need := needs[session_of(cell)]).problem:
                yield Verified(cell, error=need.problem, hint=need.hint)
        left = [cell for cell in cells if not needs[session_of(cell)].problem]
        crew, desk = Crew(ray, self.settings, self.workers, needs), Desk(self.settings)
        try:
            yield from self._run(ray, crew, Queue(left), desk, begins)
        finally:
            desk.stop()

    def _run(self, ray: Any, crew: Crew, queue: Queue, desk: Desk, begins: Begins) -> Iterator[Verified]:
        asked: dict[Any, Held] = {}
        far: dict[Any, tuple[Held, object]] = {}
        heard, looked = time.monotonic(), -LOOK
        while queue or desk or any(each.at for each in crew.held):
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                crew.retire(queue, desk)
                asked |= {one.actor.where.remote(): one for one in crew.start(queue, desk)}
                far |= self._ask_how_far(crew, far)
            # where a machine has left, its workers may wait for another one for ever
            at_work = any(each.at for each in crew.held)
            if not at_work and time.monotonic() - heard > STARTS:
                break
            if asked:
                ready, _ = ray.wait([*asked, *far], num_returns=1, timeout=SOON if desk else LOOK)
            else:  # the driver weighs what it has
                time.sleep(SOON)
                ready = []
            for one in ready:
                if one in far:
                    self._tell(ray, one, *far.pop(one))
                    continue
                heard, mine = time.monotonic(), asked.pop(one)
                yield from self._heard(ray, one, mine, queue, desk)
                if not mine.actor:
                    mine.actor, mine.node, mine.kind, mine.last = crew.made(mine.share), "", None, ""
                    asked[mine.actor.where.remote()] = mine
            yield from desk.done()
            for idle in [each for each in crew.held if each.idle and (queue or desk.waits)]:
                if request := self._next(idle, crew, queue, desk, begins):
                    asked[request] = idle
        nobody = "no machine is left in the cluster that could verify it"
        for cell in (*queue.rest(), *(each.cell for each in desk.cells)):
            why = Verified(cell, error=nobody, hint="run again with --resume, once there is one")
            yield replace(self._lacking.get(session_of(cell), why), cell=cell)

    def _heard(self, ray: Any, answer: Any, one: Held, queue: Queue, desk: Desk) -> Iterator[Verified]:
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
    def _ask_how_far(crew: Crew, asked: Mapping[Any, tuple[Held, object]]) -> dict[Any, tuple[Held, object]]:
        """Ask some workers how far their cells are, where none of them owes an answer."""
        owing = {id(one) for one, _ in asked.values()}
        busy = [each for each in crew.held if isinstance(each.at, Cell) and id(each) not in owing]
        some = random.sample(busy, min(TELLING, len(busy)))
        return {each.actor.far.options(concurrency_group="telling").remote(): (each, each.at) for each in some}

    @staticmethod
    def _tell(ray: Any, answer: Any, one: Held, at: object) -> None:
        """Tell how far a worker is."""
        try:
            share, text = ray.get(answer)
        except ray.exceptions.RayError:  # it is lost, which is heard of elsewhere
            return
        if one.at is at:
            one.told(share, text)

    def _next(self, one: Held, crew: Crew, queue: Queue, desk: Desk, begins: Begins) -> Any:
        """Let a worker begin something; None where there is nothing for it.

        It goes on with a cell that it has prompts of, or that nobody has any of. Then come cells of its own; where
        there are none, it helps with another's.
        """
        refused = crew.others(one) | self._refused.get(one.node, set())
        cared_for = {each.last for each in crew.held if each is not one} - {one.last}
        task = desk.take(lambda cell: session_of(cell) not in refused and cell.key not in cared_for)
        if task is None:
            holders = Counter(each.kind for each in crew.held if each is not one and each.kind is not None)
            while (cell := queue.take(one.kind, holders, refused)) is not None:
                if told := begins(cell):
                    one.kind, one.at, one.told, one.last = session_of(cell), cell, told, ""
                    return one.actor.verify.remote(cell, crew.memory(cell))
            task = desk.take(lambda cell: session_of(cell) not in refused)
        if task is None:
            return None
        one.kind, one.at, one.last = session_of(task.cell), task, task.cell.key
        return one.actor.answer.remote(task.cell, task.circuit, task.call, crew.memory(task.cell))

    def _after_loss(
        self, at: Cell | Task | None, one: Held, error: Exception, queue: Queue, desk: Desk
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


def ran_out(error: Exception) -> bool:
    """Whether a worker was ended because memory ran low, as Ray says it."""
    return type(error).__name__ == "OutOfMemoryError" or "running low on memory" in str(error)
