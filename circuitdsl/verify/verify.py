"""Verification: plan → measurements, look by look → verdicts → report.

Prompts are measured in the looks of a group-sequential design; a claim that is settled at its family's strictest level
asks for no more of them (semantics: sampling). Holm's procedure then runs over all claims and tasks at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.circuit.criteria import NULL_PROMPTS, Matters
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.away import Recipe, ask
from circuitdsl.engine.prompts import Prompts, behaviour
from circuitdsl.errors import UserError
from circuitdsl.installed import version
from circuitdsl.measurements.kind import kind_of
from circuitdsl.measurements.plan import RANDOM, ClaimPlan
from circuitdsl.measurements.requests import Request
from circuitdsl.models.model import Model, as_model
from circuitdsl.report.numbers import value
from circuitdsl.report.report import ClaimResult, MeasurementResult, ModelInfo, Report, SpecInfo, TaskResult
from circuitdsl.verdict.decide import Decision, levels_of, rule, ruled
from circuitdsl.verdict.samples import FEWEST_STRATA
from circuitdsl.verdict.weighing import Evidence
from circuitdsl.verdicts import Verdict
from circuitdsl.verify.answers import notes_on, tokens_of
from circuitdsl.verify.cache import Memory
from circuitdsl.verify.early_looks import early_looks, free
from circuitdsl.verify.judged import in_order, wanted
from circuitdsl.verify.matched import doubts, matched
from circuitdsl.verify.measure import Done, Series, by_prompts, measure, trouble
from circuitdsl.verify.more import on_more_prompts
from circuitdsl.verify.plan import plan, shape_of
from circuitdsl.verify.prompts import random_prompts
from circuitdsl.verify.properties import Tested, family_size, sample_name
from circuitdsl.verify.results import claim_results, full
from circuitdsl.verify.samples import Collected, by_strata, no_stratum
from circuitdsl.verify.session import Options, Session
from circuitdsl.verify.store import Store
from circuitdsl.verify.weigh import draws_more, unless_untested, weigh_nulls, weigh_plan

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer

#: called with (work done, work that may still be needed at most, what is going on)
Progress = Callable[[int, int, str], None]
Record = Callable[[Collected, Decision], None]
#: the numbers of prompts at which the claims of each task are weighed
Looks = Mapping[str, tuple[int, ...]]
#: what a report says of its model as the model itself does
_OF_MODEL = [each.name for each in fields(ModelInfo) if each.name != "bos"]
#: the words of each verdict before the corruptions that have it, in the order of a note
_WORDS: dict[Verdict, str] = {
    "holds": "holds under",
    "fails": "fails under",
    "undecided": "undecided under",
    "error": "cannot be measured under",
}


def verify(
    circuit: Circuit,
    model: Model | Transformer,
    by_task: Mapping[str, Prompts],
    options: Options | None = None,
    progress: Progress | None = None,
    records: Iterable[Record] = (),
    store: Store | None = None,
) -> Report:
    """Verify every claim of a circuit.

    Args:
        circuit: a resolved circuit.
        by_task: the prompts of each task that some claim is checked on, by the task's name in the spec.
        options: early stopping, multiplicity, single claims (judged at the level they have among all of them).
        progress: called as work is done.
        records: each is called with what was measured of each claim on each task, and its decision.
        store: has the numbers of claims without a task that are known from earlier.

    Returns:
        The report. Ctrl-C ends the run early; what was measured by then is reported.

    Raises:
        UserError: a task has too few templates to speak of others, or the circuit is of a model of another size.
    """
    options, model = options or Options(), as_model(model)
    if options.templates:
        for name, prompts in by_task.items():
            strata = len(set(prompts.strata.tolist()))
            if strata < FEWEST_STRATA:
                message = f"--generalise templates needs {FEWEST_STRATA} strata; the prompts of {name} have {strata}"
                raise UserError(message, hint="leave it out: verdicts are then about prompts from the same templates")
        options = replace(options, early_stop=False)
    start = time.perf_counter()
    shape = shape_of(model)
    if circuit.counted not in (None, (shape.n_layers, shape.n_heads)):
        raise UserError(
            "`all` and `L.*` in this spec were counted in a model of another size", hint="load the spec for this model"
        )
    claims = wanted(circuit, options.claims)
    chosen = {claim.id for claim in claims if options.ids is None or claim.id in options.ids}
    every = plan(circuit, shape)
    plans = [p for p in every if p.claim.id in chosen and options.task in (None, p.task)]
    by_task = _with_random(plans, model, by_task, options.memory, store)
    looks = _looks(every, model, by_task, options.early_stop)
    members = [Collected.of(p, by_task[p.task], looks[p.task], options.templates) for p in plans]
    properties = [
        Tested(claim, task, by_task.get(sample_name(task)))
        for claim in claims
        if kind_of(claim).decided_by == "own sample" and options.task is None
        for task in claim.tasks
    ]
    sampled = [each for each in properties if each.wanted.in_family]
    family = family_size(circuit.claims)
    interrupted = False
    besides: tuple[MeasurementResult, ...] = ()
    try:
        _measure(members, by_task, looks, family, options, progress)
        for each in properties:
            each.measure()
        besides = full(circuit, shape, by_task) if options.full else ()
    except KeyboardInterrupt:
        interrupted = True
    evidence = [*(m.evidence for m in members), *(each.evidence for each in sampled)]
    alpha = options.alpha * (len(evidence) / family if options.holm and family else 1)
    levels = levels_of(evidence, alpha, options.holm)
    decisions, count = ruled(evidence, levels), len(members)
    decided = on_more_prompts(members, decisions[:count], levels[:count])
    ours = [(member, unless_untested(member, decision)) for member, decision in decided]
    for record in records:
        for member, decision in ours:
            record(member, decision)
    found = claim_results(ours)
    found += [each.result(d) for each, d in zip(sampled, decisions[count:], strict=True)]
    found += [each.result(rule(each.evidence)) for each in properties if not each.wanted.in_family]
    if options.task is None:
        found += _judged(circuit, claims, model)
    bos = any(prompts.data.bos for prompts in by_task.values())
    memories = [prompts.cache for prompts in by_task.values() if isinstance(prompts.cache, Memory)]
    return Report(
        spec=SpecInfo(circuit.path, circuit.name, circuit.sha256, circuit.meaning),
        model=ModelInfo(**{name: getattr(model, name) for name in _OF_MODEL}, bos=bos),
        tasks=tuple(_task_result(by_task[use.name], use, members) for use in circuit.tasks if use.name in by_task),
        claims=in_order(circuit, found),
        seconds=time.perf_counter() - start,
        versions={name: version(name) for name in ("torch", "transformers", "transformer-lens", "numpy", "scipy")},
        threads=model.threads_in_use,
        level=f"{'Holm' if options.holm else 'each at'} {100 * options.alpha:g} %, {family} claims × tasks",
        early_stop=options.early_stop,
        cached=sum(m.found for m in memories) / max(1, sum(m.asked for m in memories)),
        block_positions=sum(prompts.tally.block_positions for prompts in by_task.values()),
        interrupted=interrupted,
        measurements=besides,
        generalise=options.generalise,
    )


def _judged(circuit: Circuit, claims: Sequence[Claim], model: Model) -> list[ClaimResult]:
    """The records of the claims that need no run, where the model's weights are if one needs these."""
    if not any(kind_of(claim).judge for claim in claims):
        return []
    found: list[ClaimResult] = ask(model, Recipe(circuit, "model"), "circuitdsl.verify.judged:on_model", model, claims)
    return found


def weigh_plans(
    plans: Sequence[ClaimPlan],
    model: Model | Transformer,
    by_task: Mapping[str, Prompts],
    family: int,
    progress: Progress | None = None,
) -> list[Evidence]:
    """Evidence for claims that are measured in one batch but judged in families of `family` members, elsewhere."""
    options = Options()
    by_task = _with_random(plans, model, by_task)
    looks = _looks(plans, as_model(model), by_task, options.early_stop)
    members = [Collected.of(p, by_task[p.task], looks[p.task]) for p in plans]
    _measure(members, by_task, looks, family, options, progress)
    return [member.evidence for member in members]


def _with_random(
    plans: Sequence[ClaimPlan],
    model: Model | Transformer,
    by_task: Mapping[str, Prompts],
    max_memory: int | None = None,
    store: Store | None = None,
) -> Mapping[str, Prompts]:
    """The prompts of each task, and those of random tokens where a plan needs them."""
    if all(p.task != RANDOM for p in plans):
        return by_task
    of_tasks = (prompts.cache.store for prompts in by_task.values() if isinstance(prompts.cache, Memory))
    return {**by_task, RANDOM: random_prompts(model, max_memory, store or next(of_tasks, None))}


def _looks(plans: Sequence[ClaimPlan], model: Model, by_task: Mapping[str, Prompts], early_stop: bool) -> Looks:
    """The looks of each task: those of all claims of the spec, whichever are verified."""
    mine = {name: [p for p in plans if p.task == name] for name in by_task}
    return {
        name: early_looks(mine[name], prompts.pairs, model, model.device, early_stop)
        for name, prompts in by_task.items()
    }


# --- measuring, look by look -----------------------------------------------------------------------


def _measure(
    members: Sequence[Collected],
    by_task: Mapping[str, Prompts],
    looks: Looks,
    family: int,
    options: Options,
    progress: Progress | None,
) -> None:
    """Measure claims, task by task; work is counted in patched prompts, and what is to come is an upper bound."""
    done = 0

    @cache
    def to_come(still: tuple[int, ...], _: int) -> int:
        open = [members[i] for i in still]
        left = {(m.plan.task, r): len(m.prompts.pairs) - m.measured for m in open for r in m.plan.asked}
        return sum(left.values())

    def add(work: int) -> None:
        nonlocal done
        done += work
        if progress:
            still = tuple(i for i, m in enumerate(members) if not m.settled)
            most = to_come(still, sum(members[i].measured for i in still))
            progress(done, done + most, f"{len(still)} claims open")

    for name, prompts in by_task.items():
        if mine := [member for member in members if member.plan.task == name]:
            _measure_task(mine, prompts, looks[name], family, options, add)


def _measure_task(
    members: list[Collected], prompts: Prompts, looks: Sequence[int], family: int, options: Options, add: Done
) -> None:
    """Measure the claims of one task, dropping each as soon as it is settled.

    Those whose numbers are there on all prompts anyway are weighed once.
    """
    for member in members:
        why = no_stratum(prompts, member.plan)
        if why := why or trouble(prompts, member.plan.task, member.plan.requests, member.indices):
            member.evidence, member.settled = member.broken(why), True
    _measure_nulls([member for member in members if not member.settled], prompts, family, options, add)
    steps = [(0, len(prompts.pairs), True), *((a, b, False) for a, b in pairwise((0, *looks)))]
    for done, size, at_once in steps:
        pending = [m for m in members if not m.settled and free(m.plan) == at_once]
        if not pending:
            continue
        _measure_look(pending, prompts, np.arange(done, size), add)
        for member in pending:
            member.measured = size
            if np.count_nonzero(member.indices < size) >= member.looks.sizes[0]:
                member.evidence = weigh_plan(member)
                member.settled = member.evidence.settled(family, options.alpha, options.holm)


def _measure_look(pending: list[Collected], prompts: Prompts, indices: np.ndarray, add: Done) -> None:
    """Measure what is still open on more prompts; each claim keeps the prompts that have all of its positions."""
    wanted = by_strata(prompts.strata, ((member.plan, member.plan.asked) for member in pending), indices)
    found: dict[Request, Series] = {}
    for some, requests in wanted:
        found |= measure(prompts, requests, some, add)
    for member in pending:
        series = dict(member.series)
        for request in member.plan.asked:
            if here := found.get(request):
                old, more = series.get(request), here.only(np.isin(here.indices, member.indices))
                series[request] = more if old is None else old.extended(more)
        member.series = series  # all at once: an interruption leaves every request on the same prompts


def _measure_nulls(members: list[Collected], prompts: Prompts, family: int, options: Options, add: Done) -> None:
    """The nulls' effects on the first 32 prompts of each claim that needs them; shared between claims.

    Random circuits are drawn in rounds, until the claims that are compared with them are decided.
    """
    waiting = [member for member in members if member.plan.null_requests]
    for member in waiting:
        member.plan = matched(member.plan, prompts, member.indices)
    while waiting:
        asked = by_prompts((member.indices[:NULL_PROMPTS], member.plan.null_requests) for member in waiting)
        for first, requests in asked:
            found = measure(prompts, requests, first, add)
            for member in waiting:
                if np.array_equal(member.indices[:NULL_PROMPTS], first):
                    weigh_nulls(member, found)
        waiting = [m for m in waiting if draws_more(m, family, options.alpha, options.holm)]


def _task_result(prompts: Prompts, use: TaskUse, members: Sequence[Collected]) -> TaskResult:
    answers, distractors = tokens_of(prompts)
    measured = [request for member in members if member.plan.task == use.name for request in member.series]
    return TaskResult(
        name=use.name,
        corrupt=prompts.data.corrupt,
        prompts=len(prompts.pairs),
        seed=prompts.data.seed,
        sha256=prompts.data.sha256,
        metric=str(prompts.metric),
        clean=float(prompts.clean.mean()),
        corrupt_value=float(prompts.corrupt.mean()),
        accuracy=float(behaviour(prompts, Metric("accuracy")).mean()),
        bos=prompts.data.bos,
        repeats=prompts.data.repeats,
        chat_sha256=prompts.data.chat,
        instead=use.instead,
        answers=answers,
        distractors=distractors,
        notes=(*notes_on(prompts, use), *doubts(prompts, measured)),
    )


# --- under other corruptions (`--other-corruptions`) ------------------------------------------------


def under_other_corruptions(
    session: Session, circuit: Circuit, by_task: Mapping[str, Prompts], report: Report, how: Options
) -> Report:
    """The report with a note beside every `matters` claim: what it is under each of the task's corruptions.

    A corruption changes some information and keeps the rest, so that an edge may matter under one alone. The claims are
    verified again as they stand, each at the level that it has among all claims of the spec; the verdict stays that of
    the spec's own corruption.

    Ctrl-C ends this early: the notes are then on those corruptions that all claims were measured under.
    """
    reported = {claim.id for claim in report.claims}
    matters = [c for c in circuit.claims if c.id in reported and any(isinstance(test, Matters) for test in c.tests)]
    found: dict[tuple[str, str | None], list[tuple[str, ClaimResult]]] = {}
    only: dict[str | None, str] = {}  # why a task has no other corruption
    try:
        for use in circuit.tasks:
            ids = frozenset(claim.id for claim in matters if use.name in claim.tasks)
            if ids and not by_task[use.name].others:
                only[use.name] = "a prompt has one partner in its file" if use.file else "the task has no other"
            for corruption in by_task[use.name].others if ids else ():
                other = replace(use, corrupt=corruption)
                changed = replace(circuit, tasks=tuple(other if each is use else each for each in circuit.tasks))
                kept = replace(how, claim=None, full=False, ids=ids, task=use.name)
                prompts = session.prompts_of(changed, other)
                again = verify(changed, prompts.source, {**by_task, use.name: prompts}, kept)
                if again.interrupted:
                    raise KeyboardInterrupt
                for claim in again.claims:
                    found.setdefault((claim.id, use.name), []).append((corruption, claim))
    except KeyboardInterrupt:
        report = replace(report, interrupted=True)
    own = {task.name: task.corrupt for task in report.tasks}
    asked = {claim.id for claim in matters}

    def notes(claim: ClaimResult) -> list[str]:
        if others := found.get((claim.id, claim.task)):
            return [_note(claim, own[str(claim.task)], others)]
        return [f"no other corruption: {only[claim.task]}"] if claim.id in asked and claim.task in only else []

    return replace(report, claims=tuple(replace(c, notes=(*c.notes, *notes(c))) for c in report.claims))


def _note(claim: ClaimResult, own: str, others: Sequence[tuple[str, ClaimResult]]) -> str:
    """`corruptions: holds under abc −9.6 %, flip −7.0 %; fails under io 0.0 %; cannot be measured under s (no gap)`

    That is each corruption with the figure under it, or with why there is none.
    """
    found: dict[Verdict, list[str]] = {}
    for corruption, result in ((own, claim), *others):
        said = f" ({result.cause or result.reason})" if result.verdict == "error" else ""
        figure = f" {value(result.measured)}" if result.measured and not said else ""
        found.setdefault(result.verdict, []).append(f"{corruption}{said or figure}")
    return "corruptions: " + "; ".join(f"{words} {', '.join(found[v])}" for v, words in _WORDS.items() if v in found)
