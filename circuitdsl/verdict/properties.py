"""Properties of single prompts: how many prompts they take, and what a sample of them shows.

A property claimed for a share of prompts is an exact binomial test on a sample of its own, which is a member of Holm's
family. A property claimed of every prompt is no statement about a share: it fails on a counterexample, and otherwise
all that is known is in how many prompts there was none; it belongs to no family and has no percentage.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdsl.circuit.criteria import Within
from circuitdsl.verdict.families import FAMILY, strictest
from circuitdsl.verdict.samples import Region, Sample
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verdict.weighing import Evidence, Part, weigh

#: prompts for a property without a share, and as many failures at the claimed share as a sample expects at the least
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
    return Evidence((weigh(test, sample, looks=Looks((max(len(hits), 1),))),))


def judge_every(hits: NDArray[np.bool_]) -> Evidence:
    """A property claimed of every prompt: it fails with one."""
    n, broken = len(hits), int(np.count_nonzero(~hits))
    because = f"{broken} of {n} prompts break it" if broken else f"no counterexample in {n} prompts"
    part = Part(
        Within("value", None, None, "on every prompt"),
        Sample(np.zeros(n)),
        Looks((max(n, 1),)),
        0.0,
        Region(),
        final=True,
        forced="fails" if broken else "holds",
        because=because,
    )
    return Evidence((part,))
