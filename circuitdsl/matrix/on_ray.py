"""Cells on the workers of a Ray cluster: Ray places workers and says when one is lost; the driver alone decides.

Each worker is an actor that keeps a session, with the models in it, from cell to cell. A cell whose worker is lost is
verified again by another. Workers with other versions than the driver's are refused before anything runs.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from circuitdsl.errors import UserError
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.planning import session_of
from circuitdsl.matrix.queue import Queue
from circuitdsl.matrix.running import Begins
from circuitdsl.matrix.worker import Settings, Verified, Worker

#: the address of a cluster that is started for this run, on this machine
HERE = "here"
#: seconds in which an address answers, every machine says its versions, and a worker starts where none is at work
ANSWERS, SAYS, STARTS = 5.0, 120.0, 600.0
#: a cell that loses so many workers is not tried again
LOST = 3
#: the packages that make numbers; a worker has the driver's versions of them
SAME = ("circuitdsl", "torch", "numpy", "transformers")


class Remote:
    """A worker in a process of its own, as Ray runs it."""

    def __init__(self, settings: Settings, folder: str, home: str) -> None:
        import ray

        self.node = ray.get_runtime_context().get_node_id()
        # the cache is a file of the driver's machine
        self.worker = Worker(replace(settings, cache=settings.cache and self.node == home))
        if Path(folder).is_dir():
            os.chdir(folder)

    def where(self) -> str:
        """The machine on which it runs."""
        return self.node

    def verify(self, cell: Cell) -> Verified:
        """Verify a cell."""
        return self.worker.verify(cell)


@dataclass
class _Held:
    """A worker as the driver knows it.

    Attributes:
        node: the machine on which it runs; empty until it is known.
        kind: what the session is for that it holds.
        at: the cell at which it is.
    """

    actor: Any
    node: str = ""
    kind: tuple[object, ...] | None = None
    at: Cell | None = None


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
        ray = _ray()
        with _connected(ray, self.address):
            _refuse_others(ray)
            yield from self._run(ray, Queue(cells), begins)

    def _run(self, ray: Any, queue: Queue, begins: Begins) -> Iterator[Verified]:
        make = self._maker(ray)
        held = [_Held(make()) for _ in range(min(self._many(ray), len(queue)))]
        asked: dict[Any, _Held] = {each.actor.where.remote(): each for each in held}
        while asked and (queue or any(each.at for each in held)):
            # where a machine has left, its workers may wait for another one for ever
            patience = None if any(each.at for each in held) else STARTS
            ready, _ = ray.wait(list(asked), num_returns=1, timeout=patience)
            if not ready:
                break
            one = asked.pop(ready[0])
            try:
                found = ray.get(ready[0])
            except ray.exceptions.RayError as error:
                yield from self._after_loss(one, error, queue)
                one.actor, one.node, one.kind = make(), "", None
                asked[one.actor.where.remote()] = one
            else:
                if isinstance(found, str):
                    one.node = found
                elif found.lacking and self._elsewhere(ray, one.node, found):
                    queue.put_back(found.cell)
                else:
                    yield found
            one.at = None
            self._give(held, asked, queue, begins)
        nobody = "no machine is left in the cluster that could verify it"
        for cell in queue.rest():
            why = Verified(cell, error=nobody, hint="run again with --resume, once there is one")
            yield replace(self._lacking.get(session_of(cell), why), cell=cell)

    def _give(self, held: Sequence[_Held], asked: dict[Any, _Held], queue: Queue, begins: Begins) -> None:
        """Let every worker that has nothing to do begin a cell."""
        for idle in [each for each in held if each.node and not each.at]:
            if request := self._next(idle, held, queue, begins):
                asked[request] = idle

    def _next(self, one: _Held, held: Sequence[_Held], queue: Queue, begins: Begins) -> Any:
        """Let a worker begin a cell; None where there is none for it."""
        holders = Counter(each.kind for each in held if each is not one and each.kind is not None)
        refused = frozenset(self._refused.get(one.node, ()))
        while (cell := queue.take(one.kind, holders, refused)) is not None:
            if begins(cell):
                one.kind, one.at = session_of(cell), cell
                return one.actor.verify.remote(cell)
        return None

    def _after_loss(self, one: _Held, error: Exception, queue: Queue) -> Iterator[Verified]:
        """The cell of a lost worker waits again, unless it has lost several: then it may be what ends them."""
        if one.at is None:
            self._lost[""] += 1
            if self._lost[""] > LOST * 10:
                raise UserError(f"workers end as soon as they start: {_said(error)}", "see the logs of Ray") from None
            return
        self._lost[one.at.key] += 1
        if self._lost[one.at.key] < LOST:
            queue.put_back(one.at)
        else:
            why = f"{LOST} workers ended while they verified it: {_said(error)}"
            yield Verified(one.at, error=why, hint="does the memory suffice? fewer --workers have more each")

    def _elsewhere(self, ray: Any, node: str, found: Verified) -> bool:
        """Note that a machine lacks a model's files; whether another may have them."""
        kind = session_of(found.cell)
        self._lacking[kind] = found
        self._refused.setdefault(node, set()).add(kind)
        return any(kind not in self._refused.get(each["NodeID"], ()) for each in _alive(ray) if _of(each, "CPU") >= 1)

    def _many(self, ray: Any) -> int:
        there = ray.cluster_resources()
        most = int(there.get("GPU", 0)) or int(there.get("CPU", 1))
        return max(1, min(most, self.workers or most))

    def _maker(self, ray: Any) -> Callable[[], Any]:
        """What starts a worker: on a GPU of its own, where there are some."""
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        kind = ray.remote(num_cpus=1, num_gpus=gpus)(Remote)
        home = ray.get_runtime_context().get_node_id()
        return lambda: kind.remote(self.settings, os.getcwd(), home)


def _said(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _ray() -> Any:
    """Ray; raises `UserError` where it is not installed."""
    try:
        return import_module("ray")
    except ImportError:
        raise UserError("this needs Ray, which is not installed", "pip install 'circuitdsl[ray]'") from None


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection to a cluster; raises `UserError` where nobody answers."""
    if address not in (HERE, "auto"):
        _check_answers(address)
    where = {"address": "local", "include_dashboard": False} if address == HERE else {"address": address}
    try:
        ray.init(**where, logging_level="error", log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"no Ray cluster at {address}: {_said(error)}", "start one with: ray start --head") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise `UserError` where nobody answers at an address: Ray itself would ask for minutes."""
    host, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWERS).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"nobody answers at {address}: {getattr(error, 'strerror', None) or error}",
            hint="an address is HOST:PORT, as `ray start --head` prints it; without one, --ray starts workers here",
        ) from None


def _alive(ray: Any) -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _of(node: Mapping[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0))


def _refuse_others(ray: Any) -> None:
    """Raise `UserError` where a machine of the cluster has other versions than this process."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    packages = SAME

    def versions() -> dict[str, str]:
        # sent to the worker as it stands here: another circuitdsl may know nothing of it
        from importlib import import_module
        from importlib.metadata import PackageNotFoundError, version

        found = {}
        for name in packages:
            try:
                own = import_module("circuitdsl.version").__version__ if name == "circuitdsl" else version(name)
                found[name] = str(own)
            except (ImportError, PackageNotFoundError):
                found[name] = "no"
        return found

    ask, ours = ray.remote(num_cpus=0)(versions), versions()
    answers = {
        node["NodeID"]: ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in _alive(ray)
    }
    wrong = []
    for node, answer in answers.items():
        machine = f"machine {node[:8]}"
        try:
            theirs = ray.get(answer, timeout=SAYS)
        except ray.exceptions.RayError as error:
            if any(each["NodeID"] == node for each in _alive(ray)):  # and has not left meanwhile
                wrong.append(f"{machine} does not say its versions: {_said(error)}")
            continue
        wrong += [
            f"{machine} has {theirs[name]} {name}, and this process {ours[name]}"
            for name in packages
            if theirs[name] != ours[name]
        ]
    if wrong:
        raise OtherVersions("\n".join(wrong), hint="install the same versions on all machines of the cluster")


class OtherVersions(UserError):
    """Machines that have other versions, a line for each."""

    keep = "\n"
