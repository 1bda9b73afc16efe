"""`expect activation(m3[17]) > 0.5`: of neurons or features, where they act (at END where nothing says)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from circuitdsl.circuit.arguments import group_argument, refuse_others, sort_arguments, value_test
from circuitdsl.circuit.edges import END
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import ERROR, Site, is_inside
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing
from circuitdsl.measurements.kept import Kept, values
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure


@dataclass(frozen=True, slots=True)
class Activation(Reading):
    """What neurons give, as it is multiplied with their output weights, or features; the mean over positions."""

    sites: tuple[Site, ...]

    words = ("activation",)
    reader = f"{READERS}.activation:read"
    numbers = Figure("activation", "activation", -inf, inf)
    usage = (
        "`activation(NEURONS)`"
        " | the activation of neurons such as `m3[17]`, or of features such as `t1[17]`, mean over them and prompts"
        " | plain",
    )
    examples = ("expect activation(m1[17]) >= -1",)
    false_examples = ("expect activation(m1[17]) >= 100",)
    per_prompt = True
    signed = True

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        found = sort_arguments(expect.measurement.arguments)
        right = refuse_others(scope, expect.measurement, found, positions=False, options=False)
        members = group_argument(scope, expect.measurement, found)
        test = value_test(scope, expect, "plain", None, None)
        inside = set(filter(is_inside, members or ()))
        others = [str(node) for node in members or () if node not in inside or node.index == ERROR]
        if others:
            message = f"activation is said of neurons such as m3[17] and of features, not of {listing(others)}"
            scope.sink.error("E076", message, found.nodes.span)
            return None
        if not right or members is None or test is None:
            return None
        sites = tuple(Site(node, place) for node, places in members.items() for place in places or (END,))
        return cls(sites), (test,)

    def kept(self, n_layers: int) -> Kept:
        return Kept(clean=values(*self.own_writers))
