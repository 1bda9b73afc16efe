"""Which part of a claim its figure is of, and what means hide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circuitdsl.circuit.criteria import Matters, Negligible, Signed, Stronger, Test, Within
from circuitdsl.verdict.decide import Decision, rule
from circuitdsl.verdict.hidden import one_stratum, other_prompts
from circuitdsl.verdict.samples import Sample
from circuitdsl.verdict.sampling import plan_looks
from circuitdsl.verdict.weighing import Evidence, Part, weigh
from tests.verdict.deciding import weigh_claim

LOWERS = Signed("lowers")


def sample(d: np.ndarray, label: str = "", strata: np.ndarray | None = None) -> Sample:
    """Changes of a metric whose gap is about 10."""
    g = 10 + np.random.default_rng(9).standard_normal(len(d))
    return Sample(np.zeros(len(d)) if strata is None else strata, d=d, g=g, label=label, size=10.0)


def normal(mean: float, spread: float, n: int = 256, seed: int = 0) -> np.ndarray:
    return mean + spread * np.random.default_rng(seed).standard_normal(n)


# --- the part that is shown -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize("early", [False, True])
def test_the_part_with_the_least_room_is_shown_whichever_look_decided(n: int, early: bool) -> None:
    """The strong part differs more between prompts, so that its p-value is the larger one."""
    strong, weak = normal(-4.2, 6.0), normal(-2.2, 1.0, seed=1)
    samples = [sample(strong, "strong").take(slice(n)), sample(weak, "weak").take(slice(n))]
    looks = plan_looks(256, True) if early else None
    found = rule(weigh_claim([LOWERS], samples, looks=looks))
    assert found.parts[0].p_holds > found.parts[1].p_holds
    assert (found.label, found.verdict) == ("weak", "holds")
    assert found.reason.startswith("weak: effect −2")


def test_of_parts_that_fail_the_one_furthest_outside_is_shown_whatever_holds() -> None:
    samples = [sample(normal(mean, 1.0), name) for name, mean in (("a", -3.0), ("b", 0.5), ("c", 2.0))]
    found = rule(weigh_claim([LOWERS], samples))
    assert (found.label, found.verdict) == ("c", "fails")


def test_figures_in_other_units_are_compared_as_shares_of_the_gap() -> None:
    """−2 logits are 20 % of the gap: that is nearer to −15 % than to −1 logit, and to −1.9 logits than to −15 %."""
    found = {}
    for bound in (-1.0, -1.9):
        tests = [Within("effect", None, -0.15, ""), Within("delta", None, bound, "")]
        found[bound] = rule(weigh_claim(tests, [sample(normal(-2.0, 0.2))])).name
    assert found == {-1.0: "effect", -1.9: "delta"}


def test_stronger_by_the_least_is_shown() -> None:
    rival = normal(-1.0, 0.3, seed=5)
    both = [replace(sample(normal(-mean, 0.3), name), other=rival) for name, mean in (("a", 4.0), ("b", 2.0))]
    assert rule(weigh_claim([Stronger(None, "x -> y")], both)).label == "b"  # type: ignore[arg-type]


# --- what a mean hides ------------------------------------------------------------------------------


def weighed(test: Test, given: Sample, **how: object) -> tuple[Part, Decision]:
    part = weigh(test, given, **how)  # type: ignore[arg-type]
    return part, rule(Evidence((part,)))


def few(share: float, n: int = 256) -> np.ndarray:
    """A share of the prompts carries the whole of a mean of −0.45; the others go the other way by a little."""
    d = np.full(n, 0.1) + 0.01 * np.arange(n) / n
    d[: int(share * n)] -= 0.55 / share
    return np.random.default_rng(0).permutation(d)


@pytest.mark.parametrize("test", [LOWERS, Matters(), Within("effect", None, -0.02, "effect <= -2%")])
def test_it_is_said_where_few_prompts_have_the_sign_of_the_mean(test: Test) -> None:
    null = {"null": np.linspace(-0.001, 0.001, 40)} if isinstance(test, Matters) else {}
    part, decision = weighed(test, sample(few(0.25)), **null)
    assert decision.verdict == "holds"
    said = other_prompts(part, decision)
    assert said.startswith("only 25 % of the prompts have the sign of the mean; the median is 1")
    assert not other_prompts(*weighed(test, sample(few(0.7)), **null))


def test_it_is_said_whatever_the_verdict_but_not_of_noise_around_0() -> None:
    assert weighed(Signed("raises"), sample(few(0.25)))[1].verdict == "fails"
    assert other_prompts(*weighed(Signed("raises"), sample(few(0.25))))
    assert not other_prompts(*weighed(LOWERS, sample(normal(-0.05, 1.0))))
    assert not other_prompts(*weighed(Negligible(), sample(few(0.25))))  # no side of 0 is claimed
    assert not other_prompts(*weighed(Within("effect", -0.5, 0.5, ""), sample(few(0.25))))


def in_strata(*means: float, n: int = 240) -> Sample:
    strata = np.arange(n) % len(means)
    return sample(normal(0.0, 0.3, n) + np.asarray(means)[strata], strata=np.asarray(["one", "two", "three"])[strata])


def test_it_is_said_where_one_stratum_carries_the_effect() -> None:
    part, decision = weighed(LOWERS, in_strata(-4.0, 0.0, 0.0))
    assert decision.verdict == "holds"
    assert one_stratum(part, decision).startswith("without the 80 prompts of the stratum one it is 0")
    assert one_stratum(part, decision).endswith(" %, inside the margin of 1 %")
    assert not one_stratum(*weighed(LOWERS, in_strata(-4.0, -1.0, -1.0)))
    assert not one_stratum(*weighed(LOWERS, in_strata(-4.0)))


def test_it_is_said_where_one_stratum_is_what_makes_a_claim_fail() -> None:
    part, decision = weighed(Within("effect", None, -0.2, ""), in_strata(-3.0, -3.0, 2.0))
    assert decision.verdict == "fails"
    said = one_stratum(part, decision)
    assert said.startswith("without the 80 prompts of the stratum three it is −30")
    assert said.endswith("below −20 %")


def test_a_bound_on_which_one_stratum_of_noise_lies_is_not_worth_a_word() -> None:
    """Undecided, as the mean is on the bound: without any stratum it is on one side of it or on the other."""
    part, decision = weighed(Within("effect", None, -0.2, ""), in_strata(-2.0, -2.0, -2.0))
    assert decision.verdict == "undecided"
    assert not one_stratum(part, decision)
