"""What patching an edge costs: ours, TransformerLens' own path patching, plain hooks, and the floor, in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.engine -o docs/performance.md     # ten CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.engine --quick                    # a small model, under a minute
    python -m benchmarks.engine --device cuda --model-shape llama-8b --dtype bfloat16

W1: every head to head edge of a 4-layer model. W2: q edges at END, as in IOI. W3: k and v edges at S2. W4: edges all
over the model, at all positions. W5: every measurement of a shipped spec with its nulls. Models have random weights of
a published shape; the cost does not depend on the values. Every number that a peer computes is compared with ours.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import engine_statistics
from benchmarks import engine_workloads as workloads
from benchmarks.engine_floor import Rates, needed
from benchmarks.engine_meter import clock_of, median_seconds, peak_bytes
from benchmarks.engine_page import Edited, Growth, Machine, Page, Precision, Row, Spec, write
from benchmarks.engine_peers import Hooks, Peer, TransformerLens
from benchmarks.engine_workloads import Workload
from benchmarks.marked import write_part
from circuitdsl import api
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.experiment import Readout
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.runs import Runs, baseline, run
from circuitdsl.engine.tally import Tally
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.measurements.requests import Request
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import PORTS, Transformer
from circuitdsl.verdict.weighing import NULL_PROMPTS
from circuitdsl.verify.anew import measure_anew
from circuitdsl.verify.measure import measure
from circuitdsl.verify.plan import plan
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.store import Store

#: how far a peer's logits may be from ours in single precision, and as a share of the largest effect of a patch
EXACT = 1e-4
AGREE = {"float32": 1e-2, "bfloat16": 0.3, "float16": 0.1}
#: one-line edits of the IOI specs: pattern and replacement
EDITS = {
    "a bound": (r"(inhibition +-> mover\.q +at END +:) lowers", r"\1 effect <= -10%"),
    "an edge": (r"(inhibition +-> )mover(\.q +at END +:)", r"\1negative\2"),
}


@dataclass(frozen=True)
class Setting:
    """One model and how it is measured."""

    model: Transformer
    path: Path
    repeats: int
    n: int
    length: int
    dtype: str
    peers: Sequence[Peer] = ()
    rates: dict[int, Rates] = field(default_factory=dict)

    @property
    def clock(self) -> Callable[[], float]:
        return clock_of(self.model.device)

    def floor(self, load: Workload) -> float:
        """Seconds that the arithmetic of a workload takes at the measured rates."""
        return self.rates.setdefault(0, Rates(self.model, self.clock)).seconds(needed(self.model, load))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the page, and write it where asked."""
    given = _options().parse_args(arguments)
    shape = "tiny" if given.quick else given.model_shape
    with tempfile.TemporaryDirectory() as folder:
        page = Page(
            machine=Machine.here(given.device),
            shape=shape,
            dtype=given.dtype,
            quick=given.quick,
            command=_command(given),
            repeats=given.repeats,
        )
        for section in _sections(page, folder, shape, given):
            print(f"{section} done", file=sys.stderr, flush=True)
            if given.output and page.rows:
                write_part(given.output, "engine", write(page))
    print(write(page))


def _sections(page: Page, folder: str, shape: str, given: argparse.Namespace) -> Iterator[str]:
    """Fill the page, part by part."""
    tiny = _setting("tiny", folder, given, n=8, length=16, repeats=given.repeats)
    page.rows.append(_row(tiny, workloads.all_heads(tiny.model, tiny.n, tiny.length), peer_edges=20))
    yield "W1"
    page.precision += list(_precision(given.device))
    if given.device == "cpu" and given.dtype == "float32":
        page.statistics += engine_statistics.measured(given.repeats)
        yield "statistics"
    big = tiny if given.quick else _setting(shape, folder, given, given.prompts, given.tokens, given.repeats)
    for row in _edges(big, given.quick):
        page.rows.append(row)
        page.rates.update(big.rates[0].known)
        yield row.name
    if big.model.family == "gpt2" and not given.quick:
        page.spec = _whole_spec(big)
        yield "W5"
    for growth in _growth(big, given.quick):
        page.growth.append(growth)
        yield growth.what


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small model alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=list(AGREE))
    parser.add_argument("--model-shape", default="gpt2-small", choices=list(workloads.SHAPES))
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=20, help="tokens in each prompt")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median is taken")
    parser.add_argument("-o", "--output", type=Path, help="replace the part of this page that is marked `engine`")
    return parser


def _command(given: argparse.Namespace) -> str:
    changed = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in vars(given).items()
        if value != _options().get_default(name) and name != "output"
    ]
    return " ".join(["python -m benchmarks.engine", *changed])


def _setting(shape: str, folder: str, given: argparse.Namespace, n: int, length: int, repeats: int) -> Setting:
    path = workloads.random_weights(shape, Path(folder), getattr(torch, given.dtype))
    model = load_model(path, device=given.device, dtype=given.dtype)
    peers: list[Peer] = []
    if model.family == "gpt2":
        peers = [TransformerLens(path, model.device, given.dtype), Hooks(path, model.device, model.dtype)]
    return Setting(model, path, repeats, n, length, given.dtype, peers)


# --- one workload -----------------------------------------------------------------------------------


def _edges(at: Setting, quick: bool) -> Iterator[Row]:
    """W2, W3 and W4."""
    if not quick:
        yield _row(at, workloads.queries_at_end(at.model, 52, at.n, at.length))
        yield _row(at, workloads.queries_at_end(at.model, 1000, at.n, at.length), peers=False)
        yield _row(at, workloads.keys_and_values_at_s2(at.model, at.n, at.length))
    yield _row(at, workloads.anywhere(at.model, 52, at.n, at.length))


def _row(at: Setting, load: Workload, peer_edges: int = 5, peers: bool = True) -> Row:
    """A workload by everybody."""
    model = at.model
    caches, runs = median_seconds(at.clock, lambda: run(model, load.clean, load.corrupt), at.repeats)
    ours, found = median_seconds(at.clock, lambda: _patch(model, runs, load), at.repeats)
    unpatched = baseline(model, runs.clean, Readout(load.answers.to(model.device)))
    tally = Tally()
    peak = peak_bytes(model.device, lambda: _patch(model, run(model, load.clean, load.corrupt), load, tally))
    row = Row(
        name=load.name,
        says=load.says,
        edges=len(load.edges),
        prompts=load.n,
        tokens=load.length,
        ours=ours,
        caches=caches,
        floor=at.floor(load),
        block_positions=tally.block_positions,
        peak=peak,
    )
    for peer in at.peers if peers else ():
        row.peers[peer.name] = _peer(at, peer, load, unpatched, found, peer_edges)
    return row


def _patch(model: Transformer, runs: Runs, load: Workload, tally: Tally | None = None) -> torch.Tensor:
    return effects(runs, load.experiments, load.positions, Readout(load.answers.to(model.device)), tally=tally)


def _peer(
    at: Setting, peer: Peer, load: Workload, unpatched: torch.Tensor, ours: torch.Tensor, count: int
) -> tuple[float, float, float, int]:
    """Seconds an edge (median), seconds for the clean and corrupt passes, relative difference, edges timed."""
    start = at.clock()
    peer.prepare(load)
    caches = at.clock() - start
    peer.times.clear()
    worst = 0.0
    heads = at.model.n_heads
    # their sweep starts at the layer after the sender's, so the nearest receivers cost the fewest forwards
    order = sorted(
        range(len(load.edges)),
        key=lambda i: (
            (load.edges[i].receiver.node.layer - load.edges[i].sender.layer) * heads + load.edges[i].receiver.node.head
        ),
    )
    for i in order:
        worst = max(worst, float((peer.edge(load, load.edges[i]).float() - ours[i]).abs().max()))
        if len(peer.times) >= count:
            break
    exact = at.dtype != "float32" or worst <= EXACT
    worst /= float((ours - unpatched).abs().max())
    if not (exact and worst <= AGREE[at.dtype]):
        raise SystemExit(f"{load.name}: {peer.name} and ours differ by {worst:.1e} of the effect: one of them is wrong")
    return statistics.median(peer.times), caches, worst, len(peer.times)


# --- growth -----------------------------------------------------------------------------------------


def _growth(at: Setting, quick: bool) -> Iterator[Growth]:
    """How the cost of an edge and prompt changes with one thing at a time."""
    model, n, length = at.model, at.n, at.length
    if not quick:
        sizes = (13, 52, 208)
        yield _grown(at, "edges (W2)", sizes, lambda k: workloads.queries_at_end(model, k, n, length))
        counts = (8, 32, 128)
        yield _grown(at, "prompts (W2)", counts, lambda k: workloads.queries_at_end(model, 52, k, length))
        lengths = (16, 32, 64)
        yield _grown(at, "tokens (W2)", lengths, lambda k: workloads.queries_at_end(model, 52, n, k))
        yield _grown(at, "tokens (W3)", lengths[:2], lambda k: workloads.keys_and_values_at_s2(model, n, k))
    layers = range(1, model.n_layers, max(1, model.n_layers // 4))
    above = [model.n_layers - layer for layer in layers][::-1]
    yield _grown(
        at,
        "layers recomputed",
        above,
        lambda k: workloads.into_layer(model, model.n_layers - k, n, length),
    )


def _grown(at: Setting, what: str, steps: Sequence[int], make: Callable[[int], Workload]) -> Growth:
    cells = []
    for step in steps:
        load = make(step)
        runs = run(at.model, load.clean, load.corrupt)
        seconds, _ = median_seconds(at.clock, partial(_patch, at.model, runs, load), 1)
        cells.append((step, seconds / len(load.edges) / load.n, seconds / at.floor(load)))
    return Growth(what, tuple(cells))


# --- W5 ---------------------------------------------------------------------------------------------


def _whole_spec(at: Setting) -> Spec | None:
    """W5: what verifying a shipped spec measures when no claim stops early: every request on all of its prompts.

    Random weights have no gap, at which verification would stop with an error; so the claims are planned and measured
    and not judged. Nulls are measured on as many prompts as verification takes. Then the spec is edited, a line at a
    time, and measured again with what the first time has left in the cache.
    """
    name = {"gpt2-small": "gpt2-small/ioi", "gpt2-medium": "gpt2-medium/ioi"}.get(at.path.name)
    if name is None or at.model.tokenizer is None:
        return None
    text = api.find_spec(name).read_text()
    first, edits = _edited(at, text, None)
    return Spec(
        name=name,
        claims=len(first.plans),
        requests=len(first.requests),
        nulls=len(first.nulls),
        prompts=len(first.bench.pairs),
        prepared=first.prepared,
        seconds=first.seconds,
        block_positions=first.work,
        peak=peak_bytes(at.model.device, lambda: measure_anew(first.bench, first.requests[:40], first.looked)),
        edits=[*edits, *_edited(at, text, NULL_PROMPTS)[1]],
    )


def _edited(at: Setting, text: str, n: int | None) -> tuple[Verification, list[Edited]]:
    """Verify a spec on its first prompts, then with one line edited, from what the first time left in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        first = _verification(at, text, Path(folder), n)
        again = {what: _verification(at, re.sub(*edit, text, count=1), Path(folder), n) for what, edit in EDITS.items()}
    return first, [Edited(what, len(one.looked), one.total, first.total, one.work) for what, one in again.items()]


@dataclass(frozen=True)
class Verification:
    """What verifying a spec measured on the prompts it looked at, and the seconds to prepare and to measure."""

    bench: Prompts
    plans: Sequence[ClaimPlan]
    requests: Sequence[Request]
    nulls: Sequence[Request]
    looked: np.ndarray
    prepared: float
    seconds: float

    @property
    def total(self) -> float:
        return self.prepared + self.seconds

    @property
    def work(self) -> int:
        """Block-positions."""
        return self.bench.tally.block_positions + self.bench.tally.flow_positions


def _verification(at: Setting, text: str, cache: Path, n: int | None) -> Verification:
    """Measure what verifying a spec measures on its first `n` prompts, with a cache of earlier measurements."""
    (circuit,) = api.loads(text).circuits
    plans = plan(circuit, ModelShape(at.model.name, at.model.n_layers, at.model.n_heads, at.model.parallel))
    requests = list(dict.fromkeys(r for p in plans for r in p.requests))
    nulls = list(dict.fromkeys(r for p in plans for part in p.parts for r in part.null))
    start = at.clock()
    with Store(cache / "numbers.sqlite") as store:
        (bench,) = prompts_by_task(circuit, at.model, store).values()
        prepared = at.clock()
        looked = np.arange(len(bench.pairs))[:n]
        measure(bench, requests, looked)
        measure(bench, nulls, looked[:NULL_PROMPTS])
    taken = at.clock() - prepared
    return Verification(bench, plans, requests, nulls, looked, prepared - start, taken)


# --- precision --------------------------------------------------------------------------------------


def _precision(device: str) -> Iterator[Precision]:
    """What half precision does to effects on the pocket model, a trained one."""
    from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node

    exact = load_model("pocket", device=device)
    edges = [
        Edge(Node("head", a, i), Input(Node("head", 3, j), port), workloads.END)
        for a in range(3)
        for i in range(exact.n_heads)
        for j in range(exact.n_heads)
        for port in PORTS[::2]
    ]
    edges += [
        Edge(Node("head", a, i), Input(LOGITS, "in"), workloads.END)
        for a in range(exact.n_layers)
        for i in range(exact.n_heads)
    ]
    load = workloads.on(exact, edges, 64)
    first, gap = _differences(exact, load)
    for dtype in ("bfloat16", "float16"):
        found, own = _differences(load_model("pocket", device=device, dtype=dtype), load)
        yield Precision(
            dtype=dtype,
            edges=len(edges),
            prompts=load.n,
            gap=(float(gap.mean()), float(own.mean())),
            per_prompt=float((found - first).abs().max()),
            effect=float((found.mean(1) / own.mean() - first.mean(1) / gap.mean()).abs().max()),
        )


def _differences(model: Transformer, load: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """Logit differences under each patch minus those of the clean prompts, and clean minus corrupt ones."""
    readout = Readout(load.answers.to(model.device))
    runs = run(model, load.clean, load.corrupt)
    clean, corrupt = (-baseline(model, one, readout).diff(dim=-1)[:, 0].cpu() for one in (runs.clean, runs.corrupt))
    return -_patch(model, runs, load).diff(dim=-1)[..., 0].cpu() - clean, clean - corrupt


if __name__ == "__main__":
    main()
