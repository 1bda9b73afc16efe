"""The same spec gives the same numbers in every process (semantics §5: reproducible), and on another device."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuitdsl import api
from circuitdsl.engine import workers
from circuitdsl.engine.readers import metric
from circuitdsl.engine.tally import Tally
from circuitdsl.measurements.requests import Request
from circuitdsl.models import devices
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.report.report import Report
from circuitdsl.verify.anew import measure_anew
from circuitdsl.verify.measure import Series
from circuitdsl.verify.plan import plan, shape_of
from circuitdsl.verify.prompts import prompts_by_task
from tests.far_device import FAR, FARTHER, far_device, sent, spread

MEASURED = Path(__file__).parents[1] / "fixtures" / "measured.circ"
#: enough for every claim to be measured
PROMPTS = 16
PRINTED = f"""
import sys
from circuitdsl import api
for claim in api.load(sys.argv[1]).verify(device="cpu", cache=False, prompts={PROMPTS}).claims:
    print(claim.line, claim.verdict, claim.measured, claim.null, claim.members)
"""


@pytest.fixture(autouse=True)
def means_over_few_prompts() -> None:
    """Another process takes its means over all prompts."""


@pytest.fixture(scope="module")
def here() -> Report:
    """The numbers of this process."""
    found = api.load(MEASURED).verify(device="cpu", cache=False, prompts=PROMPTS)
    assert isinstance(found, Report) and "error" not in {claim.verdict for claim in found.claims}
    return found


@pytest.mark.long
def test_numbers_and_counts_do_not_depend_on_the_threads_that_lengths_share(
    pocket: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WORK", 1)  # units as they are of a large model
    circuit, readers = api.load(MEASURED).first(), set[int]()
    asked = [request for one in plan(circuit, shape_of(pocket)) for request in one.requests if one.task == "ioi"]
    true = metric.subgraph_effects

    def noted(*given: Any, **more: Any) -> Any:
        readers.add(threading.get_ident())
        return true(*given, **more)

    monkeypatch.setattr(metric, "subgraph_effects", noted)
    before, found, tallies = torch.get_num_threads(), list[dict[Request, Series]](), list[Tally]()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        prompts = prompts_by_task(circuit, pocket)["ioi"]
        assert len({len(pair.clean_tokens) for pair in prompts.pairs[:PROMPTS]}) > 2
        found.append(measure_anew(prompts, asked, np.arange(PROMPTS)))
        tallies.append(prompts.tally)
    torch.set_num_threads(before)
    one, three = found
    assert len(readers) > 1 and tallies[0] == tallies[1] and tallies[0].block_positions > 1000
    for request, series in one.items():
        assert np.array_equal(series.values, three[request].values, equal_nan=True)
        assert np.array_equal(series.changed, three[request].changed)


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_process(here: Report) -> None:
    """Another process puts sets in another order; this one has an order of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", PRINTED, str(MEASURED)],
        env={**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    printed = [f"{c.line} {c.verdict} {c.measured} {c.null} {c.members}" for c in here.claims]
    assert len(printed) >= 25
    assert ran.stdout.splitlines() == printed


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
def test_numbers_do_not_depend_on_the_device(count: int, here: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one that is only pretended, or two: it has the CPU's numbers, and none of its forgiveness."""
    model = load_model("pocket", device="cpu")
    monkeypatch.setattr(devices, "_ORDER", {FAR: 0, FARTHER: 1} if count == 2 else {})
    with far_device(monkeypatch) as device:
        there = sent(model) if count == 1 else spread(model)
        far = api.load(MEASURED).verify(model=there, cache=False, prompts=PROMPTS)
    assert device.ran > 10_000 and bool(device.moves) == (count == 2)
    assert_same(here, far, 1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_verdicts_of_the_cpu_each_time() -> None:
    spec = api.load(MEASURED)
    near, *far = (spec.verify(device=device, cache=False) for device in ("cpu", "cuda", "cuda"))
    assert_same(near, far[0], 1e-3)
    assert_same(far[0], far[1], 0)


def assert_same(near: object, far: object, apart: float) -> None:
    """Equal verdicts, and figures that are no further apart than that."""
    assert isinstance(near, Report) and isinstance(far, Report)
    assert [(c.line, c.verdict) for c in far.claims] == [(c.line, c.verdict) for c in near.claims]
    for here, there in zip(near.claims, far.claims, strict=True):
        if here.measured is not None:
            assert there.measured is not None
            assert there.measured.value == pytest.approx(here.measured.value, rel=0, abs=apart)
            assert (there.measured.ci or ()) == pytest.approx(here.measured.ci or (), rel=0, abs=apart)
