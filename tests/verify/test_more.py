"""A figure is on as many prompts as there are numbers of anyway; the verdict is that of the look that decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circuitdsl.verify import more

HEAD = """circuit t
model "pocket"
task ioi(prompts = 256)
mlps decider = m1 m2 m3 at END
"""
EARLY = "decider -> logits at END : lowers\n"
LATE = "decider -> logits at END : effect <= -57%\n"
BEHAVIOUR = "expect logit_diff >= 3\n"
OTHERS = "expect accuracy >= 80%\n0.1 -> logits at END : negligible\n0.2 -> logits at END : negligible\n"


def shown(report) -> dict[str, tuple]:
    return {claim.text: (claim.verdict, claim.measured.value, claim.measured.n) for claim in report.claims}


def test_behaviour_is_a_figure_of_all_prompts(check) -> None:
    alone, whole = check(HEAD + BEHAVIOUR), check(HEAD + BEHAVIOUR, early_stop=False)
    assert shown(alone) == shown(whole)
    (claim,) = alone.claims
    assert claim.measured.n == 256 and claim.measured.value == pytest.approx(alone.tasks[0].clean)


def test_it_does_not_move_with_other_claims(check) -> None:
    text = BEHAVIOUR.strip()
    assert shown(check(HEAD + BEHAVIOUR + OTHERS))[text] == shown(check(HEAD + BEHAVIOUR))[text]


def test_what_another_claim_measures_further_is_taken(check, all_looks) -> None:
    early = shown(check(HEAD + EARLY))[EARLY.strip()]
    both = shown(check(HEAD + EARLY + LATE))
    assert early[2] == 64 and both[LATE.strip()][2] == 256
    assert both[EARLY.strip()] == ("holds", both[LATE.strip()][1], 256)


def test_nothing_runs_for_it(check, all_looks, monkeypatch) -> None:
    with_it = check(HEAD + EARLY + LATE)
    monkeypatch.setattr(more, "_extended", lambda *_: None)
    without = check(HEAD + EARLY + LATE)
    assert with_it.block_positions == without.block_positions
    assert [claim.verdict for claim in with_it.claims] == [claim.verdict for claim in without.claims]
    assert without.claims[0].measured.n == 64 < with_it.claims[0].measured.n


def test_a_verdict_stays(check, all_looks, monkeypatch) -> None:
    """Where more prompts would show another verdict, the figure of those that decided stays with it."""
    real = more.ruled
    monkeypatch.setattr(more, "ruled", lambda *given: [replace(one, verdict="undecided") for one in real(*given)])
    early, _ = check(HEAD + EARLY + LATE).claims
    assert (early.verdict, early.measured.n) == ("holds", 64)
