"""What a matrix takes on 1 to 512 workers, by simulation: the real scheduling and writing, and workers that only wait.

    OMP_NUM_THREADS=1 python -m benchmarks.matrix                          # the table
    OMP_NUM_THREADS=1 python -m benchmarks.matrix -o docs/performance.md   # written into its part of the page

Some cells of the pocket model and of stories260K are verified here first. The simulated workers then take as long as
these did, on a clock that jumps from one event to the next; loading a model takes as long as it did too. What the
driver does between two events is done for real, and its CPU seconds pass on the same clock: `OnRay` decides which
worker has which cell, and `running.run` writes records and reports into a directory.
"""

from __future__ import annotations

import argparse
import heapq
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from benchmarks.growth_verbs import STORIES, who
from benchmarks.marked import write_part
from circuitdsl.matrix import on_ray
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.on_ray import OnRay
from circuitdsl.matrix.planning import plan, session_of
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.running import Begins, run
from circuitdsl.matrix.runs import Run
from circuitdsl.matrix.storage import Directory
from circuitdsl.matrix.worker import Settings, Verified, Worker

POCKET = ("pocket/ioi", "pocket/greater_than", "pocket/induction")
CELLS, WORKERS = (100, 1000, 10_000), (1, 8, 32, 128, 512)
#: models of a simulated matrix, half of them like the pocket model and half like stories260K
MODELS = 8
#: seeds that are verified for durations
SEEDS = (0, 1)
#: seconds until a worker of Ray has started and imported what it needs, as `matrix_ray speed` finds
STARTS = 6.0
#: CPU seconds of the driver in Ray, for a call, for taking an answer, and for each answer that it waits for
CALL, GET, WAIT = 0.0001, 0.0003, 0.0000004


@dataclass(frozen=True)
class Measured:
    """What a cell took: seconds with the model at hand, seconds to load it, and what the worker sent back."""

    seconds: float
    load: float
    sent: bytes


def measured(folder: Path) -> dict[str, list[Measured]]:
    """Cells that were verified in this process, by the kind of their model; CPU seconds of one thread."""
    found: dict[str, list[Measured]] = {}
    for kind, specs, model in (("pocket", POCKET, "pocket"), ("stories", (who(folder),), str(STORIES))):
        load = _load(Cell(specs[0], model, options={"prompts": 8}))
        worker = Worker(Settings(cache=False, allow_outside=True))
        cells = plan([Run(specs, (model,), (), SEEDS)], allow_outside=True)
        found[kind] = []
        for cell in (cells[0], *cells):  # the first loads the model
            start = time.process_time()
            made = worker.verify(cell)
            found[kind].append(Measured(time.process_time() - start, load, pickle.dumps(made)))
            if made.error:
                raise SystemExit(made.error)
        worker.close()
        del found[kind][0]
    return found


def _load(cell: Cell) -> float:
    """CPU seconds to load a model: a small cell with a new worker, and again with the same; the least of three."""
    (cell,) = plan([Run((cell.spec,), (cell.model,), options=cell.options)], allow_outside=True)
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(4):  # the first imports
        worker = Worker(Settings(cache=False, allow_outside=True))
        for some in seconds:
            start = time.process_time()
            worker.verify(cell)
            some.append(time.process_time() - start)
        worker.close()
    return max(0.0, min(seconds[0][1:]) - min(seconds[1][1:]))


@dataclass
class Ray:
    """What `OnRay` asks of Ray, with workers that take their time on a clock of their own.

    It is the module `time` of the driver as well.
    """

    workers: int
    took: Callable[[Cell], Measured]
    now: float = 0.0
    loads: int = 0
    spent: float = 0.0
    _since: float = field(default_factory=time.process_time)
    _events: list[tuple[float, int]] = field(default_factory=list)
    _gives: dict[int, Callable[[], Any]] = field(default_factory=dict)
    _number: int = 0
    exceptions = SimpleNamespace(RayError=RuntimeError)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.workers}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.cluster_resources()}]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def remote(self, **_: Any) -> Callable[[type], Any]:
        return lambda _: SimpleNamespace(remote=lambda *_: Actor(self))

    def monotonic(self) -> float:
        """When it is for the driver, who has worked since the last event."""
        return self.now + time.process_time() - self._since

    def passes(self, seconds: float) -> None:
        """What the driver would spend in Ray."""
        self.now += seconds
        self.spent += seconds

    def after(self, seconds: float, gives: Callable[[], Any]) -> int:
        """What `get` takes once those seconds have passed."""
        self._number += 1
        self._gives[self._number] = gives
        heapq.heappush(self._events, (self.monotonic() + seconds, self._number))
        self.passes(CALL)
        return self._number

    def wait(self, refs: Sequence[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        self.passes(WAIT * len(refs))
        if self._events[0][0] > (until := self.monotonic() + timeout):
            found = []
            self._wake(until)
        else:
            self._wake(max(self.monotonic(), self._events[0][0]))
            found = [heapq.heappop(self._events)[1]]
        while len(found) < num_returns and self._events and self._events[0][0] <= self.now:
            found.append(heapq.heappop(self._events)[1])
        return found, []

    def _wake(self, now: float) -> None:
        self.now, self._since = now, time.process_time()

    def get(self, ref: int) -> Any:
        self.passes(GET)
        return self._gives.pop(ref)()


@dataclass
class Actor:
    """A worker that has started after a while, and then holds the model of its last cell."""

    ray: Ray
    kind: object = None

    @property
    def where(self) -> Any:
        return SimpleNamespace(remote=lambda: self.ray.after(STARTS, lambda: "here"))

    @property
    def far(self) -> Any:
        told = SimpleNamespace(remote=lambda: self.ray.after(0.001, lambda: (0.5, "measuring")))
        return SimpleNamespace(options=lambda **_: told)

    @property
    def verify(self) -> Any:
        return SimpleNamespace(remote=self._verify)

    def _verify(self, cell: Cell, _: int | None) -> Any:
        took, loads = self.ray.took(cell), self.kind != session_of(cell)
        self.kind = session_of(cell)
        self.ray.loads += loads
        seconds = took.seconds + took.load * loads
        return self.ray.after(seconds, lambda: replace(pickle.loads(took.sent), cell=cell, seconds=seconds))


@dataclass
class Simulated:
    """The executor: `OnRay` on a Ray that is none."""

    ray: Ray

    def __call__(self, cells: Sequence[Cell], begins: Begins) -> Iterator[Verified]:
        with mock.patch.object(on_ray, "time", self.ray):
            yield from OnRay(Settings()).verified(self.ray, cells, begins)


class Ending(Results):
    """Results that know when their end began, and the CPU seconds that it took."""

    def summarize(self) -> None:
        self.began = time.process_time()
        super().summarize()
        self.took = time.process_time() - self.began


@dataclass(frozen=True)
class Outcome:
    """What a simulated run took.

    Attributes:
        ideal: no worker ever waits, and no model is loaded more often than there are models or workers; or the
            longest cell, where that is longer.
        driver: CPU seconds of the driver for each cell, those in Ray among them.
        end: CPU seconds for the index, the table and the page.
    """

    cells: int
    workers: int
    makespan: float
    ideal: float
    loads: float
    driver: float
    end: float


def simulated(cells: int, workers: int, known: dict[str, list[Measured]]) -> Outcome:
    """A run of some cells on some workers."""
    kinds = sorted(known)
    each = cells // MODELS + 1
    made = [
        Cell(f"spec-{at % 10}.circ", f"{kinds[model % len(kinds)]}-{model}", seed=at // 10)
        for model in range(MODELS)
        for at in range(each)
    ][:cells]

    def took(cell: Cell) -> Measured:
        return random.Random(cell.key).choice(known[cell.model.partition("-")[0]])

    all_of_them = [took(cell) for cell in made]
    ray = Ray(workers, took)
    with _folder() as folder:
        start = time.process_time()
        results = Ending(Directory(folder))
        run(made, 0, results, Simulated(ray), told=lambda *_: None)
        found = results.keys()
    assert len(found) == len(made) == cells
    at_work = min(workers, cells)
    loads = max(len({cell.model for cell in made}), at_work)
    load = sum(one.load for one in all_of_them) / cells
    longest = max(one.seconds + one.load for one in all_of_them)
    ideal = max((sum(one.seconds for one in all_of_them) + loads * load) / at_work, longest)
    driver = (results.began - start + ray.spent) / cells
    return Outcome(cells, workers, ray.now - STARTS, ideal, ray.loads / at_work, driver, results.took)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def table(found: Sequence[Outcome], known: dict[str, list[Measured]]) -> str:
    """The part of the page."""
    said = "; ".join(
        f"{kind}: {min(one.seconds for one in some):.1f} to {max(one.seconds for one in some):.1f} s a cell, "
        f"{some[0].load:.1f} s to load"
        for kind, some in known.items()
    )
    rows = [
        f"| {one.cells:,} | {one.workers} | {one.makespan:,.0f} | {one.ideal:,.0f} | {one.makespan / one.ideal:.2f} "
        f"| {one.loads:.1f} | {1000 * one.driver:.1f} | {one.end:.1f} |"
        for one in found
    ]
    head = (
        "| cells | workers | makespan, s | ideal, s | ratio | loads a worker | driver, CPU ms a cell | end, CPU s |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([f"Measured: {said}.", "", head, *rows])


def main() -> None:
    """Measure some cells, simulate all sizes, and print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--cells", nargs="+", type=int, default=CELLS)
    asked.add_argument("--workers", nargs="+", type=int, default=WORKERS)
    asked.add_argument("-o", "--output", type=Path, help="replace the part of this page that is marked `matrix`")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = measured(Path(folder))
    found = []
    for cells in given.cells:
        for workers in given.workers:
            found.append(simulated(cells, workers, known))
            print(found[-1], file=sys.stderr, flush=True)
    made = table(found, known)
    print(made)
    if given.output:
        write_part(given.output, "matrix", made)


if __name__ == "__main__":
    main()
