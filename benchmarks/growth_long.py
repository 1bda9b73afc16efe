"""Growth with the length of prompts, at GPT-2 small's shape with random weights."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from benchmarks import engine_workloads as workloads
from benchmarks.engine_floor import Rates, needed
from benchmarks.engine_meter import peak_bytes
from benchmarks.engine_workloads import END, Workload
from benchmarks.growth import Case, Figure
from benchmarks.growth_engine import best, model_in
from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Site
from circuitdsl.engine.experiment import Experiment, Readout
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import Runs, run
from circuitdsl.measurements.kept import Kept
from circuitdsl.measurements.requests import EdgeRequest
from circuitdsl.models.parts import Transformer
from circuitdsl.verify.session import Session

PROMPTS, LAYER = 8, 6
LONG = 1000
EDGE = Edge(Node("head", 3, 1), Input(Node("head", 7, 2), "v"), END)
KNOCKOUT = Site(Node("head", 7, 2), END)
SCORES = Kept(frozenset([LOGITS]), frozenset([LOGITS]))


def attention(folder: Path) -> list[Figure]:
    """A claim about where a head of a middle layer attends.

    The numbers that reports have of a task, and the comparison with the library's logits, take whole runs of all
    prompts. With numbers of the task known, the claim alone is measured.
    """
    model = model_in(folder)
    clean, corrupt, _, answers = workloads.prompts(model, PROMPTS, 512)
    with (folder / "long.jsonl").open("w") as file:
        for c, x, (answer, other) in zip(clean.tolist(), corrupt.tolist(), answers.tolist(), strict=True):
            tokens = {"clean_tokens": c, "corrupt_tokens": x, "answer": answer, "distractor": other}
            file.write(json.dumps(tokens | {"positions": {"S": [300]}}) + "\n")
    residuals = PROMPTS * 512 * model.d_model * model.dtype.itemsize * (LAYER + 1)
    found = []
    with Session(model) as session:
        for says, head in (("from nothing", "2.1"), ("the task's numbers known", f"{LAYER}.3")):
            claim = f"expect attention({head}, END -> S) >= 10%"
            spec = folder / f"{head}.circ"
            spec.write_text(f'circuit long\ntask long = file("long.jsonl", prompts = {PROMPTS})\n{claim}\n')
            taken: list[float] = []
            known = says != "from nothing"

            def verify(spec: Path = spec, taken: list[float] = taken) -> None:
                start = time.process_time()
                session.verify(spec)
                taken.append(time.process_time() - start)

            peak = peak_bytes(model.device, verify)
            found.append(Figure(f"verify, {says}", taken[0], "CPU s", 8.0))
            found.append(Figure("peak", peak / 1e6, "MB", 2 * residuals / 1e6 if known else None))
    return found


def runs_of(folder: Path) -> list[Figure]:
    """The clean and the corrupt run of long prompts: for scores alone, and with what an edge reads."""
    model = model_in(folder)
    clean, corrupt, _, _ = workloads.prompts(model, PROMPTS, LONG)
    found = []
    for says, kept in (
        ("scores alone", SCORES),
        ("with what an edge reads", EdgeRequest((EDGE,)).kept(model.n_layers)),
    ):
        taken: list[float] = []

        def work(kept: Kept = kept, taken: list[float] = taken) -> None:
            taken.append(best(lambda: run(model, clean, corrupt, kept=kept), 1))

        peak = peak_bytes(model.device, work)
        found.append(Figure(says, taken[0], "CPU s", 25.0))
        found.append(Figure("peak", peak / 1e6, "MB", 1000.0))
    return found


def position_5(folder: Path) -> list[Figure]:
    """A patch at position 5 of short and of long prompts: its growth over that of the floor."""
    model = model_in(folder)
    rates = Rates(model, time.process_time)
    found = []
    for says, one in (
        ("edge", Experiment(frozenset([EDGE]))),
        ("knock-out", Experiment(sites=frozenset([KNOCKOUT]))),
    ):
        (short, low), (long, high) = (_at_5(model, one, length, rates) for length in (128, LONG))
        found.append(Figure(f"{says}, {LONG} tokens", long, "CPU s"))
        found.append(Figure("growth", long / short, "×"))
        found.append(Figure("growth over the floor's", long / short / (high / low), "×", 1.1))
    return found


def _at_5(model: Transformer, one: Experiment, length: int, rates: Rates) -> tuple[float, float]:
    """Seconds of a patch at position 5, and of its floor."""
    clean, corrupt, _, answers = workloads.prompts(model, 2, length)
    corrupt[:, 5] = (clean[:, 5] + 1) % model.n_vocab  # before the first difference there would be nothing to patch
    load = Workload("", "", (EDGE,), clean, corrupt, {END: torch.full((2, 1), 5)}, answers)
    runs = run(model, clean, corrupt)

    def patch(runs: Runs = runs) -> None:
        effects(runs, [one], load.positions, Readout(load.answers))

    return best(patch), rates.seconds(needed(model, load))


CASES = (
    Case(
        "attention_512", f"`verify` of an attention claim on layer {LAYER}, {PROMPTS} prompts × 512 tokens", attention
    ),
    Case("long_runs", f"clean and corrupt run, {PROMPTS} prompts × {LONG} tokens", runs_of),
    Case("position_5", f"a patch at position 5, 2 prompts of 128 and of {LONG} tokens", position_5),
)
