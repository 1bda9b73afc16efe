"""Gaffke's p-value: against the integral it approximates, and against what it is in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from circuitdsl.verdict.means import tails
from tests.drawing import examples
from tests.verdict.exact_tail import exact_tail

KINDS = {
    "normal": lambda rng, n: rng.normal(-0.3, 1, n),
    "rare": lambda rng, n: np.where(rng.random(n) < 0.02, 2.0, -0.1),
    "equal": lambda rng, n: np.full(n, -0.02),
    "jumps": lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n, p=[0.35, 0.6, 0.05]),
    "long tail": lambda rng, n: rng.lognormal(0, 1.5, n) - 4.5,
    "long tail the other way": lambda rng, n: 0.6 - rng.exponential(size=n),
}


@settings(max_examples=examples(60, 150), deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from([8, 32, 200]), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_it_is_the_tail_and_never_less(kind: str, n: int, far: float, seed: int) -> None:
    v = np.r_[KINDS[kind](np.random.default_rng(seed), n), 10**far]
    if v.sum() >= 0:
        assert tails(v) == 1.0
        return
    assume(v.sum() < -1e-9)  # nearer to 0 rounding decides, and gives 1
    exact = exact_tail(v)
    assert exact * (1 - 1e-3) <= float(tails(v)) <= 1.06 * exact


@pytest.mark.parametrize("n", [8, 64, 1000])
def test_equal_values_are_a_power(n: int) -> None:
    """n values of -m and one of e: the weight of the one is beyond m / (m + e) with probability (1 + m / e)^-n."""
    for m, e in ((0.3, 1.0), (0.02, 2.0), (5.0, 1.0)):
        if n * m > e:
            assert float(tails(np.r_[np.full(n, -m), e])) == pytest.approx((1 + m / e) ** -n, rel=0.04)


@pytest.mark.parametrize(("k", "n", "bound"), [(0, 40, 0.2), (3, 64, 0.2), (200, 256, 0.9), (31, 32, 0.999)])
def test_two_values_are_the_binomial_test(k: int, n: int, bound: float) -> None:
    y = (np.arange(n) < k).astype(float)
    exact = stats.binom.cdf(k, n, bound)
    assert exact * 0.999 <= float(tails(np.r_[y - bound, 1 - bound])) <= 1.06 * exact


def test_far_tails_keep_their_resolution() -> None:
    v = np.r_[np.random.default_rng(0).normal(-0.4, 0.1, 800), 1.0]
    assert 0 < float(tails(v)) < 1e-100
    assert float(tails(v)) == pytest.approx(exact_tail(v), rel=0.06)


@pytest.mark.parametrize(
    ("values", "p"), [([1.0, 2.0], 1), ([0.0], 1), ([0.0, 1.0], 1), ([-1.0, 0.0], 0), ([1, -1], 1)]
)
def test_one_sign_or_too_large_a_sum(values: list[float], p: float) -> None:
    assert float(tails(values)) == p


def test_rows_are_as_each_alone_and_zeros_count_for_nothing() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(-0.4, 1, (3, 4, 50))
    found = tails(rows)
    assert found.shape == (3, 4)
    assert found == pytest.approx(np.array([[float(tails(row)) for row in block] for block in rows]), rel=1e-9)
    assert tails(np.pad(rows, ((0, 0), (0, 0), (0, 7)))) == pytest.approx(found, rel=1e-9)
