"""Properties: every prompt of a sample of their own is checked, and the prompts that break one are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.circuit.criteria import Within
from circuitdsl.circuit.measurements import Attention, Attribution, Behaviour, Check, Property
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.errors import UserError
from circuitdsl.measurements.requests import (
    AttentionRequest,
    AttributionRequest,
    BehaviourRequest,
    Request,
    positions_of,
)
from circuitdsl.report.numbers import value
from circuitdsl.report.report import MISSED, ClaimResult, Measured
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.properties import judge_every, prompts_needed, weigh_share
from circuitdsl.verdict.weighing import Evidence, unmeasured
from circuitdsl.verify.bench import Bench, behaviour, present
from circuitdsl.verify.measure import measure

#: added to a task's seed for the sample of its properties; seeds of specs are smaller, so that the two never meet
OWN_SEED = 2**32
_ANY = Within("value", None, None, "")


def sample_name(task: str) -> str:
    """Under what name a task's bench for its properties goes among the benches; no task can be called so."""
    return f"properties of {task}"


def family_size(circuit: Circuit) -> int:
    """Members of Holm's family: claims x tasks, but for channels and for properties claimed of every prompt."""
    return sum(max(1, len(claim.tasks)) for claim in circuit.claims if in_family(claim))  # scores need no task


def in_family(claim: Claim) -> bool:
    measured = claim.measurement
    return claim.kind not in ("channel", "compare") and not (isinstance(measured, Property) and measured.share is None)


def own_samples(circuit: Circuit) -> dict[str, int]:
    """The tasks whose properties are claimed, with the prompts that these take."""
    members, found = family_size(circuit), dict[str, int]()
    for claim in circuit.claims:
        if isinstance(claim.measurement, Property):
            for task in claim.tasks:
                found[task] = max(found.get(task, 0), prompts_needed(claim.measurement.share, members))
    return found


@dataclass
class Tested:
    """One property on one task; `values` [checks, prompts] are what its checks found on the prompts `indices`."""

    claim: Claim
    task: str
    bench: Bench | None
    evidence: Evidence = field(init=False)
    indices: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        self.evidence = self._broken(MISSED)

    @property
    def property(self) -> Property:
        assert isinstance(self.claim.measurement, Property)
        return self.claim.measurement

    def measure(self) -> None:
        """Check every prompt of the sample that has all positions."""
        bench = self.bench
        if bench is None:
            self.evidence = self._broken("its own sample of prompts was not made")
            return
        requests = [request_of(check) for check in self.property.checks]
        everything = np.arange(len(bench.pairs))
        here = np.logical_and.reduce([present(bench, request, everything) for request in requests])
        self.indices = np.flatnonzero(here)
        if trouble := self._trouble(bench, requests):
            self.evidence = self._broken(trouble)
            return
        self.values = values_of(bench, requests, self.indices)
        self.hits = passes(self.property, self.values)
        if bad := int(np.count_nonzero(~np.isfinite(self.values).all(0))):
            self.evidence = self._broken(f"a value is not a number on {bad} of {len(self.indices)} prompts")
        elif self.claim.tests:
            (test,) = self.claim.tests
            assert isinstance(test, Within)
            self.evidence = weigh_share(test, self.hits, bench.strata[self.indices])
        else:
            self.evidence = judge_every(self.hits)

    def _trouble(self, bench: Bench, requests: Sequence[Request]) -> str:
        if not len(self.indices):
            places = dict.fromkeys(str(p) for request in requests for p in positions_of(request))
            return f"no prompt of {self.task} has all of its positions: {', '.join(places)}"
        try:
            for request in requests:
                if isinstance(request, BehaviourRequest):
                    behaviour(bench, request.metric)
        except UserError as error:
            return error.message
        return ""

    def _broken(self, because: str) -> Evidence:
        return unmeasured(_ANY, because)

    def result(self, decision: Decision) -> ClaimResult:
        """The record of the property, with the shortest prompt that breaks it."""
        shown = self.counterexample()
        notes = []
        if shown is not None:
            count = int(np.count_nonzero(~self.hits))
            notes.append(f"broken by {count} of {len(self.hits)} prompts, such as {says(self.property, *shown)}")
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
            counterexample=None if shown is None else record(self.property, *shown),
        )

    def _measured(self, decision: Decision) -> Measured | None:
        if decision.value is None:
            return None
        return Measured("share", decision.value, decision.ci, decision.n, "share", ci_used=decision.ci_used)

    def counterexample(self) -> tuple[PromptPair, np.ndarray] | None:
        """The shortest prompt of the sample that breaks the property, with the values of its checks."""
        broken = np.flatnonzero(~self.hits)
        if self.bench is None or not len(broken):
            return None
        pairs = self.bench.pairs
        first = min(broken, key=lambda i: (len(pairs[self.indices[i]].clean_tokens), i))
        return pairs[self.indices[first]], self.values[:, first]


def tested(circuit: Circuit, benches: Mapping[str, Bench], only: str | None = None) -> list[Tested]:
    """The properties of a circuit on their tasks, not measured yet."""
    return [
        Tested(claim, task, benches.get(sample_name(task)))
        for claim in circuit.claims
        if isinstance(claim.measurement, Property) and (only is None or claim.answers_to(only))
        for task in claim.tasks
    ]


# --- one prompt -----------------------------------------------------------------------------------


def request_of(check: Check) -> Request:
    """What a check reads of a prompt."""
    match check.measurement:
        case Behaviour(metric=metric):
            return BehaviourRequest(metric)
        case Attention(heads=heads, source=source, target=target):
            return AttentionRequest(heads, source, target)
        case Attribution(nodes=nodes):
            return AttributionRequest(nodes)
    raise TypeError(f"no such measurement: {check.measurement!r}")


def values_of(bench: Bench, requests: Sequence[Request], indices: np.ndarray) -> np.ndarray:
    """What requests give on prompts [requests, prompts]."""
    found = measure(bench, list(dict.fromkeys(requests)), indices)
    return np.stack([found[request].values for request in requests])


def passes(property: Property, values: np.ndarray) -> np.ndarray:
    """Whether each prompt passes all checks [prompts]."""
    rows = [[check.admits(float(v)) for v in row] for check, row in zip(property.checks, values, strict=True)]
    return np.logical_and.reduce(np.asarray(rows, bool))


def figures(property: Property, values: np.ndarray) -> list[str]:
    """`logit_diff −0.31, not > 0` for each check that a prompt fails, `logit_diff 3.20` for the others."""
    lines = []
    for check, found in zip(property.checks, values, strict=True):
        number = value(Measured(check.text, float(found), None, 1, unit_of(check)))
        name, bound = split(check)
        lines.append(f"{name} {number}" + ("" if check.admits(float(found)) else f", not {bound}"))
    return lines


def split(check: Check) -> tuple[str, str]:
    """A check's text as what is measured and what is asked of it."""
    for sign in (" >= ", " <= ", " > ", " < ", " in ["):
        name, found, bound = check.text.partition(sign)
        if found:
            return name, f"{found}{bound}".strip()
    return check.text, ""


def unit_of(check: Check) -> str:
    match check.measurement:
        case Behaviour(metric=metric):
            return METRICS[metric.name].shown
        case Attribution():
            return "logits"
    return "share"


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
