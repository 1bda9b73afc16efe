"""What share of a GPU a worker has, and that GPUs are shared out among models of different sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from circuitdsl.matrix import gpus, on_ray
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.crew import Crew
from circuitdsl.matrix.forecast import CellWork
from circuitdsl.matrix.gpus import Need, need, needs_of
from circuitdsl.matrix.planning import plan, session_of
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.running import run
from circuitdsl.matrix.runs import Run
from circuitdsl.matrix.storage import Directory
from circuitdsl.matrix.worker import Settings, Worker
from tests.matrix.test_shared import Fakes

GB = 10**9


@pytest.mark.parametrize(
    ("weights", "measuring", "share", "memory"),
    [
        (2 * GB, 2 * GB, 0.125, 8 * GB),
        (9 * GB, 2 * GB, 0.25, 11 * GB),
        (18 * GB, 3 * GB, 0.5, 22 * GB),
        (41 * GB, 1 * GB, 1.0, None),
        (79 * GB, 1 * GB, 1.0, None),
    ],
)
def test_a_worker_has_the_share_of_a_gpu_that_its_model_needs(weights, measuring, share, memory) -> None:
    assert need("m", weights, measuring, 80 * GB) == Need(share, memory)


def test_a_limit_of_the_user_holds_where_it_is_lower() -> None:
    assert need("m", 2 * GB, 1 * GB, 80 * GB, limit=GB).memory == GB
    assert need("m", 2 * GB, 1 * GB, 80 * GB, limit=50 * GB).memory == 8 * GB
    assert need("m", 70 * GB, 1 * GB, 80 * GB, limit=GB) == Need(1.0, GB)


def test_a_model_that_no_gpu_holds_is_refused_in_a_sentence() -> None:
    found = need("giant", 140 * GB, 2 * GB, 80 * GB)
    assert found.problem == "giant takes about 142.0 GB, and the smallest GPU of the cluster has 80.0 GB"
    assert found.hint == (
        'lay it over 3 GPUs of one machine with device_map = "balanced", take a smaller dtype, or device = cpu'
    )
    lacking = need("giant", 500 * GB, 2 * GB, 80 * GB, together=4)
    assert lacking.problem.endswith("; no machine has more than 4, and it takes 8")
    assert lacking.hint == "take a smaller dtype, or device = cpu"


@pytest.mark.parametrize(
    ("weights", "measuring", "share"),
    [(60, 2, 1), (81, 1, 2), (130, 2, 2), (150, 1, 3), (100, 100, 3), (400, 2, 6)],
)
def test_a_model_that_may_be_laid_over_gpus_has_as_many_as_its_weights_need(weights, measuring, share) -> None:
    assert need("m", weights * GB, measuring * GB, 80 * GB, together=8) == Need(float(share))


def test_a_device_map_asks_for_several_gpus_where_one_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(cell: Cell, settings: Settings, device: str) -> CellWork:
        weights = 20 * GB if cell.model == "pocket" else 100 * GB
        return CellWork(cell.spec, cell.model, "", weights=weights, memory=weights + GB)

    monkeypatch.setattr(gpus, "work_of_cell", planned)
    cells = [
        Cell("ioi.circ", model, False, "", 0, {"device_map": word} if word else {}, "", "")
        for model in ("pocket", "small")
        for word in ("balanced", "")
    ]
    found = needs_of(cells, Settings(), 8, 80 * GB, 4)
    assert [found[session_of(cell)].share for cell in cells] == [0.5, 0.5, 2, 0]
    unknown = needs_of(cells, Settings(), 8, 0, 4)  # nobody says how large the GPUs are
    assert [unknown[session_of(cell)] for cell in cells] == [Need(4.0), Need(1.0)] * 2


@pytest.mark.parametrize(("share", "one_gpu"), [(0, False), (0.5, True), (1.0, True), (2.0, False)])
def test_an_actor_has_the_gpus_of_its_share(share: float, one_gpu: bool) -> None:
    """Where it has none, a device map is an error, as it is without Ray."""

    class Ray:
        how: dict[str, Any]

        def remote(self, **how: Any) -> Any:
            self.how = how
            return lambda _: SimpleNamespace(remote=lambda settings, *_: settings)

        def get_runtime_context(self) -> Any:
            return SimpleNamespace(get_node_id=lambda: "home")

    ray = Ray()
    assert Crew(ray, Settings(), None, {}).made(share).one_gpu == one_gpu
    assert ray.how["num_gpus"] == share


@pytest.mark.parametrize("one_gpu", [False, True])
def test_a_worker_with_one_gpu_lays_its_model_over_no_other(one_gpu: bool, lab: Path, monkeypatch) -> None:
    (cell,) = plan([Run(("ioi.circ",), ("pocket",), options={"device_map": "balanced"})])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = Worker(Settings(cache=False, one_gpu=one_gpu)).verify(cell)
    assert found.error == ("" if one_gpu else NOWHERE)


NOWHERE = "there is no CUDA device here, and a device map lays a model over several GPUs"


def test_shares_follow_the_memory_that_is_planned(lab: Path) -> None:
    """The pocket model takes less than a gigabyte beside what CUDA has."""
    cells = plan([Run(("ioi.circ",), seeds=(0, 1)), Run(("ioi.circ",), options={"device": "cpu"})])
    kinds = {cell.options.get("device", ""): session_of(cell) for cell in cells}
    with_gpus = needs_of(cells, Settings(), 1, 8 * GB)
    assert with_gpus[kinds[""]].share == 0.125 and 0 < (with_gpus[kinds[""]].memory or 0) < GB
    assert with_gpus[kinds["cpu"]] == Need()
    assert needs_of(cells, Settings(), 1, 0)[kinds[""]] == Need(1.0)  # nobody says how large the GPUs are
    assert needs_of(cells, Settings(memory=GB), 0, 0) == {kind: Need(memory=GB) for kind in kinds.values()}


def shared_out(lab: Path, ray: Any, monkeypatch: pytest.MonkeyPatch, **shares: Need) -> Results:
    """What is kept of three seeds on each of some models, where each needs what is said."""
    cells, results = plan([Run(("ioi.circ",), tuple(shares), seeds=(0, 1, 2))]), Results(Directory(lab / "r"))
    monkeypatch.setattr(on_ray, "gpu_bytes", lambda _: 80 * GB)
    monkeypatch.setattr(on_ray, "needs_of", lambda some, *_: {session_of(each): shares[each.model] for each in some})
    run(cells, 0, results, Fakes(ray, Settings(cache=False)))
    return results


def test_workers_of_two_sizes_take_turns_on_one_gpu(lab: Path, played, monkeypatch) -> None:
    """Four workers of a quarter; the one that takes a whole GPU begins when all of them have ended."""
    at = Counter[tuple[float, str]]()

    def note(actor: Any, name: str, given: tuple[Any, ...]) -> None:
        if name == "verify":
            cell: Cell = given[0]
            at[actor.options["num_gpus"], cell.model] += 1

    ray = played(note, GPU=1.0, CPU=8.0)
    found = shared_out(lab, ray, monkeypatch, pocket=Need(0.25, GB), small=Need(1.0))
    assert at == {(0.25, "pocket"): 3, (1.0, "small"): 3}
    assert max(ray.gpus_taken) == 1.0 and {record.state for record in found.records()} == {"done"}


def test_a_model_that_is_too_large_fails_its_cells_alone(lab: Path, played, monkeypatch) -> None:
    giant = Need(problem="small takes about 90.0 GB, and the smallest GPU of the cluster has 80.0 GB", hint="a hint")
    found = shared_out(lab, played(GPU=1.0), monkeypatch, pocket=Need(0.5, GB), small=giant)
    states = Counter((record.cell.model, record.state, record.error) for record in found.records())
    assert states == {("pocket", "done", ""): 3, ("small", "failed", giant.problem): 3}
