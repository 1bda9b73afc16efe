"""One test on one sample, judged on its own."""

from __future__ import annotations

from numpy.typing import ArrayLike

from circuitdsl.circuit.criteria import Test
from circuitdsl.verdict.decide import Decision, rule
from circuitdsl.verdict.families import Levels
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.weighing import Evidence, weigh


def decide(
    test: Test,
    sample: Sample,
    *,
    margin: float = 0.01,
    looks: Looks | None = None,
    null: ArrayLike | None = None,
    levels: Levels | None = None,
) -> Decision:
    """The verdict on one test."""
    return rule(Evidence((weigh(test, sample, margin=margin, looks=looks, null=null),)), levels)
