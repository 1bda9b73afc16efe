"""Verdicts: each kind of claim, the gap rules, what cannot be decided, and how often a false claim holds."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitdsl.circuit.criteria import Matters, Negligible, Signed, Test, Within
from circuitdsl.report.report import ascii_reason
from circuitdsl.verdict.decide import Decision, _judge, rule
from circuitdsl.verdict.families import Levels, family_levels
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import plan_looks
from circuitdsl.verdict.weighing import rarity, unmeasured, weigh
from tests.verdict.deciding import decide, decide_family, weigh_claim

N = 256
STRATA = np.array(["ABBA", "BABA"])[np.arange(N) % 2]


def effects(effect: float, noise: float = 1.0, n: int = N, seed: int = 0, gap: float = 10.0, label: str = "") -> Sample:
    """A sample whose true effect is known: d = effect * g + noise."""
    rng = np.random.default_rng(seed)
    g = gap + 2 * rng.standard_normal(n)
    return Sample(STRATA[:n], d=effect * g + noise * rng.standard_normal(n), g=g, unit="plain", label=label)


def within(low: float | None = None, high: float | None = None, quantity: str = "effect") -> Within:
    return Within(quantity, low, high, "")  # type: ignore[arg-type]


def mirrored(sample: Sample) -> Sample:
    """The same effects measured by a metric that is better when lower."""
    return Sample(sample.strata, d=-sample.array("d"), g=-sample.array("g"), falls=True)


NULL = np.linspace(-0.05, 0.05, 40)
CASES = [
    (within(high=-0.2), -0.43, "holds", "is below −20 %"),
    (within(high=-0.6), -0.43, "fails", "is above −60 %"),
    (within(high=-0.43), -0.43, "undecided", "reaches across −43 %"),
    (within(low=-0.5), -0.43, "holds", "is above −50 %"),
    (within(low=-0.3), -0.43, "fails", "is below −30 %"),
    (within(-0.5, -0.3), -0.43, "holds", "is between −50 % and −30 %"),
    (within(-0.3, 0.05), -0.43, "fails", "is below −30 %"),
    (within(-0.3, 0.05), 0.2, "fails", "is above 5 %"),
    (Signed("lowers"), -0.43, "holds", "is below −1 %"),
    (Signed("raises"), -0.43, "fails", "is below 1 %"),
    (Signed("raises"), 0.43, "holds", "is above 1 %"),
    (Signed("lowers"), 0.43, "fails", "is above −1 %"),
    (Negligible(), -0.43, "fails", "is beyond the margin of 1 %"),
    (Negligible(), 0.43, "fails", "is beyond the margin of 1 %"),
    (Matters(), -0.43, "holds", "is beyond the margin of 1 %, rarer than 40 of 40"),
    (Matters(), 0.43, "holds", "is beyond the margin of 1 %, rarer than 40 of 40"),
]


@pytest.mark.parametrize(("test", "effect", "verdict", "words"), CASES)
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("falls", [False, True])
def test_claims_on_effects(test: Test, effect: float, verdict: str, words: str, early: bool, falls: bool) -> None:
    sample = effects(effect)
    if falls:  # lowering a metric that is better when lower is a positive effect's opposite
        sample = mirrored(sample)
        if isinstance(test, Signed):
            test = Signed("raises" if test.direction == "lowers" else "lowers")
    decision = decide(test, sample, looks=plan_looks(N, early), null=NULL)
    assert decision.verdict == verdict, decision.reason
    assert words in decision.reason
    assert decision.name == "effect" and decision.value == pytest.approx(effect, abs=0.02)
    assert decision.value is not None and decision.ci is not None
    assert decision.ci[0] < decision.value < decision.ci[1]


def test_the_reason_is_one_sentence_with_its_numbers() -> None:
    decision = decide(within(high=-0.2), effects(-0.43, noise=4))
    assert decision.reason == "effect −45 % [−51, −39] is below −20 %"
    assert ascii_reason(decision.reason) == "effect -45% [-51%, -39%] is below -20%"


def test_a_reason_gives_the_level_of_an_interval_that_is_not_the_plain_one() -> None:
    sample = effects(-0.43, noise=4)
    decision = decide(within(high=-0.2), sample, levels=Levels(0.0024, 0.01))
    assert decision.ci == decide(within(high=-0.2), sample).ci != decision.ci_used
    assert decision.reason == "effect −45 % [−54, −36] at 99.76 % is below −20 %"
    assert ascii_reason(decision.reason) == "effect -45% [-54%, -36%] at 99.76% is below -20%"
    assert "] at 99 % is above −60 %" in decide(within(high=-0.6), sample, levels=Levels(0.0024, 0.01)).reason
    early = decide(within(high=-0.2), sample, looks=plan_looks(4 * N))
    assert "] at 95 % (look 2 of 4) is below −20 %" in early.reason


@pytest.mark.parametrize(
    ("effect", "verdict"), [(0.0, "holds"), (0.005, "holds"), (0.01, "undecided"), (0.02, "fails")]
)
def test_negligible_is_an_equivalence_test(effect: float, verdict: str) -> None:
    decision = decide(Negligible(), effects(effect, noise=0.3))
    assert decision.verdict == verdict
    if verdict == "holds":
        assert decision.ci_used is not None and decision.ci_used[0] >= -0.01 and decision.ci_used[1] <= 0.01
    assert decide(Negligible(), effects(effect, noise=20.0)).verdict == "undecided"


def test_lack_of_evidence_is_not_negligible() -> None:
    assert decide(Negligible(), effects(0.0, noise=5.0)).verdict == "undecided"


def test_delta_and_values_need_no_gap() -> None:
    sample = effects(-0.4, gap=0.0)
    assert decide(within(high=-0.2), sample).verdict == "error"
    shifted = Sample(STRATA, d=sample.array("d") - 3, g=sample.array("g"))
    assert decide(within(high=-2.0, quantity="delta"), shifted).verdict == "holds"
    assert decide(within(low=-2.0, quantity="delta"), shifted).verdict == "fails"
    value = Sample(STRATA, value=5 + np.random.default_rng(0).standard_normal(N), name="logit_diff")
    decision = decide(within(low=3.0, quantity="value"), value)
    assert decision.verdict == "holds" and decision.reason == "logit_diff 5.00 [4.86, 5.14] is above 3"


def test_accuracy_is_exact() -> None:
    def accuracy(right: int, n: int) -> Decision:
        hits = Sample(np.zeros(n), value=np.arange(n) < right, hits=True, name="accuracy", unit="percent")
        return decide(within(low=0.95, quantity="value"), hits)

    assert accuracy(256, 256).verdict == "holds"
    assert accuracy(32, 32).verdict == "undecided"  # 0.95^32 is 19 %
    assert accuracy(200, 256).verdict == "fails"
    assert accuracy(256, 256).ci == pytest.approx((1 - (1 - 0.025 ** (1 / 256)), 1.0))


class TestGap:
    def test_no_gap(self) -> None:
        decision = decide(Negligible(), effects(0.0, gap=0.05))
        assert decision.verdict == "error" and decision.reason.startswith("no gap: ")
        assert decision.value is None and decision.ci is None

    @pytest.mark.parametrize("falls", [False, True])
    def test_the_wrong_way_round(self, falls: bool) -> None:
        sample = effects(-0.4, gap=-10.0)
        decision = decide(within(high=-0.2), mirrored(sample) if falls else sample)
        assert decision.verdict == "error"
        assert decision.reason.startswith("the model does not do this task: ")
        assert decision.reason.endswith("above 0" if falls else "below 0")

    def test_no_gap_among_the_first_prompts_is_no_last_word(self) -> None:
        sample = effects(-0.4, n=32, gap=0.2)
        part = weigh(within(high=-0.2), sample, looks=plan_looks(N))
        assert part.forced == "error" and not part.final
        assert not weigh_claim([within(high=-0.2)], [sample], looks=plan_looks(N)).settled(1)

    def test_evidence_on_an_effect_is_never_better_than_that_on_the_gap(self) -> None:
        rng = np.random.default_rng(0)
        sample = Sample(STRATA, d=-5 + 0.1 * rng.standard_normal(N), g=0.2 + rng.standard_normal(N))
        part = weigh(within(high=-0.2), sample)
        assert 1e-4 < part.p_holds < 0.05


class TestMatters:
    def test_common_effects_do_not_matter(self) -> None:
        decision = decide(Matters(), effects(-0.43), null=np.r_[NULL, [-0.9] * 10])
        assert decision.verdict == "fails"
        assert decision.reason.endswith("not rare: stronger than 40 of 50 comparable effects, and 49 are needed")
        assert decision.null is not None and decision.null.percentile == 0.8

    @pytest.mark.parametrize("null", [None, [], NULL[:18]])
    def test_a_small_null(self, null: object) -> None:
        decision = decide(Matters(), effects(-0.43), null=null)  # type: ignore[arg-type]
        assert decision.verdict == "undecided" and "null too small" in decision.reason

    def test_a_small_null_does_not_save_an_effect_inside_the_margin(self) -> None:
        assert decide(Matters(), effects(0.0, noise=0.1)).verdict == "fails"

    def test_rare_but_inside_the_margin(self) -> None:
        decision = decide(Matters(), effects(-0.005, noise=0.1), null=np.zeros(40))
        assert decision.verdict == "fails" and "is inside the margin of 1 %" in decision.reason

    def test_the_null_is_compared_on_the_first_32_prompts(self) -> None:
        first, rest = effects(-0.1, n=32, noise=0.01), effects(-0.5, n=N - 32, noise=0.01)
        both = Sample(STRATA, d=np.r_[first.array("d"), rest.array("d")], g=np.r_[first.array("g"), rest.array("g")])
        assert decide(Matters(), both, null=np.full(40, 0.09)).verdict == "holds"
        assert decide(Matters(), both, null=np.full(40, 0.12)).verdict == "fails"

    @pytest.mark.parametrize(
        ("stronger", "size", "rare"),
        [(19, 19, True), (18, 18, False), (18, 19, False), (39, 40, True), (38, 40, False)],
    )
    def test_stronger_than_95_percent(self, stronger: int, size: int, rare: bool) -> None:
        null = np.r_[np.zeros(stronger), np.full(size - stronger, -1.0)]
        assert rarity(-0.5, null).rare is rare

    def test_ties_count_against(self) -> None:
        assert rarity(0.5, np.full(40, -0.5)).stronger == 0

    def test_an_effect_like_its_null_is_rare_at_most_one_time_in_twenty(self) -> None:
        rng = np.random.default_rng(0)
        for size in (19, 25, 40):
            draws = rng.standard_normal((4000, size + 1))
            rate = np.mean([rarity(row[0], row[1:]).rare for row in draws])
            assert rate <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 4000)


class TestBadInput:
    @pytest.mark.parametrize("field", ["d", "g"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_a_number(self, field: str, value: float) -> None:
        arrays = {name: effects(-0.4).array(name).copy() for name in ("d", "g")}
        arrays[field][7] = value
        decision = decide(within(high=-0.2), Sample(STRATA, **arrays))  # type: ignore[arg-type]
        assert decision.verdict == "error" and "is not a number on 1 of 256 prompts" in decision.reason
        assert decision.value is None

    def test_not_a_number_in_the_null(self) -> None:
        assert decide(Matters(), effects(-0.4), null=np.r_[NULL, np.nan]).verdict == "error"

    def test_no_prompt(self) -> None:
        assert decide(within(high=-0.2), effects(-0.4, n=0)).verdict == "error"

    def test_one_prompt(self) -> None:
        for test in (within(high=-0.2), Signed("lowers"), Negligible(), Matters(), within(high=0.0, quantity="delta")):
            decision = decide(test, effects(-0.4, n=1), null=NULL)
            assert decision.verdict == "undecided" and decision.reason.startswith("1 prompt ")
            assert (decision.value, decision.ci, decision.ci_used) == (None, None, None)

    @pytest.mark.parametrize("n", [5, 7])
    def test_few_prompts_have_an_interval_but_no_verdict(self, n: int) -> None:
        decision = decide(within(high=-0.2), effects(-0.4, n=n, noise=0.1))
        assert decision.verdict == "undecided" and decision.ci is not None

    def test_arrays_of_another_length(self) -> None:
        with pytest.raises(ValueError, match="has shape"):
            Sample(STRATA, d=np.zeros(3))

    def test_what_was_not_measured(self) -> None:
        with pytest.raises(ValueError, match="needs 'd'"):
            decide(within(high=-0.2), Sample(STRATA, value=np.zeros(N)))


class TestWithoutVariance:
    zero = Sample(STRATA, d=np.zeros(N), g=effects(0.0).array("g"))
    flip = Sample(STRATA, d=np.full(N, -10.0), g=np.full(N, 10.0))

    def test_exactly_zero_is_negligible_once_enough_prompts_say_so(self) -> None:
        """One more prompt may change a fifth of the gap: (1.05)^-n has to be small."""
        looks = plan_looks(N)
        for n, settled in ((64, False), (128, False), (256, True)):
            evidence = weigh_claim([Negligible()], [self.zero.take(slice(n))], looks=looks)
            assert evidence.settled(20) == settled
        decision = decide(Negligible(), self.zero, looks=looks)
        assert decision.verdict == "holds"
        assert decision.ci == (pytest.approx(-0.0031, abs=2e-4), pytest.approx(0.0031, abs=2e-4))
        assert "all 256 prompts are unchanged, but up to 1.52 % of others may differ" in decision.reason

    def test_few_equal_prompts_decide_nothing(self) -> None:
        assert decide(Negligible(), self.zero.take(slice(64))).verdict == "undecided"
        assert decide(Negligible(), self.zero.take(slice(96))).verdict == "holds"

    def test_near_the_bound_it_decides_nothing(self) -> None:
        """Neither at the bound itself, nor where rounding may have put it on the other side."""
        for bound in (-1.0, -1.0 - 1e-9, -1.0 + 1e-9):
            assert decide(within(high=bound), self.flip).verdict == "undecided"
        assert decide(within(high=-0.99), self.flip).verdict == "holds"
        assert decide(within(high=-1.01), self.flip).verdict == "fails"
        assert decide(Signed("lowers"), self.flip, margin=1.0).verdict == "undecided"

    def test_what_is_0_on_every_prompt_has_no_sign(self) -> None:
        still = Sample(STRATA, value=np.zeros(N))
        for low, high in ((0.0, None), (None, 0.0)):
            for strict in (True, False):
                assert decide(Within("value", low, high, "", strict=strict), still).verdict == "undecided"
                assert decide(Within("effect", low, high, "", strict=strict), self.zero).verdict == "undecided"
                assert decide(Within("delta", low, high, "", strict=strict), self.zero).verdict == "undecided"

    def test_nothing_tells_the_size_of_what_is_always_0(self) -> None:
        assert decide(within(-1.0, 1.0, "value"), Sample(STRATA, value=np.zeros(N))).verdict == "undecided"
        assert decide(within(-1.0, 1.0, "value"), Sample(STRATA, value=np.full(N, 0.5))).verdict == "holds"


class TestEnough:
    """An undecided claim says how many prompts would decide it."""

    @pytest.mark.parametrize(("effect", "noise"), [(0.0, 0.9), (-0.006, 0.5), (0.014, 0.5)])
    def test_as_many_decide(self, effect: float, noise: float) -> None:
        few = effects(effect, noise)
        decision = decide(Negligible(), few)
        assert decision.verdict == "undecided"
        needed = int(re.search(r"about (\d+) prompts like these would decide", decision.reason)[1])  # type: ignore[index]
        assert N < needed < 64 * N
        for times, verdict in ((1.3, {"holds", "fails"}), (0.5, {"undecided"})):
            index = np.arange(round(times * needed)) % N
            more = Sample(STRATA[index], d=few.array("d")[index], g=few.array("g")[index])
            assert decide(Negligible(), more).verdict in verdict

    def test_rare_losses_take_many(self) -> None:
        """Of 128 probabilities none changes: 1 % of a gap of 1 is excluded by some 750 prompts, not by these."""
        still = Sample(STRATA[:128], d=np.zeros(128), g=np.ones(128), range=(-1.0, 1.0), shared="first", unit="points")
        assert decide(Negligible(), still).reason.endswith("about 900 prompts like these would decide")

    @pytest.mark.parametrize(
        ("most", "end", "more"), [(64, ", but that is all", False), (10**4, "", True), (None, "", True)]
    )
    def test_where_there_are_no_more_it_says_so(self, most: int | None, end: str, more: bool) -> None:
        few = replace(effects(0.0, 0.9), most=most, limit="that is all")
        decision = decide(Negligible(), few)
        assert re.search(rf"about \d+ prompts like these would decide{end}$", decision.reason)
        assert (decision.verdict, decision.more) == ("undecided", more)

    def test_on_the_bound_none_would(self) -> None:
        reason = decide(within(high=-1.0), TestWithoutVariance.flip).reason
        assert reason.endswith("16384 prompts like these would not decide")


def accuracy_change(flips: int, n: int = N, gap: int | None = None) -> Sample:
    """Differences of a metric that is 0 or 1: `flips` prompts are answered wrongly under the patch."""
    prompts = np.arange(n)
    g = (prompts < (n if gap is None else gap)).astype(float)
    return Sample(prompts % 2, d=-(prompts < flips).astype(float), g=g, unit="points", range=(0.0, 1.0), shared="first")


class TestMetricThatJumps:
    @pytest.mark.parametrize(("n", "verdict"), [(32, "undecided"), (256, "undecided"), (512, "holds")])
    def test_no_prompt_changed_is_not_no_effect(self, n: int, verdict: str) -> None:
        for test in (Negligible(), within(low=-0.01), within(low=-0.01, quantity="delta")):
            decision = decide(test, accuracy_change(0, n), looks=plan_looks(n))
            assert decision.verdict == verdict, decision.reason
            assert decision.value == 0 and decision.ci is not None

    def test_the_reason_says_how_many_may_change(self) -> None:
        reason = decide(Negligible(), accuracy_change(0, 64)).reason
        assert reason.startswith("effect 0 % [−6, 6] reaches across −1 % and 1 %; all 64 prompts are unchanged, but ")
        assert "but up to 5.6 % of others may differ; about 450 prompts like these would decide" in reason
        reason = decide(within(high=-0.5, quantity="delta"), accuracy_change(64, 64)).reason
        assert reason.startswith("delta −100 points [−100, −89] is below −50 points; all 64 prompts are changed alike")

    def test_the_bound_is_the_one_at_the_level_used(self) -> None:
        for alpha in (0.05, 0.001):
            share = 1 - (alpha / 2) ** (1 / 100)
            for bound, verdict in ((-share * 1.01, "holds"), (-share * 0.99, "undecided")):
                test = within(low=bound, quantity="delta")
                assert decide(test, accuracy_change(0, 100), levels=Levels(alpha, alpha)).verdict == verdict

    def test_few_changed_prompts(self) -> None:
        """One of 64 changed: Clopper and Pearson's limit for 1 of 64 is 8.4 %."""
        assert decide(within(low=-0.08, quantity="delta"), accuracy_change(1, 64)).verdict == "undecided"
        assert decide(within(low=-0.09, quantity="delta"), accuracy_change(1, 64)).verdict == "holds"

    def test_clear_effects_are_as_clear_as_ever(self) -> None:
        for n in (32, 256):
            assert decide(within(high=-0.5), accuracy_change(n, n)).verdict == "holds"
            assert decide(within(high=-0.5), accuracy_change(0, n)).verdict == "fails"
            assert decide(Signed("lowers"), accuracy_change(n // 2, n)).verdict == "holds"
        evidence = weigh_claim([within(high=-0.2)], [accuracy_change(64, 64)], looks=plan_looks(N))
        assert evidence.settled(20) and rule(evidence).verdict == "holds"

    @pytest.mark.parametrize("flips", [0, 3, 40])
    def test_a_metric_that_is_better_when_lower(self, flips: int) -> None:
        up = accuracy_change(flips, gap=200)
        down = Sample(up.strata, d=-up.array("d"), g=-up.array("g"), falls=True, range=(0.0, 1.0), shared="first")
        here, there = decide(within(high=-0.1), up), decide(within(high=-0.1), down)
        assert (here.verdict, here.ci) == (there.verdict, pytest.approx(there.ci))

    def test_no_gap(self) -> None:
        assert decide(Negligible(), accuracy_change(0, gap=0)).reason.startswith("no gap: clean − corrupt is 0")
        assert decide(Negligible(), accuracy_change(0, gap=4)).verdict == "error"

    def test_more_than_is_possible(self) -> None:
        with pytest.raises(ValueError, match="more than the 1 that a score can"):
            Sample(STRATA, d=np.full(N, 1.5), g=np.ones(N), range=(0.0, 1.0))

    @pytest.mark.parametrize(
        ("test", "n", "flips", "gap"),
        [
            (Negligible(), 64, 0.011, 1.0),
            (Negligible(), 64, 0.033, 1.0),
            (Negligible(), 256, 0.011, 1.0),
            (within(low=-0.005, quantity="delta"), 64, 0.0055, 1.0),
            (within(low=-0.02 / 0.75), 128, 0.02, 0.75),
            (within(low=-0.1 / 0.5), 64, 0.1, 0.5),
        ],
    )
    def test_false_claims_seldom_hold(self, test: Test, n: int, flips: float, gap: float) -> None:
        """Claims on their bound or just beyond: at most 2.5 % hold, with looks."""
        rng, wrong, replicates = np.random.default_rng(n), 0, 150
        for _ in range(replicates):
            d, g = -(rng.random(n) < flips).astype(float), (rng.random(n) < gap).astype(float)
            sample = Sample(np.arange(n) % 4, d=d, g=g, range=(0.0, 1.0), shared="first")
            part = weigh(test, sample, looks=plan_looks(n))
            wrong += part.p_holds <= 0.05
        assert wrong / replicates <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / replicates)


class TestLooking:
    def test_looks_that_contradict_one_another(self) -> None:
        """Right on the first 64 prompts, wrong on all others: the reason is about looks, not about a gap."""
        hits = Sample(np.zeros(N), value=np.arange(N) < 64, hits=True, name="accuracy", unit="percent")
        decision = decide(within(low=0.5, quantity="value"), hits, looks=plan_looks(N))
        assert decision.verdict == "undecided" and "gap" not in decision.reason
        assert decision.reason.endswith("; one look shows the claim true and another shows it false")

    def test_strong_evidence_stops_early_and_weak_evidence_does_not(self) -> None:
        looks = plan_looks(N)
        strong, weak = effects(-0.9, noise=0.5, n=64), effects(-0.22, n=64)
        assert weigh_claim([within(high=-0.2)], [strong], looks=looks).settled(20)
        assert not weigh_claim([within(high=-0.2)], [weak], looks=looks).settled(20)

    def test_at_the_last_look_all_is_settled(self) -> None:
        assert weigh_claim([within(high=-0.4)], [effects(-0.4)], looks=plan_looks(N)).settled(20)

    def test_a_settled_verdict_stands_after_holm(self) -> None:
        looks = plan_looks(N)
        early = weigh_claim([within(high=-0.2)], [effects(-0.9, noise=0.5, n=64)], looks=looks)
        others = [weigh_claim([within(high=-0.2)], [effects(-0.2, seed=k)], looks=looks) for k in range(1, 20)]
        assert early.settled(20)
        assert decide_family([early, *others])[0].verdict == "holds"

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), st.floats(-0.5, 0.0), st.sampled_from([0.05, 0.0025]), st.booleans())
    def test_the_interval_used_agrees_with_the_verdict(self, seed: int, high: float, alpha: float, early: bool) -> None:
        sample = effects(-0.25, noise=6, seed=seed)
        decision = decide(within(high=high), sample, looks=plan_looks(N, early), levels=Levels(alpha, alpha))
        assert decision.ci_used is not None
        low, up = decision.ci_used
        if min(abs(low - high), abs(up - high)) > 1e-6:
            expected = "holds" if up < high else "fails" if low > high else "undecided"
            assert decision.verdict == expected, decision.reason


class TestParts:
    def test_each_holds_when_all_do(self) -> None:
        samples = [effects(e, seed=i, label=f"1.{i} -> 3.0.q") for i, e in enumerate((-0.4, -0.3, -0.2))]
        decision = rule(weigh_claim([Signed("lowers")], samples))
        assert decision.verdict == "holds"
        assert [part.verdict for part in decision.parts] == ["holds"] * 3

    def test_each_fails_with_one_and_names_it(self) -> None:
        samples = [effects(e, seed=i, label=f"1.{i} -> 3.0.q", noise=0.3) for i, e in enumerate((-0.4, -0.001, -0.2))]
        decision = rule(weigh_claim([Signed("lowers")], samples))
        assert decision.verdict == "fails"
        assert [part.verdict for part in decision.parts] == ["holds", "fails", "holds"]
        assert decision.reason.startswith("1.1 -> 3.0.q: effect ") and "inside the margin of 1 %" in decision.reason

    def test_failing_is_paid_for_by_every_part(self) -> None:
        """One of ten parts just beyond its bound is no failure of the claim: ten chances make one likely."""
        bound = -0.4
        slight = next(
            s
            for s in (effects(bound, seed=k) for k in range(300))
            if 0.01 < weigh(within(high=bound), s).p_fails < 0.04
        )
        clear = [effects(-0.6, seed=k) for k in range(9)]
        assert decide(within(high=bound), slight).verdict == "fails"
        assert rule(weigh_claim([within(high=bound)], [slight, *clear])).verdict == "undecided"

    def test_and(self) -> None:
        tests: list[Test] = [Matters(), within(high=-0.2)]
        assert rule(weigh_claim(tests, [effects(-0.43)], nulls=[NULL])).verdict == "holds"
        assert rule(weigh_claim(tests, [effects(-0.1)], nulls=[NULL])).verdict == "fails"

    def test_an_error_is_no_pass_but_a_failure_is_worse(self) -> None:
        good, broken, bad = effects(-0.4), effects(-0.4, gap=0.01), effects(0.4)
        assert rule(weigh_claim([Signed("lowers")], [good, broken])).verdict == "error"
        assert rule(weigh_claim([Signed("lowers")], [good, broken, bad])).verdict == "fails"

    def test_what_could_not_be_measured_stays_in_the_family(self) -> None:
        missing = unmeasured(Negligible(), "this corruption does not change 4.11 at S1+1 (try corrupt = abc)")
        decisions = decide_family([missing, weigh_claim([within(high=-0.2)], [effects(-0.43)])])
        assert [d.verdict for d in decisions] == ["error", "holds"]
        assert decisions[0].reason.startswith("this corruption does not change 4.11")
        assert decisions[1].level == pytest.approx(0.025)


class TestFamily:
    def test_one_claim_alone_and_among_twenty(self) -> None:
        borderline = next(
            e
            for e in (weigh_claim([within(high=-0.2)], [effects(-0.22, noise=1.8, seed=s)]) for s in range(200))
            if 0.01 < e.p_holds < 0.04
        )
        dull = weigh_claim([within(high=-0.2)], [effects(-0.2)])
        alone, among = decide_family([borderline])[0], decide_family([borderline] + [dull] * 19)[0]
        assert (alone.verdict, among.verdict) == ("holds", "undecided")
        assert decide_family([borderline] + [dull] * 19, adjust=False)[0].verdict == "holds"
        assert alone.ci == among.ci and alone.ci_used == alone.ci
        assert among.ci_used is not None and among.ci is not None and among.ci_used[1] > among.ci[1]


def test_strata_that_disagree_are_named() -> None:
    rng = np.random.default_rng(0)
    g = 10 + rng.standard_normal(N)
    d = np.where(STRATA == "ABBA", -0.6, 0.05) * g + 0.3 * rng.standard_normal(N)
    decision = decide(within(high=-0.2), Sample(STRATA, d=d, g=g))
    assert decision.verdict == "holds" and decision.disagree == ("BABA",)
    assert decision.reason.endswith("strata that disagree: BABA")
    assert decide(within(high=-0.2), effects(-0.43)).disagree == ()


@pytest.mark.parametrize(
    ("test", "effect", "kind"),
    [
        (within(high=-0.2), -0.2, "exponential"),
        (Signed("lowers"), -0.01, "normal"),
        (Negligible(), 0.01, "exponential"),
        (Matters(), -0.01, "normal"),
    ],
)
def test_claims_false_by_a_hair_seldom_hold(test: Test, effect: float, kind: str) -> None:
    """Eight claims on their bounds, three looks: a wrong "holds" in at most 5 % of specs (meant: 2.5 %)."""
    rng = np.random.default_rng([len(str(test)), 7, len(kind)])
    looks = plan_looks(128)
    specs = 40
    wrong = {"holds": 0, "fails": 0}
    for _ in range(specs):
        family = []
        for _ in range(8):
            g = 5 + rng.standard_normal(128)
            noise = rng.standard_normal(128) if kind == "normal" else rng.exponential(size=128) - 1
            sample = Sample(np.arange(128) % 4, d=effect * g + 0.1 * noise, g=g)
            family.append(weigh_claim([test], [sample], looks=looks, nulls=[NULL * 1e-3]))
        levels = family_levels([e.p_holds for e in family], [e.p_fails for e in family])
        verdicts = {_judge(e.parts[0], level, 1).verdict for e, level in zip(family, levels, strict=True)}
        for verdict in wrong:
            wrong[verdict] += verdict in verdicts
    assert wrong["holds"] <= 0.05 * specs + 4 * np.sqrt(0.05 * 0.95 * specs)
    assert wrong["fails"] <= 0.05 * specs + 4 * np.sqrt(0.05 * 0.95 * specs)


def test_intervals_of_a_score_are_shown_within_its_range() -> None:
    """Of a range with one open end too, though tests go by it where both ends are known."""
    value = -np.asarray([0.0] * 60 + [0.5] * 4)
    free, below = (
        decide(Within("value", -0.4, None, ">= -0.4"), Sample(np.zeros(64), value=value, range=(-np.inf, high)))
        for high in (np.inf, 0.0)
    )
    assert below.verdict == free.verdict == "holds"
    assert free.ci is not None and below.ci is not None
    assert free.ci[1] > 0 >= below.ci[1] and below.ci[0] < free.ci[0]  # and is wider where one end is known
    share = Sample(np.zeros(64), value=-value * 1e-2, unit="percent", range=(0.0, 1.0))
    assert decide(Within("value", None, 0.4, "<= 40%"), share).ci_used[0] >= 0  # type: ignore[index]
