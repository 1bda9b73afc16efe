"""Verification: plan → measurements, look by look → verdicts → report.

Prompts are measured in the looks of a group-sequential design; a claim that is settled at its family's strictest level
asks for no more of them (semantics: sampling). Holm's procedure then runs over all claims and tasks at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice

import numpy as np
import torch

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.circuit.criteria import Test
from circuitdsl.circuit.measurements import Metric, WholeCircuit
from circuitdsl.engine.readers.trace import why_silent
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import (
    BehaviourRequest,
    ChangedRequest,
    PatchRequest,
    Request,
    ScoreRequest,
    TraceRequest,
    changes,
    patches_of,
    positions_of,
    replaced,
)
from circuitdsl.models.parts import Transformer
from circuitdsl.models.weights import weights_of
from circuitdsl.report.report import MISSED, MeasurementResult, ModelInfo, Report, SpecInfo, TaskResult
from circuitdsl.verdict.decide import decide_family, rule
from circuitdsl.verdict.families import FAMILY
from circuitdsl.verdict.samples import FEWEST_STRATA
from circuitdsl.verdict.sampling import FIRST_LOOK, Looks, plan_looks
from circuitdsl.verdict.weighing import NULL_PROMPTS, Evidence, unmeasured, weigh_claim
from circuitdsl.verdict.weighing import Part as Weighed
from circuitdsl.verify.bench import Bench, Series, behaviour, present, random_bench
from circuitdsl.verify.channels import channel_results, in_order
from circuitdsl.verify.comparisons import comparison_results
from circuitdsl.verify.measure import measure
from circuitdsl.verify.plan import RANDOM, ClaimPlan, Part, plan, shape_of
from circuitdsl.verify.properties import family_size, in_family, tested
from circuitdsl.verify.results import claim_results
from circuitdsl.verify.samples import base_of, sample_of
from circuitdsl.verify.unchanged import instead, said, unless_untested, untested
from circuitdsl.verify.whole import full, weigh_whole, won

#: called with (work done, work that may still be needed at most, what is going on)
Progress = Callable[[int, int, str], None]
Record = Callable[[ClaimPlan, Mapping[Request, Series], Bench], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to verify: nothing here changes what a claim means. `only` is the id or the line of a single claim.

    `full` takes all measurements of the whole circuit besides. `task` and `ids` keep to some claims on one task, each
    at the level that it has among all. `templates` makes verdicts about prompts from other templates (all prompts are
    measured then; see `verdict.samples.by_stratum`). `max_memory` is for what needs no task; tasks have their own.
    """

    early_stop: bool = True
    holm: bool = True
    alpha: float = FAMILY
    only: str | None = None
    full: bool = False
    task: str | None = None
    ids: frozenset[str] | None = None
    templates: bool = False
    max_memory: int | None = None

    def on(self, plan: ClaimPlan) -> bool:
        """Whether a claim is among those asked for by id and task."""
        return (self.ids is None or plan.claim.id in self.ids) and self.task in (None, plan.task)


@dataclass
class Collected:
    """What one claim has on one task so far; `indices` are the prompts that have all of its positions."""

    plan: ClaimPlan
    bench: Bench
    looks: Looks
    indices: np.ndarray
    series: dict[Request, Series] = field(default_factory=dict)
    nulls: list[np.ndarray] = field(default_factory=list)
    wins: np.ndarray | None = None
    templates: bool = False
    evidence: Evidence | None = None
    measured: int = 0
    settled: bool = False


@dataclass
class Meter:
    """How much of the work is done, counted in patched prompts; what is still to come is an upper bound."""

    members: Sequence[Collected]
    progress: Progress | None
    done: int = 0

    def add(self, work: int) -> None:
        self.done += work
        if self.progress:
            left: dict[tuple[str, Request], int] = {}
            for m in self.members:
                if not m.settled:
                    left |= {(m.plan.task, r): len(m.bench.pairs) - m.measured for r in m.plan.asked}
            open_claims = sum(not m.settled for m in self.members)
            self.progress(self.done, self.done + sum(left.values()), f"{open_claims} claims open")


def verify(
    circuit: Circuit,
    model: Transformer,
    benches: Mapping[str, Bench],
    options: Options | None = None,
    progress: Progress | None = None,
    record: Record | None = None,
) -> Report:
    """Verify every claim of a circuit.

    Args:
        circuit: a resolved circuit.
        benches: a bench for each task that some claim is checked on, by the task's name in the spec.
        options: early stopping, multiplicity, a single claim (judged at the level it has among all of them).
        progress: called as work is done.
        record: called with each claim's plan, its numbers prompt by prompt, and its bench.

    Returns:
        The report. Ctrl-C ends the run early; what was measured by then is reported.
    """
    options = options or Options()
    if options.templates:
        _check_strata(benches)
        options = replace(options, early_stop=False)
    start = time.perf_counter()
    shape = shape_of(model)
    plans = plan(circuit, shape)
    benches = _with_random(plans, model, benches, options.max_memory)
    members = [
        _collected(p, benches[p.task], options)
        for p in plans
        if (options.only is None or p.claim.answers_to(options.only)) and options.on(p)
    ]
    properties = tested(circuit, benches, options.only) if options.task is None else []
    judged = [p for p in properties if in_family(p.claim)]
    family, chosen = family_size(circuit), len(members) + len(judged)
    meter = Meter(members, progress)
    interrupted = False
    besides: tuple[MeasurementResult, ...] = ()
    try:
        for name in benches:
            _measure_task([m for m in members if m.plan.task == name], family, options, meter)
        for each in properties:
            each.measure()
        besides = full(circuit, shape, benches) if options.full else ()
    except KeyboardInterrupt:
        interrupted = True
    evidence = [m.evidence or _broken(m, MISSED) for m in members]
    alpha = options.alpha * (chosen / family if options.holm and family else 1)
    decisions = decide_family([*evidence, *(p.evidence for p in judged)], alpha=alpha, adjust=options.holm)
    ours = [unless_untested(m.plan, d, m.series, m.bench) for m, d in zip(members, decisions, strict=False)]
    if record:
        for m in members:
            record(m.plan, m.series, m.bench)
    measured = claim_results([(m.plan, d, m.series, m.bench) for m, d in zip(members, ours, strict=True)])
    measured += [p.result(d) for p, d in zip(judged, decisions[len(members) :], strict=True)]
    measured += [p.result(rule(p.evidence)) for p in properties if p not in judged]
    untasked = (
        [*channel_results(circuit, weights_of(model), options.only), *comparison_results(circuit, options.only)]
        if options.task is None
        else []
    )
    return Report(
        spec=SpecInfo(circuit.path, circuit.name, circuit.sha256),
        model=_model_info(model, benches),
        tasks=tuple(_task_result(benches[use.name], use) for use in circuit.tasks if use.name in benches),
        claims=in_order(circuit, [*measured, *untasked]),
        seconds=time.perf_counter() - start,
        versions={name: version(name) for name in ("torch", "transformers", "transformer-lens", "numpy", "scipy")},
        threads=torch.get_num_threads(),
        level=f"{'Holm' if options.holm else 'each at'} {100 * options.alpha:g} %, {family} claims × tasks",
        early_stop=options.early_stop,
        cached=_cached(benches.values()),
        block_positions=sum(bench.tally.block_positions for bench in benches.values()),
        interrupted=interrupted,
        measurements=besides,
        generalise="templates" if options.templates else "prompts",
    )


def _check_strata(benches: Mapping[str, Bench]) -> None:
    """Raise `UserError` where a task has too few templates to speak of others."""
    for name, bench in benches.items():
        strata = len(set(bench.strata.tolist()))
        if strata < FEWEST_STRATA:
            message = f"--generalise templates needs {FEWEST_STRATA} strata; the prompts of {name} have {strata}"
            raise UserError(message, hint="leave it out: verdicts are then about prompts from the same templates")


def weigh_plans(
    plans: Sequence[ClaimPlan],
    model: Transformer,
    benches: Mapping[str, Bench],
    family: int,
    progress: Progress | None = None,
) -> list[Evidence]:
    """Evidence for claims that are measured in one batch but judged in families of `family` members, elsewhere."""
    options = Options()
    benches = _with_random(plans, model, benches)
    members = [_collected(p, benches[p.task], options) for p in plans]
    meter = Meter(members, progress)
    for name in benches:
        _measure_task([m for m in members if m.plan.task == name], family, options, meter)
    return [m.evidence or _broken(m, "this was not measured") for m in members]


def _with_random(
    plans: Sequence[ClaimPlan], model: Transformer, benches: Mapping[str, Bench], max_memory: int | None = None
) -> Mapping[str, Bench]:
    """The benches, and one of random tokens where a plan needs it."""
    if all(p.task != RANDOM for p in plans):
        return benches
    known = next((bench.memory for bench in benches.values()), None)
    return {**benches, RANDOM: random_bench(model, max_memory, known)}


def with_overrides(circuit: Circuit, prompts: int | None = None, seed: int | None = None) -> Circuit:
    """The circuit with the command line's `--prompts` and `--seed` for every task."""

    def changed(task: TaskUse) -> TaskUse:
        n, s = (given if given is not None else own for given, own in ((prompts, task.prompts), (seed, task.seed)))
        return replace(task, prompts=n, seed=s)

    return replace(circuit, tasks=tuple(map(changed, circuit.tasks)))


# --- measuring, look by look -----------------------------------------------------------------------


def _collected(claim_plan: ClaimPlan, bench: Bench, options: Options) -> Collected:
    """A claim's prompts: those that have all its positions, at each look of the task that has enough of them."""
    everything = np.arange(len(bench.pairs))
    requests = {frozenset(positions_of(request)): request for request in claim_plan.requests}.values()
    here = np.logical_and.reduce([present(bench, request, everything) for request in requests])
    counts = [int(here[:size].sum()) for size in plan_looks(len(bench.pairs), options.early_stop).sizes]
    sizes = dict.fromkeys(n for n in counts if n == counts[-1] or n >= FIRST_LOOK)
    return Collected(
        claim_plan,
        bench,
        Looks(tuple(sizes) if counts[-1] else (1,)),
        np.flatnonzero(here),
        templates=options.templates,
    )


def _measure_task(members: list[Collected], family: int, options: Options, meter: Meter) -> None:
    """Measure the claims of one task, dropping each as soon as it is settled."""
    if not members:
        return
    bench = members[0].bench
    for member in members:
        if trouble := _no_prompt(member) if not len(member.indices) else _no_metric(member):
            member.evidence = _broken(member, trouble)
            member.settled = True
    _measure_nulls(members, bench, meter)
    done = 0
    for size in plan_looks(len(bench.pairs), options.early_stop).sizes:
        pending = [m for m in members if not m.settled]
        if not pending:
            return
        _measure_look(pending, bench, range(done, size), meter)
        done = size
        for member in pending:
            member.measured = size
            if np.count_nonzero(member.indices < size) >= member.looks.sizes[0]:
                member.evidence = _weigh(member)
                member.settled = member.evidence.settled(family, options.alpha, options.holm)


def _measure_look(pending: list[Collected], bench: Bench, indices: range, meter: Meter) -> None:
    """Measure what is still open on more prompts; each claim keeps the prompts that have all of its positions."""
    wanted = dict.fromkeys(request for member in pending for request in member.plan.asked)
    found = measure(bench, list(wanted), np.asarray(indices), meter.add)
    for member in pending:
        keep = np.isin(np.asarray(indices), member.indices)
        series = dict(member.series)
        for request in member.plan.asked:
            old, more = series.get(request), found[request].only(keep)
            series[request] = more if old is None else old.extended(more)
        member.series = series  # all at once: an interruption leaves every request on the same prompts


def _measure_nulls(members: list[Collected], bench: Bench, meter: Meter) -> None:
    """The nulls' effects on the first 32 prompts of each claim that needs them; shared between claims."""
    wanted: dict[bytes, tuple[np.ndarray, dict[Request, None]]] = {}
    for member in members:
        first = member.indices[:NULL_PROMPTS]
        requests = [request for part in member.plan.parts for request in part.null_requests]
        if requests and not member.settled:
            wanted.setdefault(first.tobytes(), (first, {}))[1].update(dict.fromkeys(requests))
    found = {key: (first, measure(bench, list(reqs), first, meter.add)) for key, (first, reqs) in wanted.items()}
    for member in members:
        first = member.indices[:NULL_PROMPTS]
        if first.tobytes() in found:
            series = found[first.tobytes()][1]
            if ranked := next((part for part in member.plan.parts if part.peers), None):
                member.wins = won(ranked, bench, series, first)
            member.nulls = [
                _effects(bench, first, [replace(part, request=r) for r in part.null], series)
                for part in member.plan.parts
            ]


def _effects(bench: Bench, indices: np.ndarray, parts: Sequence[Part], found: Mapping[Request, Series]) -> np.ndarray:
    """Effects (ratios of means) of several patches on some prompts."""
    gap = (bench.clean - bench.corrupt)[indices]
    changes = (found[p.request].values - base_of(bench, p.base or "clean", found, indices) for p in parts)
    return np.asarray([np.mean(change) for change in changes]) / np.mean(gap)


# --- weighing --------------------------------------------------------------------------------------


def _weigh(member: Collected) -> Evidence:
    """Weigh a claim on what was measured so far; on all prompts, a patch that changed no input is an error."""
    done = member.measured == len(member.bench.pairs)
    how = member.plan.claim.measurement
    if member.plan.extremes or (isinstance(how, WholeCircuit) and how.name == "sufficiency"):
        return weigh_whole(
            member.plan, member.bench, member.series, member.looks, member.wins, templates=member.templates
        )
    parts: list[Weighed] = []
    before = iter(member.evidence.parts if member.evidence else ())
    for i, part in enumerate(member.plan.parts):
        tests = member.plan.tests(part)
        earlier = tuple(islice(before, len(tests)))
        if done and _is_unchanged(member, part):
            because = _why_unchanged(member, part)
            parts += unmeasured(tests[0], because, part.label).parts
        else:
            parts += _weigh_part(member, part, tests, member.nulls[i] if member.nulls else None, earlier)
    return Evidence(tuple(parts))


def _weigh_part(
    member: Collected, part: Part, tests: Sequence[Test], null: np.ndarray | None, before: Sequence[Weighed]
) -> Sequence[Weighed]:
    """Weigh one part of a claim; `before` is what came of it at the look before."""
    sample = sample_of(member.bench, part, member.series)
    weighed = weigh_claim(
        tests,
        [sample],
        margin=member.plan.claim.margin,
        looks=member.looks,
        nulls=[null],
        templates=member.templates and not isinstance(part.request, ScoreRequest),  # random tokens have no template
        before=before,
    ).parts
    if not _is_unchanged(member, part):
        done = member.measured == len(member.bench.pairs) or not untested(part, tests, member.series)
        return weighed if done else [replace(p, p_holds=1.0, final=False) for p in weighed]  # may be changed later
    # nothing has changed so far: later prompts may differ, so that this must not be settled yet
    return [replace(p, p_holds=1.0, p_fails=1.0, final=False) for p in weighed]


def _is_unchanged(member: Collected, part: Part) -> bool:
    """Whether some patch or intervention that the part is about has changed nothing on any prompt so far."""
    return any(changes(r) and not member.series[r].changed.any() for r in part.requests)


def _why_unchanged(member: Collected, part: Part) -> str:
    request = part.request
    if isinstance(request, ChangedRequest):
        return f"{request.intervention.name} changes nothing of what the model does on these prompts"
    terms = replaced(_idle_patch(member, part))
    return said(terms) + instead(terms, member.bench)


def _idle_patch(member: Collected, part: Part) -> PatchRequest:
    """The patch that has replaced nothing: a request may make two of them."""
    patches = [patch for request in part.requests for patch in patches_of(request)]
    if len(patches) > 1:
        found = measure(member.bench, patches, member.indices)
        return next((patch for patch in patches if not found[patch].changed.any()), patches[0])
    return patches[0]


def _broken(member: Collected, because: str) -> Evidence:
    """A claim that could not be measured."""
    return unmeasured(member.plan.tests(member.plan.parts[0])[0], because)


def _no_metric(member: Collected) -> str:
    """Why a metric that a claim asks for cannot be taken on its task; empty where it can."""
    try:
        for part in member.plan.parts:
            if isinstance(part.request, BehaviourRequest):
                behaviour(member.bench, part.request.metric)
    except UserError as error:
        return error.message
    return ""


def _no_prompt(member: Collected) -> str:
    trace = next((r for r in member.plan.requests if isinstance(r, TraceRequest)), None)
    if trace is not None:
        return why_silent(member.bench, trace)
    places = dict.fromkeys(p for request in member.plan.requests for p in positions_of(request))
    return f"no prompt of {member.plan.task} has all of its positions: {', '.join(map(str, places))}"


# --- what the report records -----------------------------------------------------------------------


def _model_info(model: Transformer, benches: Mapping[str, Bench]) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        sha256=model.sha256,
        n_layers=model.n_layers,
        n_heads=model.n_heads,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        bos=any(bench.data.bos for bench in benches.values()),
    )


def _cached(benches: Collection[Bench]) -> float:
    """The share of all numbers that were known before the run."""
    memories = [bench.memory for bench in benches if bench.memory]
    return sum(m.found for m in memories) / max(1, sum(m.asked for m in memories))


def _task_result(bench: Bench, use: TaskUse) -> TaskResult:
    return TaskResult(
        name=use.name,
        corrupt=bench.data.corrupt,
        prompts=len(bench.pairs),
        seed=bench.data.seed,
        sha256=bench.data.sha256,
        metric=str(bench.metric),
        clean=float(bench.clean.mean()),
        corrupt_value=float(bench.corrupt.mean()),
        accuracy=float(behaviour(bench, Metric("accuracy")).mean()),
        bos=bench.data.bos,
        repeats=bench.data.repeats,
    )
