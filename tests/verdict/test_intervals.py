"""Intervals: known values, agreement with p-values, and what they must not depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from circuitdsl.verdict.bounded import changes
from circuitdsl.verdict.intervals import Estimate, Mean, Share, share
from circuitdsl.verdict.moments import cells, mean, moments
from circuitdsl.verdict.ratios import Ratio, intervals

SYMMETRIC = np.array([-3.0, -2, -1, -0.5, 0, 0.5, 1, 2, 3]) + 7


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Values and strata: a few distributions, sizes and divisions."""
    n = draw(st.integers(2, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "exponential", "standard_t", "lognormal"]))
    y = rng.standard_t(3, n) if kind == "standard_t" else getattr(rng, kind)(size=n)
    return y * draw(st.sampled_from([1e-3, 1.0, 1e4])), rng.integers(0, draw(st.integers(1, 20)), n)


def test_symmetric_values_give_students_interval() -> None:
    low, high = mean(SYMMETRIC).interval(0.05)
    expected = stats.t.interval(0.95, 8, 7, SYMMETRIC.std(ddof=1) / 3)
    assert (low, high) == pytest.approx(expected, rel=1e-12)


def test_p_values_of_symmetric_values_are_students() -> None:
    test = stats.ttest_1samp(SYMMETRIC, 6.0, alternative="greater")
    assert float(mean(SYMMETRIC).above(6.0)) == pytest.approx(test.pvalue, rel=1e-10)
    assert float(mean(SYMMETRIC).below(8.0)) == pytest.approx(test.pvalue, rel=1e-10)


def test_two_strata_give_welchs_standard_error_and_degrees_of_freedom() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 20), rng.normal(3, 4, 20)
    m = mean(np.r_[a, b], np.repeat([0, 1], 20))
    welch = stats.ttest_ind(a, -b, equal_var=False)  # half the difference of a and -b is the mean of a and b
    assert float(m.df) == pytest.approx(welch.df)
    assert float(m.value / m.se) == pytest.approx(welch.statistic)


def test_halls_transformation_moves_a_skewed_interval_up() -> None:
    y = np.random.default_rng(2).exponential(size=64)
    low, high = mean(y).interval()
    plain = stats.t.interval(0.95, 63, y.mean(), stats.sem(y))
    assert high > plain[1] + 0.02
    assert low == pytest.approx(plain[0])  # the more cautious of the two


def test_halls_formula() -> None:
    m = Mean(100, np.array(0.0), np.array(1.0), np.array(1e9), np.array(0.3), np.array(0.0))
    t = -1.7
    hall = t + 0.3 * (t**2 / 3 + 1 / 6) + 0.09 * t**3 / 27
    assert float(m.below(1.7)) == pytest.approx(stats.norm.cdf(hall), rel=1e-6)


def test_tiny_p_values_keep_their_resolution() -> None:
    y = np.random.default_rng(3).normal(5, 1, 256)
    p = [float(mean(y).above(b)) for b in (0.0, 1.0, 2.0)]
    assert 0 < p[0] < p[1] < p[2] < 1e-60


@settings(max_examples=200, deadline=None)
@given(problems(), st.sampled_from([1e-6, 0.001, 0.05, 0.3]), st.floats(-3, 3))
def test_a_limit_excludes_a_bound_exactly_when_p_is_small(problem: tuple, alpha: float, where: float) -> None:
    y, strata = problem
    m = mean(y, strata)
    if m.degenerate:
        return
    low, high = (float(v) for v in m.interval(alpha))
    assert low < float(m.value) < high
    assert float(m.above(low)) == pytest.approx(alpha / 2, rel=1e-6)
    assert float(m.below(high)) == pytest.approx(alpha / 2, rel=1e-6)
    bound = float(m.value + where * (high - low))
    if min(abs(bound - low), abs(bound - high)) > 1e-9 * (high - low):
        assert (float(m.above(bound)) <= alpha / 2) == (bound < low)
        assert (float(m.below(bound)) <= alpha / 2) == (bound > high)


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 1000))
def test_neither_order_nor_unit_nor_sign_nor_names_of_strata_matter(problem: tuple, seed: int) -> None:
    y, strata = problem

    def limits(y: np.ndarray, strata: object) -> list[float]:
        return [float(v) for v in mean(y, strata).interval()]  # type: ignore[arg-type]

    low, high = limits(y, strata)
    order = np.random.default_rng(seed).permutation(len(y))
    assert limits(y[order], strata[order]) == pytest.approx([low, high], rel=1e-7, nan_ok=True)
    assert limits(7 * y, strata) == pytest.approx([7 * low, 7 * high], rel=1e-9, nan_ok=True)
    assert limits(-y, strata) == pytest.approx([-high, -low], rel=1e-9, nan_ok=True)
    assert limits(y, [f"s{k:02}" for k in strata]) == pytest.approx([low, high], nan_ok=True)


def test_many_quantities_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(4)
    y, strata = rng.exponential(size=(5, 64)), rng.integers(0, 12, 64)
    low, high = mean(y, strata).interval(0.01)
    for i in range(5):
        assert mean(y[i], strata).interval(0.01) == pytest.approx((low[i], high[i]))


class TestStrata:
    def test_differences_between_strata_are_no_sampling_error(self) -> None:
        rng = np.random.default_rng(5)
        for k in (2, 15):  # 15 strata of 4 or 5 prompts are pooled, about their own means
            strata = np.arange(64) % k
            y = rng.standard_normal(64)
            apart = y + 100 * strata
            assert float(mean(apart, strata).se) == pytest.approx(float(mean(y, strata).se))
            assert float(mean(apart).se) > 10 * float(mean(apart, strata).se)

    def test_small_strata_are_one_cell(self) -> None:
        strata = np.repeat(["a", "b", "c", "d"], [20, 8, 7, 2])
        assert sorted(len(cell.index) for cell in cells(strata)) == [8, 9, 20]

    def test_single_prompts_are_a_stratum_together(self) -> None:
        (cell,) = cells(np.arange(12))
        assert len(cell.sizes) == 1 and cell.df == 11
        y = np.random.default_rng(0).standard_normal(12)
        assert np.allclose(mean(y, np.arange(12)).interval(), mean(y).interval())

    def test_an_only_single_prompt_joins_the_smallest_stratum(self) -> None:
        parts = cells(np.repeat([0, 1, 2], [20, 10, 1]))
        assert sorted(len(cell.index) for cell in parts) == [11, 20]


class TestWithoutVariance:
    def test_equal_values_have_no_interval_and_go_by_value(self) -> None:
        m = mean(np.full(40, 2.5))
        assert bool(m.degenerate)
        assert np.isnan(m.interval()).all()
        assert (float(m.below(3.0)), float(m.below(2.0))) == (0.0, 1.0)

    def test_a_bound_itself_counts_only_where_it_is_closed(self) -> None:
        m = mean(np.full(40, 2.5))
        assert (float(m.below(2.5, closed=True)), float(m.below(2.5))) == (0.0, 1.0)

    def test_rounding_noise_is_no_variance(self) -> None:
        noise = 1e-8 * np.random.default_rng(0).standard_normal(40)
        assert bool(mean(1 + noise).degenerate)
        assert not bool(mean(1 + 1e4 * noise).degenerate)

    def test_one_prompt(self) -> None:
        assert bool(mean(np.ones(1)).degenerate)


class TestRatio:
    rng = np.random.default_rng(6)
    g = 8 + 2 * rng.standard_normal(100)
    d = -0.4 * g + rng.standard_normal(100)

    def test_interval_inverts_the_paired_test(self) -> None:
        ratio = Ratio(moments(self.d, self.g))
        low, high = (float(v) for v in ratio.interval(0.01))
        for bound, p in ((low, ratio.above), (high, ratio.below)):
            assert float(p(bound)) == pytest.approx(0.005, rel=1e-6)
        y = self.d - high * self.g
        assert float(mean(y).below(0.0)) == pytest.approx(0.005, rel=1e-6)

    def test_it_is_near_fiellers_closed_form(self) -> None:
        low, high = (float(v) for v in Ratio(moments(self.d, self.g)).interval())
        t2 = stats.t.ppf(0.975, 99) ** 2 / 100
        (vd, c), (_, vg) = np.cov(self.d, self.g)
        md, mg = self.d.mean(), self.g.mean()
        roots = np.sort(np.roots([mg**2 - t2 * vg, -2 * (md * mg - t2 * c), md**2 - t2 * vd]))
        assert (low, high) == pytest.approx(tuple(roots), abs=0.004)
        assert low <= roots[0] + 1e-9 and high >= roots[1] - 1e-9

    def test_a_negative_gap_with_its_sign_gives_the_mirrored_interval(self) -> None:
        low, high = Ratio(moments(self.d, self.g)).interval()
        assert np.allclose(Ratio(moments(-self.d, -self.g), sign=-1).interval(), (low, high))

    def test_no_interval_where_the_gap_is_unclear(self) -> None:
        g = self.rng.standard_normal(100)
        assert np.isnan(Ratio(moments(self.d, g - g.mean() + 0.05)).interval()).all()
        assert np.isnan(Ratio(moments(self.d, -self.g)).interval()).all()

    def test_a_batch(self) -> None:
        d = np.stack([self.d, 2 * self.d, 0 * self.d])
        low, high = Ratio(moments(d, self.g)).interval()
        assert (low[1], high[1]) == pytest.approx((2 * low[0], 2 * high[0]))
        assert np.isnan(low[2]) and np.isnan(high[2])
        assert np.allclose((low[0], high[0]), Ratio(moments(self.d, self.g)).interval())

    def test_figures_of_different_prompts_at_once(self) -> None:
        """Each has the interval that it has alone, whatever stands beside it."""
        rng = np.random.default_rng(7)
        figures: list[Estimate] = [mean(self.d), share(self.d < -3)]
        for n, strata in ((100, 1), (64, 4), (40, 20), (9, 1)):
            pair = moments(self.d[:n], self.g[:n], strata=np.arange(n) % strata)
            figures += [Ratio(pair), Ratio(moments(-self.d[:n], -self.g[:n]), sign=-1)]
        figures += [Ratio(moments(self.d, rng.standard_normal(100))), Ratio(moments(self.g, self.g))]
        flips = (self.d < -3).astype(float)
        figures.append(Ratio(changes(-flips, np.ones(100), 1.0)))
        asked = [(figure, level) for figure in figures for level in (0.05, 1e-4)]
        for (figure, level), found in zip(asked, intervals(asked), strict=True):
            alone = tuple(float(limit) for limit in figure.interval(level))
            assert (found or (np.nan, np.nan)) == pytest.approx(alone, rel=1e-9, nan_ok=True)
        assert sum(found is None for found in intervals(asked)) == 4  # no clear gap, and the same on every prompt


class TestShare:
    @pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (250, 256)])
    @pytest.mark.parametrize("alpha", [0.05, 1e-4])
    def test_clopper_pearson(self, k: int, n: int, alpha: float) -> None:
        exact = stats.binomtest(k, n).proportion_ci(1 - alpha, method="exact")
        assert Share(np.array(float(k)), n).interval(alpha) == pytest.approx((exact.low, exact.high))

    @pytest.mark.parametrize("k", [0, 1, 9, 10])
    def test_p_values_are_binomial_tails(self, k: int) -> None:
        s = Share(np.array(float(k)), 10)
        for bound in (0.2, 0.95):
            assert float(s.above(bound)) == pytest.approx(stats.binomtest(k, 10, bound, "greater").pvalue)
            assert float(s.below(bound)) == pytest.approx(stats.binomtest(k, 10, bound, "less").pvalue)

    def test_nothing_shows_a_share_of_one(self) -> None:
        s = share(np.ones(1000))
        assert float(s.above(1.0)) == 1.0
        assert float(share(np.r_[np.ones(999), 0]).below(1.0)) == 0.0


@pytest.mark.parametrize("strata", [1, 4, 15])
@pytest.mark.parametrize("kind", ["normal", "exponential", "t3"])
@pytest.mark.parametrize("n", [32, 128])
def test_coverage(kind: str, strata: int, n: int) -> None:
    """Nominal 95 %; four standard errors of 4000 replicates are 1.4 points."""
    rng = np.random.default_rng([n, strata, len(kind)])
    shape = (4000, n)
    if kind == "normal":
        y = rng.standard_normal(shape)
    else:
        y = rng.standard_t(3, shape) if kind == "t3" else rng.exponential(size=shape) - 1
    labels = np.arange(n) % strata
    means = rng.standard_normal((4000, strata))[:, labels] / 2
    low, high = mean(y + means, labels).interval()
    truth = means.mean(-1)
    covered = np.mean((low <= truth) & (truth <= high))
    assert 0.935 <= covered <= 0.975
