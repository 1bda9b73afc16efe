"""What measuring plans runs, counted from prompts and shapes alone; one layer is timed to make seconds of it.

Counts follow `verify`: behaviour and nulls first, then looks at more and more prompts. How many looks a claim needs is
known only once it is measured, so that work is a range: the first look, and all prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial

import numpy as np

from circuitdsl.circuit.criteria import NULL_PROMPTS
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.along_paths import mlp_positions
from circuitdsl.engine.batch_index import Plan, Where, all_names
from circuitdsl.engine.batch_index import plan as sorted_out
from circuitdsl.engine.batches import entries
from circuitdsl.engine.circuit_alone import grouped
from circuitdsl.engine.circuit_alone import work as work_alone
from circuitdsl.engine.count import Machine, floor_of
from circuitdsl.engine.ends import tokens_of
from circuitdsl.engine.experiment import Experiment, experiment_of
from circuitdsl.engine.memory import (
    CHUNK,
    all_terms,
    batch_bytes,
    prompt_bytes,
    refuse_too_little,
    run_at_once,
)
from circuitdsl.engine.positions import token_indices
from circuitdsl.engine.runs import first_difference
from circuitdsl.engine.via_mlps import passing, wanted
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.measurements.requests import ChangedRequest, Request, Subgraph, kept_for
from circuitdsl.models.outline import products
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.early_looks import early_looks
from circuitdsl.verify.held import PlannedPrompts
from circuitdsl.verify.measure import by_prompts
from circuitdsl.verify.portions import portions
from circuitdsl.verify.prompts import MEAN_PROMPTS
from circuitdsl.verify.samples import asked_of, by_strata

#: bytes of libraries that measuring and weighing import (scipy is half of them), and of records
BASE = 30_000_000
#: what weighing one claim takes, in layers of a plain run on one token: at the least, and more for each prompt
_WEIGHING, _WEIGHING_PROMPT = 5.0, 1 / 16


@dataclass(frozen=True, slots=True)
class Work:
    """Counted work.

    Attributes:
        block_positions: blocks recomputed downstream of patches, at one position of one run each.
        flow_positions: MLPs computed for edges via MLPs, at one position each.
        run_tokens: tokens that go through the whole model: clean and corrupt runs, and runs for means. Of runs that end
            earlier, the same share of the tokens.
        passes: live passes, and whole runs, each of them many small operations a layer.
        batch: bytes that runs on their way, whole ones or a batch of patched ones, take at the most.
    """

    block_positions: int = 0
    flow_positions: int = 0
    run_tokens: int = 0
    passes: int = 0
    batch: int = 0

    def __add__(self, other: Work) -> Work:
        added = Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
        return replace(added, batch=max(self.batch, other.batch))


@dataclass(frozen=True, slots=True)
class TaskWork:
    """What one task of a circuit takes.

    Attributes:
        looks: prompts measured at each look.
        tokens: the shortest and the longest prompt.
        held: bytes of runs that are held at once, at the most, while something is measured: beside those that are kept.
        all_runs: bytes of the runs of all prompts, which are kept from scoring on as far as there is room.
        kept: bytes of those that are. Of several tasks, the runs of the first are kept.
        leftover: bytes that stay where products were made ready.
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
            These three are 0 where nobody asked what is known.
        portions: into how many `least` and `most` are cut (`verify.portions`).
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
    held: int = 0
    all_runs: int = 0
    kept: int = 0
    leftover: int = 0
    portions: tuple[int, int] = (0, 0)


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
    """What measuring some plans runs for each task.

    Args:
        model: only its shape is looked at.
        datasets: the prompts of each task, by its name in the spec.
        max_memory: bytes that measuring may take beside the model.
        known: what earlier runs have measured, by task; where it is given, what is new is counted beside the rest.
        device: where it would run, `cpu` or `cuda`: the looks depend on it.

    Raises:
        UserError: the memory is too little for a single prompt.
    """
    found: list[TaskWork] = []
    for name, data in datasets.items():
        own = [p for p in plans if p.task == name]
        asked = [request for p in own for request in (*p.asked, *p.null_requests)]
        prompts = PlannedPrompts(model, data, max_memory, device, kept_for(asked, model.n_layers), keeps=not found)
        found.append(_task_work(own, prompts, name, metric, early_stop, known))
    return tuple(found)


def _task_work(
    plans: Sequence[ClaimPlan],
    prompts: PlannedPrompts,
    name: str,
    metric: Metric,
    early_stop: bool,
    known: Mapping[str, Memory] | None,
) -> TaskWork:
    data, everything = prompts.data, np.arange(len(prompts.data.pairs))
    lengths = prompts.lengths(everything)
    refuse_too_little(prompts.model, int(lengths.max()), prompts.max_memory)
    wanted = [request for p in plans for request in p.requests]
    requests = _as_run(wanted, metric)
    patches = [request for request in requests if request.scored]
    looks = early_looks(plans, data.pairs, prompts.model, prompts.device, early_stop)
    # the nulls' patches, on the first prompts of each claim that has a null; the same prompts go together
    strata = np.asarray([pair.stratum for pair in data.pairs])
    having = [(mine := prompts.having(p.requests))[asked_of(strata, p)[mine]] for p in plans]
    nulls = by_prompts((mine[:NULL_PROMPTS], p.null_requests) for mine, p in zip(having, plans, strict=True))
    first = [_measuring(prompts, own, indices) for indices, own in nulls]
    start = sum(first, _scoring(prompts))
    if any(request.uses_means for request in patches):
        count = max(MEAN_PROMPTS, len(data.pairs))
        start += Work(run_tokens=round(count * float(np.mean(lengths))), passes=-(-count // CHUNK))
    spans = [everything[a:b] for a, b in zip((0, *looks), looks, strict=False)]
    each_look = [by_strata(strata, [(p, _as_run(p.requests, metric)) for p in plans], span) for span in spans]
    steps = [sum((_measuring(prompts, own, indices) for indices, own in each), Work()) for each in each_look]
    calls = [*nulls, *(one for each in each_look for one in each)]
    before = sum(_portions(prompts, own, indices) for indices, own in nulls)
    asked = [(p, p.asked) for p in plans]
    cut = [sum(_portions(prompts, own, some) for some, own in by_strata(strata, asked, span)) for span in spans]
    found = TaskWork(
        task=name,
        prompts=len(data.pairs),
        looks=looks,
        tokens=(int(lengths.min()), int(lengths.max())),
        claims=len(plans),
        requests=len(wanted),
        experiments=len({experiment_of(r) for r in patches}),
        nulls=len({experiment_of(r) for p in plans for part in p.parts for r in part.null}),
        reads=sum(request.reads_attention for request in requests),
        uncounted=sum(not request.on_runs for request in requests),
        ranked=sum(part.peers is not None for p in plans for part in p.parts),
        least=start + steps[0],
        most=sum(steps, start),
        all_runs=sum(prompt_bytes(prompts.model, int(length)) for length in lengths),
        portions=(before + cut[0], before + sum(cut)),
        held=max((prompts.held(own, ids) for ids, own in calls if len(ids)), default=0),
        kept=prompts.kept,
        leftover=prompts.leftover(calls),
    )
    if known is None:
        return found
    # on what the first look measures, and on what it does not know
    there = [one for one, mine in zip(asked, having, strict=True) if len(mine)]
    groups = by_strata(strata, there, everything[: looks[0]])
    measured = [(ids, [r for r in own if r.needs_runs]) for ids, own in (*nulls, *groups)]
    lacking = [(ids, list(_unknown(own, ids, known.get(name)))) for ids, own in measured]
    return replace(
        found,
        measurements=len({request for _, own in measured for request in own}),
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
        return iter(requests)
    return (request for request, _, _, there in known.read(requests, indices) if not there.all())


def _scoring(prompts: PlannedPrompts) -> Work:
    """The whole clean and corrupt runs that all prompts are scored by."""
    lengths = prompts.lengths(np.arange(len(prompts.data.pairs)))
    groups = sum(
        -(-int(count) // run_at_once(prompts.model, int(length), prompts.max_memory))
        for length, count in zip(*np.unique(lengths, return_counts=True), strict=True)
    )
    batch = max((prompts.run_bytes(np.asarray(places)) for places, *_ in prompts.scoring), default=0)
    return Work(run_tokens=2 * int(lengths.sum()), passes=2 * groups, batch=batch)


def _measuring(prompts: PlannedPrompts, requests: Sequence[Request], indices: np.ndarray) -> Work:
    """One call of `measure`: the runs of its prompts, and every distinct patch on them."""
    if not any(request.needs_runs for request in requests):
        return Work()
    kept, layers = kept_for(requests, prompts.model.n_layers), prompts.model.n_layers
    groups = prompts.groups(indices, kept, any(request.runs_twice for request in requests))
    swapped = any(patch.direction == "denoise" for request in requests for patch in request.patches)
    changed = {request.intervention for request in requests if isinstance(request, ChangedRequest)}
    times = (1 + swapped) * kept.share(layers) + len(changed)
    runs = Work(
        run_tokens=round(times * int(prompts.lengths(indices).sum())),
        passes=(2 + 2 * swapped + len(changed)) * sum(map(len, groups)),
        batch=max((prompts.run_bytes(part) for group in groups for part in group), default=0),
    )
    circuits = grouped(dict.fromkeys(request for request in requests if isinstance(request, Subgraph)))
    patched = _patched(prompts.model, requests)
    placed = (request for request in requests if request.patches or isinstance(request, Subgraph))
    names = dict.fromkeys(position for request in placed for position in request.positions)
    return sum((_on_group(prompts, circuits, patched, names, group) for group in groups), runs)


def _portions(prompts: PlannedPrompts, requests: Sequence[Request], indices: np.ndarray) -> int:
    """How many portions one call of `measure` is cut into."""
    wanted = [request for request in requests if request.needs_runs]
    if not wanted or not len(indices):
        return 0
    return len(portions(prompts.data.pairs, wanted, indices, prompts.model, prompts.device))


def _patched(model: Transformer, requests: Sequence[Request]) -> list[tuple[list[Plan], int]]:
    """Distinct patches that run together, with how many layers have MLPs that matter to what is looked at."""
    groups: dict[tuple[Hashable, str], dict[Experiment, int]] = {}
    for request in requests:
        if request.patches:
            experiment = experiment_of(request)
            group = groups.setdefault((request.together, experiment.direction), {})
            group[experiment] = max(request.layers(model.n_layers), group.get(experiment, 0))
    return [([sorted_out(one, model) for one in group], max(group.values())) for group in groups.values()]


def _on_group(
    prompts: PlannedPrompts,
    circuits: Sequence[Sequence[Subgraph]],
    patched: Sequence[tuple[list[Plan], int]],
    names: Iterable[Position],
    group: Sequence[np.ndarray],
) -> Work:
    """What runs in batches, on groups of prompts that are measured together."""
    model, alone, patching = prompts.model, Work(), list[list[tuple[Work, list[tuple[int, int]]]]]()
    for part in group:
        pairs = [prompts.data.pairs[i] for i in part]
        clean, corrupt = (tokens_of(pairs, side) for side in ("clean_tokens", "corrupt_tokens"))
        places = {p: token_indices(pairs, [p]) for p in names}
        where = Where.of(places, len(pairs), clean.shape[1], first_difference(clean, corrupt))
        fits = partial(batch_bytes, model, where.length, max_memory=prompts.max_memory)
        alone += _alone(model, circuits, where, fits)
        patching.append([_patching(model, plans, where, layers) for plans, layers in patched])
    longest = int(prompts.lengths(group[-1]).max())
    side_by_side = ([batch for _, own in each for batch in own] for each in zip(*patching, strict=True))
    beside = max((prompts.patched_bytes(longest, batches) for batches in side_by_side), default=0)
    return alone + replace(sum((work for each in patching for work, _ in each), Work()), batch=beside)


def _alone(model: Transformer, circuits: Sequence[Sequence[Subgraph]], where: Where, fits: Callable[..., int]) -> Work:
    """Circuits that run alone on prompts of one length."""
    positions = sum(len(group) * int(work_alone(model, where, group[0]).sum()) for group in circuits)
    runs = [(len(group) * where.n, all_terms(model) if group[0].keep == "edges" else 0) for group in circuits]
    largest = max((fits(rows=count * where.length, held=held) for count, held in runs), default=0)
    return Work(block_positions=positions, passes=len(circuits), batch=largest)


def _patching(
    model: Transformer, plans: Sequence[Plan], where: Where, layers: int
) -> tuple[Work, list[tuple[int, int]]]:
    """Distinct patches of one direction on prompts of one length, followed through the MLPs of some layers.

    Returns:
        The work, and of each batch how many runs it has, and at how many positions: in the last layer at END alone.
    """
    flow = 0
    for route, stages in wanted(plans).items():
        points = where.mask(all_names(route.senders), any(one.fixed for one in plans))
        for mlp in (Node("mlp", layer) for layer in range(model.n_layers)):
            if route.first < mlp.stage(model.parallel) < max(stages):
                flow += int((passing(where, route, mlp) & points).sum())
    flow += mlp_positions(plans, where)
    alike, count = {one.shape: one for one in plans}, Counter(one.shape for one in plans)
    distinct = list(alike.values())
    batches = [
        (
            sum(count[distinct[i].shape] for i in members) * len(some),
            1 if distinct[members[0]].entry >= model.n_layers - 1 else where.length - start,
        )
        for members, some, start in entries(distinct, where, model.n_layers)
    ]
    positions = sum(count[key] * int(floor_of(model, one, where, layers).sum()) for key, one in alike.items())
    return Work(block_positions=positions, flow_positions=flow, passes=len(batches)), batches


def seconds(model: Transformer, task: TaskWork, work: Work, machine: Machine, weighing: float | None = None) -> float:
    """An estimate of the time that work takes: of measuring and weighing, without loading and making prompts.

    `weighing` is what weighing one claim takes, in layers of a plain run on one token; by default what is usual.
    """
    if weighing is None:
        weighing = _WEIGHING + _WEIGHING_PROMPT * task.prompts
    block = products(model.blocks[0])
    positions = work.block_positions + work.run_tokens * model.n_layers
    mlps = work.flow_positions * products(model.blocks[0].mlp) / block
    return machine.seconds(positions + mlps, work.passes, model.n_layers) + task.claims * weighing * machine.layer


def memory(work: Sequence[TaskWork], max_memory: int | None = None) -> int:
    """Bytes that measuring takes at the most, weights aside: runs of prompts, and one batch of patched runs.

    Counts activations only; a Python process with torch and transformers takes about half a gigabyte besides.
    """
    most = max((task.held + task.most.batch for task in work), default=0) + sum(task.kept for task in work)
    beside = BASE + sum(task.leftover for task in work) if max_memory is None else 0  # a limit is of tensors
    return most + beside
