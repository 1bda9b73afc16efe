"""Figures of the whole circuit: what share of the model they keep, and all of them, claimed or not (`--full`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from circuitdsl.circuit.claims import Circuit, Claim, membership
from circuitdsl.circuit.criteria import NULL_PROMPTS
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.measurements import KINDS
from circuitdsl.measurements.kind import Kind, kind_of
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.report.report import MeasurementResult
from circuitdsl.verdict.decide import rule
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.weighing import Evidence, weigh
from circuitdsl.verify.measure import measure, present
from circuitdsl.verify.results import details, kept, measured, warnings
from circuitdsl.verify.samples import sample_of
from circuitdsl.verify.weigh import weigh_whole, won

#: prompts on which `--full` takes what needs many runs
FULL_PROMPTS = 64


def full(circuit: Circuit, shape: ModelShape, prompts: Mapping[str, Prompts]) -> tuple[MeasurementResult, ...]:
    """All measurements of the whole circuit on every task, by their default protocol; nothing is claimed of them."""
    whole, nulls = membership(circuit), Nulls(circuit, shape)
    if not whole.sites or any(site.node.index >= 0 for site in whole.sites):
        return ()
    found = []
    for task in (use.name for use in circuit.tasks if use.name in prompts):
        for how, tests in (expected for kind in KINDS for expected in cast(type[Kind], kind).besides()):
            name = str(getattr(how, "name", ""))
            claim = Claim(name, 0, name, "expect", how, tests, False, circuit.margin, (task,))
            found.append(_full(kind_of(claim).plan(claim, task, nulls), prompts[task]))
    return tuple(found)


def _full(plan: ClaimPlan, prompts: Prompts) -> MeasurementResult:
    blank = MeasurementResult(plan.claim.id, plan.task, kind_of(plan.claim).protocol_of(plan))
    everything = np.arange(len(prompts.pairs))
    requests = {frozenset(request.positions): request for request in plan.requests}.values()
    indices = np.flatnonzero(np.logical_and.reduce([present(prompts, request, everything) for request in requests]))
    if not len(indices):
        return replace(blank, reason=f"no prompt of {plan.task} has all of the circuit's positions")
    part, wins = plan.parts[0], None
    indices = indices[:FULL_PROMPTS] if plan.extremes or part.peers is not None else indices
    try:
        series = measure(prompts, plan.requests, indices)
        if part.peers is not None:
            few = indices[:NULL_PROMPTS]
            wins = won(part, prompts, measure(prompts, [part.request, *part.peers], few), few)
    except UserError as error:
        return replace(blank, reason=error.message)
    looks = Looks((len(indices),))
    if plan.extremes or part.peers is not None:
        evidence = weigh_whole(plan, prompts, series, looks, wins)
    else:
        evidence = Evidence((weigh(plan.claim.tests[0], sample_of(prompts, part, series), looks=looks),))
    decision = rule(evidence)
    figure = measured(plan, decision, series, prompts)
    shares = kept(plan, prompts)
    return replace(
        blank,
        kept=shares,
        notes=warnings(plan, shares),
        measured=figure,
        details=details(plan, series, prompts),
        reason="" if figure else decision.reason,
    )
