"""Verdicts about prompts from other templates: strata are what is drawn, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from circuitdsl.circuit.criteria import Matters, Negligible, Within
from circuitdsl.verdict.decide import rule
from circuitdsl.verdict.samples import FEWEST_STRATA, Sample, by_stratum
from circuitdsl.verdict.weighing import weigh
from tests.verdict.deciding import verdict_of, weigh_claim

BELOW = Within("effect", None, -0.2, "effect <= -20%")


def drawn(strata: int, n: int, effect: float, between: float, seed: int = 0) -> Sample:
    """Effects that differ between strata with a standard deviation of `between`, and within with one of 0.1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % strata
    own = effect + between * rng.standard_normal(strata)[labels]
    return Sample(labels, d=5 * (own + 0.1 * rng.standard_normal(n)), g=np.full(n, 5.0) + rng.normal(0, 0.1, n))


def verdict(sample: Sample, templates: bool) -> str:
    return rule(weigh_claim([BELOW], [sample], templates=templates)).verdict


def test_what_differs_between_templates_counts() -> None:
    sample = drawn(15, 240, -0.24, 0.15)
    assert verdict(sample, templates=False) in ("holds", "fails")  # prompts of these templates: clear either way
    assert verdict(sample, templates=True) == "undecided"
    assert verdict(drawn(15, 240, -0.4, 0.05), templates=True) == "holds"


def test_more_prompts_of_the_same_templates_add_next_to_nothing() -> None:
    few, many = (rule(weigh_claim([BELOW], [drawn(16, n, -0.4, 0.1)], templates=True)) for n in (64, 1024))
    assert few.ci and many.ci and few.n == many.n == 16
    width = [ci[1] - ci[0] for ci in (few.ci, many.ci)]
    assert width[1] > 0.8 * width[0]


@pytest.mark.parametrize("strata", [1, 4, FEWEST_STRATA - 1])
def test_few_templates_are_an_error(strata: int) -> None:
    decision = rule(weigh_claim([BELOW], [drawn(strata, 128, -0.9, 0.0)], templates=True))
    assert decision.verdict == "error"
    assert decision.reason.startswith("verdicts about other templates need 15 strata: there ")


def test_false_claims_hold_no_more_often_than_the_level() -> None:
    """On the bound, with strata that differ more than prompts do: 2.5 % is meant, and 5 % three standard errors off."""

    def held_by(templates: bool) -> float:
        weighed = (weigh_claim([BELOW], [drawn(15, 120, -0.2, 0.2, s)], templates=templates) for s in range(500))
        return float(np.mean([verdict_of(evidence) == "holds" for evidence in weighed]))

    held = {t: held_by(t) for t in (True, False)}
    assert held[True] < 0.05
    assert held[False] > 0.15  # which is why prompts of a template are no independent draws from others


def test_shares_and_nulls() -> None:
    labels = np.arange(320) % 20
    hits = Sample(labels, value=(labels < 19).astype(float), hits=True, name="accuracy", unit="percent")
    assert by_stratum(hits).n == 20
    at_least = Within("value", 0.9, None, ">= 90%")
    assert rule(weigh_claim([at_least], [hits])).verdict == "holds"
    assert rule(weigh_claim([at_least], [hits], templates=True)).verdict == "undecided"  # 19 of 20 templates
    mixed = Sample(labels, value=((np.arange(320) // 20) % 2).astype(float), hits=True, name="accuracy", unit="percent")
    decision = rule(weigh_claim([Within("value", 0.2, None, ">= 20%")], [mixed], templates=True))
    assert (decision.verdict, decision.value) == ("holds", 0.5)
    # the null is compared on the first prompts, as without templates
    sample, null = drawn(16, 160, -0.4, 0.05), np.linspace(-0.1, 0.1, 40)
    plain, other = (weigh(Matters(), sample, null=null, templates=t) for t in (False, True))
    assert plain.rare == other.rare and rule(weigh_claim([Matters()], [sample], nulls=[null], templates=True)).verdict


def test_equal_figures_of_few_templates_decide_nothing() -> None:
    labels = np.arange(160) % 16
    same = Sample(labels, d=np.zeros(160), g=np.full(160, 5.0) + np.arange(160) / 100)
    assert rule(weigh_claim([Negligible()], [same])).verdict == "holds"
    assert rule(weigh_claim([Negligible()], [same], templates=True)).verdict == "undecided"
