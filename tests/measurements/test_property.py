"""Properties hold for a share of prompts by the exact binomial test, or without exception by none found."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from circuitdsl.api import loads
from circuitdsl.circuit.criteria import Within
from circuitdsl.verdict.decide import rule
from circuitdsl.verdict.weighing import judge_every, prompts_needed, weigh_share
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.properties import OWN_SEED, family_size, own_samples, sample_name
from circuitdsl.verify.verify import verify
from tests.schema import schema
from tests.verdict.deciding import decide_family

HEAD = """circuit t
model "pocket"
task ioi(prompts = 32)
heads suppressor = 0.3 0.5 0.6 at END
"""
SHARE = 'property "p" for 99% of prompts\n  expect logit_diff > 0\n'


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("members", [1, 7, 60])
def test_a_sample_is_just_large_enough_to_hold_with_no_failure(share: float, members: int) -> None:
    n = prompts_needed(share, members)
    test = Within("value", share, None, "")

    def verdict(n: int, broken: int = 0) -> str:
        others = [weigh_share(test, np.arange(40) < 2, np.zeros(40)) for _ in range(members - 1)]  # that surely fail
        evidence = weigh_share(test, np.arange(n) >= broken, np.zeros(n))
        return decide_family([evidence, *others])[0].verdict

    assert verdict(n) == "holds"
    if n > math.ceil(5 / (1 - share)):
        assert verdict(n - 1) != "holds"
        assert verdict(n, broken=1) != "holds"


def test_for_99_percent_there_are_500_prompts_at_least() -> None:
    assert prompts_needed(0.99, 1) == 500
    assert prompts_needed(0.99, 60) > 700
    assert prompts_needed(None, 60) == 500


def test_a_share_is_wrongly_held_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(0)
    n = prompts_needed(0.99, 1)
    test = Within("value", 0.99, None, "")
    found = [rule(weigh_share(test, rng.random(n) < 0.99, np.zeros(n))).verdict for _ in range(2000)]
    assert found.count("holds") / 2000 <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 2000)


def test_without_a_share_there_is_no_percentage() -> None:
    for broken in (0, 1, 3):
        decision = rule(judge_every(np.arange(50) >= broken))
        assert decision.verdict == ("fails" if broken else "holds")
        assert decision.value is None and decision.ci is None
        assert "%" not in decision.reason
        assert str(broken or "no counterexample") in decision.reason


def test_properties_have_prompts_of_their_own(pocket) -> None:
    (circuit,) = loads(HEAD + SHARE).circuits
    benches = prompts_by_task(circuit, pocket)
    own, task = benches[sample_name("ioi")], benches["ioi"]
    assert own.data.seed == OWN_SEED
    assert len(own.pairs) == own_samples(circuit)["ioi"] == 500
    assert not {p.clean for p in task.pairs} & {p.clean for p in own.pairs}


def test_universal_properties_are_no_members_of_the_family(pocket) -> None:
    (circuit,) = loads(HEAD + SHARE + 'property "q"\n  expect logit_diff > 0\nexpect accuracy >= 50%\n').circuits
    assert family_size(circuit.claims) == 2


def test_what_needs_no_task_is_a_member_of_the_family(pocket) -> None:
    (circuit,) = loads(HEAD + "expect induction_score(suppressor) >= 1%\nexpect accuracy >= 50%\n").circuits
    assert family_size(circuit.claims) == 2


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        (SHARE, "holds"),
        (SHARE.replace("> 0", ">= 20"), "fails"),
        (SHARE.replace("> 0", "<= 1"), "fails"),
        (SHARE + "  expect attention(suppressor, END -> S2) >= 5%\n", "holds"),
        (SHARE + "  expect attention(suppressor, END -> S2) in [0%, 5%]\n", "fails"),
        (SHARE + "  expect accuracy > 100%\n", "fails"),  # strict
        (SHARE + "  expect accuracy >= 100%\n", "holds"),
        ('property "q"\n  expect logit_diff > 0\n', "holds"),
        ('property "q"\n  expect logit_diff > 14\n', "fails"),
    ],
)
def test_verdicts(check, lines: str, verdict: str) -> None:
    (claim,) = check(HEAD + lines).claims
    assert claim.kind == "property"
    assert claim.verdict == verdict, claim.reason
    assert (claim.counterexample is None) == (verdict == "holds")


def test_the_prompt_that_breaks_it_is_shown_with_its_numbers(check) -> None:
    report = check(HEAD + 'property "q"\n  expect logit_diff > 14\n  expect accuracy >= 100%\n')
    (claim,) = report.claims
    shown = claim.counterexample
    assert shown and shown["found"]["logit_diff > 14"] <= 14
    assert shown["clean"] in claim.notes[0]
    assert "not > 14; accuracy 100 %" in claim.notes[0]
    import jsonschema

    jsonschema.validate(report.to_json(), schema())


def test_the_report_of_a_share(check) -> None:
    (claim,) = check(HEAD + SHARE).claims
    assert claim.text == 'property "p" for 99% of prompts'
    assert claim.measured and (claim.measured.unit, claim.measured.n) == ("share", 500)
    assert claim.measured.value > 0.99
    assert claim.reason.endswith("is above 99 %")


def test_a_sample_that_was_not_made_is_an_error(pocket) -> None:
    (circuit,) = loads(HEAD + SHARE).circuits
    benches = prompts_by_task(circuit, pocket)
    del benches[sample_name("ioi")]
    (claim,) = verify(circuit, pocket, benches).claims
    assert claim.verdict == "error"


def test_a_value_that_is_no_number_is_an_error(pocket) -> None:
    (circuit,) = loads(HEAD + SHARE).circuits
    benches = prompts_by_task(circuit, pocket)
    own = benches[sample_name("ioi")]
    benches[sample_name("ioi")] = replace(own, clean=np.full(len(own.pairs), np.nan))
    (claim,) = verify(circuit, pocket, benches).claims
    assert claim.verdict == "error"
    assert "not a number" in claim.reason


def test_one_property_is_judged_at_the_level_it_has_among_all(pocket) -> None:
    from circuitdsl.verify.session import Options

    (circuit,) = loads(HEAD + SHARE + "expect accuracy >= 50%\nsuppressor -> logits at END : lowers\n").circuits
    benches = prompts_by_task(circuit, pocket)
    (alone,) = verify(circuit, pocket, benches, Options(claim="5")).claims
    together = next(c for c in verify(circuit, pocket, benches).claims if c.kind == "property")
    assert (alone.verdict, alone.measured.value) == (together.verdict, together.measured.value)  # type: ignore[union-attr]
