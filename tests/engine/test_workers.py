"""Work on several threads: the numbers of one thread to the last bit, errors and interruptions as on one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine import workers
from circuitdsl.engine.circuit_alone import subgraph_effects
from circuitdsl.engine.experiment import Experiment, Readout
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import Runs, Terms, mean_terms, run
from circuitdsl.engine.tally import Tally
from circuitdsl.engine.workers import each, each_group, in_equal_parts, measuring
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from tests.engine.small_models import VOCAB, save_random

A = Position("A")
ALL = 10**6
PROMPTS, LENGTH = 24, 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    return load_model(save_random("gpt2", tmp_path_factory.mktemp("gpt2")), device="cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units as they are of a large model, in number."""
    monkeypatch.setattr(workers, "WORK", 1)
    monkeypatch.setattr(workers, "ROWS", 30)


EXPERIMENTS = [
    Experiment(frozenset([Edge(Node("head", 0, i), Input(Node("head", layer, j), port), where)]), via_mlps=via)
    for layer, via in ((2, True), (1, False), (3, False))
    for i in range(3)
    for j in range(3)
    for port, where in (("q", A), ("v", EVERYWHERE))
] + [Experiment(frozenset([Edge(Node("head", 1, 0), Input(LOGITS, "in"), EVERYWHERE)]), direction="denoise")]
SUBGRAPHS = [Subgraph("nodes", frozenset([Site(Node("head", layer, i), A)])) for layer in range(4) for i in range(3)]


def everything(model: Transformer) -> tuple[list[Tensor], Tally, set[int]]:
    """The runs, the means and the patched logits of some prompts, and which threads read the logits."""
    readers: set[int] = set()

    def read(logits: Tensor, _: Tensor) -> Tensor:
        readers.add(threading.get_ident())
        return logits

    draw = torch.Generator().manual_seed(1)
    clean, corrupt = (torch.randint(1, VOCAB, (PROMPTS, LENGTH), generator=draw) for _ in range(2))
    corrupt[:, :1] = clean[:, :1]
    corrupt[::2, :3] = clean[::2, :3]
    tally, places = Tally(), {A: torch.arange(PROMPTS)[:, None] % (LENGTH - 2) + 1}
    runs: Runs = run(model, clean, corrupt)
    means: Terms = mean_terms(model, corrupt, torch.arange(PROMPTS) % 2, 2)
    readout = Readout(reduce=read)
    patched = effects(runs, EXPERIMENTS, places, readout, tally=tally)
    alone = subgraph_effects(runs, SUBGRAPHS, places, readout, tally=tally)
    terms = [*runs.clean.kept.values(), *runs.corrupt.kept.values(), *means.kept.values()]
    return [*terms, patched, alone], tally, readers


def test_numbers_and_counts_are_those_of_one_thread(model: Transformer, small_units: None, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    expected, counted, one = everything(model)
    torch.set_num_threads(before)
    found, tally, some = everything(model)
    assert len(one) == 1 and (threads == 1) == (some == one)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert astuple(tally) == astuple(counted) and tally.batches > 50 and tally.flow_positions > 0
    assert torch.get_num_threads() == before


def test_units_run_beside_each_other_and_each_alone(model: Transformer, two_threads: None) -> None:
    meet = threading.Barrier(2, timeout=20)

    def work(unit: int) -> tuple[int, int, bool]:
        meet.wait()
        return unit, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with measuring():
        assert each(model, work, range(6), [ALL] * 6, 2 * ALL) == [(unit, 1, True) for unit in range(6)]


def here(model: Transformer, rows: int, most: int) -> bool:
    """Whether units run on this thread."""
    with measuring():
        return set(each(model, lambda _: threading.get_ident(), range(4), [rows] * 4, most)) == {threading.get_ident()}


def test_small_units_and_units_that_memory_holds_one_by_one_stay_on_one_thread(
    model: Transformer, pocket: Transformer, two_threads: None
) -> None:
    full = workers.unit_rows(model)
    assert not here(model, full, 2 * full)
    assert here(model, full, 2 * full - 1)
    assert here(model, full // 8, 2 * full)
    assert here(pocket, 64 * 20, ALL)  # the runs of as many prompts as are run at once


def test_groups_share_the_threads_unless_one_of_them_is_most_of_the_work(model: Transformer, two_threads: None) -> None:
    meet = threading.Barrier(2, timeout=20)

    def alone(group: int) -> tuple[int, bool]:
        return group, threading.current_thread() is threading.main_thread()

    def met(group: int) -> tuple[int, bool]:
        meet.wait()
        return alone(group)

    full, here = workers.unit_rows(model), [(group, True) for group in range(4)]
    rows = [6 * full, 10 * full, 9 * full, 11 * full]
    with measuring():
        assert each_group(model, met, range(4), rows, 22 * full) == [(group, False) for group in range(4)]
        assert each_group(model, alone, range(4), rows, 22 * full - 1) == here
        assert each_group(model, alone, range(4), [*rows[:3], 30 * full], 60 * full) == here
        assert each_group(model, alone, range(4), [full // 30] * 4, 60 * full) == here


def test_outside_of_measuring_there_is_one_thread(model: Transformer, two_threads: None) -> None:
    assert each(model, lambda _: threading.get_ident(), range(4), [ALL] * 4, 4 * ALL) == [threading.get_ident()] * 4


class Broken(Exception):
    pass


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once units that are not begun have been dropped; units that wait for it are those under way until then."""
    event = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            event.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(workers, "ThreadPoolExecutor", Pool)
    return event


def test_an_error_of_a_unit_is_raised_whole_and_further_units_are_not_begun(
    model: Transformer, two_threads: None, ended: threading.Event
) -> None:
    begun: list[int] = []

    def work(unit: int) -> None:
        begun.append(unit)
        if unit == 1:
            raise Broken("unit 1")
        assert unit == 0 or ended.wait(60)

    with pytest.raises(Broken, match="unit 1") as caught, measuring():
        each(model, work, range(200), [ALL] * 200, 2 * ALL)
    assert "work" in [entry.name for entry in caught.traceback] and len(begun) <= 4
    assert torch.get_num_threads() == 2


def test_an_interruption_ends_after_the_units_under_way(
    model: Transformer, two_threads: None, ended: threading.Event
) -> None:
    """The signal is sent until it is seen: one that comes just before a wait begins is seen after the wait alone."""
    begun: list[int] = []
    seen = threading.Event()

    def interrupt(*_: object) -> None:
        if not seen.is_set():
            seen.set()
            raise KeyboardInterrupt

    def work(unit: int) -> None:
        begun.append(unit)
        for _ in range(1000 * (unit >= 3)):
            if unit == 3 and not seen.is_set():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            if ended.wait(0.05):
                break

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), measuring():
            each(model, work, range(200), [ALL] * 200, 2 * ALL)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) <= 5 and torch.get_num_threads() == 2
    assert threading.active_count() == 1 or not any("ThreadPool" in one.name for one in threading.enumerate())


def test_an_interruption_while_units_are_handed_out_drops_those_that_wait(
    model: Transformer, two_threads: None, ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def work(unit: int) -> None:
        begun.append(unit)
        assert ended.wait(60)

    class Interrupted(workers.ThreadPoolExecutor):
        def submit(self, *args, **named):
            if self._work_queue.qsize() == 20:
                raise KeyboardInterrupt
            return super().submit(*args, **named)

    monkeypatch.setattr(workers, "ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt), measuring():
        each(model, work, range(200), [ALL] * 200, 2 * ALL)
    assert len(begun) <= 2


def test_inside_a_unit_everything_runs_on_its_thread(model: Transformer, two_threads: None) -> None:
    def work(_: int) -> bool:
        with measuring():
            return set(each(model, lambda _: threading.get_ident(), range(4), [ALL] * 4, 4 * ALL)) == {
                threading.get_ident()
            }

    with measuring():
        assert each(model, work, range(4), [ALL] * 4, 2 * ALL) == [True] * 4


@pytest.mark.parametrize("count", [1, 5, 64, 97])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_equal_parts(count: int, size: int) -> None:
    parts = list(in_equal_parts(count, size))
    assert [i for a, b in parts for i in range(a, b)] == list(range(count))
    sizes = np.diff(np.asarray(parts))
    assert sizes.max() <= size and sizes.max() - sizes.min() <= 1
