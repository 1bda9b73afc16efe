"""What grows with the number of claims grows no faster than it, and what need not grow does not."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.growth_claims import spec
from circuitdsl.api import loads
from circuitdsl.engine import batch_index, experiment
from circuitdsl.report import report as reports
from circuitdsl.verdict import means, needed
from circuitdsl.verify import measure, store
from circuitdsl.verify import prompts as making
from circuitdsl.verify.session import Options, Session
from circuitdsl.verify.verify import verify

CLAIMS = 20


class Count:
    """How often functions are called."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch, self.of = patch, Counter[str]()

    def calls(self, owner: Any, name: str, many: Callable[..., int] = lambda *_: 1) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.of[name] += many(*arguments)
            return original(*arguments, **options)

        self.patch.setattr(owner, name, counted)


@pytest.fixture
def counted(pocket, tmp_path: Path):
    """Verify so many claims with a cache of their own, and count what is done."""

    def run(claims: int) -> Counter[str]:
        with pytest.MonkeyPatch.context() as patch:
            count = Count(patch)
            count.calls(reports.ClaimResult, "__init__")
            count.calls(needed, "_times")
            count.calls(means, "tails")
            count.calls(store, "_packed")
            batch_index._sorted_out.cache_clear()
            experiment.experiment_of.cache_clear()
            circuit = loads(spec(claims, 32)).circuits[0]
            with store.Store(tmp_path / f"{claims}.sqlite") as kept:
                report = verify(circuit, pocket, making.prompts_by_task(circuit, pocket, kept), Options())
            assert len(report.claims) == claims
            count.of["plans"] = batch_index._sorted_out.cache_info().misses
            count.of["experiments"] = experiment.experiment_of.cache_info().misses
        return count.of

    return run


def test_twice_the_claims_are_no_more_than_twice_the_work(counted) -> None:
    once, twice = counted(CLAIMS), counted(2 * CLAIMS)
    assert once["__init__"] == CLAIMS and twice["__init__"] == 2 * CLAIMS
    assert once["plans"] == once["experiments"] == CLAIMS, "each patch is planned once, however many lengths there are"
    assert twice["plans"] == twice["experiments"] == 2 * CLAIMS
    assert twice["_times"] == once["_times"], "how many prompts would decide is sought for all claims together"
    assert twice["tails"] - once["tails"] <= 2 * CLAIMS
    assert twice["_packed"] - once["_packed"] == CLAIMS, "one row of the cache for each patch"


def test_the_spec_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(monkeypatch)
    from circuitdsl import api

    count.calls(api, "parse")
    with Session(cache=False) as session:
        session.verify(loads(spec(CLAIMS, 8)))
    assert count.of["parse"] == 1


@pytest.mark.parametrize("pause", [-1.0, 1e9])
def test_a_request_has_one_row_in_the_cache(pocket, tmp_path: Path, monkeypatch, pause: float) -> None:
    """Whether its numbers were written batch by batch or together."""
    monkeypatch.setattr(measure, "PAUSE", pause)
    circuit = loads(spec(CLAIMS, 32)).circuits[0]
    path = tmp_path / "numbers.sqlite"
    with store.Store(path) as kept:
        first = verify(circuit, pocket, making.prompts_by_task(circuit, pocket, kept), Options())
    with sqlite3.connect(path) as file:
        per_request = file.execute("SELECT count(*) FROM numbers GROUP BY request").fetchall()
    assert len(per_request) > CLAIMS and set(per_request) == {(1,)}
    with store.Store(path) as kept:
        again = verify(circuit, pocket, making.prompts_by_task(circuit, pocket, kept), Options())
    assert again.cached == 1 and again.block_positions == 0
    assert [claim.measured for claim in again.claims] == [claim.measured for claim in first.claims]


def test_where_positions_are_is_found_once_for_all_patches_of_a_batch(pocket) -> None:
    found = []
    for claims in (200, 400):
        with pytest.MonkeyPatch.context() as patch:
            count, circuit = Count(patch), loads(spec(claims, 8)).circuits[0]
            count.calls(batch_index.Where, "mask")
            verify(circuit, pocket, making.prompts_by_task(circuit, pocket), Options())
            found.append(count.of["mask"])
    assert 0 < found[1] <= 1.1 * found[0]
