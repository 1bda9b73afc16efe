"""What measuring plans runs, counted from prompts and shapes alone; one layer is timed to make seconds of it.

Counts follow `verify`: behaviour and nulls first, then looks at more and more prompts. How many looks a claim needs is
known only once it is measured, so that work is a range: the first look, and all prompts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.criteria import NULL_PROMPTS
from circuitdsl.circuit.nodes import Node
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.batch_index import Where, all_names
from circuitdsl.engine.batch_index import plan as sorted_out
from circuitdsl.engine.batches import entries
from circuitdsl.engine.circuit_alone import grouped
from circuitdsl.engine.circuit_alone import work as work_alone
from circuitdsl.engine.count import Machine, floor_by_prompt
from circuitdsl.engine.ends import tokens_of
from circuitdsl.engine.experiment import Experiment, experiment_of
from circuitdsl.engine.memory import (
    BATCH,
    CHUNK,
    allowed,
    in_parts,
    kept_bytes,
    prompt_bytes,
    prompts_at_once,
    refuse_too_little,
)
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.runs import first_difference
from circuitdsl.engine.via_mlps import passing, wanted
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.measurements.requests import ChangedRequest, Request, Subgraph
from circuitdsl.models.outline import products
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.early_looks import early_looks
from circuitdsl.verify.measure import by_prompts, having
from circuitdsl.verify.plan import plan as plans_of
from circuitdsl.verify.plan import shape_of
from circuitdsl.verify.prompts import MEAN_PROMPTS

#: what weighing one claim takes, in layers of a plain run on one token
_WEIGHING = 200


@dataclass(frozen=True, slots=True)
class Work:
    """Counted work.

    Attributes:
        block_positions: blocks recomputed downstream of patches, at one position of one run each.
        flow_positions: MLPs computed for edges via MLPs, at one position each.
        run_tokens: tokens that go through the whole model: clean and corrupt runs, and runs for means.
        passes: live passes, and whole runs, each of them many small operations a layer.
    """

    block_positions: int = 0
    flow_positions: int = 0
    run_tokens: int = 0
    passes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class TaskWork:
    """What one task of a circuit takes.

    Attributes:
        looks: prompts measured at each look.
        tokens: the shortest and the longest prompt.
        claims: claims that are checked on the task.
        requests: what these ask for, every claim counted alone.
        experiments: distinct patches among that, after merging over claims.
        nulls: distinct patches of matched random edges and nodes.
        reads: distinct readings of attention in the clean run.
        least, most: work if every claim is decided at the first look, and if one needs all prompts.
        uncounted: traces, and scores on random tokens, which make runs of their own that this count leaves out.
        ranked: claims about a rank among random circuits, of which the first round alone is counted.
        measurements: distinct requests, nulls included.
        new: those of them that some prompt of the first look is not known of; `anew` is the work that they take there.
    """

    task: str
    prompts: int
    looks: tuple[int, ...]
    tokens: tuple[int, int]
    claims: int
    requests: int
    experiments: int
    nulls: int
    reads: int
    least: Work
    most: Work
    uncounted: int = 0
    ranked: int = 0
    measurements: int = 0
    new: int = 0
    anew: Work = Work()


def workload(
    circuit: Circuit,
    model: Transformer,
    datasets: Mapping[str, Dataset],
    early_stop: bool = True,
    max_memory: int | None = None,
) -> tuple[TaskWork, ...]:
    """What `verify` would run for each task.

    Args:
        model: only its shape is looked at.
        datasets: the prompts of each task, by its name in the spec.
        max_memory: bytes that measuring may take beside the model.

    Raises:
        UserError: that is too little for a single prompt.
    """
    return work_of(plans_of(circuit, shape_of(model)), model, datasets, circuit.metric, early_stop, max_memory)


def work_of(
    plans: Sequence[ClaimPlan],
    model: Transformer,
    datasets: Mapping[str, Dataset],
    metric: Metric,
    early_stop: bool = True,
    max_memory: int | None = None,
    known: Mapping[str, Memory] | None = None,
    device: str = "cpu",
) -> tuple[TaskWork, ...]:
    """What measuring some plans runs for each task; other arguments and errors are those of `workload`.

    Args:
        known: what earlier runs have measured, by task.
        device: where it would run, `cpu` or `cuda`: the looks depend on it.
    """
    tasks = {name: _Prompts(model, data, max_memory, device) for name, data in datasets.items()}
    return tuple(
        _task_work([p for p in plans if p.task == name], prompts, name, metric, early_stop, (known or {}).get(name))
        for name, prompts in tasks.items()
    )


@dataclass(frozen=True, slots=True)
class _Prompts:
    """The prompts of one task on a model, and the memory that they may take."""

    model: Transformer
    data: Dataset
    max_memory: int | None
    device: str

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray([len(self.data.pairs[i].clean_tokens) for i in indices])

    def parts(self, indices: np.ndarray, twice: bool = False) -> list[np.ndarray]:
        """Prompts of one length, as many at a time as are measured together."""
        return [indices[places] for places in in_parts(self.model, self.lengths(indices), self.max_memory, twice)]


def _task_work(
    plans: Sequence[ClaimPlan],
    prompts: _Prompts,
    name: str,
    metric: Metric,
    early_stop: bool,
    known: Memory | None,
) -> TaskWork:
    data, everything = prompts.data, np.arange(len(prompts.data.pairs))
    lengths = prompts.lengths(everything)
    refuse_too_little(prompts.model, int(lengths.max()), prompts.max_memory)
    asked = [request for p in plans for request in p.requests]
    requests = _as_run(asked, metric)
    patches = [request for request in requests if request.scored]
    looks = early_looks(plans, data.pairs, prompts.model, prompts.device, early_stop)
    # the nulls' patches, on the first prompts of each claim that has a null; the same prompts go together
    nulls = by_prompts((having(data, p.requests)[:NULL_PROMPTS], p.null_requests) for p in plans)
    first = [_measuring(prompts, own, indices) for indices, own in nulls]
    start = sum(first, _runs(prompts, prompts.parts(everything)))
    if any(request.uses_means for request in patches):
        length = float(np.mean([len(pair.corrupt_tokens) for pair in data.pairs]))
        count = max(MEAN_PROMPTS, len(data.pairs))
        start += Work(run_tokens=round(count * length), passes=-(-count // CHUNK))
    steps = [_measuring(prompts, requests, everything[a:b]) for a, b in zip((0, *looks), looks, strict=False)]
    # on what the first look measures, and on what it does not know
    groups = by_prompts((everything[: looks[0]], p.asked) for p in plans if len(having(data, p.requests)))
    wanted = [(ids, [r for r in own if r.needs_runs]) for ids, own in (*nulls, *groups)]
    lacking = [(ids, list(_unknown(own, ids, known))) for ids, own in wanted]
    return TaskWork(
        task=name,
        prompts=len(data.pairs),
        looks=looks,
        tokens=(int(lengths.min()), int(lengths.max())),
        claims=len(plans),
        requests=len(asked),
        experiments=len({experiment_of(r) for r in patches}),
        nulls=len({experiment_of(r) for p in plans for part in p.parts for r in part.null}),
        reads=sum(request.reads_attention for request in requests),
        uncounted=sum(not request.on_runs for request in requests),
        ranked=sum(part.peers is not None for p in plans for part in p.parts),
        least=start + steps[0],
        most=sum(steps, start),
        measurements=len({request for _, own in wanted for request in own}),
        new=len({request for _, own in lacking for request in own}),
        anew=sum((_measuring(prompts, _as_run(own, metric), ids) for ids, own in lacking), Work()),
    )


def _as_run(requests: Sequence[Request], metric: Metric) -> list[Request]:
    """Distinct requests as they run: the task's metric under a condition is what the condition's own patch gives."""
    under = {r: r.under if r.together == (metric,) else None for r in requests}
    return [request if patch is None else patch for request, patch in under.items()]


def _unknown(requests: Sequence[Request], indices: np.ndarray, known: Memory | None) -> Iterator[Request]:
    """The requests of which some of these prompts is not known."""
    if known is None:
        yield from requests
        return
    for request, _, _, there in known.read(requests, indices):
        if not there.all():
            yield request


def _runs(prompts: _Prompts, parts: Sequence[np.ndarray], times: int = 2) -> Work:
    """Whole runs of some prompts: the clean and the corrupt one, or more of them."""
    tokens = sum(int(prompts.lengths(part).sum()) for part in parts)
    return Work(run_tokens=times * tokens, passes=times * len(parts))


def _measuring(prompts: _Prompts, requests: Sequence[Request], indices: np.ndarray) -> Work:
    """One call of `measure`: the runs of its prompts, and every distinct patch on them."""
    if not any(request.needs_runs for request in requests):
        return Work()
    parts = prompts.parts(indices, any(request.runs_twice for request in requests))
    swapped = any(patch.direction == "denoise" for request in requests for patch in request.patches)
    changed = {request.intervention for request in requests if isinstance(request, ChangedRequest)}
    runs = _runs(prompts, parts, 2 + 2 * swapped + len(changed))
    return sum((_on_part(prompts, requests, part) for part in parts), runs)


def _on_part(prompts: _Prompts, requests: Sequence[Request], part: np.ndarray) -> Work:
    """What runs in batches, on prompts of one length."""
    model, pairs = prompts.model, [prompts.data.pairs[i] for i in part]
    clean, corrupt = (tokens_of(pairs, side) for side in ("clean_tokens", "corrupt_tokens"))
    circuits = dict.fromkeys(request for request in requests if isinstance(request, Subgraph))
    placed = (*circuits, *(request for request in requests if request.patches))
    names = dict.fromkeys(p for request in placed for p in request.positions)
    places = {p: token_indices(pairs, [p]) for p in names}
    where = Where.of(places, len(pairs), clean.shape[1], first_difference(clean, corrupt))
    together = grouped(circuits)
    alone = sum(len(group) * int(work_alone(model, where, group[0]).sum()) for group in together)
    work = Work(block_positions=alone, passes=len(together))
    # distinct patches that run together, each with how many layers have MLPs that matter to what is looked at
    groups: dict[tuple[Hashable, str], dict[Experiment, int]] = {}
    for request in requests:
        if request.patches:
            experiment = experiment_of(request)
            group = groups.setdefault((request.together, experiment.direction), {})
            group[experiment] = max(request.layers(model.n_layers), group.get(experiment, 0))
    return sum((_patching(model, list(group), where, max(group.values())) for group in groups.values()), work)


def _patching(model: Transformer, experiments: Sequence[Experiment], where: Where, layers: int) -> Work:
    """Distinct patches of one direction on prompts of one length, followed through the MLPs of some layers."""
    plans = [sorted_out(experiment, model) for experiment in experiments]
    flow = 0
    for route, stages in wanted(plans).items():
        points = where.mask(all_names(route.senders), any(one.fixed for one in plans))
        for mlp in (Node("mlp", layer) for layer in range(model.n_layers)):
            if route.first < mlp.stage(model.parallel) < max(stages):
                flow += int((passing(where, route, mlp) & points).sum())
    return Work(
        block_positions=sum(int(floor_by_prompt(model, e, where, layers).sum()) for e in experiments),
        flow_positions=flow,
        passes=sum(1 for _ in entries(plans, where, model.n_layers)),
    )


def seconds(model: Transformer, task: TaskWork, work: Work, machine: Machine, weighing: float = _WEIGHING) -> float:
    """An estimate of the time that work takes: of measuring and weighing, without loading and making prompts.

    `weighing` is what weighing one claim takes, in layers of a plain run on one token.
    """
    block = products(model.blocks[0])
    positions = work.block_positions + work.run_tokens * model.n_layers
    mlps = work.flow_positions * products(model.blocks[0].mlp) / block
    return machine.seconds(positions + mlps, work.passes, model.n_layers) + task.claims * weighing * machine.layer


def memory(model: Transformer, work: Sequence[TaskWork], device: torch.device, max_memory: int | None = None) -> int:
    """Bytes that measuring takes at the most, weights aside: runs of prompts, and one batch of patched runs.

    Counts activations only; a Python process with torch and transformers takes about half a gigabyte besides.
    """
    together = [min(prompts_at_once(model, t.tokens[1], max_memory), t.prompts) for t in work]
    most = [n * prompt_bytes(model, t.tokens[1]) for n, t in zip(together, work, strict=True)]
    return max(most, default=0) + int(allowed(device, max_memory) * BATCH) + kept_bytes(device, max_memory)
