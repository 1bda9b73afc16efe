"""What a sweep costs: all heads of the pocket model, and all residual streams of a model of GPT-2 small's shape.

    OMP_NUM_THREADS=1 python -m benchmarks.sweep -o docs/performance.md     # two CPU minutes

The floor of the second counts block-positions: for a stream that enters layer L, at position p, the layers from L on at
the positions from p on. A block-position is put at what it takes in plain runs of the same prompts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.engine_workloads import random_weights
from benchmarks.marked import write_part
from circuitdsl.circuit.nodes import Position
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.discover.sweep import sweep
from circuitdsl.engine.runs import run
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.verify.prompts import scored_prompts
from circuitdsl.verify.session import Session

PROMPTS, TOKENS, REPEATS = 32, 20, 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    cells, seconds, aim = pocket()
    rows = [f"| all {cells} heads × named positions of the pocket model, 96 prompts | {seconds:.1f} s | {aim} |"]
    taken, floor, cells = streams()
    ratio = taken / floor
    what = f"{cells} streams × positions of GPT-2 small's shape, {PROMPTS} prompts × {TOKENS} tokens"
    rows.append(f"| {what} | {taken:.0f} s, {ratio:.2f} × the floor | at most 1.5 × the floor |")
    text = "\n".join(["| sweep | CPU time of measuring | aim |", "|---|---|---|", *rows])
    print(text)
    if given.output:
        write_part(given.output, "sweep", text)


def pocket() -> tuple[int, float, str]:
    """Cells, the median of CPU seconds, and the aim."""
    with Session("pocket", cache=False) as session:
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            found = session.sweep(task="ioi", over="heads")
            times.append(time.process_time() - start)
    return len(found.cells), sorted(times[1:])[len(times[1:]) // 2], "under 3 s"


def streams() -> tuple[float, float, int]:
    """CPU seconds of a sweep, its floor, and its cells."""
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(random_weights("gpt2-small", Path(folder)), device="cpu")
        draw = torch.Generator().manual_seed(0)
        clean, corrupt = (torch.randint(model.n_vocab, (PROMPTS, TOKENS), generator=draw) for _ in range(2))
        pairs = tuple(
            PromptPair(tuple(a), tuple(b), (1,), (2,), {"END": (TOKENS - 1,)}, "")
            for a, b in zip(clean.tolist(), corrupt.tolist(), strict=True)
        )
        prompts = scored_prompts(model, Dataset("random", "", 0, False, pairs), Metric())
        places = [Position("END", -back) for back in reversed(range(TOKENS))]
        start = time.process_time()
        found = sweep(prompts, "resid", places)
        taken = time.process_time() - start
        layers = model.n_layers
        positions = PROMPTS * sum(
            (layers - layer) * (TOKENS - place) for layer in range(layers + 1) for place in range(TOKENS)
        )
        return taken, positions * _block_position(model, clean, corrupt), len(found.cells)


def _block_position(model: Transformer, clean: torch.Tensor, corrupt: torch.Tensor) -> float:
    """CPU seconds of one layer at one position, in plain runs of the clean prompts and of their partners."""
    start = time.process_time()
    for _ in range(REPEATS):
        run(model, clean, corrupt)
    return (time.process_time() - start) / (REPEATS * 2 * clean.numel() * model.n_layers)


if __name__ == "__main__":
    main()
