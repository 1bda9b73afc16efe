"""The effects that patching really has, prompt by prompt: what verdicts are calibrated on.

    OMP_NUM_THREADS=1 python -m benchmarks.populations                 # 20 000 prompts a task, about half an hour
    OMP_NUM_THREADS=1 python -m benchmarks.populations --prompts 2000  # a look
    python -m benchmarks.populations --fixture tests/fixtures/skewed.npz  # from the files made before: see `compact`

For every task of the pocket model: random edges of every kind of sender and input, edges and nodes that are denoised,
knock-outs, and attention, each on all prompts and by every metric. Effects that are the same on every prompt are left
out. `benchmarks/rates.py` draws samples of them and counts wrong verdicts.

One compressed file a task, in `--out` (default: `populations/` beside this file, which git ignores), with the arrays

    names, forms [k]      what was patched; edge, knockout or denoise
    strata [n]            the stratum of each prompt, in the order drawn
    M/clean, M/corrupt    the metric M of the unpatched runs [n]
    M/change              patched - clean, or patched - corrupt for denoise [k, n], in half precision
    looks [a]             which head's attention, from where to where
    attention             the attention itself [a, n]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Input, Node, Port, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.discover.places import END, places
from circuitdsl.engine.experiment import Readout, experiment_of
from circuitdsl.engine.memory import vocabulary_rows
from circuitdsl.engine.metrics import Scorer
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Batch, Prompts
from circuitdsl.engine.readers import attention
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, Request, kept_for
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import SHIPPED
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.anew import _alike, _runs, parts_of
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import scored_prompts

METRICS = ("logit_diff", "prob_diff", "logprob", "accuracy", "kl")
TASKS = ("ioi", "colored_objects", "greater_than", "induction", "laundry_list")
FOLDER = Path(__file__).parent / "populations"
#: seeds of specs are small; a population shares no prompt stream with them
SEED = 777_000
COUNTS = {"edge": 60, "denoise": 14, "knockout": 20, "attention": 12}
#: prompts of the file for the tests
FIXTURE = 20_000
#: prompts that tell whether a patch does anything
FEW = 64
#: patches that change the metric by less of the gap than this on all of them are of no interest
LEAST = 0.005
PORTS: tuple[Port, ...] = ("q", "k", "v")
Patch = EdgeRequest | NodeRequest
#: effects that the documentation tells of
NAMED: dict[str, tuple[Patch, ...]] = {
    "ioi": (
        EdgeRequest((Edge(EMBED, Input(Node("head", 0, 6), "v"), Position("S2")),)),
        NodeRequest((Site(Node("head", 0, 3), EVERYWHERE),)),
    )
}


def everywhere(bench: Prompts) -> list[Position]:
    """The positions that every prompt has."""
    return [place for place in places(bench) if all(indices_of(pair, place) for pair in bench.pairs)]


def candidates(model: Transformer, where: Sequence[Position], form: str, rng: random.Random) -> Iterator[Request]:
    """Random requests of one form, without end."""
    heads = [Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    mlps = [Node("mlp", layer) for layer in range(model.n_layers)]
    inputs = [*(Input(head, port) for head in heads for port in PORTS), *(Input(mlp, "in") for mlp in mlps)]
    while True:
        receiver = Input(LOGITS, "in") if rng.random() < 0.25 else rng.choice(inputs)
        senders = [n for n in (EMBED, *heads, *mlps) if n.stage() < receiver.node.stage()]
        place = END if receiver.node == LOGITS else rng.choice(where)
        edges = (Edge(rng.choice(senders), receiver, place),)
        sites = (Site(rng.choice([*heads, *heads, *mlps]), rng.choice([*where, EVERYWHERE])),)
        if form == "edge":
            yield EdgeRequest(edges)
        elif form == "knockout":
            yield NodeRequest(sites)
        elif form == "denoise" and rng.random() < 0.5:
            yield EdgeRequest(edges, direction="denoise")
        elif form == "denoise":
            yield NodeRequest(sites, direction="denoise")
        else:
            yield Attention((rng.choice(heads),), (END,), (rng.choice(where),))


def chosen(model: Transformer, task: str, few: Prompts) -> dict[str, list[Request]]:
    """The requests of a task by form: those that some prompt of a few tells from nothing, and those known by name."""
    rng, where = random.Random(f"{task}/{SEED}"), everywhere(few)
    found: dict[str, list[Request]] = {form: [] for form in COUNTS}
    for request in NAMED.get(task, ()):
        found["edge" if isinstance(request, EdgeRequest) else "knockout"].append(request)
    for form, count in COUNTS.items():
        drawn = list(dict.fromkeys(islice(candidates(model, where, form, rng), 4 * count)))
        moving = drawn if form == "attention" else _moving(few, drawn)
        found[form] += [request for request in moving if request not in found[form]][: count - len(found[form])]
    return found


def _moving(few: Prompts, requests: Sequence[Request]) -> list[Request]:
    """The patches that change the metric by more than half a per cent of the gap on some prompt."""
    series = measure(few, requests, np.arange(len(few.pairs)))
    base, gap = {"noise": few.clean, "denoise": few.corrupt}, float(np.mean(few.clean - few.corrupt))
    patches = [r for r in requests if isinstance(r, Patch)]
    return [r for r in patches if np.abs(series[r].values - base[r.direction]).max() > LEAST * abs(gap)]


def every_metric(scorers: Sequence[Scorer], places: Tensor, at_once: int) -> Readout:
    """All metrics of a run at once, each scored as verification scores it."""

    def one(score: Scorer, rows: Tensor, prompts: Tensor) -> Tensor:
        return score.score(rows if score.ids is None else rows.gather(1, score.ids[prompts]), prompts)

    return Readout(
        reduce=lambda rows, prompts: torch.stack([one(score, rows, places[prompts]) for score in scorers], -1),
        at_once=at_once,
    )


def population(model: Transformer, task: str, prompts: int) -> dict[str, np.ndarray]:
    """Everything that the file of a task holds."""
    tokens = Tokens(model.tokenizer, model.name)
    data = sample(SHIPPED[task], tokens, prompts, SEED)
    benches = {name: scored_prompts(model, data, Metric(name)) for name in METRICS}
    first = next(iter(benches.values()))
    few = scored_prompts(model, replace(data, pairs=data.pairs[:FEW]), Metric())
    forms = chosen(model, task, few)
    patched = [r for requests in forms.values() for r in requests if isinstance(r, Patch)]
    watched = [request for request in forms["attention"] if isinstance(request, Attention)]
    scorers = [each.scorer_of(each.metric) for each in benches.values()]
    values = np.zeros((len(METRICS), len(patched), prompts), np.float32)
    looked = np.zeros((len(watched), prompts), np.float32)
    experiments = [experiment_of(request) for request in patched]
    start, done = time.perf_counter(), 0
    kept = kept_for([*patched, *watched], model.n_layers)
    for _, part in parts_of(first, np.arange(prompts), patched):
        for some in (part[alike] for alike in _alike(first, part)):
            batch = Batch(first, _runs(first, some, kept, False), some)
            readout = every_metric(scorers, torch.as_tensor(some), vocabulary_rows(model, None))
            found = effects(batch.runs, experiments, batch.places(patched), readout)
            values[:, :, some] = found.permute(2, 0, 1).cpu().numpy()
            seen = attention.read(batch, watched)
            for i, request in enumerate(watched):
                looked[i, some] = seen[request].values
        done += len(part)
        seconds = time.perf_counter() - start
        print(
            f"{task}: {done} of {prompts} prompts, {seconds:.0f} of about {seconds * prompts / done:.0f} s", flush=True
        )
    content: dict[str, np.ndarray] = {
        "names": np.array([f"{experiment_of(request)} {request.direction}" for request in patched]),
        "forms": np.array([form for form in COUNTS if form != "attention" for _ in forms[form]]),
        "looks": np.array([f"{r.heads[0]}, {r.source[0]} -> {r.target[0]}" for r in watched]),
        "attention": looked,
        "strata": np.unique(first.strata, return_inverse=True)[1].astype(np.int16),
    }
    denoised = np.array([request.direction == "denoise" for request in patched])[:, None]
    for i, (name, each) in enumerate(benches.items()):
        base = np.where(denoised, each.corrupt, each.clean)
        content |= {
            f"{name}/clean": each.clean.astype(np.float32),
            f"{name}/corrupt": each.corrupt.astype(np.float32),
            f"{name}/change": (values[i] - base).astype(np.float16),
        }
    return content


def compact(content: Mapping[str, np.ndarray], prompts: int) -> dict[str, np.ndarray]:
    """What the tests draw from: prob_diff on the first prompts of ioi, with the effects known by name and the largest.

    Arrays as in a whole file, in half precision.
    """
    change = content["prob_diff/change"].astype(float)
    known = [str(experiment_of(r)) + f" {r.direction}" for r in NAMED["ioi"]]
    named = [i for i, name in enumerate(content["names"]) if name in known]
    noised = np.flatnonzero(content["forms"] != "denoise")
    largest = [int(i) for i in noised[np.argsort(change[noised].mean(1))] if i not in named]
    rows = [*named, *largest[:3]]
    return {
        "names": content["names"][rows],
        "strata": content["strata"][:prompts].astype(np.int8),
        "clean": content["prob_diff/clean"][:prompts].astype(np.float16),
        "corrupt": content["prob_diff/corrupt"][:prompts].astype(np.float16),
        "change": content["prob_diff/change"][rows, :prompts],
    }


def main() -> None:
    """Make the populations that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--fixture", type=Path, help="make this file of the one of ioi, and no other")
    given = parser.parse_args()
    if given.fixture:
        np.savez_compressed(given.fixture, **compact(np.load(given.out / "ioi.npz"), FIXTURE))  # type: ignore[arg-type]
        return
    model = load_model("pocket")
    given.out.mkdir(parents=True, exist_ok=True)
    for task in given.tasks:
        content = population(model, task, given.prompts)
        part = given.out / f"{task}.part.npz"
        np.savez_compressed(part, **content)  # type: ignore[arg-type]
        part.rename(given.out / f"{task}.npz")
        print(f"{task}: {len(content['names'])} effects, {(given.out / f'{task}.npz').stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
