"""Growth with edges, tokens and threads: the engine alone, at GPT-2 small's shape with random weights."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import engine_workloads as workloads
from benchmarks.engine_floor import Rates, needed
from benchmarks.engine_workloads import END, Workload
from benchmarks.growth import Case, Figure
from circuitdsl import api
from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.batches import Group
from circuitdsl.engine.experiment import Experiment, Readout
from circuitdsl.engine.path_patching import effects, effects_side_by_side
from circuitdsl.engine.runs import Runs, run
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import PORTS, Transformer
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.anew import measure_anew
from circuitdsl.verify.plan import plan
from circuitdsl.verify.prompts import prompts_by_task

N, LENGTH = 32, 20


def model_in(folder: Path, dtype: str = "float32") -> Transformer:
    """The model, made in a folder."""
    return load_model(workloads.random_weights("gpt2-small", folder, getattr(torch, dtype)), dtype=dtype)


def patch(model: Transformer, runs: Runs, load: Workload, experiments: Sequence[Experiment] | None = None) -> None:
    effects(runs, experiments or load.experiments, load.positions, Readout(load.answers))


def best(work: Callable[[], object], times: int = 3, clock: Callable[[], float] = time.process_time) -> float:
    """The fewest seconds of several runs."""
    taken = []
    for _ in range(times):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


def mixed(model: Transformer, load: Workload, n: int) -> list[Workload]:
    """A workload's edges on IOI prompts as they are drawn: a workload for each length."""
    pairs = sample(TASKS["ioi"], Tokens(model.tokenizer, model.name), n, 0, "abc").pairs
    found = []
    for length in sorted(Counter(len(pair.clean_tokens) for pair in pairs)):
        same = [pair for pair in pairs if len(pair.clean_tokens) == length]
        clean, corrupt = (torch.tensor([getattr(p, f"{side}_tokens") for p in same]) for side in ("clean", "corrupt"))
        places = {place: torch.tensor([p.positions[place.name] for p in same]) for place in load.positions}
        answers = torch.tensor([[p.answers[0], p.distractors[0]] for p in same])
        found.append(replace(load, clean=clean, corrupt=corrupt, positions=places, answers=answers))
    return found


def over_floor(model: Transformer, loads: Sequence[Workload]) -> float:
    """CPU seconds of all workloads over those of their arithmetic."""
    rates = Rates(model, time.process_time)
    runs = [run(model, load.clean, load.corrupt) for load in loads]
    groups = [Group(one, load.positions) for one, load in zip(runs, loads, strict=True)]
    readouts = [Readout(load.answers) for load in loads]
    taken = best(lambda: effects_side_by_side(groups, loads[0].experiments, readouts))
    return taken / sum(rates.seconds(needed(model, load)) for load in loads)


def _floor(name: str, says: str, aim: float, make: Callable[[Transformer], Workload], mix: bool = False) -> Case:
    def work(folder: Path) -> list[Figure]:
        model = model_in(folder)
        load = make(model)
        return [Figure("time over floor", over_floor(model, mixed(model, load, N) if mix else [load]), "×", aim)]

    return Case(name, f"{says}, {N} prompts", work)


def w2(model: Transformer) -> Workload:
    return workloads.queries_at_end(model, 52, N, LENGTH)


def w3(model: Transformer) -> Workload:
    return workloads.keys_and_values_at_s2(model, N, LENGTH)


def w4(model: Transformer) -> Workload:
    return replace(workloads.anywhere(model, 52, N, LENGTH))


def end_edges(model: Transformer) -> list[Edge]:
    """Every edge between heads at END, and every edge from a head to the logits."""
    heads = [Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    pairs = ((a, b) for a in heads for b in heads if a.layer < b.layer)
    return [Edge(a, Input(b, port), END) for a, b in pairs for port in PORTS] + [
        Edge(a, Input(LOGITS, "in"), END) for a in heads
    ]


def sweep(folder: Path) -> list[Figure]:
    """All edges between heads at END, from a sample of them."""
    model = model_in(folder)
    edges = end_edges(model)
    some = random.Random(0).sample(edges, 1200)
    load = replace(w2(model), edges=tuple(some))
    runs = run(model, load.clean, load.corrupt)
    seconds = best(lambda: patch(model, runs, load), 1)
    return [
        Figure(f"{len(edges)} edges, from {len(some)}", seconds * len(edges) / len(some), "CPU s", 250.0),
        Figure("an edge and prompt", 1000 * seconds / len(some) / N, "CPU ms"),
    ]


def w5(model: Transformer, n: int = 32) -> Callable[[], object]:
    """What a shipped spec asks for on its first prompts, of mixed lengths."""
    (circuit,) = api.load("gpt2-small/ioi").circuits
    plans = plan(circuit, ModelShape(model.name, model.n_layers, model.n_heads, model.parallel))
    (prompts,) = prompts_by_task(circuit, model).values()
    return partial(measure_anew, prompts, [request for one in plans for request in one.requests], np.arange(n))


def threads(folder: Path) -> list[Figure]:
    """The clock with one thread over the clock with two: runs of prompts, some edges of each workload, a whole spec."""
    model = model_in(folder)
    few = w2(model), w3(model), workloads.anywhere(model, 13, N, LENGTH)
    runs = [run(model, load.clean, load.corrupt) for load in few]
    works: dict[str, Callable[[], object]] = {"runs": lambda: run(model, few[0].clean, few[0].corrupt)}
    works |= {load.name: partial(patch, model, own, load) for load, own in zip(few, runs, strict=True)}
    works["W5, 32 prompts"] = w5(model)

    def seconds(count: int, work: Callable[[], object]) -> float:
        torch.set_num_threads(count)
        return best(work, 2, time.perf_counter)

    ratios = {name: seconds(1, work) / seconds(2, work) for name, work in works.items()}
    return [Figure(name, ratio, "× as fast", 1.7, at_least=True) for name, ratio in ratios.items()]


def bfloat16(folder: Path) -> list[Figure]:
    """The three workloads in half precision against single precision."""
    taken = {}
    for dtype in ("float32", "bfloat16"):
        (folder / dtype).mkdir()
        model = model_in(folder / dtype, dtype)
        for load in (w2(model), w3(model), w4(model)):
            runs = run(model, load.clean, load.corrupt)
            taken[dtype, load.name] = best(partial(patch, model, runs, load), 2)
    return [
        Figure(f"{w}, bfloat16 / float32", taken["bfloat16", w] / taken["float32", w], "×") for w in ("W2", "W3", "W4")
    ]


CASES = (
    _floor("w2_mixed", "52 q edges at END (W2), mixed lengths", 1.2, w2, mix=True),
    _floor("w3", "k and v edges at S2 (W3)", 1.15, w3),
    _floor("w4", "edges at all positions (W4)", 1.15, w4),
    Case("sweep", f"every edge between heads and to the logits at END, {N} prompts", sweep),
    Case("threads", "two threads against one, by the clock", threads, threads=2),
    Case("bfloat16", "weights and products in bfloat16 on the CPU", bfloat16),
)
