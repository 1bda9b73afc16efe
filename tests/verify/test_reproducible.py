"""The same spec gives the same numbers in every process (semantics §5: reproducible), and on another device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from circuitdsl import api
from circuitdsl.models.load import load_model
from circuitdsl.report.report import Report
from tests.far_device import far_device, sent

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
def test_numbers_do_not_depend_on_the_device(here: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one that is only pretended: it has the CPU's numbers, and none of its forgiveness."""
    model = load_model("pocket", device="cpu")
    with far_device(monkeypatch) as device:
        far = api.load(MEASURED).verify(model=sent(model), cache=False, prompts=PROMPTS)
    assert device.ran > 10_000
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
