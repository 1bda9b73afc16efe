"""Verdicts on effects that few prompts carry: a short version of `benchmarks/rates.py`, on one of its populations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import circuitdsl
from benchmarks.rates_claims import Claim, claims, hopeless, on_values, sample, verdicts
from benchmarks.rates_populations import Population
from circuitdsl.circuit.criteria import Negligible
from circuitdsl.verdict.sampling import plan_looks
from tests.verdict.deciding import decide_family

ROOT = Path(__file__).parents[2]
#: the most that may be wrong, and two standard errors of 400 samples
SAMPLES, MOST = 400, 0.025 + 2 * np.sqrt(0.025 * 0.975 / 400)
#: embed -> 0.6.v at S2 (-1.1 %) and the knock-out of 0.3 (-1.6 %)
EDGE, HEAD = 0, 1
WRONG = ("holds", "fails")
SPEC = """circuit t "a test"
model "pocket"
metric prob_diff
task ioi(prompts = 128, seed = 0)
embed -> 0.6.v at S2 : negligible
"""


@pytest.fixture(scope="module")
def population() -> Population:
    """prob_diff of the pocket model on ioi: one prompt in fifty carries most of an effect."""
    stored = np.load(ROOT / "tests" / "fixtures" / "skewed.npz")
    clean, corrupt, change = (stored[name].astype(float) for name in ("clean", "corrupt", "change"))
    members = tuple(np.flatnonzero(stored["strata"] == s) for s in np.unique(stored["strata"]))
    names = tuple(map(str, stored["names"]))
    base, shared = np.broadcast_to(clean, change.shape), ("first",) * len(names)
    gap = np.clip(clean - corrupt, -2, 2)
    values = np.clip(np.stack([clean, clean + change[HEAD]]), -1, 1)
    return Population("ioi", "prob_diff", members, names, change, base, shared, gap, values)


def negligible(p: Population, e: int, margin: float) -> Claim:
    return Claim("", p.names[e], (Negligible(),), lambda i, s: [sample(p, e, i, s)], ("holds",), margin, effect=e)


def found(p: Population, pool: list[Claim], n: int, samples: int) -> np.ndarray:
    """The verdicts on some claims [samples, claims], each alone."""
    looks, (prompts, strata) = plan_looks(n), p.draw(samples, n, np.random.default_rng(n))
    skip = [hopeless(p, claim, prompts, strata, looks) for claim in pool]
    said = [
        [
            "undecided" if skip[c][r] else verdicts([claim.weigh(prompts[r], strata, looks)])[0]
            for c, claim in enumerate(pool)
        ]
        for r in range(samples)
    ]
    return np.array(said)


@pytest.mark.parametrize("n", [32, 64, 128, 256])
def test_what_few_prompts_carry_is_not_overlooked(population, n):
    own_mean = on_values(population, 0)[0]
    pool = [negligible(population, EDGE, 0.01), negligible(population, HEAD, 0.01), own_mean]
    assert np.all((found(population, pool, n, SAMPLES) == "holds").mean(0) <= MOST)


@pytest.mark.parametrize("n", [64, pytest.param(256, marks=pytest.mark.long)])
def test_specs_whose_claims_lie_on_their_bounds(population, n):
    looks, (prompts, strata) = plan_looks(n), population.draw(SAMPLES, n, np.random.default_rng(n))
    values = [claim for v in range(2) for claim in on_values(population, v)]
    pool = [*values, *claims(population, n, 20)[: 20 - len(values)]]
    skip = [hopeless(population, claim, prompts, strata, looks) for claim in pool]
    wrong = np.zeros(2)
    for r in range(SAMPLES):
        evidence = [None if skip[c][r] else claim.weigh(prompts[r], strata, looks) for c, claim in enumerate(pool)]
        said = verdicts(evidence)
        wrong += [any(v == verdict and v in c.wrong for v, c in zip(said, pool, strict=True)) for verdict in WRONG]
    assert np.all(wrong / SAMPLES <= MOST)


def test_what_is_true_with_room_holds(population):
    pool = [replace(negligible(population, e, 0.05), effect=None) for e in (EDGE, HEAD)]
    assert np.all((found(population, pool, 1024, 40) == "holds").mean(0) >= 0.95)


def test_claims_that_are_skipped_are_undecided_and_others_come_out_as_in_a_report(population):
    looks, (prompts, strata) = plan_looks(256), population.draw(4, 256, np.random.default_rng(1))
    pool = claims(population, 256, 20)
    skip = [hopeless(population, claim, prompts, strata, looks) for claim in pool]
    for r in range(4):
        evidence = [claim.weigh(prompts[r], strata, looks) for claim in pool]
        said = verdicts(evidence)
        assert said == [decision.verdict for decision in decide_family(evidence)]
        assert said == verdicts([None if skip[c][r] else e for c, e in enumerate(evidence)])


@pytest.mark.parametrize("seed", [0, 6])
def test_a_whole_verification_that_went_by_the_spread_was_wrong(pocket, seed):
    """Whose prompts show next to no effect: a test by the spread they have takes them to show none."""
    (claim,) = circuitdsl.loads(SPEC).verify(pocket, seed=seed).claims
    assert claim.verdict == "undecided"
    assert "prompts like these would decide" in claim.reason
