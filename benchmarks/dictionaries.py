"""What features of dictionaries cost beside neurons of the same MLP: edges from them, and knock-outs of them.

    OMP_NUM_THREADS=1 python -m benchmarks.dictionaries -o docs/performance.md     # three CPU minutes

The dictionaries are random transcoders of 16,384 features. What patching costs does not depend on their numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.engine_meter import peak_bytes
from benchmarks.engine_workloads import END, Workload, on, random_weights
from benchmarks.marked import write_part
from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import ERROR, Edge, Input, Node, Site
from circuitdsl.dictionaries import read_dictionary
from circuitdsl.engine.experiment import Experiment, Readout
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import run
from circuitdsl.engine.tally import Tally
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer

PROMPTS, SENDERS, REPEATS, FEATURES, AIM = 32, 48, 3, 2**14, 1.3
LAYERS = {"pocket": 1, "gpt2-small": 5}
HEADER = (
    "| model | what | block-positions | neurons | features | ratio | aim | runs: neurons | features "
    "| of a top-k | with the error |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Cost:
    """What measuring takes: whole runs, then patches, in CPU seconds; block-positions; the peak of memory in bytes."""

    runs: float
    patches: float
    block_positions: int
    peak: int

    def __str__(self) -> str:
        return f"{self.runs:.2f} s, {self.peak / 1e6:.0f} MB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    given, rows = parser.parse_args(arguments), [HEADER]
    for shape in LAYERS:
        with tempfile.TemporaryDirectory() as folder:
            for row in of_model(shape, Path(folder)):
                print(row, flush=True)
                rows.append(row)
    if given.output:
        write_part(given.output, "dictionaries", "\n".join(rows))


def of_model(shape: str, folder: Path) -> Iterator[str]:
    """The rows of a model."""
    named = shape if shape == "pocket" else str(random_weights(shape, folder))
    model, layer = load_model(named, device="cpu"), LAYERS[shape]
    mlp = Node("mlp", layer)
    plain, top = (
        read_dictionary(str(written(folder / kind, model.d_model, layer, kind))) for kind in ("transcoder", "topk")
    )
    some = range(SENDERS)
    sets = {
        "neurons": [mlp._replace(index=i) for i in some],
        "features": [feature("t", plain, i) for i in some],
        "of a top-k": [feature("k", top, i) for i in some],
        "with the error": [feature("t", plain, i) for i in (*some[1:], ERROR)],
    }
    for what in ("edges", "knock-outs"):
        found = {}
        for name, nodes in sets.items():
            into = edges(model, nodes)
            load = on(model, into, PROMPTS)
            single = [Experiment(frozenset([edge])) for edge in into]
            out = [Experiment(sites=frozenset([Site(node, END)])) for node in nodes]
            experiments = single if what == "edges" else out
            found[name] = cost(load, model, experiments, nodes)
        a, b = found["neurons"], found["features"]
        each = [f"{1e3 * of.patches / len(experiments) / PROMPTS:.3f}" for of in (a, b)]
        said = f"{len(experiments)} {what} at END" + (f" of {SENDERS} senders" if what == "edges" else "")
        counted = f"{a.block_positions}, {b.block_positions}"
        figures = [counted, *each, f"{b.patches / a.patches:.2f}", f"≤ {AIM}", *map(str, found.values())]
        yield f"| {shape} | {said} | {' | '.join(figures)} |"


def written(folder: Path, d: int, layer: int, architecture: str) -> Path:
    """A random dictionary of an MLP, as SAELens writes it."""
    folder.mkdir()
    draw, at = torch.Generator().manual_seed(0), f"blocks.{layer}.hook_mlp_out"
    shapes = {"W_enc": (d, FEATURES), "W_dec": (FEATURES, d), "b_enc": (FEATURES,), "b_dec": (d,)}
    hooks = {"hook_name": f"blocks.{layer}.ln2.hook_normalized", "hook_name_out": at}
    hooks = hooks if architecture == "transcoder" else {"hook_name": at}
    config = {"architecture": architecture, "d_in": d, "d_sae": FEATURES, "k": 64, "apply_b_dec_to_input": False}
    (folder / "cfg.json").write_text(json.dumps({**config, "metadata": {"sae_lens_version": "6.0.0", **hooks}}))
    tensors = {name: torch.randn(shape, generator=draw) / d**0.5 for name, shape in shapes.items()}
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


def edges(model: Transformer, senders: Sequence[Node]) -> list[Edge]:
    """From each sender into the query of a head of each later layer, at END."""
    layers = range(senders[0].layer + 1, model.n_layers)
    return [Edge(sender, Input(Node("head", layer, 0), "q"), END) for sender in senders for layer in layers]


def cost(load: Workload, model: Transformer, experiments: Sequence[Experiment], nodes: Sequence[Node]) -> Cost:
    """What experiments take on runs that hold some nodes; medians, after one round of which the peak is taken."""
    readout = Readout(load.answers)

    def once(tally: Tally) -> tuple[float, float]:
        start = time.process_time()
        runs = run(model, load.clean, load.corrupt, neurons=nodes)
        middle = time.process_time()
        effects(runs, experiments, load.positions, readout, tally=tally)
        return middle - start, time.process_time() - middle

    tally = Tally()
    peak = peak_bytes(torch.device("cpu"), lambda: once(tally))
    taken = [once(Tally()) for _ in range(REPEATS)]
    runs, patches = (statistics.median(each) for each in zip(*taken, strict=True))
    return Cost(runs, patches, tally.block_positions, peak)


if __name__ == "__main__":
    main()
