"""Figures of the whole circuit: what share of the model they keep, and all of them, claimed or not (`--full`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

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
from circuitdsl.verify.measure import measure
from circuitdsl.verify.results import details, kept, measured, warnings
from circuitdsl.verify.samples import Collected
from circuitdsl.verify.weigh import weigh_nulls, weigh_plan

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
    member = Collected.of(plan, prompts)
    if not len(member.indices):
        return replace(blank, reason=f"no prompt of {plan.task} has all of the circuit's positions")
    if plan.extremes or plan.parts[0].peers is not None:
        member.indices = member.indices[:FULL_PROMPTS]
        member.looks = Looks((len(member.indices),))
    try:
        member.series = measure(prompts, plan.requests, member.indices)
        if nulls := member.plan.null_requests:
            weigh_nulls(member, measure(prompts, nulls, member.indices[:NULL_PROMPTS]))
    except UserError as error:
        return replace(blank, reason=error.message)
    decision = rule(weigh_plan(member))
    figure = measured(member, decision)
    shares = kept(plan, prompts)
    return replace(
        blank,
        kept=shares,
        notes=warnings(plan, shares),
        measured=figure,
        details=details(member),
        reason="" if figure else decision.reason,
    )
