"""Early looks at the numbers, before the last prompt, that do not make wrong verdicts more frequent.

A design looks at fixed numbers of prompts (N/8, N/4, N/2, N) and may stop at each. The level is divided among the
looks: most of it goes to the last one, so that looking costs next to nothing there. A claim holds at some look with a
probability of at most the sum of their levels (Bonferroni), whatever the distribution of the numbers; less strict
boundaries, such as O'Brien and Fleming's, assume normal ones. The *sequential p-value* (Jennison and Turnbull 2000,
*Group Sequential Methods*, §8.4) is the smallest level at which the design would have stopped at some look so far. It
is valid whenever and for whatever reason one stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from circuitdsl.verdict.estimates import Array

#: no early look has fewer prompts: 32 would often lack the prompts that are one in fifty
FIRST_LOOK = 64
#: a design looks early at N / 8, N / 4 and N / 2
DIVISORS = (8, 4, 2)
#: the share of the level that all early looks get together
EARLY = 0.2
#: Stopping when a figure is extreme shifts it. At this multiple of alpha a plain interval still covers what it says
#: (`benchmarks/rates.py`).
AFTER_LOOKING = 0.8


@dataclass(frozen=True, slots=True)
class Looks:
    """The numbers of prompts at which a design looks, the last one being all of them.

    Attributes:
        early: the share of the level that all looks but the last one get together.
    """

    sizes: tuple[int, ...]
    early: float = EARLY

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the level that each look gets."""
        early = len(self.sizes) - 1
        return (*(self.early / early for _ in range(early)), 1 - self.early) if early else (1.0,)

    def reached(self, n: int) -> tuple[int, ...]:
        """Looks that n prompts allow."""
        return tuple(size for size in self.sizes if size <= n)

    def p_value(self, p: ArrayLike) -> Array:
        """Sequential p-value from fixed-sample ones [..., looks so far]."""
        p = np.asarray(p, float)
        return np.minimum(1.0, np.min(p / self.shares[: p.shape[-1]], axis=-1))

    def nominal(self, alpha: float, look: int) -> float:
        """The fixed-sample level that level alpha leaves to a look (counted from 0)."""
        return alpha * self.shares[look]

    def display(self, alpha: float) -> float:
        """The level for a plain interval that is shown after looking."""
        return alpha if len(self.sizes) == 1 else alpha * AFTER_LOOKING


def plan_looks(prompts: int, early_stop: bool = True) -> Looks:
    """Looks at N/8, N/4, N/2 and N prompts, none under `FIRST_LOOK` but the last; one look without early stopping."""
    if prompts < 1:
        raise ValueError("a sample needs at least one prompt")
    early = [prompts // part for part in DIVISORS] if early_stop else []
    return Looks((*dict.fromkeys(n for n in early if FIRST_LOOK <= n < prompts), prompts))
