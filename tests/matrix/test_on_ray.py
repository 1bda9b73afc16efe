"""Cells on a Ray cluster of two machines, in processes on this one: the same numbers, whatever is lost meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import matrix_ray
from benchmarks.same_reports import differences
from circuitdsl.cli import matrix
from circuitdsl.errors import UserError
from circuitdsl.matrix import crew, on_ray
from circuitdsl.matrix.cluster import check_answers
from circuitdsl.matrix.crew import Crew
from circuitdsl.matrix.gpus import Need
from circuitdsl.matrix.planning import plan, session_of
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.runs import Run
from circuitdsl.matrix.storage import Directory
from circuitdsl.matrix.worker import Settings
from circuitdsl.verify import anew
from circuitdsl.verify.portions import Sizes
from tests.conftest import ROOT
from tests.matrix.conftest import IOI, run
from tests.matrix.test_shared import MUCH
from tests.matrix.test_storage import without_times

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'circuitdsl[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Ray's clusters are for Unix")]
#: bytes of the store of objects of a machine, and how soon one that is gone is noticed
STORE = 80 * 2**20
HEALTH = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5, "health_check_timeout_ms": 2000}
LINE = "verify ioi.circ weights.circ --model pocket --model small --seed 0 --seed 1 --seed 2"


@pytest.fixture(scope="module")
def home(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the user on the machines of the cluster, with a model in it."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(models / "small", folder / "small")
    return folder


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Any]:
    """Two machines with a core each."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "HOME": str(home)}
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE, "_system_config": HEALTH}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, object_store_memory=STORE)
    yield made
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def another(cluster) -> Iterator[Callable[..., Any]]:
    """Adds a machine to the cluster, with variables of its own, until the test ends."""
    added = []

    def add(**variables: str) -> Any:
        added.append(cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars=variables))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


@pytest.fixture
def undisturbed(lab: Path) -> dict[str, object]:
    """What one process finds."""
    assert run(f"{LINE} --results alone") in (0, 1)
    return without_times(Results(Directory(lab / "alone")))


def difference(one: object, other: object, where: str = "") -> Iterator[str]:
    """Where two values differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from difference(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from difference(*pair, f"{where}[{number}]")
    elif one != other:
        yield f"{where}: {one!r}, not {other!r}"


def kept(lab: Path, name: str = "r") -> dict[str, object]:
    return without_times(Results(Directory(lab / name)))


def at_work(does: bytes = b"ray::Remote.verify") -> list[int]:
    """The processes that verify a cell now; Ray names a process after what it does."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(does):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def killing(times: int, does: bytes = b"ray::Remote.verify") -> threading.Thread:
    """A thread that ends a worker in the middle of a cell, so many times, each another process."""

    def kill() -> None:
        ended: set[int] = set()
        until = time.monotonic() + 60
        while len(ended) < times and time.monotonic() < until:
            for pid in set(at_work(does)) - ended:
                os.kill(pid, signal.SIGKILL)
                ended.add(pid)
                break
            time.sleep(0.01)
        assert len(ended) == times

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_numbers_are_those_of_one_process_bit_for_bit(lab: Path, cluster, undisturbed) -> None:
    assert run(f"{LINE} --results r --ray {cluster.address} --no-cache") in (0, 1)
    assert list(difference(kept(lab), undisturbed)) == [] and len(undisturbed) == 12


def test_a_worker_that_is_killed_loses_nothing(lab: Path, cluster, undisturbed) -> None:
    thread = killing(2)
    assert run(f"{LINE} --results r --ray {cluster.address} --no-cache") in (0, 1)
    thread.join()
    assert list(difference(kept(lab), undisturbed)) == []


@pytest.fixture
def in_portions(lab: Path, monkeypatch) -> str:
    """A command line whose cells are cut into many portions, and are verified alone before."""
    (lab / "much.circ").write_text(MUCH)
    own = matrix._settings
    monkeypatch.setattr(matrix, "_settings", lambda given: replace(own(given), sizes=Sizes(1e-4, runs=0)))
    line = "verify much.circ --model pocket --seed 0 --seed 1 --no-cache"
    assert run(f"{line} --results alone") in (0, 1)
    return line


def test_a_cell_that_several_workers_share_is_that_of_one_process_bit_for_bit(lab, cluster, in_portions) -> None:
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            most.append(len(at_work(b"ray::Remote.answer")))

    looking = threading.Thread(target=look)
    looking.start()
    assert run(f"{in_portions} --results r --ray {cluster.address}") in (0, 1)
    over.set()
    looking.join()
    assert max(most) == 2
    assert list(difference(kept(lab), kept(lab, "alone"))) == []


@pytest.mark.long
def test_a_worker_that_is_killed_in_a_shared_cell_loses_nothing(lab, cluster, in_portions) -> None:
    thread = killing(2, b"ray::Remote.answer")
    assert run(f"{in_portions} --results r --ray {cluster.address}") in (0, 1)
    thread.join()
    assert list(difference(kept(lab), kept(lab, "alone"))) == []


@pytest.mark.long
def test_a_cell_that_ends_its_workers_fails_and_the_rest_goes_on(lab: Path, cluster, capsys) -> None:
    """One worker has one cell at a time: the cell that three of them are lost on is given up."""
    thread = killing(3)
    assert run(f"verify ioi.circ --seed 0 --seed 1 --results r --ray {cluster.address} --workers 1 --no-cache") == 3
    thread.join()
    states = {record.cell.seed: record for record in Results(Directory(lab / "r")).records()}
    assert [states[seed].state for seed in (0, 1)] == ["failed", "done"]
    assert "3 workers ended while they verified it" in states[0].error


@pytest.mark.long
def test_a_machine_that_leaves_loses_nothing(lab: Path, cluster, another, undisturbed) -> None:
    node = another()
    leaving = threading.Thread(target=lambda: (_until(at_work), cluster.remove_node(node, allow_graceful=False)))
    leaving.start()
    assert run(f"{LINE} --results r --ray {cluster.address} --no-cache") in (0, 1)
    leaving.join()
    assert list(difference(kept(lab), undisturbed)) == []


def _until(true: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not true() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.long
def test_a_driver_that_is_killed_goes_on(lab: Path, cluster, undisturbed) -> None:
    command = [sys.executable, "-m", "circuitdsl", *LINE.split(), "--results", "r", "--ray", cluster.address]
    first = subprocess.Popen([*command, "--no-cache"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: (lab / "r" / "cells").is_dir() and len(list((lab / "r" / "cells").glob("*.json"))) > 1)
    first.kill()
    first.wait()
    before = {path: path.read_bytes() for path in (lab / "r" / "cells").glob("*.json")}
    assert 0 < len(before) < 12
    assert run(f"{LINE} --results r --ray {cluster.address} --resume --no-cache") in (0, 1)
    assert list(difference(kept(lab), undisturbed)) == []
    assert {path: path.read_bytes() for path in before} == before  # nothing twice


class Small(crew.Remote):
    """A worker whose memory does not suffice for many numbers at once."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        real = anew.measure_anew

        def measured(prompts: Any, requests: Any, indices: Any) -> Any:
            if len(requests) * len(indices) > 200:
                raise MemoryError
            return real(prompts, requests, indices)

        anew.measure_anew = measured


@pytest.mark.long
def test_where_the_memory_of_workers_runs_out_portions_are_halved(lab: Path, cluster, monkeypatch) -> None:
    """Prompts then run beside others, which may change a number's last digits."""
    (lab / "much.circ").write_text(MUCH)
    line = "verify much.circ --model pocket --seed 0 --seed 1 --no-cache"
    assert run(f"{line} --results alone") in (0, 1)
    monkeypatch.setattr(crew, "Remote", Small)
    asked: list[Any] = []
    real = Crew.memory
    monkeypatch.setattr(Crew, "memory", lambda self, cell: asked.append(cell) or real(self, cell))
    assert run(f"{line} --results r --ray {cluster.address}") in (0, 1)
    assert len(asked) > 10  # what whole cells were too much for was asked in pieces
    apart = differences(kept(lab), kept(lab, "alone"))
    assert apart == [] and len(kept(lab)) == 2


@pytest.mark.long
def test_a_model_that_one_machine_lacks_is_verified_on_another(lab: Path, cluster, another, tmp_path_factory) -> None:
    another(HOME=str(tmp_path_factory.mktemp("empty")))
    line = "verify ioi.circ --model pocket --model ~/small --seed 0 --seed 1 --seed 2"
    assert run(f"{line} --results r --ray {cluster.address} --no-cache") in (0, 1)
    assert run(f"{line} --results alone") in (0, 1)
    assert list(difference(kept(lab), kept(lab, "alone"))) == []


@pytest.mark.long
def test_a_model_that_no_machine_can_read_fails_its_cells_alone(lab: Path, cluster, capsys) -> None:
    line = f"verify ioi.circ --model broken --model small --results r --ray {cluster.address}"
    assert run(line) == 3
    assert {r.cell.model: r.state for r in Results(Directory(lab / "r")).records()} == {
        "broken": "failed",
        "small": "done",
    }
    assert "cannot be read" in capsys.readouterr().out


def test_other_versions_are_refused_before_anything_runs(lab: Path, cluster, another, tmp_path, capsys) -> None:
    other = tmp_path / "other" / "circuitdsl"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "version.py").write_text('__version__ = "99.1"\n')
    another(PYTHONPATH=os.pathsep.join([str(other.parent), *sys.path]))
    assert run(f"{LINE} --results r --ray {cluster.address}") == 3
    said = capsys.readouterr().err
    assert "has 99.1 circuitdsl, and this process" in said and "install the same versions" in said
    assert not (lab / "r").exists()


@pytest.mark.long
def test_workers_with_a_quarter_of_a_gpu_work_side_by_side(lab: Path, cluster, monkeypatch) -> None:
    """GPUs that Ray believes in: it starts four workers on one, and no fifth."""
    node = cluster.add_node(num_cpus=6, num_gpus=1, object_store_memory=STORE)
    monkeypatch.setattr(on_ray, "gpu_bytes", lambda _: 80 * 10**9)
    needs = {"pocket": Need(0.25, 10**9), "small": Need(1.0)}
    monkeypatch.setattr(on_ray, "needs_of", lambda some, *_: {session_of(each): needs[each.model] for each in some})
    most, over = {0: 0}, threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            most[0] = max(most[0], len(at_work(b"ray::Remote")))

    looking = threading.Thread(target=look)
    looking.start()
    seeds = " ".join(f"--seed {seed}" for seed in range(8))
    line = f"verify ioi.circ --model pocket --model small {seeds} --prompts 512 --no-early-stop --no-cache"
    assert run(f"{line} --results r --ray {cluster.address}") in (0, 1)
    over.set()
    looking.join()
    cluster.remove_node(node)
    assert most[0] == 4
    assert {record.state for record in Results(Directory(lab / "r")).records()} == {"done"} and len(kept(lab)) == 16


@pytest.mark.long
def test_a_cluster_that_asks_for_a_token_lets_nobody_in_without_it(lab: Path, tmp_path_factory) -> None:
    """In processes of their own, since Ray reads what it needs for this once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    home = str(tmp_path_factory.mktemp("home"))
    asks = os.environ | {"HOME": home, "RAY_AUTH_MODE": "token", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    start = "-m ray.scripts.scripts start --head --block --num-cpus 1 --include-dashboard false --port"
    head = [sys.executable, *start.split(), address[10:], "--node-ip-address", "127.0.0.1"]
    started = subprocess.Popen(head, env=asks | {"RAY_AUTH_TOKEN": "right" * 8}, start_new_session=True, stdout=-3)
    try:
        _until(lambda: not _unanswered(address))
        line = [sys.executable, "-m", "circuitdsl", "verify", "ioi.circ", "--results", "r", "--ray", address]
        done = {
            token: subprocess.run(line, env=asks | {"RAY_AUTH_TOKEN": token * 8}, capture_output=True, text=True)
            for token in ("wrong", "right")
        }
    finally:
        started.terminate()
        started.wait()
    assert done["wrong"].returncode == 3 and "Traceback" not in done["wrong"].stderr
    assert "where it asks for a token, set RAY_AUTH_MODE=token" in done["wrong"].stderr
    assert done["right"].returncode in (0, 1) and len(kept(lab)) == 1


def _unanswered(address: str) -> bool:
    try:
        check_answers(address)
    except UserError:
        return True
    return False


def test_workers_that_are_started_here_answer_to_a_token(tmp_path: Path) -> None:
    """Ray's usual, which stays as it is: with nothing said, a token is made and asked for."""
    code = "from circuitdsl.matrix.cluster import *; import os; ray = ray_itself()\n"
    code += "with connected(ray, HERE): print(os.environ['RAY_AUTH_MODE'])"
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    where = unset | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    assert subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True).stdout == "token\n"
    assert (tmp_path / ".ray" / "auth_token").stat().st_size > 20


@pytest.mark.long
def test_a_soak_with_killed_workers(lab: Path, monkeypatch) -> None:
    """Twelve of the 200 cells of `benchmarks/matrix_ray.py`: some are verified whole, and some in portions."""
    (lab / "much.circ").write_text(MUCH)
    cells = plan([Run(("ioi.circ", "much.circ"), ("pocket", "small"), seeds=(0, 1, 2))])
    settings = Settings(cache=False, sizes=Sizes(1e-3, runs=0))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    with matrix_ray.cluster(2) as address:
        found = matrix_ray.soak(cells, address, settings, lab, every=1.0, most=3)
    assert (found.cells, found.lost, found.twice, found.apart) == (12, 0, 0, ())
    assert found.killed >= 2


def test_workers_are_started_here_where_no_address_is_given(lab: Path, capsys) -> None:
    (lab / "ioi.circ").write_text(IOI)
    assert run("verify ioi.circ --model small --seed 0 --seed 1 --results r --ray --workers 1") in (0, 1)
    assert len(kept(lab)) == 2
    assert not ray.is_initialized()
