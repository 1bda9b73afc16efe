"""`expect attribution(mover) > 0`: direct logit attribution, in logits."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from circuitdsl.circuit.arguments import group_argument, refuse_others, sort_arguments, value_test
from circuitdsl.circuit.crossing import writings
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import LOGITS, Node
from circuitdsl.circuit.scope import Scope
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kept import Kept, replacing, values
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure, PatchRequest


@dataclass(frozen=True, slots=True)
class Attribution(Reading):
    """Direct logit attribution: what nodes write at END towards the answer and away from the distractor."""

    nodes: tuple[Node, ...]
    under: PatchRequest | None = None

    words = ("attribution",)
    reader = f"{READERS}.attribution:read"
    numbers = Figure("attribution", "logits", -inf, inf, scale=Metric())
    usage = (
        "`attribution(GROUP)`"
        " | what it writes at END towards the answer and away from the distractor, directly"
        " | logits",
    )
    examples = ("expect attribution(some) > -30",)
    false_examples = ("expect attribution(some) >= 100",)
    under_condition = True
    per_prompt = True
    signed = True

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        found = sort_arguments(expect.measurement.arguments)
        right = refuse_others(scope, expect.measurement, found, positions=False, options=False)
        members = group_argument(scope, expect.measurement, found)
        test = value_test(scope, expect, "plain", None, None)
        if members is not None and LOGITS in members:
            scope.sink.error("E076", "logits writes nothing: there is nothing to attribute", found.nodes.span)
            return None
        return None if not right or members is None or test is None else (cls(tuple(members)), (test,))

    def protocol(self) -> dict[str, str]:
        return {"read": "attribution", "run": "clean", "norm": "clean"}

    def layers(self, n_layers: int) -> int:
        return 1 + max(part.layer for node in self.nodes for part in writings(node))

    def kept(self, n_layers: int) -> Kept:
        found = Kept(clean=values(LOGITS, *self.nodes)) | self.patched(n_layers)
        replaced = (node for patch in self.patches for node, _ in patch.writes)
        # a stream that is knocked out takes the terms in it along
        return found | replacing(self.nodes) if any(node.kind == "resid" for node in replaced) else found
