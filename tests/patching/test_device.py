"""The device is kept busy: nothing in a batch reads a value back, and a GPU gives the CPU's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_models import SIZES, Case, make_case, save_random

from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.models.load import load_model
from circuitdsl.patching import sweep
from circuitdsl.patching.patch import Experiment, Readout
from circuitdsl.patching.recompute import effects
from circuitdsl.patching.runs import mean_terms

ANY, A, END = Position("*"), Position("A"), Position("END")
HEAD, EARLY = Node("head", 2, 1), Node("head", 0, 2)
EXPERIMENTS = [
    *(Experiment(frozenset([Edge(EARLY, Input(HEAD, port), at)])) for port in "qkv" for at in (ANY, A, END)),
    Experiment(frozenset([Edge(EARLY, Input(Node("mlp", 1), "in"), A), Edge(HEAD, Input(LOGITS, "in"), END)])),
    Experiment(frozenset([Edge(EARLY, Input(HEAD, "q"), ANY)]), via_mlps=True),
    Experiment(frozenset([Edge(EARLY, Input(HEAD, "k"), A)]), direction="denoise"),
    *(
        Experiment(sites=frozenset([Site(EARLY, ANY), Site(HEAD, A)]), ablate=how)
        for how in ("corrupt", "zero", "mean")
    ),
    *(
        Experiment(sites=frozenset([Site(Node("mlp", 0), A), Site(Node("embed"), END)]), ablate=how)
        for how in ("zero",)
    ),
]
READS_BACK = (
    "item",
    "tolist",
    "cpu",
    "numpy",
    "nonzero",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "any",
    "all",
)


def with_means(case: Case) -> Case:
    stratum = torch.tensor([0, 1, 0])
    runs = case.runs.with_means(mean_terms(case.model, case.corrupt, stratum, strata=2), stratum)
    return Case(case.model, case.clean, case.corrupt, runs, case.positions)


@contextmanager
def waiting_refused() -> Iterator[None]:
    """In here, no tensor's value may be asked for."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a value was read back from the device")

    with pytest.MonkeyPatch.context() as patch:
        for name in READS_BACK:
            patch.setattr(torch.Tensor, name, refuse)
        yield


@pytest.mark.parametrize("whole", [False, True], ids=["tokens", "vocabulary"])
def test_nothing_in_a_batch_waits_for_the_device(case: Case, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    case = with_means(case)
    readout = case.vocabulary if whole else Readout.of_tokens(torch.tensor([[1, 2], [3, 4], [5, 6]]))
    tried, batches = sweep._tried, []

    def watched(*given: object) -> object:
        batches.append(given)
        with waiting_refused():
            return tried(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "_tried", watched)
    effects(case.model, case.runs, EXPERIMENTS, case.positions, readout)
    assert len(batches) > 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("family", list(SIZES))
def test_a_gpu_gives_the_numbers_of_the_cpu_and_is_never_waited_for(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_random(family, tmp_path)
    found = []
    tried: Callable = sweep._tried

    def watched(*given: object) -> object:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return tried(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for device in ("cpu", "cuda"):
        case = with_means(make_case(load_model(path, device=device)))
        if device == "cuda":
            monkeypatch.setattr(sweep, "_tried", watched)
        found.append(effects(case.model, case.runs, EXPERIMENTS, case.positions, case.vocabulary).cpu())
    assert not torch.backends.cuda.matmul.allow_tf32
    assert (found[0] - found[1]).abs().max() < 1e-3
