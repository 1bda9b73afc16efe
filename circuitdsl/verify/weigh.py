"""From the numbers of a claim to the evidence for it and against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, zip_longest

import numpy as np
import torch

from circuitdsl.circuit.criteria import NULL_PROMPTS, Test, Within
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.plan import Part
from circuitdsl.measurements.requests import ChangedRequest, PatchRequest, Request, replaced
from circuitdsl.verdict.means import SMALL
from circuitdsl.verdict.reasons import too_few
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.weighing import Evidence, unmeasured, weigh, weigh_extreme
from circuitdsl.verdict.weighing import Part as Weighed
from circuitdsl.verify.measure import measure, trouble
from circuitdsl.verify.samples import Collected, Found, base_of
from circuitdsl.verify.unchanged import instead, said, untested

#: the scores of two circuits are tied where they differ by less than so many roundings of the gap's square
ROUNDED = 8


def weigh_plan(member: Collected) -> Evidence:
    """Weigh a claim on what was measured so far; on all prompts, a patch that changed no input is an error."""
    plan = member.plan
    if plan.parts[0].peers is not None:
        return _weigh_wins(member)
    if plan.extremes:
        (test,) = plan.claim.tests
        assert isinstance(test, Within)
        samples = [member.sample(part) for part in plan.parts]
        sets = [[samples[i] for i in one] for one in plan.extremes]
        return weigh_extreme(test, sets, name=plan.called, looks=member.looks, templates=member.templates)
    parts: list[Weighed] = []
    before = iter(member.evidence.parts)
    for i, part in enumerate(plan.parts):
        tests = plan.tests(part)
        earlier = tuple(islice(before, len(tests)))
        if member.measured == len(member.prompts.pairs) and _is_unchanged(member, part):
            parts += unmeasured(tests[0], _why_unchanged(member, part), part.label).parts
        else:
            parts += _weigh_part(member, part, tests, member.nulls[i] if member.nulls else None, earlier)
    return Evidence(tuple(parts))


def _weigh_part(
    member: Collected, part: Part, tests: Sequence[Test], null: np.ndarray | None, before: Sequence[Weighed]
) -> Sequence[Weighed]:
    """Weigh one part of a claim; `before` is what came of it at the look before."""
    sample, margin = member.sample(part), member.plan.claim.margin
    templates = member.templates and part.request.figure(member.prompts.metric).of_prompts
    weighed = [
        weigh(test, sample, margin=margin, looks=member.looks, null=null, templates=templates, before=earlier)
        for test, earlier in zip_longest(tests, before)
    ]
    # later prompts may differ from those at which nothing has changed: these must not settle the claim yet
    if _is_unchanged(member, part):
        return [replace(p, p_holds=1.0, p_fails=1.0, final=False) for p in weighed]
    if member.measured < len(member.prompts.pairs) and untested(part, tests, member.series):
        return [replace(p, p_holds=1.0, final=False) for p in weighed]
    return weighed


# --- patches that change nothing -------------------------------------------------------------------


def _is_unchanged(member: Collected, part: Part) -> bool:
    """Whether some patch or intervention that the part is about has changed nothing on any prompt so far."""
    return any(request.changes and not member.series[request].changed.any() for request in part.requests)


def _why_unchanged(member: Collected, part: Part) -> str:
    request = part.request
    if isinstance(request, ChangedRequest):
        return f"{request.intervention.name} changes nothing of what the model does on these prompts"
    terms = replaced(_idle_patch(member, part))
    return said(terms) + instead(terms, member.prompts)


def _idle_patch(member: Collected, part: Part) -> PatchRequest:
    """The patch that has replaced nothing: a request may make two of them."""
    patches = [patch for request in part.requests for patch in request.patches]
    if len(patches) > 1:
        found = measure(member.prompts, patches, member.indices)
        return next((patch for patch in patches if not found[patch].changed.any()), patches[0])
    return patches[0]


# --- claims that cannot be measured ----------------------------------------------------------------


def trouble_of(member: Collected) -> str:
    """Why a claim cannot be measured on its task; empty where it can."""
    missing = not len(member.indices)
    requests = member.plan.requests if missing else [part.request for part in member.plan.parts]
    why = next((why for request in requests if (why := trouble(member.prompts, request, missing))), "")
    if why or not missing:
        return why
    places = dict.fromkeys(p for request in member.plan.requests for p in request.positions)
    return f"no prompt of {member.plan.task} has all of its positions: {', '.join(map(str, places))}"


# --- nulls and rivals ------------------------------------------------------------------------------


def weigh_nulls(member: Collected, found: Found) -> None:
    """Take note of how the nulls and the rivals of a claim did on its first prompts."""
    prompts, first = member.prompts, member.indices[:NULL_PROMPTS]
    if ranked := next((part for part in member.plan.parts if part.peers), None):
        member.wins = _won(ranked, prompts, found, first)
    gap = float(np.mean((prompts.clean - prompts.corrupt)[first]))
    member.nulls = [
        np.asarray([np.mean(found[r].values - base_of(prompts, part.base or "clean", found, first)) for r in part.null])
        / gap
        for part in member.plan.parts
    ]


def _won(part: Part, prompts: Prompts, found: Found, indices: np.ndarray) -> np.ndarray:
    """Whether the circuit is closer to the model than each rival, by the score of Shi et al. 2024: E[(m(M) - m(C))^2].

    A tie is no win, nor is what rounding may have made of one.
    """
    clean, corrupt = prompts.clean[indices], prompts.corrupt[indices]
    rounding = ROUNDED * torch.finfo(prompts.model.dtype).eps * float(np.mean((clean - corrupt) ** 2))

    def loss(request: Request) -> float:
        return float(np.mean((found[request].values - clean) ** 2))

    own = loss(part.request) + rounding
    return np.asarray([own < loss(rival) for rival in part.peers or ()], bool)


def _weigh_wins(member: Collected) -> Evidence:
    """The share of circuits of this shape that the circuit is better than, from a random sample of them.

    The rivals are independent draws, the prompts are fixed: hits and misses are binomial, and what the verdict says is
    about circuits on these prompts.
    """
    (test,), wins = member.plan.claim.tests, member.wins
    if wins is None or not len(wins):
        return unmeasured(test, "every circuit of this shape is this one: there is none to compare it with")
    n = min(NULL_PROMPTS, len(member.series[member.plan.parts[0].request].values))
    sample = Sample(np.zeros(len(wins)), value=wins, name=member.plan.called, unit="percent", hits=True)
    weighed = weigh(test, sample)
    if n < SMALL:
        weighed = replace(weighed, forced="undecided", because=too_few(n, SMALL))
    return Evidence((weighed,))
