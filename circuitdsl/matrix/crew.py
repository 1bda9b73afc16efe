"""The workers of a run: what each holds, what each is at, and how many there are of which size.

On a cluster with GPUs a worker has the share of one that its models need (`gpus`). Where no cell is left for workers of
a size, one of them makes room for workers of another.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitdsl.circuit.claims import Circuit
from circuitdsl.engine.away import Call
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.gpus import Need
from circuitdsl.matrix.planning import session_of
from circuitdsl.matrix.queue import Queue
from circuitdsl.matrix.shared import Desk, Task
from circuitdsl.matrix.worker import Settings, Told, Verified, Worker

Kind = tuple[object, ...]
#: portions of a look that one worker measures by itself; where there are more, several workers share them
MOST = 3


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

    def verify(self, cell: Cell, memory: int | None) -> Verified:
        """Verify a cell, unless there is much to do; measure in so many bytes beside the model."""
        self.so_far = 0.0, ""
        self.worker.limit(memory)
        return self.worker.verify(cell, self._tell, MOST)

    def answer(self, cell: Cell, circuit: Circuit, call: Call, memory: int | None) -> Any:
        """The answer to a call of the driver; measure in so many bytes beside the model."""
        self.worker.limit(memory)
        return self.worker.answer(cell, circuit, call)

    def far(self) -> tuple[float, str]:
        """The share of the cell at work that is done, and what is going on. Asked beside what it does."""
        return self.so_far

    def _tell(self, share: float, text: str) -> None:
        self.so_far = share, text


@dataclass(eq=False)
class Held:
    """A worker as the driver knows it.

    Attributes:
        share: of a GPU, or how many it has.
        actor: None once it is lost.
        node: the machine on which it runs; empty until it is known.
        kind: what the session is for that it holds.
        at: the cell, or the call, at which it is.
        told: is told how far the cell is.
        last: the key of the cell for which it made prompts.
    """

    share: float
    actor: Any
    node: str = ""
    kind: Kind | None = None
    at: Cell | Task | None = None
    told: Told = lambda *_: None
    last: str = ""

    @property
    def idle(self) -> bool:
        """Whether it could begin something."""
        return bool(self.node) and self.at is None


class Crew:
    """The workers of a run.

    Args:
        most: how many there are at the most; None for as many as the cluster has room for.
        needs: what each kind of session needs.
    """

    def __init__(self, ray: Any, settings: Settings, most: int | None, needs: Mapping[Kind, Need]) -> None:
        self.ray, self.settings, self.most, self.needs = ray, settings, most, needs
        self.held: list[Held] = []
        self.home = ray.get_runtime_context().get_node_id()

    def others(self, one: Held) -> frozenset[Hashable]:
        """The kinds of sessions that are for workers of another size."""
        return frozenset(kind for kind, need in self.needs.items() if need.share != one.share)

    def memory(self, cell: Cell) -> int | None:
        """Bytes in which a cell is measured beside its model."""
        return self.needs[session_of(cell)].memory

    def start(self, queue: Queue, desk: Desk) -> Iterator[Held]:
        """Start workers, as long as there is room and something to do for one more."""
        there = self.ray.cluster_resources()
        cores, gpus = there.get("CPU", 1), there.get("GPU", 0)
        most = max(1, int(min(cores, self.most or cores)))
        while len(self.held) < most:
            room = gpus - sum(each.share for each in self.held)
            share = self._wanted(queue, desk, room)
            if share is None:
                return
            self.held.append(Held(share, self.made(share)))
            yield self.held[-1]

    def _wanted(self, queue: Queue, desk: Desk, room: float) -> float | None:
        """Of the sizes for which there is room, that with the most cells for each worker; None where all have one."""
        cells: Counter[float] = Counter()
        for kind, waiting in queue.waiting.items():
            cells[self.needs[kind].share] += len(waiting)
        workers = Counter(each.share for each in self.held if not isinstance(each.at, Cell))
        shared = {self.needs[session_of(one.cell)].share for one in desk.cells}  # they have work for any number
        wanted = {
            share: cells[share] / (1 + workers[share])
            for share in {*cells, *shared}
            if share <= room + 1e-9 and (cells[share] > workers[share] or share in shared)
        }
        return max(wanted, key=lambda share: (wanted[share], share), default=None)

    def retire(self, queue: Queue, desk: Desk) -> None:
        """End idle workers for which nothing is left, where there is something for workers of another size."""
        left = {self.needs[kind].share for kind, waiting in queue.waiting.items() if waiting}
        left |= {self.needs[session_of(one.cell)].share for one in desk.cells}
        for one in [each for each in self.held if each.idle and left and each.share not in left]:
            self.ray.kill(one.actor)
            self.held.remove(one)

    def made(self, share: float) -> Any:
        """A new worker with a share of a GPU, or with several."""
        how = {"num_cpus": 1, "num_gpus": share, "concurrency_groups": {"telling": 1}}
        settings = replace(self.settings, one_gpu=0 < share <= 1)
        return self.ray.remote(**how)(Remote).remote(settings, os.getcwd(), self.home)
