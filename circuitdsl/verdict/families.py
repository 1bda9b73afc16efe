"""Many claims at once: which p-values still count when a spec makes dozens of statements.

One member of the family is one claim on one task. Wrong "holds" and wrong "fails" are two families, each under the
step-down procedure of Holm (1979, Scand. J. Statist. 6), which needs no independence. p-values here are *two-sided*
(twice the smaller tail): `p <= alpha` for a claim means that one limit of its `1 - alpha` interval excludes the
bound. A true null passes at `alpha / 2`, so a spec at 5 % comes out with a wrong "holds" at most 2.5 % of the time,
with a wrong "fails" at most 2.5 %, with any wrong verdict at most 5 %, under any dependence between claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: the family-wise error of a spec
FAMILY = 0.05


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels at which one member is judged: its two-sided p-values must not exceed them."""

    holds: float = FAMILY
    fails: float = FAMILY


def holm(p: Sequence[float], alpha: float = FAMILY) -> tuple[float, ...]:
    """The level each member is compared with: alpha / m for the smallest p, alpha / (m - 1) for the next, and so on.

    Past the first p above its level nothing passes any more, and every later member gets the level of that step.
    A member is rejected exactly when `p <= level`.
    """
    found, steps = np.asarray(p, float), alpha / np.arange(len(p), 0, -1)
    order = np.argsort(found, kind="stable")
    stop = np.min(steps[~(found[order] <= steps)], initial=np.inf)
    levels = np.empty(len(p))
    levels[order] = np.minimum(steps, stop)
    return tuple(levels.tolist())


def family_levels(
    p_holds: Sequence[float], p_fails: Sequence[float], alpha: float = FAMILY, adjust: bool = True
) -> tuple[Levels, ...]:
    """Levels for every member; without `adjust` each is judged at alpha on its own (`--each-at`)."""
    if not adjust:
        return tuple(Levels(alpha, alpha) for _ in p_holds)
    return tuple(Levels(*pair) for pair in zip(holm(p_holds, alpha), holm(p_fails, alpha), strict=True))


def strictest(members: int, alpha: float = FAMILY, adjust: bool = True) -> Levels:
    """The level at which a member is decided for any outcome of the others (Bonferroni)."""
    level = alpha / max(members, 1) if adjust else alpha
    return Levels(level, level)


def all_of(p: Sequence[float]) -> float:
    """p-value for "every part holds": the largest (intersection-union test, Berger 1982, Technometrics 24)."""
    return max(p)


def any_of(p: Sequence[float]) -> float:
    """p-value for "some part fails": the smallest times the number of parts (Bonferroni)."""
    return min(1.0, len(p) * min(p))
