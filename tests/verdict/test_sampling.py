"""Looks: where they are, published boundaries, and p-values that are valid at any of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from circuitdsl.verdict.sampling import Looks, critical, crossing, plan_looks

QUARTERS = (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("prompts", "sizes"),
    [
        (256, (32, 64, 128, 256)),
        (128, (32, 64, 128)),
        (100, (50, 100)),
        (64, (32, 64)),
        (63, (63,)),
        (5, (5,)),
        (1000, (125, 250, 500, 1000)),
    ],
)
def test_looks(prompts: int, sizes: tuple[int, ...]) -> None:
    assert plan_looks(prompts).sizes == sizes
    assert plan_looks(prompts, early_stop=False).sizes == (prompts,)


def test_no_prompts_is_no_design() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        plan_looks(0)


def test_published_obrien_fleming_boundaries() -> None:
    """Jennison and Turnbull 2000, table 2.3, alpha 0.05: C(K) = 1.977, 2.004, 2.024, 2.040 for K = 2, 3, 4, 5."""
    for looks, constant in ((2, 1.977), (3, 2.004), (4, 2.024), (5, 2.040)):
        fractions = tuple((k + 1) / looks for k in range(looks))
        assert critical(0.05, fractions) == pytest.approx(constant, abs=1.1e-3)
    z = [critical(0.05, QUARTERS) / np.sqrt(t) for t in QUARTERS]
    assert z == pytest.approx([4.05, 2.86, 2.34, 2.02], abs=0.01)
    assert critical(0.01, QUARTERS) == pytest.approx(2.609, abs=2e-3)


def test_crossing_agrees_with_the_multivariate_normal_distribution() -> None:
    fractions = (0.125, 0.25, 0.5, 1.0)
    covariance = np.minimum.outer(fractions, fractions)
    for c in (0.5, 1.5, 2.5):
        inside = stats.multivariate_normal.cdf(np.full(4, c), np.zeros(4), covariance, abseps=1e-6, releps=1e-6)
        assert float(crossing(c, fractions)) == pytest.approx(1 - inside, abs=2e-5)


def test_crossing_agrees_with_a_random_walk() -> None:
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.standard_normal((200_000, 4)) / 2, axis=1)
    for c in (0.3, 1.0, 2.0):
        p = float(crossing(c, QUARTERS))
        assert np.mean(walk.max(1) >= c) == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 200_000))


def test_crossing_far_out_lies_between_one_and_two_tails() -> None:
    for c in (5.0, 12.0, 30.0):
        tail = stats.norm.sf(c)
        assert tail <= float(crossing(c, QUARTERS)) <= 2 * tail


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=4), st.sampled_from([0.05, 0.002]))
def test_the_sequential_p_value_is_small_exactly_when_a_boundary_was_crossed(p: list[float], alpha: float) -> None:
    looks = Looks((32, 64, 128, 256))
    crossed = [2 * v <= looks.nominal(alpha, k) for k, v in enumerate(p)]
    near = any(abs(2 * v / looks.nominal(alpha, k) - 1) < 1e-6 for k, v in enumerate(p))
    if not near:
        assert (2 * float(looks.p_value(p)) <= alpha) == any(crossed)


def test_looking_again_never_takes_evidence_away() -> None:
    looks = plan_looks(256)
    p = [1e-9, 0.5, 0.9, 1.0]
    values = [float(looks.p_value(p[: k + 1])) for k in range(4)]
    assert values == [values[0]] * 4


def test_one_look_is_the_fixed_sample_test() -> None:
    looks = plan_looks(256, early_stop=False)
    assert float(looks.p_value([0.03])) == 0.03
    assert looks.nominal(0.01, 0) == 0.01
    assert looks.display(0.05) == 0.05


def test_looking_keeps_its_level() -> None:
    """Under the null the sequential p-value is below alpha with probability alpha, whatever the look."""
    rng = np.random.default_rng(1)
    looks = plan_looks(256)
    steps = rng.standard_normal((40_000, 4)) * np.sqrt(np.diff(np.r_[0, looks.fractions]))
    z = np.cumsum(steps, 1) / np.sqrt(looks.fractions)
    p = looks.p_value(stats.norm.sf(z))
    for alpha in (0.025, 0.2):
        assert np.mean(p <= alpha) == pytest.approx(alpha, abs=4 * np.sqrt(alpha / 40_000))
