"""Holm's procedure by hand, and the family-wise error it is there to keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from circuitdsl.verdict.families import Levels, all_of, any_of, family_levels, holm, strictest


def test_holm_by_hand() -> None:
    """0.01 <= 0.05/4, 0.013 <= 0.05/3, then 0.03 > 0.05/2 and nothing passes any more."""
    p = [0.03, 0.01, 0.04, 0.013]
    assert holm(p) == pytest.approx((0.025, 0.0125, 0.025, 0.05 / 3))
    assert [v <= level for v, level in zip(p, holm(p), strict=True)] == [False, True, False, True]


def test_a_late_small_p_does_not_pass_where_an_earlier_did_not() -> None:
    """0.045 is below 0.05 / 1, but 0.04 already stopped at 0.05 / 2."""
    assert holm([0.04, 0.045]) == pytest.approx((0.025, 0.025))


def test_all_pass() -> None:
    assert holm([0.0, 0.02, 0.05]) == pytest.approx((0.05 / 3, 0.025, 0.05))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_adjusted_p_values(p: list[float]) -> None:
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate([min(1.0, (len(p) - i) * p[k]) for i, k in enumerate(order)])
    passed = {int(k) for i, k in enumerate(order) if adjusted[i] <= 0.05 * (1 - 1e-12)}
    close = any(abs(a - 0.05) < 1e-12 for a in adjusted)
    if not close:
        assert {i for i, level in enumerate(holm(p)) if p[i] <= level} == passed


def test_strictest_is_what_every_member_gets_at_least() -> None:
    levels = family_levels([0.001, 0.5, 0.02], [1.0, 1.0, 1.0])
    assert all(level.holds >= strictest(3).holds and level.fails >= strictest(3).fails for level in levels)
    assert strictest(3) == Levels(0.05 / 3, 0.05 / 3)


def test_without_adjustment_every_member_has_the_whole_level() -> None:
    assert family_levels([0.2, 0.9], [1, 1], adjust=False) == (Levels(), Levels())
    assert strictest(40, adjust=False) == Levels()


def test_parts() -> None:
    assert all_of([0.01, 0.2]) == 0.2
    assert any_of([0.01, 0.2]) == 0.02
    assert any_of([0.9, 0.8]) == 1.0


def test_family_wise_error_of_correlated_claims() -> None:
    """30 two-sided p-values of claims on their bounds, strongly correlated or not: at most 5 % of families reject."""
    rng = np.random.default_rng(0)
    for rho in (0.0, 0.8):
        z = np.sqrt(rho) * rng.standard_normal((4000, 1)) + np.sqrt(1 - rho) * rng.standard_normal((4000, 30))
        p = 2 * special.ndtr(-np.abs(z))
        rejected = [any(v <= level for v, level in zip(row, holm(row), strict=True)) for row in p]
        assert np.mean(rejected) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 4000)
