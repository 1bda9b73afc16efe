"""A matrix on real workers of Ray, on this machine: what two do against one, and what is lost where some are killed.

    python -m benchmarks.matrix_ray speed --repeats 2 -o docs/performance.md    # into the part `matrix_speed`
    python -m benchmarks.matrix_ray soak -o docs/performance.md                 # into the part `matrix_soak`

It needs Ray, two cores and stories260K, and both cores idle but for it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.growth import ROOT
from benchmarks.growth_verbs import STORIES, who
from benchmarks.marked import write_part
from benchmarks.same_reports import differences
from circuitdsl.matrix.cell import Cell, Record
from circuitdsl.matrix.on_ray import OnRay
from circuitdsl.matrix.planning import plan
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.running import Begins, Executor, InProcess, run
from circuitdsl.matrix.runs import Run
from circuitdsl.matrix.storage import Directory
from circuitdsl.matrix.worker import Settings, Verified
from circuitdsl.verify.portions import Sizes

#: of the soak: cells, the mean of the seconds between two kills, and portions so small that some cells have many
CELLS, EVERY, SIZES = 200, 9.0, Sizes(0.02, runs=0)


@contextmanager
def cluster(cores: int) -> Iterator[str]:
    """A cluster of this machine alone, started by this process; gives its address."""
    from ray.cluster_utils import Cluster

    os.environ |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    try:
        yield made.address
    finally:
        made.shutdown()


def _runs(folder: Path, specs: tuple[str, ...], many: int, **options: object) -> tuple[Run, Run]:
    """So many cells of the pocket model, with these options, and as many of stories260K."""
    pocket = Run(specs, ("pocket",), seeds=tuple(range(many // len(specs))), options=options)
    return pocket, Run((who(folder),), (str(STORIES),), seeds=tuple(range(many)))


@dataclass
class Watched:
    """An executor that is watched from the first cell on, when its workers have started.

    Attributes:
        seconds, driver: by the clock, and CPU seconds of this process, from there until the last cell.
        inside: seconds in which workers verified.
        cpu: CPU seconds of the workers that are there in the end.
        answers: how often each cell was given back.
    """

    executor: Executor
    seconds: float = 0.0
    driver: float = 0.0
    inside: float = 0.0
    cpu: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)

    def __call__(self, cells: Sequence[Cell], begins: Begins) -> Iterator[Verified]:
        since: list[float] = []

        def begun(cell: Cell) -> Any:
            since[:] = since or (time.perf_counter(), time.process_time(), cpu_seconds())
            return begins(cell)

        for one in self.executor(cells, begun):
            self.inside += one.seconds
            self.answers[one.cell.key] += 1
            yield one
            self.seconds, self.driver = time.perf_counter() - since[0], time.process_time() - since[1]
            self.cpu = cpu_seconds() - since[2] if len(self.answers) == len(cells) else 0.0


class Loading(OnRay):
    """It counts how often a worker begins with a model."""

    loads = 0

    def _next(self, one: Any, *given: Any) -> Any:
        before, request = one.kind, super()._next(one, *given)
        self.loads += request is not None and one.kind != before
        return request


# --- speed ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """What a run took.

    Attributes:
        whole, seconds: by the clock, in all and from the first cell on.
        cpu, idle: CPU seconds of the workers, and seconds in which they verified nothing.
        driver: CPU seconds of the driver.
        loads: how often a worker began with a model.
        load: of the machine before it: how many processes wanted a core.
    """

    workers: int
    whole: float
    seconds: float
    cpu: float
    idle: float
    driver: float
    loads: int
    load: float

    @property
    def on_idle_cores(self) -> float:
        """Seconds from the first cell on, were every core a worker's own."""
        return (self.cpu + self.idle) / self.workers


def speed(folder: Path, repeats: int) -> str:
    """Twelve cells of the pocket model, all with as much work, and twelve of stories260K, on one worker and on two."""
    cells = plan(_runs(folder, ("pocket/ioi",), 12, early_stop=False), allow_outside=True)
    found = []
    with cluster(2) as address:
        for at in range(repeats):
            for workers in (1, 2):
                found.append(timed(cells, workers, address, folder / f"{workers}-{at}"))
                print(found[-1], file=sys.stderr, flush=True)
    head = (
        "| workers | whole run, s | from the first cell on, s | CPU, s | on idle cores, s | idle a cell, s "
        "| driver a cell, CPU ms | loads | load |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {one.workers} | {one.whole:.1f} | {one.seconds:.1f} | {one.cpu:.1f} | {one.on_idle_cores:.1f} "
        f"| {one.idle / len(cells):.3f} | {1000 * one.driver / len(cells):.0f} | {one.loads} | {one.load:.1f} |"
        for one in found
    ]
    one, two = (min(each.seconds for each in found if each.workers == many) for many in (1, 2))
    free, shared = (min(each.on_idle_cores for each in found if each.workers == many) for many in (1, 2))
    said = f"Two workers are {one / two:.2f} times as fast as one, on idle cores {free / shared:.2f} times (aim: 1.7)."
    return "\n".join([said, "", head, *rows])


def timed(cells: Sequence[Cell], workers: int, address: str, folder: Path) -> Timed:
    """A run on some workers."""
    load, start = os.getloadavg()[0], time.perf_counter()
    loading = Loading(Settings(cache=False, allow_outside=True), address, workers)
    watched, results = Watched(loading), Results(Directory(folder))
    run(cells, 0, results, watched)
    whole = time.perf_counter() - start
    assert {record.state for record in results.records()} == {"done"}, "a cell failed"
    idle = workers * watched.seconds - watched.inside
    return Timed(workers, whole, watched.seconds, watched.cpu, idle, watched.driver, loading.loads, load)


# --- soak ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Soaked:
    """What a run with killed workers came to.

    Attributes:
        killed: workers that were killed, in the middle of something or not.
        lost, twice: cells that were not given back, and those that were more than once.
        apart: where a record or a report differs from that of the undisturbed run.
    """

    cells: int
    killed: int
    lost: int
    twice: int
    apart: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.cells} cells, {self.killed} workers killed: {self.lost} cells lost, {self.twice} given back twice, "
            f"{len(self.apart)} numbers or words other than in the undisturbed run, to the last bit"
        )


def soak(
    cells: Sequence[Cell], address: str, settings: Settings, folder: Path, every: float, seed: int = 0, most: int = 1000
) -> Soaked:
    """Verify cells here, then on workers of which one is killed after some seconds, again and again.

    Args:
        every: seconds between two kills, on average; `seed` is that of the draw.
        most: workers that are killed.
    """
    alone, disturbed = Results(Directory(folder / "alone")), Results(Directory(folder / "disturbed"))
    run(cells, 0, alone, InProcess(settings))
    watched, over = Watched(OnRay(settings, address)), threading.Event()
    killed: set[int] = set()
    killing = threading.Thread(target=_kill, args=(random.Random(seed), every, most, over, killed))
    killing.start()
    try:
        run(cells, 0, disturbed, watched)
    finally:
        over.set()
        killing.join()
    keys = {cell.key for cell in cells}
    twice = sum(many > 1 for many in watched.answers.values())
    apart = [found for key in sorted(keys) for found in _apart(alone, disturbed, key)]
    return Soaked(len(cells), len(killed), len(keys - watched.answers.keys()), twice, tuple(apart))


def _kill(draw: random.Random, every: float, most: int, over: threading.Event, killed: set[int]) -> None:
    while len(killed) < most and not over.wait(draw.expovariate(1 / every)):
        if pids := sorted(set(workers()) - killed):
            os.kill(pid := draw.choice(pids), signal.SIGKILL)
            killed.add(pid)


def workers() -> list[int]:
    """The workers of clusters that this process has started; Ray names a process after what it does."""
    parents, named = dict[int, int](), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            pid, stat = int(path.name), (path / "stat").read_text()
            if (path / "cmdline").read_bytes().startswith(b"ray::Remote"):
                named.append(pid)
        except OSError:  # it has ended
            continue
        parents[pid] = int(stat.rpartition(")")[2].split()[1])

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return [pid for pid in named if ours(pid)]


def cpu_seconds() -> float:
    """CPU seconds of our workers so far."""
    found = 0
    for pid in workers():
        with suppress(OSError):
            found += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return found / os.sysconf("SC_CLK_TCK")


def _apart(one: Results, other: Results, key: str) -> list[str]:
    first, second = one.record(key), other.record(key)
    if not first or not second:
        return [f"{key}: no record"]
    return differences(_known(one, first), _known(other, second), key, apart=0)


def _known(results: Results, record: Record) -> object:
    """What is kept of a cell, without what no two runs have in common."""
    reports = json.loads(results.storage.read(record.report) or "[]") if record.report else []
    for report in reports if isinstance(reports, list) else [reports]:
        del report["cached"], report["block_positions"]
    return {"record": record.to_json() | {"finished": ""}, "reports": reports}


def soaked(folder: Path, cells: int, every: float, seed: int) -> str:
    """A soak of cells of the pocket model and of stories260K, some of which several workers share."""
    runs = _runs(folder, ("pocket/ioi", "pocket/induction"), cells // 2, prompts=32)
    planned = plan(runs, allow_outside=True)
    start = time.perf_counter()
    with cluster(2) as address:
        found = soak(planned, address, Settings(cache=False, allow_outside=True, sizes=SIZES), folder, every, seed)
    print(*found.apart[:20], sep="\n", file=sys.stderr)
    return fill(f"{found}. It took {time.perf_counter() - start:.0f} s, the undisturbed run among them.", 120)


def main() -> None:
    """Measure, print what is found, and write it into its part of a page."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=("speed", "soak"))
    asked.add_argument("--repeats", type=int, default=2, help="of the timed runs")
    asked.add_argument("--cells", type=int, default=CELLS, help="of the soak")
    asked.add_argument("--every", type=float, default=EVERY, help="seconds between two kills, on average")
    asked.add_argument("--seed", type=int, default=0, help="of the times of kills")
    asked.add_argument("-o", "--output", type=Path, help="replace this part of a page")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "speed":
            made = speed(Path(folder), given.repeats)
        else:
            made = soaked(Path(folder), given.cells, given.every, given.seed)
    print(made)
    if given.output:
        write_part(given.output, f"matrix_{given.what}", made)


if __name__ == "__main__":
    main()
