"""`expect induction_score(G) >= 40%`: what heads attend to on repeated random tokens; no task is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from circuitdsl.circuit.arguments import heads_argument, sort_arguments, value_test
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Node
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kept import Kept, attention_of
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure

ScoreKind = Literal["previous_token", "duplicate_token", "induction"]


@dataclass(frozen=True, slots=True)
class HeadScore(Reading):
    """What heads attend to on repeated random tokens."""

    kind: ScoreKind
    heads: tuple[Node, ...]

    words = ("previous_token_score", "duplicate_token_score", "induction_score")
    hooks = f"{READERS}.head_score"
    on_runs = False
    needs_task = False
    usage = (
        "`previous_token_score(GROUP)`, `duplicate_token_score(GROUP)`, `induction_score(GROUP)`"
        " | attention to that token on repeated random tokens; no task is needed"
        " | a share",
    )
    examples = ("expect induction_score(some) <= 99%",)
    false_examples = ("expect induction_score(some) >= 99%",)

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        name = expect.measurement.name.text
        found = sort_arguments(expect.measurement.arguments)
        heads = heads_argument(scope, expect.measurement, found)
        test = value_test(scope, expect, "share", 0, 1)
        if expect.on is not None:
            message = f"{name} is measured on random tokens: it has no task"
            scope.sink.error("E083", message, expect.on.span)
            return None
        kind = cast(ScoreKind, name.removesuffix("_score"))
        return None if heads is None or test is None else (cls(kind, heads), (test,))

    def figure(self, metric: Metric) -> Figure:
        return Figure(f"{self.kind.replace('_', '-')} score", of_prompts=False)

    def protocol(self) -> dict[str, str]:
        return {"read": f"{self.kind}_score", "run": "random repeated tokens"}

    def kept(self, n_layers: int) -> Kept:
        return attention_of(self.heads)
