"""What was measured of a claim so far, and the paired samples that verdicts are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circuitdsl.brief import quoted
from circuitdsl.engine.prompts import Prompts, gap
from circuitdsl.language.diagnostics import listing
from circuitdsl.measurements.plan import Base, ClaimPlan, Part
from circuitdsl.measurements.requests import Request
from circuitdsl.report.report import MISSED
from circuitdsl.verdict.means import Range
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import FIRST_LOOK, Looks
from circuitdsl.verdict.weighing import Evidence, unmeasured
from circuitdsl.verify.early_looks import free
from circuitdsl.verify.measure import Series, by_prompts, having

#: where the number of sequences of random tokens is fixed
NO_MORE = "no more are drawn"
Found = Mapping[Request, Series]


@dataclass
class Collected:
    """What one claim has on one task so far.

    Attributes:
        looks: the numbers of prompts at which it is weighed.
        indices: the prompts that have all of its positions.
        templates: whether the verdict is about prompts from other templates.
        nulls: for each part, the effects of its null.
        wins: whether its circuit did better than each rival.
        measured: how many of the task's prompts were looked at.
        settled: whether no more prompts are needed.
    """

    plan: ClaimPlan
    prompts: Prompts
    looks: Looks
    indices: np.ndarray
    templates: bool = False
    series: dict[Request, Series] = field(default_factory=dict)
    nulls: list[np.ndarray] = field(default_factory=list)
    wins: np.ndarray | None = None
    measured: int = 0
    settled: bool = False
    evidence: Evidence = field(init=False)

    def __post_init__(self) -> None:
        self.evidence = self.broken(MISSED)

    @classmethod
    def of(
        cls, plan: ClaimPlan, prompts: Prompts, looks: Sequence[int] | None = None, templates: bool = False
    ) -> Collected:
        """Nothing so far. Of the task's looks, those stay at which enough prompts have all positions of the claim.

        By default there is one look, as for a claim whose numbers are there on all prompts anyway.
        """
        indices, everything = having(prompts, plan.requests), (len(prompts.pairs),)
        indices = indices[asked_of(prompts.strata, plan)[indices]]
        counts = [int(np.count_nonzero(indices < n)) for n in (everything if free(plan) else looks or everything)]
        sizes = dict.fromkeys(n for n in counts if n == counts[-1] or n >= FIRST_LOOK)
        return cls(plan, prompts, Looks(tuple(sizes) if counts[-1] else (1,)), indices, templates)

    def broken(self, because: str) -> Evidence:
        """The evidence where the claim could not be measured."""
        return unmeasured(self.plan.tests(self.plan.parts[0])[0], because)

    def sample(self, part: Part) -> Sample:
        """The sample of a part on the prompts measured so far."""
        chosen = asked_of(self.prompts.strata, self.plan) if self.plan.claim.strata else None
        return sample_of(self.prompts, part, self.series, chosen)


def asked_of(strata: np.ndarray, plan: ClaimPlan) -> np.ndarray:
    """On which prompts a claim is checked, by the strata of all [prompts]."""
    if not plan.claim.strata:
        return np.ones(len(strata), bool)
    asked = {name: plan.claim.asks_of(name) for name in dict.fromkeys(strata.tolist())}
    return np.asarray([asked[name] for name in strata.tolist()], bool)


def by_strata(
    strata: np.ndarray, asked: Iterable[tuple[ClaimPlan, Sequence[Request]]], indices: np.ndarray
) -> list[tuple[np.ndarray, list[Request]]]:
    """What some claims ask of some prompts, as (prompts, requests): each request once, where some claim asks for it."""
    where: dict[Request, np.ndarray] = {}
    for plan, requests in asked:
        mine = asked_of(strata, plan)[indices]
        for request in requests:
            where[request] = where[request] | mine if request in where else mine
    return by_prompts((indices[mine], [request]) for request, mine in where.items())


def no_stratum(prompts: Prompts, plan: ClaimPlan) -> str:
    """That a name of a stratum is that of none; empty where each has prompts."""
    there = sorted(set(prompts.strata.tolist()))
    for name in plan.claim.strata:
        if not any(replace(plan.claim, strata=(name,)).asks_of(stratum) for stratum in there):
            named = listing(map(quoted, there)) if any(there) else "none of a name"
            return f"no stratum of {plan.task} is called {quoted(name)} (it has {named})"
    return ""


def sample_of(prompts: Prompts, part: Part, found: Found, chosen: np.ndarray | None = None) -> Sample:
    """The sample of a part on the prompts measured so far, all of which have its positions.

    With a base it is the paired differences from it, and for patches the gap beside them. `chosen` are the prompts of
    the strata that the claim is about, where it names some.
    """
    series, request = found[part.request], part.request
    figure = request.figure(prompts.metric)
    strata = prompts.strata[series.indices]
    taken, there = len(prompts.pairs), prompts.data.available
    plain = Sample(
        strata if figure.of_prompts else np.zeros(len(strata)),
        value=series.values,
        name=figure.name,
        unit="percent" if figure.unit == "share" else "plain",
        hits=figure.hits,
        label=part.label,
        range=(figure.low, figure.high),
        size=gap(prompts, figure.scale, chosen) if figure.scale else figure.size,
        most=None if there is None else len(strata) * max(there, taken) // taken,
        limit=f"the prompt file has {'no more' if there == taken else there}" if prompts.data.from_file else NO_MORE,
    )
    if part.base is None:
        return plain
    base = base_of(prompts, part.base, found, series.indices)
    return replace(
        plain,
        value=None,
        other=None if part.rival is None else found[part.rival].values - base,
        d=series.values - part.times * base,
        g=(prompts.clean - prompts.corrupt)[series.indices] if request.effect else None,
        unit="points" if plain.unit == "percent" else plain.unit,
        hits=False,
        falls=request.effect and prompts.falls,
        called=part.called,
        range=_less(plain.range, part.times),
        shared="" if not isinstance(part.base, str) else "first" if part.base == "clean" else "second",
    )


def _less(of: Range, times: float) -> Range:
    """A range of scores as wide as a score less so many times another can be far from 0; ends that are open stay so."""
    low, high = of
    if times == 1 or not np.all(np.isfinite(of)):
        return of
    return 0.0, max(high - times * low, times * high - low)


def base_of(prompts: Prompts, base: Base, found: Found, indices: np.ndarray) -> np.ndarray:
    """What some prompts' numbers are compared with [prompts]."""
    if isinstance(base, str):
        return (prompts.clean if base == "clean" else prompts.corrupt)[indices]
    return found[base].values
