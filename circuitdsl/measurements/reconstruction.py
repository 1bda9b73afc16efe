"""`expect reconstruction(t1) >= 80%`: how much of what stands at its place a dictionary explains (semantics §8)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from circuitdsl.circuit.arguments import value_test
from circuitdsl.circuit.features import of_dictionary
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure


@dataclass(frozen=True, slots=True)
class Reconstruction(Reading):
    """`1 - sum |error|^2 / sum |x - mean x|^2` over all positions of the clean prompts.

    A prompt's number is 1 less its own error, as a share of what varies in a prompt on average; their mean is that.
    """

    of: str

    words = ("reconstruction",)
    hooks = f"{READERS}.reconstruction"
    numbers = Figure("reconstruction", low=-inf, size=1.0)
    usage = ("`reconstruction(DICTIONARY)` | how much of what stands at its place a dictionary explains | a share",)
    examples = ("expect reconstruction(t1) >= 90%",)
    false_examples = ("expect reconstruction(t1) <= 50%",)
    on_runs = False

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        arguments = expect.measurement.arguments
        test = value_test(scope, expect, "share", None, 1)
        if len(arguments) != 1 or not isinstance(arguments[0], s.GroupRef):
            message = "reconstruction is that of a dictionary: reconstruction(t1)"
            scope.sink.error("E084", message, expect.measurement.span)
            return None
        if expect.where is not None:
            message = "reconstruction is a share of what varies over all prompts: it has no strata"
            scope.sink.error("E095", message, expect.where.span, "leave it out")
            return None
        of = of_dictionary(scope, arguments[0])
        return None if of is None or test is None else (cls(of), (test,))
