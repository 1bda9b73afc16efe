"""`expect entropy(mover, END) <= 1.5`: how spread out the attention of heads is, in nats."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from circuitdsl.circuit.arguments import heads_argument, positions_argument, sort_arguments, value_test
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Node, Positions
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kept import Kept, attention_of
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure, PatchRequest


@dataclass(frozen=True, slots=True)
class Entropy(Reading):
    """The entropy of the attention row of heads at some positions: 0 where a head looks at one token only."""

    heads: tuple[Node, ...]
    source: Positions
    under: PatchRequest | None = None

    words = ("entropy",)
    reader = f"{READERS}.entropy:read"
    numbers = Figure("entropy", "nats", 0.0, inf, size=1.0)
    reads_attention = True
    usage = ("`entropy(GROUP, FROM)` | −Σ a ln a over the attention row at FROM, mean over heads and prompts | nats",)
    examples = ("expect entropy(some, END) > 0",)
    false_examples = ("expect entropy(some, END) >= 5",)
    under_condition = True
    per_prompt = True

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
        return None if heads is None or source is None or test is None else (cls(heads, source), (test,))

    def kept(self, n_layers: int) -> Kept:
        return attention_of(self.heads) | self.patched(n_layers)
