"""Claims about the largest of many figures, and the smallest of several largest: no more often wrong than said."""

from __future__ import annotations

import numpy as np
import pytest

from circuitdsl.circuit.criteria import Within
from circuitdsl.verdict.decide import largest, rule
from circuitdsl.verdict.families import FAMILY, Levels
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import plan_looks
from circuitdsl.verdict.weighing import Evidence, weigh_extreme
from tests.verdict.deciding import verdict_of

N = 64


def sample(effect: float, seed: int, n: int = N, noise: float = 0.3, label: str = "") -> Sample:
    """Prompts whose effect is `effect` on average; the gap is 5."""
    rng = np.random.default_rng(seed)
    g = rng.normal(5, 0.5, n)
    return Sample(np.zeros(n), d=effect * 5 + rng.normal(0, noise * 5, n), g=g, label=label)


def weighed(test: Within, *sets: tuple[float, ...], n: int = N, seed: int = 0, noise: float = 0.3) -> Evidence:
    samples = [
        [sample(e, 1000 * seed + 50 * i + j, n, noise, f"set {i} leaf {j}") for j, e in enumerate(one)]
        for i, one in enumerate(sets)
    ]
    return weigh_extreme(test, samples, name="incompleteness", looks=plan_looks(n, False))


def decide(test: Within, *sets: tuple[float, ...], n: int = N, seed: int = 0, noise: float = 0.3, level: float = 0.05):
    return rule(weighed(test, *sets, n=n, seed=seed, noise=noise), Levels(level, level))


def at_most(x: float) -> Within:
    return Within("effect", None, x, f"<= {100 * x:g}%")


def at_least(x: float) -> Within:
    return Within("effect", x, None, f">= {100 * x:g}%")


@pytest.mark.parametrize(
    ("test", "sets", "verdict"),
    [
        (at_most(0.5), [(0.1, -0.2, 0.0)], "holds"),
        (at_most(0.5), [(0.1, -0.9, 0.0)], "fails"),  # one subset is enough, whatever its sign
        (at_most(0.5), [(0.1, 0.5, 0.0)], "undecided"),
        (at_least(0.5), [(0.1, -0.9, 0.0)], "holds"),
        (at_least(0.5), [(0.1, -0.2, 0.0)], "fails"),
        (at_least(0.5), [(0.0, 0.9), (0.8, 0.1)], "holds"),  # every member has a subset
        (at_least(0.5), [(0.0, 0.9), (0.1, 0.1)], "fails"),
        (at_most(0.5), [(0.0, 0.9), (0.1, 0.1)], "holds"),
        (at_most(0.5), [(0.0, 0.9), (0.8, 0.1)], "fails"),
        (Within("effect", 0.2, 0.6, "in [20%, 60%]"), [(0.0, 0.4)], "holds"),
        (Within("effect", 0.2, 0.6, "in [20%, 60%]"), [(0.0, 0.9)], "fails"),
        (Within("effect", 0.2, 0.6, "in [20%, 60%]"), [(0.0, 0.05)], "fails"),
    ],
)
def test_bounds_on_the_extreme(test: Within, sets: list[tuple[float, ...]], verdict: str) -> None:
    decision = decide(test, *sets)
    assert decision.verdict == verdict
    assert decision.reason.startswith("incompleteness ")


def test_a_member_that_changes_nothing_is_not_minimal() -> None:
    """`minimality > 0` is no idle bound: some member may change nothing at all, whatever is out."""
    above, from_on = (Within("effect", 0.0, None, text, strict) for text, strict in (("> 0", True), (">= 0", False)))
    assert decide(above, (0.0, 0.4), (0.3, 0.2)).verdict == "holds"
    assert decide(above, (0.0, 0.0), (0.3, 0.2)).verdict == "undecided"
    assert decide(from_on, (0.0, 0.0), (0.3, 0.2)).verdict == "holds"
    dead = Sample(np.zeros(N), d=np.zeros(N), g=np.random.default_rng(0).normal(5, 0.5, N))
    assert rule(weigh_extreme(above, [[sample(0.4, 1)], [dead]], name="minimality")).verdict == "undecided"


def test_the_figure_is_that_of_its_leaf() -> None:
    decision = decide(at_most(0.5), (0.0, -0.9, 0.3), (0.1, 0.2, 0.7))
    assert decision.label == "set 1 leaf 2"
    assert decision.value == pytest.approx(0.7, abs=0.1)
    assert decision.ci is not None and decision.ci[0] < 0.7 < decision.ci[1]
    assert "(set 1 leaf 2)" in decision.reason


def test_no_gap_is_an_error_and_few_prompts_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    flat = Sample(np.zeros(N), d=rng.normal(0, 1, N), g=rng.normal(0, 1, N))
    decision = rule(weigh_extreme(at_most(0.5), [[flat]], name="incompleteness"))
    assert (decision.verdict, decision.value) == ("error", None)
    assert decision.reason.startswith("no gap")
    assert decide(at_most(0.5), (0.0,), n=5).verdict == "undecided"


def wrong(test: Within, *sets: tuple[float, ...], replicates: int = 200) -> float:
    """How often a false claim holds."""
    return float(np.mean([verdict_of(weighed(test, *sets, seed=s)) == "holds" for s in range(1, replicates)]))


def test_false_claims_hold_no_more_often_than_the_level() -> None:
    """On the bound, where it is hardest: 2.5 % is meant, and 6 % would be three standard errors from it."""
    assert wrong(at_least(0.5), (0.5, 0.5, 0.5, 0.5, 0.5, 0.5)) < 0.06  # six chances to look large
    assert wrong(at_most(0.5), (0.5, 0.0, 0.0)) < 0.06
    assert wrong(at_most(0.5), (0.5, 0.0), (0.5, 0.0), (0.5, 0.0), (0.5, 0.0)) < 0.06  # four to look small
    assert wrong(at_least(0.5), (0.5, 0.0), (0.9, 0.9)) < 0.06


def test_the_interval_covers_the_extreme() -> None:
    """The largest of equal figures looks larger than it is; the interval allows for that."""

    def shown(*sets: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values and limits, as a decision has them."""
        rows = []
        for seed in range(1, 150):
            evidence = weighed(at_most(9.0), *sets, seed=seed)
            value, limits, _ = largest(evidence.extreme, evidence.parts, lambda part: part.looks.display(FAMILY))
            rows.append((value, *limits))
        return tuple(np.array(rows).T)

    value, low, high = shown((0.4, 0.4, 0.4, 0.4, 0.4))
    assert np.mean(value) > 0.42
    assert np.mean((low <= 0.4) & (high >= 0.4)) >= 0.94
    _, low, high = shown((0.4, 0.0), (0.4, 0.0), (0.4, 0.1))
    assert np.mean((low <= 0.4) & (high >= 0.4)) >= 0.94
