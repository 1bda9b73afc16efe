"""`expect loudness(mover) >= 2`: how much a node writes at its position, as the length of its term."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from circuitdsl.circuit.arguments import group_argument, refuse_others, sites_of, sort_arguments, value_test
from circuitdsl.circuit.nodes import Site
from circuitdsl.measurements.kept import Kept, values
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import Figure


@dataclass(frozen=True, slots=True)
class Loudness(Reading):
    """The length of the terms of nodes at their positions, mean over these."""

    sites: tuple[Site, ...]

    words = ("loudness",)
    usage = ("`loudness(GROUP)` | the length of what nodes write, mean over them | plain",)
    examples = ("expect loudness(some) > 0",)
    false_examples = ("expect loudness(some) >= 1000",)
    reader = "own_measures.reader:read"
    numbers = Figure("loudness", "", 0.0, inf, size=1.0)
    per_prompt = True

    @classmethod
    def resolve(cls, scope, expect):
        """The record of a line and its test; None where something is wrong, after a diagnostic was emitted."""
        found = sort_arguments(expect.measurement.arguments)
        right = refuse_others(scope, expect.measurement, found, positions=False, options=False)
        members = group_argument(scope, expect.measurement, found)
        sites = None if members is None else sites_of(scope, members, found.nodes.span)
        test = value_test(scope, expect, "plain", 0, None)
        return (cls(sites), (test,)) if right and sites and test else None

    def kept(self, n_layers):
        """What of the clean runs it reads: the values of its nodes."""
        return Kept(clean=values(*self.own_writers))
