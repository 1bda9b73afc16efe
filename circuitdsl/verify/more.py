"""Figures on more prompts than decided a claim, where the numbers of these are there anyway.

A claim is measured until it is decided. That may be early or late, as other claims of the spec share the level. What
the task's unpatched runs say, and what another claim has measured further, costs nothing more: the figure is then taken
on all of these prompts, and does not move with other claims. The verdict stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from circuitdsl.measurements.requests import Request
from circuitdsl.verdict.decide import Decision, ruled
from circuitdsl.verdict.families import Levels
from circuitdsl.verify.measure import Series, of_prompts
from circuitdsl.verify.samples import Collected
from circuitdsl.verify.weigh import weigh_plan

Longest = dict[tuple[str, Request], Series]


def on_more_prompts(
    members: Sequence[Collected], decisions: Sequence[Decision], levels: Sequence[Levels]
) -> list[tuple[Collected, Decision]]:
    """Claims with their decisions, whose figures are on as many prompts as there are numbers of.

    Where the figure on more prompts would not show the verdict, that of the prompts which decided it stays.
    """
    longest: Longest = {}
    for member in members:
        for request, series in member.series.items():
            known = longest.get((member.plan.task, request))
            if known is None or len(known.indices) < len(series.indices):
                longest[member.plan.task, request] = series
    extended = [_extended(member, longest) for member in members]
    again = iter(ruled([m.evidence for m in extended if m], [x for m, x in zip(extended, levels, strict=True) if m]))
    found = []
    for member, decision, more in zip(members, decisions, extended, strict=True):
        described = next(again) if more else decision
        found.append((more, described) if more and described.verdict == decision.verdict else (member, decision))
    return found


def _extended(member: Collected, longest: Longest) -> Collected | None:
    """The claim on more prompts; None where there are no more numbers, or its figure is not of prompts."""
    plan = member.plan
    ranked = plan.extremes or any(part.peers is not None for part in plan.parts)
    if ranked or not member.series or len(member.evidence.parts) == 0 or member.measured >= len(member.prompts.pairs):
        return None
    there = np.ones(len(member.indices), bool)
    for request in plan.requests:
        if request.needs_runs:
            there &= np.isin(member.indices, longest[plan.task, request].indices)
    count = len(there) if there.all() else int(np.argmin(there))
    if count <= len(member.series[plan.parts[0].request].indices):
        return None
    indices = member.indices[:count]

    def series(request: Request) -> Series:
        if not request.needs_runs:
            return of_prompts(member.prompts, request, indices)
        known = longest[plan.task, request]
        return known.only(np.isin(known.indices, indices))

    more = replace(member, series={**member.series, **{request: series(request) for request in plan.requests}})
    more.evidence = member.evidence
    more.evidence = weigh_plan(more)
    return more
