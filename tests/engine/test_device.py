"""The device is kept busy: nothing in a batch reads a value back, and a GPU gives the CPU's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine import batches as batches_module
from circuitdsl.engine import circuit_alone
from circuitdsl.engine.circuit_alone import subgraph_effects
from circuitdsl.engine.experiment import Experiment, Readout
from circuitdsl.engine.kept_nodes import KeptNodes
from circuitdsl.engine.path_patching import effects, patched_attention, patched_terms
from circuitdsl.engine.runs import mean_terms
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine.small_models import NUMBERED, Case, make_case, only_named, save_random
from tests.far_device import FAR, FarDevice, far_device, sent

#: what runs batches
WATCHED: tuple[tuple[Any, str], ...] = ((batches_module, "_done"), (KeptNodes, "run"), (circuit_alone._Batch, "run"))
SOME = (*NUMBERED, "granite", "glm4")
ANY, A, END = Position("*"), Position("A"), Position("END")
HEAD, EARLY = Node("head", 2, 1), Node("head", 0, 2)
EXPERIMENTS = [
    *(Experiment(frozenset([Edge(EARLY, Input(HEAD, port), at)])) for port in "qkv" for at in (ANY, A, END)),
    Experiment(frozenset([Edge(EARLY, Input(Node("mlp", 1), "in"), A), Edge(HEAD, Input(LOGITS, "in"), END)])),
    Experiment(frozenset([Edge(EARLY, Input(HEAD, "q"), ANY)]), via_mlps=True),
    *(
        Experiment(frozenset([Edge(HEAD, Input(LOGITS, "in"), END)]), before=(frozenset([Edge(EARLY, read, at)]),))
        for read, at in ((Input(HEAD, "q"), END), (Input(HEAD, "k"), ANY), (Input(HEAD, "v"), A))
    ),
    Experiment(
        frozenset([Edge(HEAD, Input(LOGITS, "in"), END)]),
        before=(
            frozenset([Edge(EARLY, Input(Node("mlp", 0), "in"), A)]),
            frozenset([Edge(Node("mlp", 0), Input(HEAD, "v"), A)]),
        ),
    ),
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
NEURON = Node("mlp", 1, index=7)
EXPERIMENTS += [
    Experiment(frozenset([Edge(EARLY, Input(NEURON, "in"), at), Edge(NEURON, Input(LOGITS, "in"), END)]))
    for at in (ANY, A)
]
EXPERIMENTS.append(
    replace(
        EXPERIMENTS[-1],
        edges=frozenset([Edge(NEURON, Input(HEAD, "v"), A)]),
        before=(frozenset([Edge(EARLY, Input(NEURON, "in"), A)]),),
    )
)
CIRCUITS = [
    Subgraph("nodes", sites=frozenset([Site(HEAD, A), Site(EARLY, ANY)])),
    Subgraph("nodes", sites=frozenset([Site(HEAD, END), Site(Node("mlp", 1), A)]), mlps=True, ablate="mean"),
    Subgraph("edges", edges=frozenset([Edge(EARLY, Input(HEAD, "k"), A), Edge(HEAD, Input(LOGITS, "in"), END)])),
    Subgraph("edges", edges=frozenset([Edge(EARLY, Input(HEAD, "v"), ANY)]), mlps=True, inverted=True),
]


def with_means(case: Case) -> Case:
    stratum = torch.tensor([0, 1, 0])
    means = mean_terms(case.model, case.corrupt, stratum, 2, only_named(case.model))
    runs = case.runs.with_means(means, stratum)
    return Case(case.model, case.clean, case.corrupt, runs, case.positions)


def found(case: Case) -> list[torch.Tensor]:
    """What the engine gives on some prompts, of every kind that runs in batches."""
    tokens = Readout(torch.tensor([[1, 2], [3, 4], [5, 6]]).to(case.model.device))
    return [
        effects(case.runs, EXPERIMENTS, case.positions, case.vocabulary).cpu(),
        effects(case.runs, EXPERIMENTS[:4], case.positions, tokens).cpu(),
        subgraph_effects(case.runs, CIRCUITS, case.positions, tokens).cpu(),
        subgraph_effects(case.runs, CIRCUITS[:1], case.positions, case.vocabulary).cpu(),
        patched_attention(case.runs, EXPERIMENTS, case.positions, [HEAD]).cpu(),
        patched_terms(case.runs, EXPERIMENTS, case.positions, [HEAD, Node("mlp", 1)]).cpu(),
    ]


def test_a_far_device_notices_what_a_gpu_would_not_forgive(monkeypatch: pytest.MonkeyPatch) -> None:
    with far_device(monkeypatch) as device:
        there, here = torch.arange(6.0).pin_memory().to(FAR, non_blocking=True), torch.arange(6.0)
        assert (there.view(2, 3).sum() + 1 > 0).device == FAR and not device.waits
        with pytest.raises(AssertionError, match="mixes devices"):
            there + here
        with pytest.raises(AssertionError, match="mixes devices"):
            here[there.long()]
        asked: list[Callable[[], object]] = [
            lambda: there.sum().item(),
            lambda: bool(there[0] > 1),
            lambda: there.nonzero(),
            lambda: there[there > 1],
            lambda: there[torch.tensor([0, 1])],
            lambda: there.repeat_interleave(there.long()),
            lambda: there.cpu(),
            lambda: here.to(FAR),
            lambda: here.to(FAR, non_blocking=True),
            lambda: here.pin_memory().to(FAR),
        ]
        for ask in asked:
            device.waits.clear()
            ask()
            assert device.waits


# of a mixture of experts is read back how many positions each expert has
@pytest.mark.parametrize("family", examples(("gpt2", "qwen3", "gemma2"), SOME))
def test_another_device_gives_the_same_and_is_never_waited_for(
    family: str, random_model: Callable[[str], Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that runs in batches, on a device that is only pretended."""
    case = make_case(random_model(family))
    near = found(with_means(case))
    with far_device(monkeypatch) as device:
        batches = [watched(monkeypatch, device, *where) for where in WATCHED]
        far = found(with_means(make_case(sent(case.model))))
    assert min(map(len, batches)) >= 2
    for here, there in zip(near, far, strict=True):
        assert (here - there).abs().max() < 1e-4


def watched(monkeypatch: pytest.MonkeyPatch, device: FarDevice, module: Any, name: str) -> list[object]:
    """Have a function fail where it waits for the device; its calls."""
    run, calls = getattr(module, name), list[object]()

    def called(*given: object) -> object:
        calls.append(given)
        device.waits.clear()
        out = run(*given)
        assert not device.waits
        return out

    monkeypatch.setattr(module, name, called)
    return calls


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("family", SOME)
def test_a_gpu_gives_the_numbers_of_the_cpu_and_is_never_waited_for(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_random(family, tmp_path)
    near = found(with_means(make_case(load_model(path, device="cpu"))))
    case = with_means(make_case(load_model(path, device="cuda")))
    for module, name in WATCHED:
        monkeypatch.setattr(module, name, refusing_to_wait(getattr(module, name)))
    assert not torch.backends.cuda.matmul.allow_tf32
    for here, there in zip(near, found(case), strict=True):
        assert (here - there).abs().max() < 1e-3


def refusing_to_wait(run: Callable) -> Callable:
    """A function that fails where it waits for a GPU."""

    def called(*given: object) -> object:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return run(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return called
