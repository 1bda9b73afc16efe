"""What a mean does not show: prompts that go the other way, and a stratum without which the claim is another one."""

from __future__ import annotations

import numpy as np

from circuitdsl.circuit.criteria import Matters, Moves, Signed, Stronger, Test, Within
from circuitdsl.verdict import reasons
from circuitdsl.verdict.decide import Decision
from circuitdsl.verdict.means import strata_of
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verdict.samples import figure_of, quantity_of
from circuitdsl.verdict.weighing import FEWEST, Part

#: a mean of which at least this share of the prompts has the sign hides nothing
MOST = 0.6


def directed(test: Test) -> bool:
    """Whether a test is about a figure on one side of 0."""
    if isinstance(test, Within):
        return (test.low is not None and test.low >= 0) or (test.high is not None and test.high <= 0)
    return isinstance(test, Signed | Moves | Matters)


def other_prompts(part: Part, decision: Decision) -> str:
    """A sentence where a mean is clearly not 0, and its sign is that of fewer prompts than `MOST`; else empty.

    Hits and misses have no sign, and a figure on either side of 0 claims none.
    """
    if not _told(part, decision) or not directed(part.test) or decision.ci is None:
        return ""
    y = part.sample.array("value" if part.sample.d is None else "d")
    if quantity_of(part.test) == "effect":
        y = y / np.mean(part.sample.array("g"))
    low, high = decision.ci
    share = float(np.mean(np.sign(y) == np.sign(np.mean(y))))
    if low <= 0 <= high or share >= MOST:
        return ""
    median = reasons.written(reasons.unit_of(part), float(np.median(y)), like=decision.ci)
    return f"only {100 * share:.0f} % of the prompts have the sign of the mean; the median is {median}"


def one_stratum(part: Part, decision: Decision) -> str:
    """A sentence where the figure without one stratum would be on the other side of what is claimed; else empty.

    The figure of the others must also lie outside the 95 % interval of the whole. Of several such strata, the one is
    named that moves the figure most.
    """
    names, codes, counts = strata_of(part.sample.strata)
    if not _told(part, decision) or decision.ci is None or len(names) < 2:
        return ""
    inside, (low, high) = part.region.contains(part.figures[-1]), decision.ci
    found: list[tuple[float, int, float]] = []
    values = _without_each(part, codes, counts)
    outside = (part.sample.n - counts >= FEWEST) & ~((low <= values) & (values <= high))
    for k in np.flatnonzero(outside).tolist():
        figure = figure_of(part.test, part.sample.take(codes != k))
        if isinstance(figure, Ratio) and not figure.sign * figure.denominator.value > 0:
            continue
        value = float(figure.value)
        if part.region.contains(figure) != inside:
            found.append((abs(value - float(decision.value or 0.0)), k, value))
    if not found:
        return ""
    _, at, value = max(found)
    unit = reasons.unit_of(part)
    if isinstance(part.test, Stronger):
        times = "" if part.test.times == 1 else f"{part.test.times:g} times that of "
        side = f"{'weaker' if inside else 'stronger'} than {times}{part.test.name}"
    else:
        side = reasons.place(part, value, (value, value), unit)
    shown = reasons.written(unit, value, None, part.region.bounds, decision.ci)
    return f"without the {counts[at]} prompts of the stratum {names[at]} it is {shown}, {side}"


def _without_each(part: Part, codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The figure without each stratum [strata]."""

    def means(name: str) -> np.ndarray:
        y = part.sample.array(name)
        with np.errstate(divide="ignore", invalid="ignore"):
            left: np.ndarray = (y.sum() - np.bincount(codes, y)) / (part.sample.n - counts)
        return left

    quantity = quantity_of(part.test)
    if quantity == "value":
        return means("value")
    with np.errstate(divide="ignore", invalid="ignore"):
        return means("d") / means("g") if quantity == "effect" else means("d")


def _told(part: Part, decision: Decision) -> bool:
    """Whether there is a mean over enough prompts to speak of."""
    return decision.value is not None and decision.verdict != "error" and part.sample.n >= FEWEST and bool(part.figures)
