"""Looks: where they are, what each gets of the level, and p-values that are valid at any of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from circuitdsl.verdict.sampling import Looks, plan_looks


@pytest.mark.parametrize(
    ("prompts", "sizes"),
    [
        (256, (64, 128, 256)),
        (128, (64, 128)),
        (100, (100,)),
        (64, (64,)),
        (512, (64, 128, 256, 512)),
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


def test_the_level_is_divided_among_the_looks() -> None:
    for prompts in (256, 128, 64, 5):
        assert sum(plan_looks(prompts).shares) == pytest.approx(1)
    assert plan_looks(256).shares[-1] == pytest.approx(0.8)
    assert plan_looks(256, early_stop=False).shares == (1.0,)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=4), st.sampled_from([0.05, 0.002]))
def test_the_sequential_p_value_is_small_exactly_when_a_boundary_was_crossed(p: list[float], alpha: float) -> None:
    looks = Looks((32, 64, 128, 256))
    crossed = [2 * v <= looks.nominal(alpha, k) for k, v in enumerate(p)]
    near = any(abs(2 * v / looks.nominal(alpha, k) - 1) < 1e-6 for k, v in enumerate(p))
    if not near:
        assert (2 * float(looks.p_value(p)) <= alpha) == any(crossed)


def test_looking_again_never_takes_evidence_away() -> None:
    looks = plan_looks(512)
    p = [1e-9, 0.5, 0.9, 1.0]
    values = [float(looks.p_value(p[: k + 1])) for k in range(4)]
    assert values == [values[0]] * 4


def test_one_look_is_the_fixed_sample_test() -> None:
    looks = plan_looks(256, early_stop=False)
    assert float(looks.p_value([0.03])) == 0.03
    assert looks.nominal(0.01, 0) == 0.01
    assert looks.display(0.05) == 0.05


def test_looking_keeps_its_level_whatever_the_figures_are_distributed_like() -> None:
    """p-values that are valid at each look alone, of a running mean and of looks that know nothing of each other."""
    rng = np.random.default_rng(1)
    looks = plan_looks(512)
    steps = rng.standard_normal((40_000, 4)) * np.sqrt(np.diff([0, *looks.sizes]))
    together = stats.norm.sf(np.cumsum(steps, 1) / np.sqrt(looks.sizes))
    apart = rng.uniform(size=(40_000, 4))
    for alpha in (0.025, 0.2):
        for p in (together, apart):
            assert 0.6 * alpha <= np.mean(looks.p_value(p) <= alpha) <= alpha + 4 * np.sqrt(alpha / 40_000)
