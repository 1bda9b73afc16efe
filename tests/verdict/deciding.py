"""Short cuts to verdicts: one test on one sample, several on several, and verdicts without their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from circuitdsl.circuit.criteria import Test
from circuitdsl.verdict.decide import Decision, _judge, _verdict, levels_of, rule, ruled
from circuitdsl.verdict.families import FAMILY, Levels
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.weighing import Evidence, Verdict, weigh


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


def weigh_claim(
    tests: Sequence[Test], samples: Sequence[Sample], nulls: Sequence[ArrayLike | None] = (), **how: Any
) -> Evidence:
    """All tests of a claim on all its samples; `how` are arguments of `weigh`."""
    pairs = zip(samples, nulls or [None] * len(samples), strict=True)
    return Evidence(tuple(weigh(test, sample, null=null, **how) for sample, null in pairs for test in tests))


def verdict_of(evidence: Evidence, level: float = 0.05) -> Verdict:
    """The verdict of `rule` without intervals and reasons, which cost most of the time: for counting wrong verdicts.

    Evidence has one part, or is about the largest of many figures whose gaps are clear.
    """
    if evidence.extreme:
        assert not any(part.forced for part in evidence.parts)
        return _verdict(evidence, None, level, level)[0]
    (part,) = evidence.parts
    return _judge(part, Levels(level, level), 1).verdict


def decide_family(evidence: Sequence[Evidence], *, alpha: float = FAMILY, adjust: bool = True) -> list[Decision]:
    """Verdicts on all members of a family."""
    return ruled(evidence, levels_of(evidence, alpha, adjust))
