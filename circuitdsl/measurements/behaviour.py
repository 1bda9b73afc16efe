"""`expect accuracy >= 90%`: a metric of the model as it is, or under a condition."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar

from circuitdsl.circuit.arguments import value_test
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.criteria import AboveChance
from circuitdsl.circuit.header import metric_of
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import LOGITS
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import CHANCE, METRICS, Metric, behaviours
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kept import Kept
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.plan import Base
from circuitdsl.measurements.requests import READERS, Figure, PatchRequest, figure_of


@dataclass(frozen=True, slots=True)
class Behaviour(Reading):
    """A metric on the task's clean prompts."""

    metric: Metric
    under: PatchRequest | None = None

    words = behaviours(own=True)
    reader = f"{READERS}.metric:patched"
    hooks = f"{READERS}.behaviour"
    usage = (
        "`accuracy`, `logit_diff`, `prob_diff`, `prob`, `logit`, `logprob`, `rank`, with options of the metric"
        " | the model as it is"
        " | a relation; `accuracy above chance`",
    )
    examples = (
        "expect accuracy >= 90%",
        "expect logit_diff > 0",
        "expect accuracy above chance",
        "expect accuracy(top = 5) >= 90%",
        "expect rank <= 3",
    )
    false_examples = ("expect accuracy <= 50%", "expect logit_diff <= 0")
    instead_of_chance: ClassVar = {"logit_diff": "guesses have a logit_diff of 0: write logit_diff > 0"}
    under_condition = True
    per_prompt = True
    level = True

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return behaviours()

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        name, entries = expect.measurement.name, list[s.Option | s.Value]()
        for argument in expect.measurement.arguments:
            if isinstance(argument, s.GroupRef):
                entries.append(s.Word(argument.span, argument.name))
            elif isinstance(argument, s.Option):
                entries.append(argument)
            else:
                scope.sink.error("E084", f"{name.text} takes options only", argument.span)
                return None
        metric, shape = metric_of(scope.sink, name, entries), METRICS[name.text]
        if isinstance(expect.relation, s.AboveChance) and shape.chance:
            return None if metric is None else (cls(_as_metric(scope, metric)), (AboveChance(),))
        test = value_test(scope, expect, shape.unit, shape.low, shape.high)
        return None if metric is None or test is None else (cls(_as_metric(scope, metric)), (test,))

    def base(self, claim: Claim) -> Base | None:
        if AboveChance() in claim.tests:  # what guesses would score, prompt by prompt
            return Behaviour(replace(self.metric, name=CHANCE + self.metric.name))
        return super(Behaviour, self).base(claim)

    def figure(self, metric: Metric) -> Figure:
        return figure_of(self.metric)

    @property
    def scored(self) -> bool:
        return self.under is not None

    needs_runs = scored

    def kept(self, n_layers: int) -> Kept:
        return Kept(clean=frozenset([LOGITS])) | self.patched(n_layers)

    @property
    def together(self) -> Hashable:
        return (self.metric,)


def _as_metric(scope: Scope, metric: Metric) -> Metric:
    """Without options of its own, a measurement named like the spec's metric is measured like it."""
    return scope.metric if metric.name == scope.metric.name and not metric.options else metric
