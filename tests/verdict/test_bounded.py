"""Means of bounded values: known tails, agreement with binomial tests, and how often they err, counted exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from circuitdsl.verdict.bounded import Bounded, Changes, changes, tail
from circuitdsl.verdict.intervals import Share
from circuitdsl.verdict.moments import moments
from circuitdsl.verdict.ratios import Ratio


def jumps(minus: int, zero: int, plus: int) -> Bounded:
    """Counts of -1, 0 and 1."""
    return Bounded(np.array([-1.0, 0.0, 1.0]), np.array([minus, zero, plus], float), -1.0, 1.0)


class TestTail:
    def test_two_gamma_variables_are_a_beta_variable(self) -> None:
        for a, b, ratio in ((1, 255, 0.02), (30, 226, 3.0), (1000, 3, 1e-3), (2, 40, 1.0)):
            expected = stats.beta.sf(ratio / (1 + ratio), a, b)  # P(G_a >= ratio G_b)
            assert tail([1.0, -ratio], [a, b]) == pytest.approx(expected, rel=1e-8)

    def test_several(self) -> None:
        values, shapes = np.array([-1.01, -0.99, -0.01, 0, 0.3, 1.0]), np.array([3, 5, 20, 4, 2, 4.0])
        draws = np.random.default_rng(0).gamma(shapes, size=(400_000, 6)) @ values
        assert tail(values, shapes) == pytest.approx(np.mean(draws >= 0), abs=4 * np.sqrt(0.12 / 400_000))

    def test_both_tails_sum_to_one(self) -> None:
        values, shapes = np.array([-0.4, 0.1, 1.0]), np.array([80.0, 40.0, 16.0])
        assert tail(values, shapes) + tail(-values, shapes) == pytest.approx(1, abs=1e-10)

    @pytest.mark.parametrize(("values", "p"), [([1.0, 2.0], 1), ([0.0], 1), ([0.0, 1.0], 1), ([-1.0, 0.0], 0)])
    def test_one_sign(self, values: list[float], p: float) -> None:
        assert tail(values, np.ones(len(values))) == p


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.01, 0.99), st.sampled_from([0.05, 1e-4]))
def test_two_values_give_the_binomial_test_and_clopper_pearson(n: int, at: float, bound: float, alpha: float) -> None:
    k = round(at * n)
    here, exact = Bounded(np.array([0.0, 1.0]), np.array([n - k, k], float), 0.0, 1.0), Share(np.array(float(k)), n)
    assert float(here.below(bound)) == pytest.approx(float(exact.below(bound)), rel=1e-6, abs=1e-200)
    assert float(here.above(bound)) == pytest.approx(float(exact.above(bound)), rel=1e-6, abs=1e-200)
    assert np.allclose(here.interval(alpha), exact.interval(alpha), rtol=0, atol=1e-7)


@pytest.mark.parametrize("n", [32, 256])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_equal_values_allow_for_a_share_at_the_far_end(n: int, alpha: float) -> None:
    share = 1 - (alpha / 2) ** (1 / n)
    assert jumps(0, n, 0).interval(alpha) == pytest.approx((-share, share))
    assert jumps(n, 0, 0).interval(alpha) == pytest.approx((-1, -1 + 2 * share))


def test_many_different_values_are_close_to_students_t() -> None:
    y = np.random.default_rng(0).uniform(-1, 1, 256)
    here = Bounded(y, np.ones(256), -1.0, 1.0)
    student = stats.t.interval(0.95, 255, y.mean(), stats.sem(y))
    assert here.interval() == pytest.approx(student, abs=0.006)
    assert here.interval()[0] < student[0] and here.interval()[1] > student[1]


def test_the_ends_of_the_range() -> None:
    assert float(jumps(1, 7, 0).below(1.0)) == 0.0
    assert float(jumps(0, 0, 8).below(1.0)) == 1.0
    assert float(jumps(0, 0, 8).below(1.0, closed=True)) == 0.0
    assert float(jumps(0, 8, 0).above(-1.5)) == 0.0
    assert jumps(0, 0, 8).interval()[1] == 1.0


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.6])
@pytest.mark.parametrize("better", [0.0, 0.2, 0.5])
def test_a_wrong_limit_is_never_more_frequent_than_said(rate: float, better: float) -> None:
    """All outcomes of 20 prompts, weighed by their probability: the true mean is outside one limit at most 2.5 %."""
    n, chances = 20, np.array([rate * (1 - better), 1 - rate, rate * better])
    truth = float(chances @ [-1, 0, 1])
    outcomes = np.array([(i, n - i - j, j) for i in range(n + 1) for j in range(n + 1 - i)])
    weights = stats.multinomial.pmf(outcomes, n, chances)
    seen = weights > 1e-9
    wrong = [(float(jumps(*k).below(truth)), float(jumps(*k).above(truth))) for k in outcomes[seen]]
    assert np.all(weights[seen] @ (np.array(wrong) <= 0.025) <= 0.025)


class TestRatio:
    @pytest.mark.parametrize("alpha", [0.05, 1e-3])
    @pytest.mark.parametrize("flips", [0, 1, 20, 200])
    def test_interval_inverts_the_test(self, flips: int, alpha: float) -> None:
        d, g = -(np.arange(256) < flips).astype(float), (np.arange(256) < 230).astype(float)
        ratio = Ratio(changes(d, g, 1.0))
        low, high = ratio.interval(alpha)
        assert float(low) < float(ratio.value) < float(high)
        assert float(ratio.above(low)) == pytest.approx(alpha / 2, rel=1e-6)
        assert float(ratio.below(high)) == pytest.approx(alpha / 2, rel=1e-6)

    def test_it_is_near_the_studentised_one_where_many_prompts_change(self) -> None:
        rng = np.random.default_rng(0)
        d, g = -(rng.random(256) < 0.3).astype(float), (rng.random(256) < 0.9).astype(float)
        here, student = (Ratio(joint).interval() for joint in (changes(d, g, 1.0), moments(d, g)))
        assert np.allclose(here, student, rtol=0, atol=0.02)

    def test_no_interval_without_a_gap(self) -> None:
        assert np.isnan(Ratio(changes(np.zeros(64), np.zeros(64), 1.0)).interval()).all()

    def test_counts(self) -> None:
        found = changes([-1, 0, 0, -1], [1, 1, 0, 1], 1.0)
        assert isinstance(found, Changes) and found.n == 4
        assert found.mean == pytest.approx([-0.5, 0.75])
        assert float(found.combine(1.0, -0.5).value) == pytest.approx(-0.875)
