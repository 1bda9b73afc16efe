"""What was measured of a claim so far, and the paired samples that verdicts are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circuitdsl.engine.prompts import Prompts, gap
from circuitdsl.measurements.plan import Base, ClaimPlan, Part
from circuitdsl.measurements.requests import Request
from circuitdsl.report.report import MISSED
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import FIRST_LOOK, Looks
from circuitdsl.verdict.weighing import Evidence, unmeasured
from circuitdsl.verify.early_looks import free
from circuitdsl.verify.measure import Series, having

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
        counts = [int(np.count_nonzero(indices < n)) for n in (everything if free(plan) else looks or everything)]
        sizes = dict.fromkeys(n for n in counts if n == counts[-1] or n >= FIRST_LOOK)
        return cls(plan, prompts, Looks(tuple(sizes) if counts[-1] else (1,)), indices, templates)

    def broken(self, because: str) -> Evidence:
        """The evidence where the claim could not be measured."""
        return unmeasured(self.plan.tests(self.plan.parts[0])[0], because)

    def sample(self, part: Part) -> Sample:
        """The sample of a part on the prompts measured so far."""
        return sample_of(self.prompts, part, self.series)


def sample_of(prompts: Prompts, part: Part, found: Found) -> Sample:
    """The sample of a part on the prompts measured so far, all of which have its positions.

    With a base it is the paired differences from it, and for patches the gap beside them.
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
        size=gap(prompts, figure.scale) if figure.scale else figure.size,
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
        d=series.values - base,
        g=(prompts.clean - prompts.corrupt)[series.indices] if request.effect else None,
        unit="points" if plain.unit == "percent" else plain.unit,
        hits=False,
        falls=request.effect and prompts.falls,
        called=part.called,
        shared="" if not isinstance(part.base, str) else "first" if part.base == "clean" else "second",
    )


def base_of(prompts: Prompts, base: Base, found: Found, indices: np.ndarray) -> np.ndarray:
    """What some prompts' numbers are compared with [prompts]."""
    if isinstance(base, str):
        return (prompts.clean if base == "clean" else prompts.corrupt)[indices]
    return found[base].values
