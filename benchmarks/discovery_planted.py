"""Edges planted into a model of GPT-2 small's shape: does the search find them, how soon, in how much memory?

Weights are random. Two ways are added by hand: a head copies which of ten tokens stands at one position to the next
one, another head copies it from there to END, towards the token's logit. The second way covers for the first.

    python -m benchmarks.discovery_planted -o docs/discovery.md
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.marked import write_part
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.circuit.whole_graph import WholeGraph
from circuitdsl.discover.scoring import METHODS, Asked
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.whole_runs import WholeRuns
from circuitdsl.interop.mib import names_of
from circuitdsl.models.load import load_model
from circuitdsl.tasks.dataset import Dataset, PromptPair
from circuitdsl.verify.prompts import scored_prompts

#: (width, layers, prompts, tokens) that are measured: GPT-2 small's own width, and how cost grows at a quarter of it
SIZES = ((768, 12, 256, 20), (192, 12, 64, 20), (192, 12, 32, 20), (192, 12, 64, 40), (192, 6, 64, 20))
#: the heads of both ways, the first that copies and the one that reads it
WAYS = (((2, 3), (5, 7)), ((3, 5), (4, 2)))
TOKENS, PLACE = range(100, 110), 5


def planted(width: int, layers: int, length: int, folder: Path) -> Any:
    """A random model with the two ways, loaded."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=layers))
    size, embed = width // model.config.n_head, model.transformer.wte.weight
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        words = torch.nn.functional.normalize(embed[list(TOKENS)], dim=1)
        places = torch.nn.functional.normalize(model.transformer.wpe.weight, dim=1)
        for first, second in WAYS:
            codes = torch.nn.functional.normalize(torch.randn(len(words), width, generator=draw), dim=1)
            _set(model, first, places[PLACE + 1], places[PLACE], words, 3 * codes, size)
            _set(model, second, places[length - 1], places[PLACE + 1], codes, 3 * words, size)
    model.save_pretrained(folder)
    return load_model(folder, device="cpu")


def _set(model: Any, head: tuple[int, int], asks: Any, answers: Any, reads: Any, writes: Any, size: int) -> None:
    """Let a head attend from one place to another, read some directions there and write others."""
    attn, at, width = model.transformer.h[head[0]].attn, head[1] * size, reads.shape[1]
    q, k, v = (attn.c_attn.weight[:, part * width + at : part * width + at + size] for part in range(3))
    for matrix in (q, k, v):
        matrix.zero_()
    q[:, 0], k[:, 0] = 6 * asks, 6 * answers
    v[:, : len(reads)] = reads.T
    out = attn.c_proj.weight[at : at + size]
    out.zero_()
    out[: len(writes)] = writes


def prompts_on(model: Any, many: int, length: int) -> Prompts:
    """Random tokens with one of the ten at its place, and partners with another."""
    draw = np.random.default_rng(0)
    pairs = []
    for _ in range(many):
        clean, (word, other) = draw.integers(1000, 40_000, length), draw.choice(TOKENS, 2, replace=False)
        corrupt = clean.copy()
        clean[PLACE], corrupt[PLACE] = word, other
        place = {"END": (length - 1,), "WORD": (PLACE,)}
        pairs.append(PromptPair(tuple(clean.tolist()), tuple(corrupt.tolist()), (int(word),), (int(other),), place, ""))
    return scored_prompts(model, Dataset("planted", "other", 0, False, tuple(pairs)), Metric())


def edges_planted(graph: WholeGraph) -> list[int]:
    """The edges of both ways."""
    names, found = names_of(graph), list[int]()
    for (one, head), (other, second) in WAYS:
        first, last = f"a{one}.h{head}", f"a{other}.h{second}"
        found += [names[f"input->{first}<v>"], names[f"{first}->{last}<v>"], names[f"{last}->logits"]]
    return found


def measured(width: int, layers: int, many: int, length: int, folder: Path) -> str:
    """A row of the table."""
    prompts = prompts_on(planted(width, layers, length, folder), many, length)
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()

    def tell(what: str) -> bool:
        print(f"{time.perf_counter() - start:.0f} s: {what}", file=sys.stderr, flush=True)
        return True

    runs = WholeRuns(prompts, np.arange(many))
    scores, kept, _ = METHODS["hybrid"](Asked(runs, 5, tell))
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    order = np.argsort(-np.abs(scores)).tolist()
    ranks = sorted(order.index(edge) + 1 for edge in edges_planted(runs.graph))
    inside = 0 if kept is None else int(kept.sum())
    return (
        f"| {width} | {layers} | {many} × {length} | {len(scores):,} | {', '.join(map(str, ranks))} | {inside} "
        f"| {seconds:.0f} | {used:.0f} | {_peak() - before:,.0f} |"
    )


def _peak() -> float:
    """Megabytes that the process has held at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(sizes: Sequence[tuple[int, int, int, int]] = SIZES) -> None:
    """Measure each size in a process of its own, and print the table."""
    import subprocess
    import tempfile

    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--size", nargs=4, type=int, help="width, layers, prompts and tokens: this row alone")
    asked.add_argument("-o", "--output", type=Path, help="replace the part of this page that is marked `scale`")
    given = asked.parse_args()
    if given.size:
        with tempfile.TemporaryDirectory() as folder:
            width, layers, many, length = given.size
            print(measured(width, layers, many, length, Path(folder)))
        return
    lines = [
        "| width | layers | prompts × tokens | edges | ranks of the planted | in the circuit | seconds | CPU s | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        command = [sys.executable, "-m", "benchmarks.discovery_planted", "--size", *map(str, size)]
        lines.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    print("\n".join(lines))
    if given.output:
        write_part(given.output, "scale", "\n".join(lines))


if __name__ == "__main__":
    main()
