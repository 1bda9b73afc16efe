"""Properties: every prompt of a sample of their own is checked, and the prompts that break one are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from circuitdsl.circuit.claims import Circuit, Claim
from circuitdsl.circuit.criteria import Exceeds, Within
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.kind import kind_of
from circuitdsl.measurements.property import Property
from circuitdsl.report.numbers import value
from circuitdsl.report.report import MISSED, ClaimResult, Measured
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.weighing import Evidence, judge_every, unmeasured, weigh_share
from circuitdsl.verify.measure import having, measure, trouble

#: added to a task's seed for the sample of its properties; seeds of specs are smaller, so that the two never meet
OWN_SEED = 2**32
_ANY = Within("value", None, None, "")
_MISSED = unmeasured(_ANY, MISSED)


def family_size(claims: Sequence[Claim]) -> int:
    """Members of Holm's family: claims × tasks, without what is not sampled and without properties of every prompt."""
    return sum(max(1, len(claim.tasks)) for claim in claims if kind_of(claim).in_family)  # scores need no task


def sample_name(task: str) -> str:
    """The name of a task's prompts for its properties, among those of all tasks; no task can be called so."""
    return f"properties of {task}"


def own_samples(circuit: Circuit, claims: Sequence[Claim] | None = None) -> dict[str, int]:
    """The tasks whose properties are claimed, by the circuit or by some of its claims, with the prompts they take."""
    members, found = family_size(circuit.claims), dict[str, int]()
    for claim in circuit.claims if claims is None else claims:
        if kind_of(claim).decided_by == "own sample":
            for task in claim.tasks:
                found[task] = max(found.get(task, 0), kind_of(claim).sample_size(members))
    return found


@dataclass
class Tested:
    """One property on one task; `values` [checks, prompts] are what its checks found on the prompts `indices`."""

    claim: Claim
    task: str
    prompts: Prompts | None
    evidence: Evidence = _MISSED
    indices: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def wanted(self) -> Property:
        return cast(Property, self.claim.measurement)

    def measure(self) -> None:
        """Check every prompt of the sample that has all positions."""
        prompts, requests = self.prompts, self.wanted.requests
        if prompts is None:
            self.evidence = unmeasured(_ANY, "its own sample of prompts was not made")
            return
        self.indices = having(prompts, requests)
        if why := trouble(prompts, self.task, requests, self.indices):
            self.evidence = unmeasured(_ANY, why)
            return
        self.values = values_of(prompts, self.wanted, self.indices)
        self.hits = passes(self.wanted, self.values)
        if bad := int(np.count_nonzero(~np.isfinite(self.values).all(0))):
            self.evidence = unmeasured(_ANY, f"a value is not a number on {bad} of {len(self.indices)} prompts")
        elif self.claim.tests:
            (test,) = self.claim.tests
            assert isinstance(test, Within)
            self.evidence = weigh_share(test, self.hits, prompts.strata[self.indices])
        else:
            self.evidence = judge_every(self.hits)

    def result(self, decision: Decision) -> ClaimResult:
        """The record of the property, with the shortest prompt that breaks it."""
        broken, notes, shown = np.flatnonzero(~self.hits), tuple[str, ...](), None
        if self.prompts is not None and len(broken):
            pairs = self.prompts.pairs
            first = min(broken, key=lambda i: (len(pairs[self.indices[i]].clean_tokens), i))
            shown = Counterexample(self.wanted, pairs[self.indices[first]], self.values[:, first])
            # the reason of a property of every prompt has the number
            number = f"broken by {len(broken)} of {len(self.hits)} prompts, " if self.claim.tests else ""
            notes = (f"{number}such as {shown}",)
        elif not self.claim.tests and decision.verdict == "holds":
            notes = (decision.reason,)
        share = None
        if decision.value is not None:
            share = Measured("share", decision.value, decision.ci, decision.n, "share", ci_used=decision.ci_used)
        return ClaimResult(
            id=self.claim.id,
            line=self.claim.line,
            text=self.claim.text,
            kind="property",
            task=self.task,
            verdict=decision.verdict,
            reason=decision.reason,
            protocol={"read": "every prompt", "run": "clean", "sample": "own"},
            measured=share,
            notes=notes,
            counterexample=shown.record() if shown else None,
        )


# --- one prompt -----------------------------------------------------------------------------------


def values_of(prompts: Prompts, property: Property, indices: np.ndarray) -> np.ndarray:
    """What the checks of a property find on prompts [checks, prompts]."""
    found = measure(prompts, property.requests, indices)
    return np.stack([check.value(*(found[each].values for each in check.requests)) for check in property.checks])


def passes(property: Property, values: np.ndarray) -> np.ndarray:
    """Whether each prompt passes all checks [prompts]."""
    rows = [[check.test.admits(float(v)) for v in row] for check, row in zip(property.checks, values, strict=True)]
    return np.logical_and.reduce(np.asarray(rows, bool))


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A prompt that breaks a property, with what its checks found [checks]."""

    property: Property
    pair: PromptPair
    values: np.ndarray

    def figures(self) -> list[str]:
        """`logit_diff −0.31, not > 0` for each check that the prompt fails, `logit_diff 3.20` for the others."""
        lines = []
        for check, found in zip(self.property.checks, self.values, strict=True):
            unit = check.measurement.figure(Metric()).unit
            compared = isinstance(check.test, Exceeds)
            unit = "points" if unit == "share" and compared else unit
            number = "by " * compared + value(Measured(check.text, float(found), None, 1, unit))
            fails = "" if check.test.admits(float(found)) else f", not {check.test.text}"
            lines.append(f"{check.name} {number}{fails}")
        return lines

    def __str__(self) -> str:
        text = self.pair.clean or " ".join(map(str, self.pair.clean_tokens))
        return f"“{text}”: {'; '.join(self.figures())}"

    def record(self) -> dict[str, Any]:
        """The prompt as a line of a prompt file, with what was found on it."""
        pairs = zip(self.property.checks, self.values, strict=True)
        return self.pair.record() | {"found": {c.text: float(v) if np.isfinite(v) else None for c, v in pairs}}
