"""`expect entropy(mover, END) <= 1.5`: how spread out the attention of heads is, in nats."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from math import inf
from typing import ClassVar

from circuitdsl.circuit.arguments import heads_argument, positions_argument, sort_arguments, value_test
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.metric import Metric
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.written import written
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure, PatchRequest, Request


@dataclass(frozen=True, slots=True)
class Entropy(Reading):
    """The entropy of the attention row of heads at some positions: 0 where a head looks at one token only."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    label: str = field(default="", compare=False)

    words: ClassVar[tuple[str, ...]] = ("entropy",)
    usage: ClassVar = (
        ("`entropy(GROUP, FROM)`", "−Σ a ln a over the attention row at FROM, mean over heads and prompts", "nats"),
    )
    examples: ClassVar[tuple[str, ...]] = ("expect entropy(some, END) > 0",)
    false_examples: ClassVar[tuple[str, ...]] = ("expect entropy(some, END) >= 5",)
    under_condition: ClassVar[bool] = True
    per_prompt: ClassVar[bool] = True

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        found = sort_arguments(expect.measurement.arguments)
        heads = heads_argument(scope, expect.measurement, found, positions=True)
        source = positions_argument(scope, found.source)
        test = value_test(scope, expect, "plain", 0, None)
        if found.arrows or not found.source:
            message = "entropy is that of the attention at a position: entropy(mover, END)"
            scope.sink.error("E084", message, expect.measurement.span)
            return None
        if heads is None or source is None or test is None:
            return None
        return cls(heads, source, written(found.nodes)), (test,)

    @property
    def positions(self) -> tuple[Position, ...]:
        return self.source

    @property
    def subject(self) -> Hashable:
        return replace(self, heads=tuple(sorted(self.heads)))

    def request(self, under: PatchRequest | None = None) -> EntropyRequest:
        return EntropyRequest(self.heads, self.source, under)


@dataclass(frozen=True, slots=True)
class EntropyRequest(Request):
    """The entropy of attention rows, averaged over sources and heads, in nats."""

    heads: tuple[Node, ...]
    source: tuple[Position, ...]
    under: PatchRequest | None = None

    reader: ClassVar[str] = f"{READERS}.entropy:read"
    reads_attention: ClassVar[bool] = True

    def figure(self, metric: Metric) -> Figure:
        return Figure("entropy", "nats", 0.0, inf)

    def protocol(self) -> dict[str, str]:
        return {"read": "entropy", "run": "clean"}

    @property
    def own_positions(self) -> tuple[Position, ...]:
        return self.source

    def layers(self, n_layers: int) -> int:
        return max(head.layer for head in self.heads)
