"""What stands beside the rates: another test that was considered, what a margin takes, and verdicts on templates."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from benchmarks.rates_claims import ratio
from benchmarks.rates_populations import Array, Population
from circuitdsl.circuit.criteria import Within
from circuitdsl.verdict.means import UNKNOWN, Range, pair
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.samples import Sample, by_stratum, figure_of
from circuitdsl.verdict.sampling import EARLY

#: shares of the largest bet that a betting martingale puts on a mean below 0, all at once
BETS = np.geomspace(1 / 512, 0.99, 32)
#: ranges of a score, in gaps
ENDS: dict[str, Range] = {
    "range of 1 gap": (0.0, 1.0),
    "2 gaps": (-1.0, 1.0),
    "one end": (0.0, np.inf),
    "none": UNKNOWN,
}
#: one-sided levels of a lone claim and of the first of twenty
LEVELS = {1: 0.025, 20: 0.025 / 20}


def betting(y: Array, end: float) -> Array:
    """p-values for "the mean of y [..., n] is below 0", none of which exceeds `end` (Waudby-Smith and Ramdas 2024).

    Each prompt multiplies what was put on it by `1 - bet * y / end`, which gains nothing on the average where the mean
    is 0 or more; 20-fold gains have a probability of 1 / 20. Over strata with different means, whose average is 0 or
    more, the product gains no more than over equal ones (the geometric mean is below the arithmetic one).
    """
    logs = np.stack([np.log1p(-bet * y / end).sum(-1) for bet in BETS])
    most = logs.max(0)
    gain = np.exp(np.minimum(most, 700.0)) * np.exp(logs - most).mean(0)
    return np.minimum(1.0, 1 / np.maximum(gain, 1e-300))


def tests_of(p: Population, e: int, samples: int, n: int, rng: np.random.Generator) -> dict[str, float]:
    """How often each test excludes the true effect, on either side, at 2.5 %."""
    figure: Ratio = ratio(p, e, *p.draw(samples, n, rng))
    centre = figure.pair.combine(1.0, -p.effect(e))
    end = float(np.max(centre.high))
    found = {
        "Gaffke": np.stack([figure.below(p.effect(e)), figure.above(p.effect(e))]),
        "betting": np.stack([betting(side * centre.y, end) for side in (1.0, -1.0)]),
    }
    return {name: float(np.mean(both.min(0) <= 0.025)) for name, both in found.items()}


def takes(margin: float, level: float, ends: Range, other: bool = False) -> int:
    """The prompts that exclude an effect of `margin` (of a gap of 1), where the effect is 0 on each."""

    def p_value(n: int) -> float:
        figure = pair(np.zeros(n), np.ones(n), None, ends, "first").combine(1.0, -margin)
        return float(betting(figure.y, float(figure.high)) if other else figure.below(0.0))

    n = next(n for n in (2**k for k in itertools.count(3)) if p_value(n) <= level)
    return _least(p_value, level, n // 2, n)


def _least(p_value: Callable[[int], float], level: float, low: int, high: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(middle) <= level else (middle, high)
    return high


def margins() -> str:
    """How many prompts a margin takes where patching changes nothing at all, by both tests."""
    lines = [
        "**Prompts that `negligible` takes where nothing changes** (with looks; betting in brackets)",
        "",
        "| margin, share of the gap | " + " | ".join(f"{name}, {k} claims" for name in ENDS for k in LEVELS) + " |",
        "|---" * (1 + len(ENDS) * len(LEVELS)) + "|",
    ]
    for margin in (0.01, 0.02, 0.05, 0.1):
        cells = []
        for ends in ENDS.values():
            for level in LEVELS.values():
                last = level * (1 - EARLY)
                other = f" ({takes(margin, last, ends, True)})" if np.all(np.isfinite(ends)) else ""
                cells.append(f"{takes(margin, last, ends)}{other}")
        lines.append(f"| {100 * margin:.0f} % | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


# --- other templates --------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "lognormal, σ 1": lambda rng, shape: (rng.lognormal(size=shape) - np.exp(0.5)) / 2.16,
}


def templates(samples: int, rng: np.random.Generator) -> str:
    """Coverage of verdicts on other templates (8 prompts each) beside that of the usual interval."""
    lines = ["| spread, templates | " + " | ".join(SHAPES) + " |", "|---" * (1 + len(SHAPES)) + "|"]
    test = Within("value", None, None, "")
    for spread, k in ((0.0, 15), (0.5, 15), (2.0, 15), (2.0, 60)):
        cells = []
        for shape in SHAPES.values():
            y = 5 + shape(rng, (samples, k, 8)) + spread * shape(rng, (samples, k, 1))
            covered = np.zeros(2)
            for one in y:
                whole = Sample(np.repeat(np.arange(k), 8), value=one.ravel())
                covered += [figure_of(test, s).sides(5.0).min() > 0.025 for s in (by_stratum(whole), whole)]
            cells.append(" / ".join(f"{100 * share:.1f}" for share in covered / samples))
        lines.append(f"| {spread:g}, {k} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
