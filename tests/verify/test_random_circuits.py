"""Sufficiency: random circuits are drawn in rounds, and rounds make no wrong verdict more frequent."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.criteria import Within
from circuitdsl.circuit.nodes import Node, Position, Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.measurements.peers import ROUNDS, Peers
from circuitdsl.measurements.plan import ClaimPlan, Part
from circuitdsl.measurements.requests import Subgraph
from circuitdsl.measurements.whole_circuit import WholeCircuit
from circuitdsl.verdict.decide import Decision, rule
from circuitdsl.verdict.families import Levels
from circuitdsl.verdict.sampling import Looks
from circuitdsl.verify.samples import Collected
from circuitdsl.verify.weigh import draws_more, weigh_plan
from tests.drawing import examples

HEAD = 'circuit t\nmodel "pocket"\ntask ioi(corrupt = abc, prompts = 64)\nheads suppressor = 0.3 0.5 0.6 at END\n'
HEAD += "heads reader = 0.0 0.7 at END\nmlps decider = m1 m2 m3 at END\n"
MANY = "".join(f"expect logit_diff >= -{n}\n" for n in range(1, 41))
BOUND, ALPHA = 0.9, 0.05


def claim(low: float) -> Collected:
    """A claim `sufficiency >= low` on 32 prompts."""
    kept = Subgraph("nodes", sites=frozenset([Site(Node("head", 1, 0), Position("END"))]))
    said = Claim(
        "", 0, "", "expect", WholeCircuit("sufficiency"), (Within("value", low, None, f">= {low}"),), False, 0, ()
    )
    plan = ClaimPlan(said, "ioi", (Part("", kept, peers=Peers(kept, ModelShape("m", 2, 8))),), called="sufficiency")
    return Collected(plan, cast(Any, None), Looks((32,)), np.arange(32))


def decided(share: float, rng: np.random.Generator, low: float = BOUND, family: int = 1) -> tuple[Decision, int]:
    """The verdict at the strictest level of a family, where a share of circuits does worse; and how many were drawn."""
    member, wins = claim(low), rng.random(ROUNDS[-1]) < share
    while True:
        peers = member.plan.parts[0].peers
        assert peers is not None
        member.wins = wins[: len(peers)]
        if not draws_more(member, family, ALPHA, True):
            return rule(weigh_plan(member), Levels(ALPHA / family, ALPHA / family)), len(peers)


def test_rounds_make_no_wrong_verdict_more_frequent() -> None:
    """At the bound itself `holds` and `fails` are both wrong; each may come out 2.5 % of the time."""
    samples, rng = examples(500, 1500), np.random.default_rng(0)
    found = Counter(decided(BOUND, rng)[0].verdict for _ in range(samples))
    most = samples * (ALPHA / 2 + 2 * np.sqrt(ALPHA / 2 * (1 - ALPHA / 2) / samples))
    assert 0 < found["holds"] <= most and 0 < found["fails"] <= most
    naive = Counter(_naive(rng) for _ in range(300))
    assert naive["holds"] + naive["fails"] > 300 * 0.06, "without a share of the level for each round it would be wrong"


def _naive(rng: np.random.Generator) -> str:
    """The verdict if every round were tested at the whole level."""
    member, wins = claim(BOUND), rng.random(ROUNDS[-1]) < BOUND
    for size in ROUNDS:
        member.wins = wins[:size]
        (part,) = weigh_plan(member).parts
        alone = replace(part, looks=Looks((size,)))
        p = alone.region.combine(alone.against[-1])
        if min(p) <= ALPHA:
            return "holds" if p[0] <= p[1] else "fails"
    return "undecided"


@pytest.mark.parametrize(("family", "drawn"), [(1, 150), (100, 200), (1000, 300)])
def test_where_all_do_worse_as_many_are_drawn_as_the_level_asks_for(family: int, drawn: int) -> None:
    assert decided(1.0, np.random.default_rng(0), 0.95, family)[1] == drawn
    assert decided(1.0, np.random.default_rng(0), 0.95, family)[0].verdict == "holds"


def test_what_the_last_round_leaves_open_says_so() -> None:
    decision, drawn = decided(0.955, np.random.default_rng(0), 0.95)
    assert (decision.verdict, drawn, decision.n) == ("undecided", 1000, 1000)
    assert "random circuits like these would decide, but no more than 1000 are drawn" in decision.reason


def test_in_a_long_spec_more_circuits_are_drawn_until_it_is_decided(check) -> None:
    """100 of 100 do not show a share of 95 % at the level that one of 41 claims has."""
    short, long = (check(f"{HEAD}{lines}expect sufficiency >= 95%\n").claims[-1] for lines in ("", MANY))
    assert (short.verdict, short.protocol["circuits"]) == ("holds", "150")
    assert long.verdict == "holds" and int(long.protocol["circuits"]) > 150
    assert f"of {long.protocol['circuits']} random circuits of its shape, on the first 32 prompts" in long.reason
