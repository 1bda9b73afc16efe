"""Properties: every prompt of a sample of their own is checked, and the prompts that break one are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.circuit.criteria import Within
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.engine.prompts import Prompts
from circuitdsl.measurements.kind import kind_of
from circuitdsl.measurements.property import Property
from circuitdsl.measurements.requests import Request
from circuitdsl.report.numbers import value
from circuitdsl.report.report import MISSED, ClaimResult, Measured
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.weighing import Evidence, judge_every, unmeasured, weigh_share
from circuitdsl.verify.measure import having, measure, trouble

#: added to a task's seed for the sample of its properties; seeds of specs are smaller, so that the two never meet
OWN_SEED = 2**32
_ANY = Within("value", None, None, "")


def family_size(claims: Sequence[Claim]) -> int:
    """Members of Holm's family: claims × tasks, but for what is not sampled and for properties of every prompt."""
    return sum(max(1, len(claim.tasks)) for claim in claims if kind_of(claim).in_family)  # scores need no task


def sample_name(task: str) -> str:
    """The name of a task's prompts for its properties, among those of all tasks; no task can be called so."""
    return f"properties of {task}"


def own_samples(circuit: Circuit) -> dict[str, int]:
    """The tasks whose properties are claimed, with the prompts that these take."""
    members, found = family_size(circuit.claims), dict[str, int]()
    for claim in circuit.claims:
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
    evidence: Evidence = field(init=False)
    indices: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        self.evidence = self._broken(MISSED)

    @property
    def in_family(self) -> bool:
        return self.wanted.in_family

    @property
    def wanted(self) -> Property:
        return cast(Property, self.claim.measurement)

    def measure(self) -> None:
        """Check every prompt of the sample that has all positions."""
        prompts = self.prompts
        if prompts is None:
            self.evidence = self._broken("its own sample of prompts was not made")
            return
        requests = requests_of(self.wanted)
        self.indices = having(prompts, requests)
        if trouble := self._trouble(prompts, requests):
            self.evidence = self._broken(trouble)
            return
        self.values = values_of(prompts, requests, self.indices)
        self.hits = passes(self.wanted, self.values)
        if bad := int(np.count_nonzero(~np.isfinite(self.values).all(0))):
            self.evidence = self._broken(f"a value is not a number on {bad} of {len(self.indices)} prompts")
        elif self.claim.tests:
            (test,) = self.claim.tests
            assert isinstance(test, Within)
            self.evidence = weigh_share(test, self.hits, prompts.strata[self.indices])
        else:
            self.evidence = judge_every(self.hits)

    def _trouble(self, prompts: Prompts, requests: Sequence[Request]) -> str:
        if not len(self.indices):
            places = dict.fromkeys(str(p) for request in requests for p in request.positions)
            return f"no prompt of {self.task} has all of its positions: {', '.join(places)}"
        return next((why for request in requests if (why := trouble(prompts, request, missing=False))), "")

    def _broken(self, because: str) -> Evidence:
        return unmeasured(_ANY, because)

    def result(self, decision: Decision) -> ClaimResult:
        """The record of the property, with the shortest prompt that breaks it."""
        shown = self.counterexample()
        notes = []
        if shown is not None:
            count = int(np.count_nonzero(~self.hits))
            notes.append(f"broken by {count} of {len(self.hits)} prompts, such as {says(self.wanted, *shown)}")
        elif not self.claim.tests and decision.verdict == "holds":
            notes.append(decision.reason)
        return ClaimResult(
            id=self.claim.id,
            line=self.claim.line,
            text=self.claim.text,
            kind="property",
            task=self.task,
            verdict=decision.verdict,
            reason=decision.reason,
            protocol={"read": "every prompt", "run": "clean", "sample": "own"},
            measured=self._measured(decision),
            notes=tuple(notes),
            counterexample=None if shown is None else record(self.wanted, *shown),
        )

    def _measured(self, decision: Decision) -> Measured | None:
        if decision.value is None:
            return None
        return Measured("share", decision.value, decision.ci, decision.n, "share", ci_used=decision.ci_used)

    def counterexample(self) -> tuple[PromptPair, np.ndarray] | None:
        """The shortest prompt of the sample that breaks the property, with the values of its checks."""
        broken = np.flatnonzero(~self.hits)
        if self.prompts is None or not len(broken):
            return None
        pairs = self.prompts.pairs
        first = min(broken, key=lambda i: (len(pairs[self.indices[i]].clean_tokens), i))
        return pairs[self.indices[first]], self.values[:, first]


# --- one prompt -----------------------------------------------------------------------------------


def requests_of(property: Property) -> list[Request]:
    """What the checks of a property read of a prompt."""
    return [check.measurement for check in property.checks]


def values_of(prompts: Prompts, requests: Sequence[Request], indices: np.ndarray) -> np.ndarray:
    """What requests give on prompts [requests, prompts]."""
    found = measure(prompts, list(dict.fromkeys(requests)), indices)
    return np.stack([found[request].values for request in requests])


def passes(property: Property, values: np.ndarray) -> np.ndarray:
    """Whether each prompt passes all checks [prompts]."""
    rows = [[check.admits(float(v)) for v in row] for check, row in zip(property.checks, values, strict=True)]
    return np.logical_and.reduce(np.asarray(rows, bool))


def figures(property: Property, values: np.ndarray) -> list[str]:
    """`logit_diff −0.31, not > 0` for each check that a prompt fails, `logit_diff 3.20` for the others."""
    lines = []
    for check, found in zip(property.checks, values, strict=True):
        unit = check.measurement.figure(Metric()).unit
        number = value(Measured(check.text, float(found), None, 1, unit))
        lines.append(f"{check.name} {number}" + ("" if check.admits(float(found)) else f", not {check.bound}"))
    return lines


def says(property: Property, pair: PromptPair, values: np.ndarray) -> str:
    text = pair.clean or " ".join(map(str, pair.clean_tokens))
    return f"“{text}”: {'; '.join(figures(property, values))}"


def record(property: Property, pair: PromptPair, values: np.ndarray) -> dict[str, Any]:
    """The prompt as a line of a prompt file, with what was found on it."""
    found = {check.text: float(v) if np.isfinite(v) else None for check, v in zip(property.checks, values, strict=True)}
    return pair.record() | {"found": found}


def own_use(use: TaskUse, prompts: int) -> TaskUse:
    """A task as properties ask for it: other prompts than those that means are taken over, and enough of them."""
    return replace(use, prompts=prompts, seed=use.seed + OWN_SEED)
