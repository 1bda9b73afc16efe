"""Means, ratios and shares: known values, agreement of p-values and intervals, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from circuitdsl.verdict.estimates import Estimate, Share, limits_of, share
from circuitdsl.verdict.means import ONE_SIDED, OPEN, Shared, centred, mean, pair
from circuitdsl.verdict.ratios import Ratio, intervals
from tests.drawing import examples

UNIT = (0.0, 1.0)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, bool]:
    """Values and strata, of a few distributions, sizes and divisions; and whether the values are shares."""
    n = draw(st.integers(8, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "exponential", "standard_t", "lognormal", "beta"]))
    arguments = {"standard_t": (3,), "beta": (0.3, 2)}.get(kind, ())
    y = getattr(rng, kind)(*arguments, size=n) * (1 if kind == "beta" else draw(st.sampled_from([1e-3, 1.0, 1e4])))
    return y, rng.integers(0, draw(st.integers(1, 20)), n), kind == "beta"


@settings(max_examples=examples(80, 200), deadline=None)
@given(problems(), st.sampled_from([1e-6, 0.001, 0.05, 0.3]), st.floats(-3, 3))
def test_a_limit_excludes_a_bound_exactly_when_p_is_small(problem: tuple, alpha: float, where: float) -> None:
    y, strata, shares = problem
    m = mean(y, strata, UNIT) if shares else mean(y, strata)
    low, high = (float(v) for v in m.interval(alpha))
    assert low <= float(m.value) <= high
    for limit, p, end in ((low, m.above, m.ends[0]), (high, m.below, m.ends[1])):
        assert limit == end or float(p(limit)) == pytest.approx(alpha / 2, rel=1e-4)
    bound = float(m.value + where * (high - low))
    if min(abs(bound - low), abs(bound - high)) > 1e-4 * (high - low) and m.ends[0] < bound < m.ends[1]:
        assert (float(m.above(bound)) <= alpha / 2) == (bound < low)
        assert (float(m.below(bound)) <= alpha / 2) == (bound > high)


@settings(max_examples=examples(40, 100), deadline=None)
@given(problems(), st.integers(0, 1000))
def test_neither_order_nor_unit_nor_sign_nor_names_of_strata_matter(problem: tuple, seed: int) -> None:
    y, strata, _ = problem

    def limits(y: np.ndarray, strata: object) -> list[float]:
        return [float(v) for v in mean(y, strata).interval()]  # type: ignore[arg-type]

    low, high = limits(y, strata)
    order = np.random.default_rng(seed).permutation(len(y))
    near = {"rel": 1e-5, "abs": 1e-5 * (high - low)}
    assert limits(y[order], strata[order]) == pytest.approx([low, high], **near)
    assert limits(7 * y, strata) == pytest.approx([7 * low, 7 * high], rel=1e-5, abs=1e-4 * (high - low))
    assert limits(-y, strata) == pytest.approx([-high, -low], **near)
    assert limits(y, [f"s{k:02}" for k in strata]) == pytest.approx([low, high], **near)


def test_many_quantities_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(4)
    y, strata = rng.exponential(size=(5, 64)), rng.integers(0, 12, 64)
    low, high = mean(y, strata).interval(0.01)
    for i in range(5):
        assert mean(y[i], strata).interval(0.01) == pytest.approx((low[i], high[i]), rel=1e-5)


class TestKnownEnds:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(8, 300), st.floats(0, 1), st.sampled_from([0.05, 1e-4]))
    def test_two_values_give_clopper_and_pearsons_interval(self, n: int, at: float, alpha: float) -> None:
        k = round(at * n)
        here, exact = mean((np.arange(n) < k).astype(float), ends=UNIT), Share(np.array(float(k)), n)
        low, high = here.interval(alpha)
        inner, outer = exact.interval(alpha), exact.interval(alpha * 0.92)  # up to 6 % on the side of caution
        assert outer[0] - 1e-6 <= low <= inner[0] + 1e-6 and inner[1] - 1e-6 <= high <= outer[1] + 1e-6

    @pytest.mark.parametrize("n", [32, 256])
    @pytest.mark.parametrize("alpha", [0.05, 0.001])
    def test_equal_values_allow_for_a_share_at_the_far_end(self, n: int, alpha: float) -> None:
        away = 1 - (alpha / 2) ** (1 / n)
        assert mean(np.zeros(n), ends=(-1.0, 1.0)).interval(alpha) == pytest.approx((-away, away), rel=0.02)
        assert mean(np.full(n, -1.0), ends=(-1.0, 1.0)).interval(alpha) == pytest.approx((-1, -1 + 2 * away), abs=0.004)

    def test_many_different_values_are_close_to_students_t(self) -> None:
        y = np.random.default_rng(0).uniform(-1, 1, 256)
        low, high = mean(y, ends=(-1.0, 1.0)).interval()
        student = stats.t.interval(0.95, 255, y.mean(), stats.sem(y))
        assert (low, high) == pytest.approx(student, abs=0.006)
        assert low < student[0] and high > student[1]

    def test_a_prompt_in_a_hundred_is_not_excluded_by_samples_that_lack_it(self) -> None:
        """One prompt in a hundred loses everything: the mean is -2 %, and samples without one say 0.0."""
        rng, wrong = np.random.default_rng(1), 0
        for _ in range(300):
            y = np.where(rng.random(128) < 0.01, -2.0, 0.0)
            wrong += float(mean(y, ends=(-2.0, 2.0)).above(-0.02)) <= 0.025
        assert wrong <= 12  # 2.5 % and some luck

    @pytest.mark.parametrize("rate", [0.01, 0.1, 0.6])
    @pytest.mark.parametrize("better", [0.0, 0.2, 0.5])
    def test_a_wrong_limit_is_never_more_frequent_than_said(self, rate: float, better: float) -> None:
        """All outcomes of 20 prompts, weighed by their probability: a limit excludes the truth in 2.5 % at most."""
        n, chances = 20, np.array([rate * (1 - better), 1 - rate, rate * better])
        truth = float(chances @ [-1, 0, 1])
        outcomes = np.array([(i, n - i - j, j) for i in range(n + 1) for j in range(n + 1 - i)])
        weights = stats.multinomial.pmf(outcomes, n, chances)
        seen = weights > 1e-9
        samples = np.stack([np.repeat([-1.0, 0.0, 1.0], k) for k in outcomes[seen]])
        wrong = mean(samples, ends=(-1.0, 1.0)).sides(np.full(len(samples), truth)) <= 0.025
        assert np.all(wrong @ weights[seen] <= 0.025)

    def test_nothing_lies_beyond_the_ends(self) -> None:
        ones = mean(np.ones(8), ends=UNIT)
        assert limits_of(ones, 0.05) == (pytest.approx(0.63, abs=0.01), 1.0)
        assert float(ones.above(1.0)) == 1.0 and float(mean(np.r_[np.ones(7), 0], ends=UNIT).below(1.0)) == 0.0


class TestAssumedEnds:
    @pytest.mark.parametrize("ends", [(-np.inf, np.inf), (-np.inf, 0.0), (0.0, np.inf)])
    def test_a_prompt_that_was_not_seen_may_change_a_share_of_the_gap(self, ends: tuple[float, float]) -> None:
        n, gap = 200, 10.0
        m = pair(np.zeros(n), np.full(n, gap), ends=ends).combine(1.0, 0.0)
        least = (ONE_SIDED if np.any(np.isfinite(ends)) else OPEN)[1]
        away = least * gap * ((0.025) ** (-1 / n) - 1)
        assert m.interval() == pytest.approx((-away, away), rel=0.01)

    def test_or_as_much_as_the_farthest_one_seen(self) -> None:
        y = np.random.default_rng(2).exponential(size=64)
        low, high = mean(y).interval()
        plain = stats.t.interval(0.95, 63, y.mean(), stats.sem(y))
        assert high > plain[1] + 0.05  # towards the long tail
        assert plain[0] - 0.1 < low < plain[0] + 0.02

    def test_no_spread_is_no_certainty(self) -> None:
        m = mean(np.full(40, 2.5))
        low, high = m.interval()
        assert 2.4 < low < 2.5 < high < 2.6
        assert float(m.below(2.5)) == float(m.above(2.5)) == 1.0

    @pytest.mark.parametrize("strata", [1, 4, 15])
    @pytest.mark.parametrize("kind", ["normal", "exponential", "t3"])
    @pytest.mark.parametrize("n", [32, 128])
    def test_coverage(self, kind: str, strata: int, n: int) -> None:
        """Nominal 95 %; four standard errors of 1500 replicates are 2.3 points."""
        rng = np.random.default_rng([n, strata, len(kind)])
        shape = (1500, n)
        if kind == "normal":
            y = rng.standard_normal(shape)
        else:
            y = rng.standard_t(3, shape) if kind == "t3" else rng.exponential(size=shape) - 1
        labels = np.arange(n) % strata
        means = rng.standard_normal((1500, strata))[:, labels] / 2
        missed = mean(y + means, labels, size=0.0).sides(means.mean(-1)) <= 0.025
        assert missed.mean(1).max() <= 0.025 + 0.016
        assert missed.any(0).mean() >= 0.002  # not merely cautious


class TestStrata:
    def test_differences_between_strata_are_no_sampling_error(self) -> None:
        rng = np.random.default_rng(5)
        for k in (2, 8):
            strata = np.arange(64) % k
            y = rng.standard_normal(64)
            near, apart = (centred(values, strata) for values in (y, y + 100 * strata))
            assert np.ptp(near - apart) == pytest.approx(0, abs=1e-9)
            assert np.ptp(centred(y + 100 * strata, np.zeros(64))) > 50

    def test_spread_is_unbiased_and_the_mean_kept(self) -> None:
        rng = np.random.default_rng(6)
        y = rng.standard_normal((4000, 24)) + np.arange(24) % 3
        moved = centred(y, np.arange(24) % 3)
        assert moved.mean(-1) == pytest.approx(y.mean(-1))
        assert float(np.mean((moved - moved.mean(-1, keepdims=True)) ** 2)) == pytest.approx(1.0, abs=0.02)

    @pytest.mark.parametrize(
        ("sizes", "pools"),
        [
            ([1] * 12, [0] * 12),
            ([2] * 15, [0] * 15),
            ([7, 8, 7, 9], [0, 1, 0, 2]),
            ([20, 10, 1], [0, 1, 1]),
            ([3, 9, 2, 30], [0, 0, 0, 1]),
            ([8, 8], [0, 1]),
            ([5], [0]),
        ],
    )
    def test_strata_under_eight_prompts_are_pooled(self, sizes: list[int], pools: list[int]) -> None:
        """Where they are few even together, the smallest of the others is pooled with them."""
        y = np.random.default_rng(0).standard_normal(sum(sizes))
        given, pooled = (np.repeat(names, sizes) for names in (np.arange(len(sizes)), pools))
        alone = [y[pooled == k] for k in np.unique(pooled)]
        spread = sum(len(v) * np.var(v, ddof=1) for v in alone)
        moved = centred(y, given)
        assert moved.mean() == pytest.approx(y.mean())
        assert len(y) * np.var(moved) == pytest.approx(spread)

    def test_small_strata_of_a_skewed_effect_are_no_surer_than_their_pool(self) -> None:
        """Taken one by one, strata of two are wrong on 3.2 % of samples where 2.5 % is meant; together on 1.8 %."""
        y = np.random.default_rng(1).exponential(size=(4000, 64)) - 1
        wrong = mean(y, np.arange(64) % 32, size=0.0).sides(np.zeros(4000)) <= 0.025
        assert wrong.mean(1).max() <= 0.025

    def test_one_prompt(self) -> None:
        assert centred(np.array([3.0]), np.zeros(1)) == pytest.approx([3.0])


class TestRatio:
    rng = np.random.default_rng(6)
    g = 8 + 2 * rng.standard_normal(100)
    d = -0.4 * g + rng.standard_normal(100)

    def test_interval_inverts_the_paired_test(self) -> None:
        ratio = Ratio(pair(self.d, self.g))
        low, high = (float(v) for v in ratio.interval(0.01))
        for bound, p in ((low, ratio.above), (high, ratio.below)):
            assert float(p(bound)) == pytest.approx(0.005, rel=1e-4)
        below, above = ratio.sides([low, high])
        assert (float(above[0]), float(below[1])) == pytest.approx((0.005, 0.005), rel=1e-4)
        y = self.d - high * self.g
        assert float(mean(y, size=self.g.mean()).below(0.0)) == pytest.approx(0.005, rel=1e-3)

    def test_it_is_near_fiellers_closed_form(self) -> None:
        low, high = (float(v) for v in Ratio(pair(self.d, self.g)).interval())
        t2 = stats.t.ppf(0.975, 99) ** 2 / 100
        (vd, c), (_, vg) = np.cov(self.d, self.g)
        md, mg = self.d.mean(), self.g.mean()
        roots = np.sort(np.roots([mg**2 - t2 * vg, -2 * (md * mg - t2 * c), md**2 - t2 * vd]))
        assert (low, high) == pytest.approx(tuple(roots), abs=0.008)
        assert low <= roots[0] and high >= roots[1]

    def test_a_negative_gap_with_its_sign_gives_the_mirrored_interval(self) -> None:
        low, high = Ratio(pair(self.d, self.g)).interval()
        assert np.allclose(Ratio(pair(-self.d, -self.g), sign=-1).interval(), (low, high))

    def test_no_interval_where_the_gap_is_unclear(self) -> None:
        g = self.rng.standard_normal(100)
        assert np.isnan(Ratio(pair(self.d, g - g.mean() + 0.05)).interval()).all()
        assert np.isnan(Ratio(pair(self.d, -self.g)).interval()).all()
        assert np.isnan(Ratio(pair(np.zeros(64), np.zeros(64), ends=(0.0, 1.0))).interval()).all()

    def test_figures_of_different_prompts_at_once(self) -> None:
        """Each has the interval that it has alone, whatever stands beside it."""
        figures: list[Estimate] = [mean(self.d), share(self.d < -3)]
        for n, strata in ((100, 1), (64, 4), (40, 20), (9, 1)):
            labels = np.arange(n) % strata
            figures += [
                Ratio(pair(self.d[:n], self.g[:n], labels)),
                Ratio(pair(-self.d[:n], -self.g[:n], labels), sign=-1),
            ]
        figures.append(Ratio(pair(self.d, np.random.default_rng(7).standard_normal(100))))
        figures.append(Ratio(pair(-(self.d < -3).astype(float), np.ones(100), ends=(0.0, 1.0), shared="first")))
        asked = [(figure, level) for figure in figures for level in (0.05, 1e-4)]
        for (figure, level), found in zip(asked, intervals(asked), strict=True):
            alone = limits_of(figure, level)
            assert (found is None) == (alone is None)
            assert found is None or found == pytest.approx(alone, rel=1e-5, abs=1e-6)
        assert [found is None for found in intervals(asked)[-4:]] == [True, True, False, False]  # no clear gap

    @pytest.mark.parametrize("shared", ["", "first", "second"])
    @pytest.mark.parametrize("weights", [(1.0, 0.2), (1.0, -0.3), (-1.0, 1.5), (0.0, 1.0)])
    def test_no_combination_of_scores_lies_beyond_its_ends(self, shared: Shared, weights: tuple) -> None:
        """All scores of -1 and 1 of a patched, a base, a clean and a corrupt run: the largest is the end."""
        corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1)
        patched, base, clean, corrupt = corners
        base = {"": base, "first": clean, "second": corrupt}[shared]
        found = pair(patched - base, clean - corrupt, ends=(-1.0, 1.0), shared=shared).combine(*weights)
        assert (found.y.max(), found.y.min()) == pytest.approx((float(found.high), float(found.low)))


class TestShare:
    @pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (250, 256)])
    @pytest.mark.parametrize("alpha", [0.05, 1e-4])
    def test_clopper_pearson(self, k: int, n: int, alpha: float) -> None:
        exact = stats.binomtest(k, n).proportion_ci(1 - alpha, method="exact")
        assert Share(np.array(float(k)), n).interval(alpha) == pytest.approx((exact.low, exact.high))

    @pytest.mark.parametrize("k", [0, 1, 9, 10])
    def test_p_values_are_binomial_tails(self, k: int) -> None:
        below, above = Share(np.array(float(k)), 10).sides([0.2, 0.95])
        for i, bound in enumerate((0.2, 0.95)):
            assert float(above[i]) == pytest.approx(stats.binomtest(k, 10, bound, "greater").pvalue)
            assert float(below[i]) == pytest.approx(stats.binomtest(k, 10, bound, "less").pvalue)

    def test_nothing_shows_a_share_of_one(self) -> None:
        assert float(share(np.ones(1000)).sides(1.0)[1]) == 1.0
        assert float(share(np.r_[np.ones(999), 0]).sides(1.0)[0]) == 0.0


def test_repeated_prompts_are_more_of_the_same() -> None:
    rng = np.random.default_rng(8)
    y = rng.uniform(size=30)
    figures: list[Estimate] = [mean(y), mean(y, ends=UNIT), share(y < 0.3), Ratio(pair(-y, 1 + y))]
    for figure in figures:
        more = figure.repeated(4)
        assert more.n == 4 * figure.n and float(more.value) == pytest.approx(float(figure.value))
        (a, b), (c, d) = (limits_of(one, 0.05) or (0.0, 0.0) for one in (figure, more))
        assert 0 < d - c < 0.7 * (b - a)
