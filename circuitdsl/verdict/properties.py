"""Properties of single prompts: how many prompts they take, and what a sample of them shows.

A property claimed for a share of prompts is an exact binomial test on its own sample, and a member of Holm's family. A
property claimed of every prompt fails on one counterexample; without one, all that is known is the number of prompts
searched. It belongs to no family and has no percentage.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdsl.circuit.criteria import Within
from circuitdsl.verdict.families import FAMILY, strictest
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.weighing import Evidence, untested, weigh

#: prompts for a property without a share; the failures that a sample has on average at the claimed share, at least
EVERY, EXPECTED = 500, 5


def prompts_needed(share: float | None, members: int, alpha: float = FAMILY) -> int:
    """Prompts with which a property holds if none fails, however the other members of its family come out.

    With no failure among n the two-sided p-value for "more than `share`" is `2 share^n`. For 99 % never under 500.
    """
    if share is None:
        return EVERY
    level = strictest(members, alpha).holds
    return max(math.ceil(math.log(level / 2) / math.log(share)), math.ceil(EXPECTED / (1 - share) - 1e-9))


def weigh_share(test: Within, hits: NDArray[np.bool_], strata: ArrayLike) -> Evidence:
    """Evidence on the share of prompts that have a property."""
    sample = Sample(np.asarray(strata), value=hits.astype(float), name="share", unit="percent", hits=True)
    return Evidence((weigh(test, sample),))


def judge_every(hits: NDArray[np.bool_]) -> Evidence:
    """A property claimed of every prompt: it fails with one."""
    n, broken = len(hits), int(np.count_nonzero(~hits))
    because = f"{broken} of {n} prompts break it" if broken else f"no counterexample in {n} prompts"
    return untested(Within("value", None, None, "on every prompt"), "fails" if broken else "holds", because, n)
