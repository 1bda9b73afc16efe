"""`expect attention(mover, END -> IO) >= 40%`: where heads look."""

from __future__ import annotations

from dataclasses import dataclass

from circuitdsl.circuit.arguments import attention_arguments, value_test
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Node, Positions
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kept import Kept, attention_of
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure, PatchRequest


@dataclass(frozen=True, slots=True)
class Attention(Reading):
    """The attention pattern of heads from one position to others, summed over the latter."""

    heads: tuple[Node, ...]
    source: Positions
    target: Positions
    under: PatchRequest | None = None

    words = ("attention",)
    reader = f"{READERS}.attention:read"
    numbers = Figure("attention")
    reads_attention = True
    usage = (
        "`attention(GROUP, FROM -> TO)`"
        " | the pattern summed over TO's positions, mean over FROM's positions, heads and prompts"
        " | a share",
    )
    examples = ("expect attention(some, END -> IO) <= 90%",)
    false_examples = ("expect attention(some, END -> IO) >= 99%",)
    under_condition = True
    per_prompt = True

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        found = attention_arguments(scope, expect.measurement)
        test = value_test(scope, expect, "share", 0, 1)
        return None if found is None or test is None else (cls(*found), (test,))

    def kept(self, n_layers: int) -> Kept:
        return attention_of(self.heads) | self.patched(n_layers)
