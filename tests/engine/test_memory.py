"""Memory stays within what is allowed, and running out of it changes no number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from circuitdsl.circuit.changes import Intervention, Scale, SetAttention
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine import circuit_alone as subgraph
from circuitdsl.engine import memory, runs
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements.attribution import Attribution
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.head_score import HeadScore
from circuitdsl.measurements.requests import ChangedRequest, EdgeRequest, NodeRequest, Request, Subgraph
from circuitdsl.measurements.trace import TraceRequest
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify.anew import parts_of
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import random_prompts, scored_prompts

H06, H07, H25, END = Node("head", 0, 6), Node("head", 0, 7), Node("head", 2, 5), Position("END")
QUERY = Input(H25, "q")
REQUESTS: tuple[Request, ...] = (
    EdgeRequest((Edge(H06, Input(H25, "q"), END),)),
    EdgeRequest((Edge(H06, Input(LOGITS, "in"), END),), via_mlps=True),
    NodeRequest((Site(H06, EVERYWHERE),), direction="denoise"),
)
IO = Position("IO")
#: what runs the model in other ways than one patch at a time
WHOLE: tuple[Request, ...] = (
    Subgraph("nodes", sites=frozenset([Site(H06, END), Site(H25, END)]), mlps=True, ablate="mean"),
    Subgraph("edges", edges=frozenset([Edge(H06, Input(H25, "q"), END)])),
    Subgraph("edges", edges=frozenset([Edge(H06, Input(H25, "q"), END)]), mlps=True, inverted=True),
    ChangedRequest(Behaviour(Metric()), Intervention("less", "", (Scale((H06,), 0.5),))),
    ChangedRequest(Attribution((H25,)), Intervention("look", "", (SetAttention((H25,), (END,), (IO,), 1.0),))),
    TraceRequest(H25, (END,), (IO,), H06, "source"),
)
ALL = np.arange(24)


@pytest.fixture
def ioi(pocket: Transformer, pocket_tokens) -> Prompts:  # type: ignore[no-untyped-def]
    return scored_prompts(pocket, sample(TASKS["ioi"], pocket_tokens, 24, seed=1), Metric())


def numbers(one: Prompts) -> list[np.ndarray]:
    return [series.values for series in measure(one, (*REQUESTS, *WHOLE), ALL).values()]


def test_less_memory_means_fewer_prompts_and_rows_at_a_time(pocket: Transformer) -> None:
    allowed = [10**6, 10**7, 10**8]
    assert [memory.prompts_at_once(pocket, 20, b) for b in allowed] == sorted(
        memory.prompts_at_once(pocket, 20, b) for b in allowed
    )
    assert memory.batch_rows(pocket, 20, 10**6) < memory.batch_rows(pocket, 20, 10**8)
    assert memory.batch_rows(pocket, 20, 10**8, memory.all_terms(pocket)) < memory.batch_rows(pocket, 20, 10**8)
    assert memory.prompts_at_once(pocket, 20, 10**7, twice=True) < memory.prompts_at_once(pocket, 20, 10**7)
    assert memory.vocabulary_rows(pocket, 10**6) < memory.vocabulary_rows(pocket) == memory.VOCAB_ROWS
    assert memory.run_at_once(pocket, 20, 10**7) < memory.run_at_once(pocket, 20) == memory.CHUNK


LITTLE = 3 * 10**6


@pytest.mark.parametrize("metric", [Metric(), Metric("logprob")], ids=str)
def test_a_small_allowance_changes_no_number(ioi: Prompts, pocket: Transformer, metric: Metric) -> None:
    whole, small = (scored_prompts(pocket, ioi.data, metric, max_memory=limit) for limit in (None, LITTLE))
    assert len(list(parts_of(small, ALL, REQUESTS))) > len(list(parts_of(whole, ALL, REQUESTS)))
    for before, parts in zip(numbers(whole), numbers(small), strict=True):
        assert parts == pytest.approx(before, abs=2e-4, nan_ok=True)
    assert small.tally.batches > whole.tally.batches


def test_attention_on_random_tokens_takes_as_little(pocket: Transformer) -> None:
    request = HeadScore("induction", (H06,))
    whole, small = (random_prompts(pocket, limit) for limit in (None, 10**7))
    assert measure(small, [request], ALL)[request].values == pytest.approx(
        measure(whole, [request], ALL)[request].values, abs=1e-6
    )


def test_scores_of_a_role_are_not_taken_from_the_numbers_of_a_task(ioi: Prompts) -> None:
    """Its n-th prompt says nothing of the n-th sequence."""
    known = SimpleNamespace(of_prompts=lambda *_: pytest.fail("a sequence is looked up by a prompt"))
    request = HeadScore("induction", (H06,))
    (found,) = measure(replace(ioi, cache=known), [request], np.arange(3)).values()
    assert found.values == pytest.approx(measure(ioi, [request], np.arange(3))[request].values)


def test_what_is_too_little_for_one_prompt_is_said(ioi: Prompts, pocket: Transformer) -> None:
    with pytest.raises(memory.OutOfMemory, match=r"1 MB are too little .* one prompt of \d+ tokens needs 3 MB") as said:
        scored_prompts(pocket, ioi.data, Metric(), max_memory=10**6)
    assert "allow 3MB" in str(said.value.hint)
    with pytest.raises(memory.OutOfMemory, match="too little"):
        random_prompts(pocket, 10**6)


@pytest.mark.parametrize("keep", ["nodes", "edges"])
def test_running_out_on_whole_circuits_halves_the_runs(
    ioi: Prompts, keep: Literal["nodes", "edges"], monkeypatch: pytest.MonkeyPatch
) -> None:
    circuits = [Subgraph(keep, frozenset([Site(h, END)]), frozenset([Edge(h, QUERY, END)])) for h in (H06, H07)]
    batch = {"nodes": subgraph.KeptNodes, "edges": subgraph._Batch}[keep]
    whole, sizes, true_run = measure(ioi, circuits, ALL), [], batch.run

    def limited(self, readout):  # type: ignore[no-untyped-def]
        sizes.append(len(self.prompt))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError
        return true_run(self, readout)

    most = 3
    monkeypatch.setattr(batch, "run", limited)
    for circuit, parts in measure(ioi, circuits, ALL).items():
        assert parts.values == pytest.approx(whole[circuit].values, abs=2e-4)
    assert max(sizes) > most >= min(sizes)
    most = 0
    with pytest.raises(memory.OutOfMemory, match="memory ran out running a circuit alone on one prompt"):
        measure(ioi, circuits, ALL)


def failing(limit: int) -> Callable:
    """Memory for the runs of so many prompts at once."""

    def run(model: Transformer, clean: torch.Tensor, *others: object, **kept: object) -> runs.Runs:
        if len(clean) > limit:
            raise torch.OutOfMemoryError
        return true_run(model, clean, *others, **kept)  # type: ignore[arg-type]

    true_run = runs.run
    return run


def test_running_out_while_caching_halves_the_prompts(ioi: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbers(ioi)
    monkeypatch.setattr(runs, "run", failing(2))
    for before, parts in zip(whole, numbers(ioi), strict=True):
        assert parts == pytest.approx(before, abs=2e-4, nan_ok=True)


def test_a_prompt_that_never_fits_is_named(ioi: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "run", failing(0))
    with pytest.raises(UserError, match="memory ran out running prompt"):
        measure(ioi, REQUESTS, ALL)


SCRIPT = """
import sys, torch, numpy as np
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal
from benchmarks import engine_workloads as workloads
from benchmarks.engine_meter import peak_bytes
from circuitdsl.circuit.changes import Intervention, Scale
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.verify.prompts import scored_prompts
from circuitdsl.verify.measure import measure
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.requests import ChangedRequest, EdgeRequest, NodeRequest
from circuitdsl.measurements.requests import Subgraph
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
requests += [EdgeRequest((Edge(Node("head", 3, i), Input(LOGITS, "in"), END),), via_mlps=True) for i in range(6)]
requests += [NodeRequest((Site(Node("head", 11, 1), END),), direction="denoise")]
requests += [Subgraph("edges", edges=frozenset(Edge(Node("head", 5, 0), queries[i], END) for i in range(n)), mlps=True)
             for n in range(1, 4)]
requests += [ChangedRequest(Behaviour(Metric()), Intervention("x", "", (Scale((Node("head", 3, 1),), 0.5),)))]
limit = int(sys.argv[3]) if len(sys.argv) > 3 else None

def work():
    for metric in (Metric(), Metric("logprob")):
        one = scored_prompts(model, Dataset("random", "abc", 0, False, pairs), metric, max_memory=limit)
        measure(one, requests, np.arange(len(pairs)))

print(peak_bytes(model.device, work))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux' /proc")
@pytest.mark.parametrize("limit", [None, 150 * 10**6])
def test_gpt2_small_needs_no_more_than_is_allowed(limit: int | None, tmp_path: Path) -> None:
    """Beside the model: a gigabyte where nothing is said, else the limit."""
    root = Path(__file__).parents[2]
    script = SCRIPT.format(benchmarks=str(root / "benchmarks"))
    given = [str(tmp_path), "48", *([str(limit)] if limit else [])]
    done = subprocess.run([sys.executable, "-c", script, *given], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < (limit or 10**9)
