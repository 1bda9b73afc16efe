"""Cells with much work: several workers measure them, the driver decides, and nothing depends on who did what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuitdsl.matrix.on_ray import OnRay
from circuitdsl.matrix.planning import plan
from circuitdsl.matrix.results import Results
from circuitdsl.matrix.running import InProcess, run
from circuitdsl.matrix.runs import Run
from circuitdsl.matrix.storage import Directory
from circuitdsl.matrix.worker import Settings
from circuitdsl.verify.portions import Sizes
from tests.matrix.fake_ray import FakeRay, OutOfMemoryError, RayError
from tests.matrix.test_storage import without_times

#: much is asked, of few prompts
MUCH = """circuit much
model "pocket"
task ioi(prompts = 64)
heads early = 0.3 0.5 0.6 at END
heads late  = 2.4 2.5 at END
each early -> logits at END : effect <= 50%
each early -> late.q at END : effect <= 50%
late -> logits at END : matters
expect faithfulness >= 5%
expect induction_score(0.3) >= 0%
expect logit_diff >= 12
"""
#: cells as small as these tests' are large at so few nominal seconds
SETTINGS = Settings(cache=False, sizes=Sizes(1e-4, runs=0))


@pytest.fixture
def much(lab: Path) -> Path:
    (lab / "much.circ").write_text(MUCH)
    return lab


class Fakes(OnRay):
    """The executor on a cluster that is played."""

    def __init__(self, ray: FakeRay, settings: Settings = SETTINGS) -> None:
        super().__init__(settings)
        self.ray = ray

    def __call__(self, cells: Any, begins: Any) -> Iterator[Any]:
        yield from self.verified(self.ray, cells, begins)


def verified(
    lab: Path, name: str, executor: Any, *specs: str, seeds: tuple[int, ...] = (0,), told: Any = None
) -> dict[str, object]:
    """What is kept of the cells of some specs."""
    cells, results = plan([Run(specs or ("much.circ",), seeds=seeds)]), Results(Directory(lab / name))
    assert not run(cells, 0, results, executor, told)
    return without_times(results)


def test_a_cell_with_much_work_is_that_of_one_process_bit_for_bit(much: Path, played) -> None:
    """Portions are measured by two workers, in whatever order; a cell with little work is left whole."""
    done: Counter[tuple[int, str]] = Counter()
    ray = played(lambda actor, name, _: done.update([(id(actor), name)]), CPU=2)
    there = verified(much, "there", Fakes(ray), "much.circ", "weights.circ")
    assert there == verified(much, "here", InProcess(SETTINGS), "much.circ", "weights.circ")
    answers = [many for (_, name), many in done.items() if name == "answer"]
    assert len(answers) == 2 and sum(answers) > 20 and min(answers) > 2
    assert sum(many for (_, name), many in done.items() if name == "verify") == 2


@pytest.mark.long
def test_it_does_not_depend_on_how_many_workers_there_are(much: Path, played) -> None:
    found = [verified(much, f"on {many}", Fakes(played(CPU=many)), seeds=(0, 1)) for many in (1, 3)]
    assert found[0] == found[1]


@pytest.mark.long
def test_a_worker_that_is_lost_loses_nothing(much: Path, played) -> None:
    """Of all calls, every fifth is lost with its worker when it is begun first."""
    begun = dict[str, int]()

    def lose(_: Any, name: str, given: tuple[Any, ...]) -> None:
        if name == "answer":
            call = f"{given[0].key} {given[2].recipe.key} {given[2].function} {given[2].given!r}"
            if call not in begun:
                begun[call] = len(begun)
                if begun[call] % 5 == 4:
                    raise RayError("the actor died")

    ray = played(lose)
    there = verified(much, "there", Fakes(ray))
    assert len(ray.actors) > 5
    assert there == verified(much, "here", InProcess(SETTINGS))


@pytest.mark.long
def test_a_call_that_ends_its_workers_fails_its_cell_alone(much: Path, played) -> None:
    def lose(_: Any, name: str, given: tuple[Any, ...]) -> None:
        if name == "answer" and given[0].seed == 1 and given[2].function.endswith(":portion"):
            raise RayError("the actor died")

    verified(much, "r", Fakes(played(lose)), seeds=(0, 1))
    records = {record.cell.seed: record for record in Results(Directory(much / "r")).records()}
    assert [records[seed].state for seed in (0, 1)] == ["done", "failed"]
    assert "3 workers ended while they verified it: the actor died" in records[1].error


@pytest.mark.long
def test_where_memory_runs_out_portions_are_halved(much: Path, played) -> None:
    """Whole cells, and portions of more than 100 numbers, end their workers."""
    sizes = list[int]()

    def lose(_: Any, name: str, given: tuple[Any, ...]) -> None:
        if name == "verify":
            raise OutOfMemoryError("the node is running low on memory")
        if given and given[2].function.endswith(":portion"):
            sizes.append(len(given[2].given[0]) * len(given[2].given[1]))
            if sizes[-1] > 100:
                raise OutOfMemoryError("the node is running low on memory")

    there = verified(much, "there", Fakes(played(lose), Settings(cache=False)))
    here = verified(much, "here", InProcess(Settings(cache=False)))
    assert max(sizes) > 1000 and [verdicts(one) for one in there.values()] == [verdicts(one) for one in here.values()]


def verdicts(kept: Any) -> list[str]:
    return [row["outcome"] for row in kept[0]["claims"]]


def test_memory_that_is_too_little_for_one_number_fails_the_cell(much: Path, played) -> None:
    def lose(_: Any, name: str, given: tuple[Any, ...]) -> None:
        if name == "verify" or (name == "answer" and given[2].function.endswith(":portion")):
            raise OutOfMemoryError("the node is running low on memory")

    verified(much, "r", Fakes(played(lose), Settings(cache=False)))
    for record in Results(Directory(much / "r")).records():
        assert record.state == "failed" and "memory ran out measuring one patch on one prompt" in record.error
        assert record.hint == "fewer --workers have more each"


def test_an_error_of_a_call_is_that_of_the_cell(much: Path, played, monkeypatch) -> None:
    def wrong(*_: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("circuitdsl.verify.anew.portion", wrong)
    verified(much, "r", Fakes(played()))
    for record in Results(Directory(much / "r")).records():
        assert record.state == "failed" and record.error == "ZeroDivisionError: by nothing"
        assert any("in wrong" in line for line in record.log)


@pytest.mark.long
def test_numbers_that_the_cache_knows_are_not_asked_for(much: Path, played, monkeypatch, tmp_path) -> None:
    """The driver writes the cache: the same cells again ask no worker for a portion."""
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "cache"))
    asked = list[str]()
    ray = played(lambda _, name, given: asked.append(given[2].function) if name == "answer" else None)
    settings = Settings(sizes=Sizes(1e-4, runs=0))
    first = verified(much, "first", Fakes(ray, settings))
    assert any(name.endswith(":portion") for name in asked)
    asked.clear()
    assert verified(much, "again", Fakes(ray, settings)) == first
    assert not any(name.endswith(":portion") for name in asked)


@pytest.mark.long
def test_how_far_all_cells_are_is_said_in_one_line(much: Path, played) -> None:
    said = list[tuple[int, int, str]]()
    verified(much, "r", Fakes(played()), seeds=(0, 1), told=lambda *what: said.append(what))
    shares = [done / total for done, total, _ in said]
    assert any(0 < share < 1 and share not in (0.5,) for share in shares)
    assert any("2 at work" in text and "left" in text for *_, text in said)
