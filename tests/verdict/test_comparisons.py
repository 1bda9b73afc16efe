"""`stronger than` and `rises`: what may hold, and how often it holds wrongly."""

from __future__ import annotations

import numpy as np
import pytest

from circuitdsl.circuit.changes import EdgePatch
from circuitdsl.circuit.criteria import Exceeds, Moves, Stronger
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import plan_looks
from tests.drawing import examples
from tests.verdict.deciding import decide, verdict_of, weigh_claim

TEST = Stronger(EdgePatch(()), "7.9 -> 9.9.q")
RISES, FALLS = Moves("rises", 0.0, "rises"), Moves("falls", 0.0, "falls")


def two(a: np.ndarray, b: np.ndarray, **options: object) -> Sample:
    return Sample(np.zeros(len(a)), d=a, other=b, g=np.ones(len(a)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_size_counts_whatever_the_signs(sign: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    large, small = sign[0] * (2 + rng.normal(size=64)), sign[1] * (0.5 + rng.normal(size=64))
    assert decide(TEST, two(large, small)).verdict == "holds"
    assert decide(TEST, two(small, large)).verdict == "fails"
    assert decide(TEST, two(large, sign[1] * np.roll(np.abs(large), 1))).verdict == "undecided"


def test_equal_sizes_are_not_stronger() -> None:
    rng = np.random.default_rng(1)
    a = 1 + rng.normal(size=64)
    assert decide(TEST, two(a, a)).verdict == "undecided"
    assert decide(TEST, two(a, -a)).verdict == "undecided"
    nothing = np.zeros(64)
    assert decide(TEST, two(nothing, nothing)).verdict == "undecided"


@pytest.mark.parametrize(("mean_a", "mean_b"), [(0.0, 0.0), (0.3, 0.3), (0.3, -0.3), (-0.3, 0.3)])
@pytest.mark.parametrize("spread_b", [0.0, 0.2, 1.0])
def test_ties_pass_no_more_often_than_the_level_says(mean_a: float, mean_b: float, spread_b: float) -> None:
    """At 5 % two-sided a wrong "holds" comes out at most 2.5 % of the time, within three standard errors."""
    rng = np.random.default_rng(2)
    looks, draws = plan_looks(128), examples(200, 400)
    samples = (two(mean_a + rng.normal(size=128), mean_b + spread_b * rng.normal(size=128)) for _ in range(draws))
    wrong = sum(verdict_of(weigh_claim([TEST], [sample], looks=looks)) == "holds" for sample in samples)
    assert wrong <= draws * 0.025 + 3 * np.sqrt(draws * 0.025 * 0.975)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_factor_multiplies_the_second(sign: int) -> None:
    rng = np.random.default_rng(5)
    a, b = 3 + 0.1 * rng.normal(size=64), sign * (1 + 0.1 * rng.normal(size=64))
    by = [Stronger(EdgePatch(()), "x -> y", times) for times in (1.0, 2.8, 3.0, 3.2)]
    assert [decide(test, two(a, b)).verdict for test in by] == ["holds", "holds", "undecided", "fails"]
    assert " is stronger than 2.8 times " in decide(by[1], two(a, b)).reason


def test_a_factor_never_makes_a_tie_of_bounded_figures_hold() -> None:
    """A change that only one prompt in fifty has, and a rival half as large, on samples that miss it: undecided."""
    a, b = np.full(64, -0.4), np.full(64, -0.2)
    twice = Stronger(EdgePatch(()), "x -> y", 2.0)
    assert decide(twice, two(a, b, range=(0.0, 1.0))).verdict == "undecided"
    assert decide(twice, two(a, b / 10, range=(0.0, 1.0))).verdict == "holds"


def test_accuracy_that_no_prompt_changes_is_not_compared_by_its_value() -> None:
    """Thirty-two unchanged prompts say little of how rarely others change."""
    a, b = np.zeros(64), np.zeros(64)
    a[:2] = -1
    assert decide(TEST, two(a, b, range=(0.0, 1.0))).verdict == "undecided"
    a[:40] = -1
    assert decide(TEST, two(a, b, range=(0.0, 1.0))).verdict == "holds"


def test_a_figure_that_does_not_move_neither_rises_nor_falls() -> None:
    still = Sample(np.zeros(64), d=np.zeros(64), unit="points")
    assert [decide(test, still).verdict for test in (RISES, FALLS)] == ["undecided", "undecided"]


def test_a_rise_by_so_much_at_least() -> None:
    rng = np.random.default_rng(3)
    up = Sample(np.zeros(64), d=0.2 + 0.1 * rng.normal(size=64), unit="points")
    by = {x: Moves("rises", x, "") for x in (0.1, 0.2, 0.3)}
    assert [decide(by[x], up).verdict for x in by] == ["holds", "undecided", "fails"]
    assert decide(RISES, up).verdict == "holds" and decide(FALLS, up).verdict == "fails"
    decision = decide(by[0.1], up)
    assert decision.name == "change" and decision.reason.endswith("is above 10 points")


@pytest.mark.parametrize("times", [1.0, 3.0])
def test_bounded_figures_that_tie_exceed_no_more_often_than_the_level_says(times: float) -> None:
    """One prompt in twenty-five carries all of the second figure, which many samples miss."""
    rng = np.random.default_rng(7)
    test, looks, draws = Exceeds("delta", 0.0, None, "", True, times), plan_looks(128), examples(200, 2000)
    wrong = 0
    for _ in range(draws):
        b = 0.9 * (rng.random(128) < 0.04)
        a = rng.beta(2, 2 / (times * 0.036) - 2, 128)  # of mean times * 0.036
        one = Sample(np.zeros(128), d=a - times * b, range=(0.0, times), unit="points")
        wrong += verdict_of(weigh_claim([test], [one], looks=looks)) == "holds"
    assert wrong <= draws * 0.025 + 3 * np.sqrt(draws * 0.025 * 0.975)
