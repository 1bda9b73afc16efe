"""`expect copying(mover) >= 80%`: how often heads map the answer's token onto its own logit.

`copying(G, negated)` is about the negated output, as it is for negative movers (Wang et al. 2022, §3.1, §3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from circuitdsl.circuit.arguments import heads_argument, sort_arguments, value_test
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kept import Kept, everything
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure

ANSWER = Position("ANSWER")
NEGATED = "negated"


@dataclass(frozen=True, slots=True)
class Copying(Reading):
    """How often heads map the answer's token onto its own logit (`negated`: onto the negative of it)."""

    heads: tuple[Node, ...]
    negated: bool = False

    words = ("copying",)
    reader = f"{READERS}.copying:read"
    numbers = Figure("copying", hits=True)
    own_positions = (ANSWER,)
    usage = (
        "`copying(GROUP)`, `copying(GROUP, negated)`"
        " | how often what stands at ANSWER is among the five tokens that the heads raise (negated: lower) most"
        " | a share",
    )
    examples = ("expect copying(some) >= 0%",)
    false_examples = ("expect copying(first) >= 95%",)

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        found = sort_arguments(expect.measurement.arguments)
        words = [each for each in found.sets if isinstance(each, s.GroupRef) and each.name == NEGATED]
        if NEGATED not in scope.definitions:
            found.sets = [each for each in found.sets if each not in words]
        heads = heads_argument(scope, expect.measurement, found, "only heads copy")
        test = value_test(scope, expect, "share", 0, 1)
        if heads is None or test is None:
            return None
        negative, movers = scope.nodes_of_role("negative_mover"), scope.nodes_of_role("mover")
        negated = bool(words) or all(node in negative and node not in movers for node in heads)
        return cls(heads, negated), (test,)

    def protocol(self) -> dict[str, str]:
        return {"read": "copying", "run": "clean", "output": "negated" if self.negated else "as it is"}

    def kept(self, n_layers: int) -> Kept:
        """The residual stream after the first MLP."""
        return Kept(resid_pre=frozenset([1])) if n_layers > 1 else everything(n_layers)
