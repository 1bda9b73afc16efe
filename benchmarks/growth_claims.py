"""Growth with claims: whole verifications of the pocket model, without start-up."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.engine_meter import peak_bytes
from benchmarks.growth import Case, Figure
from circuitdsl import api
from circuitdsl.report.formats import FORMATS, View
from circuitdsl.report.report import Report, Reports
from circuitdsl.verify.session import Session

LAYERS, HEADS = 4, 8
POSITIONS = ("END", "S2", "S1", "IO", "*")


def edges() -> Iterator[str]:
    """Claims on edges between heads, position by position: first every edge once, then with another bound."""
    pairs = [(a, b) for b in range(1, LAYERS) for a in range(b)]
    for bound, position in itertools.product((40, 60, 80), POSITIONS):
        for (a, b), i, j, port in itertools.product(pairs, range(HEADS), range(HEADS), "qkv"):
            yield f"{a}.{i} -> {b}.{j}.{port} at {position} : effect <= {bound}%"


def spec(claims: int, prompts: int) -> str:
    """A spec with so many claims on edges, spread over the layers, the positions and the inputs."""
    known = list(edges())
    apart = next(step for step in range(len(known) // claims, 0, -1) if len(range(0, len(known), step)) >= claims)
    lines = [
        "circuit many",
        'model "pocket"',
        f"task ioi(corrupt = abc, prompts = {prompts}, seed = 0)",
        *known[::apart],
    ]
    return "\n".join(lines[: claims + 3]) + "\n"


def group_spec(claims: int, prompts: int) -> str:
    """A spec with so many claims on edges between groups of two heads: five patches each, with those of its pairs."""
    names = [(layer, i) for layer in range(LAYERS) for i in range(HEADS // 2)]
    groups = [f"heads g{layer}_{i} = {layer}.{2 * i} {layer}.{2 * i + 1}" for layer, i in names]
    pairs = [(a, b) for b in names for a in names if a[0] < b[0]]
    lines = [
        f"g{a}_{i} -> g{b}_{j}.{port} at {position} : effect <= 40%"
        for position, ((a, i), (b, j)), port in itertools.product(POSITIONS, pairs, "qkv")
    ]
    if len(lines) < claims:
        raise ValueError(f"there are {len(lines)} edges between groups, not {claims}")
    head = ["circuit many", 'model "pocket"', f"task ioi(corrupt = abc, prompts = {prompts}, seed = 0)"]
    return "\n".join([*head, *groups, *lines[:claims]]) + "\n"


def verified(text: str, **how: Any) -> Report:
    """The report on a spec, from nothing known; the model is loaded before the clock starts."""
    with Session(cache=False) as session:
        report = session.verify(api.loads(text), **how)
        assert isinstance(report, Report)
        return report


def seconds(text: str, cache: bool = False, **how: Any) -> tuple[float, Report]:
    """CPU seconds of parsing, verifying, writing the report as JSON and as text; with a cache, of keeping numbers."""
    with Session(cache=cache) as session:
        session.prompts_by_task(api.loads(text).first())  # torch, the model and the tokenizer are there
        start = time.process_time()
        report = session.verify(api.loads(text), **how)
        assert isinstance(report, Report)
        json.dumps(report.to_json())
        FORMATS["text"].reports(Reports([report]), View(lambda: Console(width=120)))
    return time.process_time() - start, report


def _many(claims: int, aim: float, memory: float | None) -> Case:
    def work(_: Path) -> list[Figure]:
        taken: list[float] = []
        peak = peak_bytes(_cpu(), lambda: taken.append(seconds(spec(claims, 32))[0]))
        return [Figure("verify", taken[0], "CPU s", aim), Figure("peak", peak / 1e6, "MB", memory)]

    return Case(f"claims_{claims}", f"`verify`, {claims} edge claims × 32 prompts, pocket", work)


def _groups(claims: int, aim: float) -> Case:
    def work(_: Path) -> list[Figure]:
        return [Figure("verify", seconds(group_spec(claims, 32), cache=True)[0], "CPU s", aim)]

    says = f"`verify`, {claims} claims between groups of two heads × 32 prompts, pocket, numbers kept"
    return Case(f"groups_{claims}", says, work)


def _looks(claims: int) -> Case:
    def work(_: Path) -> list[Figure]:
        text = spec(claims, 256)
        seconds(text)
        stopped, at_once = seconds(text)[0], seconds(text, early_stop=False)[0]
        return [
            Figure("with early stopping", stopped, "CPU s"),
            Figure("one look", at_once, "CPU s"),
            Figure("with / without", stopped / at_once, "×", 1.05),
        ]

    return Case(
        f"looks_{claims}", f"`verify`, {claims} claims × 256 prompts, pocket: early stopping against one look", work
    )


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


CASES = (_many(1000, 4.0, None), _many(10_000, 40.0, 1000.0), _groups(1000, 4.0), _looks(25), _looks(100), _looks(400))
