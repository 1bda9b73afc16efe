"""From the numbers of a claim to the evidence for it and against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest

import numpy as np
import torch

from circuitdsl.circuit.criteria import NULL_PROMPTS, Test, Within
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.plan import ClaimPlan, Part
from circuitdsl.measurements.requests import ChangedRequest, PatchRequest, Request, replaced
from circuitdsl.verdict.reasons import too_few
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.strata import SMALL
from circuitdsl.verdict.weighing import Evidence, unmeasured, weigh, weigh_extreme
from circuitdsl.verdict.weighing import Part as Weighed
from circuitdsl.verify.measure import Series, measure, trouble
from circuitdsl.verify.samples import Found, base_of, sample_of
from circuitdsl.verify.unchanged import instead, said, untested

#: circuits whose scores differ by less than so many roundings of the gap's square are tied
ROUNDED = 8


@dataclass
class Collected:
    """What one claim has on one task so far.

    Attributes:
        looks: the sizes at which it is weighed.
        indices: the prompts that have all of its positions.
        nulls: for each part, the effects of its null.
        wins: whether its circuit did better than each rival.
        measured: how many of the task's prompts were looked at.
        settled: whether no more prompts are needed.
    """

    plan: ClaimPlan
    prompts: Prompts
    looks: Looks
    indices: np.ndarray
    series: dict[Request, Series] = field(default_factory=dict)
    nulls: list[np.ndarray] = field(default_factory=list)
    wins: np.ndarray | None = None
    templates: bool = False
    evidence: Evidence | None = None
    measured: int = 0
    settled: bool = False

    @property
    def done(self) -> bool:
        """Whether all prompts were looked at."""
        return self.measured == len(self.prompts.pairs)


def weigh_plan(member: Collected) -> Evidence:
    """Weigh a claim on what was measured so far; on all prompts, a patch that changed no input is an error."""
    plan = member.plan
    if plan.extremes or plan.parts[0].peers is not None:
        return weigh_whole(plan, member.prompts, member.series, member.looks, member.wins, member.templates)
    parts: list[Weighed] = []
    before = iter(member.evidence.parts if member.evidence else ())
    for i, part in enumerate(plan.parts):
        tests = plan.tests(part)
        earlier = tuple(islice(before, len(tests)))
        if member.done and _is_unchanged(member, part):
            parts += unmeasured(tests[0], _why_unchanged(member, part), part.label).parts
        else:
            parts += _weigh_part(member, part, tests, member.nulls[i] if member.nulls else None, earlier)
    return Evidence(tuple(parts))


def _weigh_part(
    member: Collected, part: Part, tests: Sequence[Test], null: np.ndarray | None, before: Sequence[Weighed]
) -> Sequence[Weighed]:
    """Weigh one part of a claim; `before` is what came of it at the look before."""
    sample, margin = sample_of(member.prompts, part, member.series), member.plan.claim.margin
    templates = member.templates and part.request.figure(member.prompts.metric).of_prompts
    weighed = [
        weigh(test, sample, margin=margin, looks=member.looks, null=null, templates=templates, before=earlier)
        for test, earlier in zip_longest(tests, before)
    ]
    if not _is_unchanged(member, part):
        done = member.done or not untested(part, tests, member.series)
        return weighed if done else [replace(p, p_holds=1.0, final=False) for p in weighed]  # may be changed later
    # nothing has changed so far: later prompts may differ, so that this must not be settled yet
    return [replace(p, p_holds=1.0, p_fails=1.0, final=False) for p in weighed]


def broken(plan: ClaimPlan, because: str) -> Evidence:
    """A claim that could not be measured."""
    return unmeasured(plan.tests(plan.parts[0])[0], because)


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


def weigh_nulls(member: Collected, found: Found, first: np.ndarray) -> None:
    """Take note of how the nulls and the rivals of a claim did on its first prompts."""
    prompts = member.prompts
    if ranked := next((part for part in member.plan.parts if part.peers), None):
        member.wins = won(ranked, prompts, found, first)
    gap = float(np.mean((prompts.clean - prompts.corrupt)[first]))
    member.nulls = [
        np.asarray([np.mean(found[r].values - base_of(prompts, part.base or "clean", found, first)) for r in part.null])
        / gap
        for part in member.plan.parts
    ]


def won(part: Part, prompts: Prompts, found: Found, indices: np.ndarray) -> np.ndarray:
    """Whether the circuit is closer to the model than each rival, by the score of Shi et al. 2024: E[(m(M) - m(C))^2].

    A tie is no win, nor is what rounding may have made of one.
    """
    clean, corrupt = prompts.clean[indices], prompts.corrupt[indices]
    rounding = ROUNDED * torch.finfo(prompts.model.dtype).eps * float(np.mean((clean - corrupt) ** 2))

    def loss(request: Request) -> float:
        return float(np.mean((found[request].values - clean) ** 2))

    own = loss(part.request) + rounding
    return np.asarray([own < loss(rival) for rival in part.peers or ()], bool)


# --- figures of the whole circuit ------------------------------------------------------------------


def weigh_whole(
    plan: ClaimPlan, prompts: Prompts, found: Found, looks: Looks, wins: np.ndarray | None, templates: bool = False
) -> Evidence:
    """Weigh a claim that has rivals or is about the largest of many figures.

    Args:
        wins: whether the circuit did better than each rival on the first prompts (see `won`).
        templates: whether the verdict is about prompts from other templates; that on rivals is about circuits alone.
    """
    (test,) = plan.claim.tests
    assert isinstance(test, Within)
    if not plan.extremes:
        return _weigh_wins(test, plan, found, wins)
    samples = [sample_of(prompts, part, found) for part in plan.parts]
    sets = [[samples[i] for i in one] for one in plan.extremes]
    return weigh_extreme(test, sets, name=plan.called, looks=looks, templates=templates)


def _weigh_wins(test: Within, plan: ClaimPlan, found: Found, wins: np.ndarray | None) -> Evidence:
    """The share of circuits of this shape that the circuit is better than, from a random sample of them.

    The rivals are independent draws, the prompts are fixed: hits and misses are binomial, and what the verdict says is
    about circuits on these prompts.
    """
    if wins is None or not len(wins):
        return unmeasured(test, "every circuit of this shape is this one: there is none to compare it with")
    n = min(NULL_PROMPTS, len(found[plan.parts[0].request].values))
    sample = Sample(np.zeros(len(wins)), value=wins, name=plan.called, unit="percent", hits=True)
    weighed = weigh(test, sample)
    if n < SMALL:
        weighed = replace(weighed, forced="undecided", because=too_few(n, SMALL))
    return Evidence((weighed,))
