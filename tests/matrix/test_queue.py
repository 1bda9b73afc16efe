"""Which cell a worker verifies next, and what is said where there is no Ray."""

from __future__ import annotations

import pickle
import socket
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.matrix import Measured, simulated
from circuitdsl.errors import UserError
from circuitdsl.matrix import cluster
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.cluster import check_answers
from circuitdsl.matrix.planning import session_of
from circuitdsl.matrix.queue import Queue
from circuitdsl.matrix.worker import Verified
from tests.matrix.conftest import run


def cells(**many: int) -> list[Cell]:
    return [Cell("s", model, seed=seed) for model, number in many.items() for seed in range(number)]


def kind(model: str) -> tuple[object, ...]:
    return session_of(Cell("s", model))


def test_a_worker_keeps_to_the_model_that_it_holds() -> None:
    queue = Queue(cells(a=2, b=9))
    taken = [queue.take(kind("a"), {kind("b"): 1}, frozenset()) for _ in range(11)]
    assert [cell.model for cell in taken if cell] == ["a"] * 2 + ["b"] * 9
    assert queue.take(kind("a"), {}, frozenset()) is None and not queue


def test_a_worker_that_holds_nothing_goes_where_most_work_is_left_for_each() -> None:
    assert Queue(cells(a=2, b=9)).take(None, {}, frozenset()).model == "b"
    assert Queue(cells(a=5, b=9)).take(None, {kind("b"): 1}, frozenset()).model == "a"


def test_a_model_that_a_machine_lacks_is_left_to_others() -> None:
    queue = Queue(cells(a=1, b=1))
    assert queue.take(kind("a"), {}, frozenset({kind("a")})).model == "b"
    assert queue.take(kind("a"), {}, frozenset({kind("a")})) is None and len(queue) == 1


def test_a_cell_that_comes_back_is_the_next() -> None:
    queue = Queue(cells(a=3))
    first = queue.take(None, {}, frozenset())
    queue.put_back(first)
    assert queue.take(kind("a"), {}, frozenset()) == first and len(queue) == 2


def test_all_workers_together_load_few_models() -> None:
    """Eight workers on twelve models: as many loads as there must be, and few more."""
    queue, held, loads = Queue(cells(**{f"m{i}": 10 for i in range(12)})), [None] * 8, 0
    while queue:
        for i in range(8):
            holders = {k: held.count(k) for k in held if k is not None and k is not held[i]}
            cell = queue.take(held[i], holders, frozenset())
            if cell and session_of(cell) != held[i]:
                held[i], loads = session_of(cell), loads + 1
    assert 12 <= loads <= 20


def test_without_ray_it_is_said_what_to_install(lab: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("verify ioi.circ --results r --ray") == 3
    assert "pip install 'circuitdsl[ray]'" in capsys.readouterr().err
    assert run("verify ioi.circ --workers 2") == 2
    assert "--workers is for --ray" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "127.0.0.1:x", "a.invalid:6379", ""]
)
def test_an_address_that_nobody_answers_is_said_at_once(address: str) -> None:
    with pytest.raises(UserError, match="nobody answers at"):
        check_answers(address)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\0\0\x06\x04\0\0\0\0\0", None),  # settings, as any gRPC server sends them
        (b"HTTP/1.1 400 Bad Request\r\n", "what answers at .* is not Ray"),
        (b"", "nobody answers at .*: timed out"),
    ],
)
def test_what_answers_at_an_address_is_ray(answer: bytes, said: str | None, monkeypatch) -> None:
    """Ray itself would wait for minutes where something else answers, or nothing."""
    monkeypatch.setattr(cluster, "ANSWERS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=lambda: server.accept()[0].sendall(answer) if answer else None)
        answering.start()
        with nullcontext() if said is None else pytest.raises(UserError, match=said):
            check_answers(f"127.0.0.1:{server.getsockname()[1]}")
        answering.join()


def test_with_many_workers_the_driver_does_little_more_for_a_cell() -> None:
    """On the benchmark's clock, on which the CPU seconds of the driver pass."""
    sent = pickle.dumps(Verified(Cell("s", "m")))
    known = {"m": [Measured(1 + tenths / 10, 0.1, sent) for tenths in range(20)]}
    few, many = simulated(1024, 8, known), simulated(1024, 512, known)
    assert many.driver < 10 * few.driver
    assert many.makespan < 2 * many.ideal and many.loads < 2
