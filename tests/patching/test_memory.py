"""Memory stays within what is allowed, and running out of it changes no number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitdsl.circuit.claims import EVERYWHERE, LOGITS, Edge, Input, Metric, Node, Position, Site
from circuitdsl.errors import UserError
from circuitdsl.measure.bench import Bench, bench, measure
from circuitdsl.measure.requests import EdgeRequest, NodeRequest, Request
from circuitdsl.models.parts import Transformer
from circuitdsl.patching import memory, runs
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS

H06, H25, END = Node("head", 0, 6), Node("head", 2, 5), Position("END")
REQUESTS: tuple[Request, ...] = (
    EdgeRequest((Edge(H06, Input(H25, "q"), END),)),
    EdgeRequest((Edge(H06, Input(LOGITS, "in"), END),), via_mlps=True),
    NodeRequest((Site(H06, EVERYWHERE),), direction="denoise"),
)
ALL = np.arange(24)


@pytest.fixture
def ioi(pocket: Transformer, pocket_tokens) -> Bench:  # type: ignore[no-untyped-def]
    return bench(pocket, sample(TASKS["ioi"], pocket_tokens, 24, seed=1), Metric())


def numbers(one: Bench) -> list[np.ndarray]:
    return [series.values for series in measure(one, REQUESTS, ALL).values()]


def test_less_memory_means_fewer_prompts_and_rows_at_a_time(pocket: Transformer) -> None:
    allowed = [10**6, 10**7, 10**8]
    assert [memory.prompts_at_once(pocket, 20, b) for b in allowed] == sorted(
        memory.prompts_at_once(pocket, 20, b) for b in allowed
    )
    assert memory.batch_rows(pocket, 20, 10**6) < memory.batch_rows(pocket, 20, 10**8)
    assert memory.prompts_at_once(pocket, 20, 10**7, both_ways=True) < memory.prompts_at_once(pocket, 20, 10**7)
    assert memory.prompts_at_once(pocket, 20, 1) == 1


def test_a_small_allowance_changes_no_number(ioi: Bench, pocket: Transformer) -> None:
    small = bench(pocket, ioi.data, Metric(), max_memory=10**6)
    for whole, parts in zip(numbers(ioi), numbers(small), strict=True):
        assert parts == pytest.approx(whole, abs=2e-4)


def failing(limit: int) -> Callable:
    """Memory for the runs of so many prompts at once."""

    def run(model: Transformer, clean: torch.Tensor, *others: object) -> runs.Runs:
        if len(clean) > limit:
            raise torch.OutOfMemoryError
        return true_run(model, clean, *others)  # type: ignore[arg-type]

    true_run = runs.run
    return run


def test_running_out_while_caching_halves_the_prompts(ioi: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbers(ioi)
    monkeypatch.setattr(runs, "run", failing(2))
    for before, parts in zip(whole, numbers(ioi), strict=True):
        assert parts == pytest.approx(before, abs=2e-4)


def test_a_prompt_that_never_fits_is_named(ioi: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "run", failing(0))
    with pytest.raises(UserError, match="memory ran out running prompt"):
        measure(ioi, REQUESTS, ALL)


SCRIPT = """
import sys, torch, numpy as np
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import engine_workloads as workloads
from engine_meter import peak_bytes
from circuitdsl.circuit.claims import EVERYWHERE, LOGITS, Edge, Input, Metric, Node, Position, Site
from circuitdsl.measure.bench import bench, measure
from circuitdsl.measure.requests import EdgeRequest, NodeRequest
from circuitdsl.models.load import load_model
from circuitdsl.tasks.dataset import Dataset, PromptPair

END = Position("END")
model = load_model(workloads.random_weights("gpt2-small", Path(sys.argv[1])), device="cpu")
clean, corrupt, _, answers = workloads._random(model, int(sys.argv[2]), 20)
pairs = tuple(
    PromptPair(
        clean_tokens=tuple(c), corrupt_tokens=tuple(x), answers=(a[0],), distractors=(a[1],), corrupt_answers=(),
        positions={{"END": (19,)}}, stratum="", clean=str(i), corrupt=str(i)
    )
    for i, (c, x, a) in enumerate(zip(clean.tolist(), corrupt.tolist(), answers.tolist()))
)
queries = [Input(Node("head", 9, j), "q") for j in range(6)]
requests = [EdgeRequest((Edge(Node("head", 7, i), query, END),)) for i in range(4) for query in queries]
requests += [EdgeRequest((Edge(Node("head", 9, i), Input(Node("head", 11, 0), "v"), EVERYWHERE),)) for i in range(3)]
requests += [NodeRequest((Site(Node("head", 11, 1), END),), direction="denoise")]

def work():
    for metric in (Metric(), Metric("logprob")):
        one = bench(model, Dataset("random", "abc", 0, False, pairs), metric)
        measure(one, requests, np.arange(len(pairs)))

print(peak_bytes(model.device, work))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux' /proc")
def test_gpt2_small_needs_less_than_a_gigabyte_beside_the_model(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    script = SCRIPT.format(benchmarks=str(root / "benchmarks"))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), "48"], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 10**9
