"""Claims about features whose meaning is a fact: true ones hold, false ones do not."""

from __future__ import annotations

import random

import pytest

from circuitdsl.report.report import Report
from tests.drawing import examples
from tests.known_answers.hand_set_features import (
    DEAD,
    DECOYS,
    HUMS,
    MEANT,
    Features,
    claims_on,
    designed,
    mistaken,
    named,
    random_subjects,
    spec,
    tallied,
)
from tests.known_answers.hand_set_runs import sample_bench, verified


@pytest.fixture(scope="module")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Features:
    return Features(tmp_path_factory.mktemp("lookup"), 96)


def on(whole: Features, *lines: str) -> Report:
    groups = {"suppressed": ("r2", MEANT), "told": ("r3", MEANT), "decoys": ("r3", DECOYS), "answers": ("t3", MEANT)}
    head = [f"features {name} = {named(*each)} at END" for name, each in groups.items()]
    text = spec([]) + "\n".join([*head, "heads mover = 2.3 2.4 at END", *lines]) + "\n"
    return verified(text, sample_bench(whole, 5), folder=whole.folder)


def verdicts(whole: Features, *lines: str) -> list[str]:
    return [claim.verdict for claim in on(whole, *lines).claims]


def test_the_features_are_what_they_were_made_for(lookup: Features) -> None:
    def effect(senders: str, reader: str) -> float:
        return lookup.figure(lookup.edge(senders, reader, "END")).value

    assert effect(named("r2", MEANT), "2.3.q 2.4.q") < -0.9
    assert effect(named("r3", MEANT), "m3") < -0.9
    assert effect(named("t3", MEANT), "logits") < -0.9
    assert abs(effect(named("r2", MEANT), "2.3.v 2.4.v")) < 0.01
    assert abs(effect(named("r3", MEANT), "logits")) < 0.01


def test_true_claims_hold_and_false_ones_do_not(lookup: Features) -> None:
    found = list(claims_on(lookup, designed(lookup)[:: examples(5, 1)]))[:: examples(2, 1)]
    tally = tallied(lookup, found, examples([7], range(1, 5)))
    assert not tally.wrong
    held, true = tally.share(True)
    assert true >= 20 and held >= 0.95 * true - 1, tally.missed


def test_false_claims_about_random_features_do_not_hold(lookup: Features) -> None:
    """At most 1 % of them; `benchmarks/known_answers.py --only features` has more."""
    draw = random.Random(1)
    subjects = list(random_subjects(lookup, examples(3, 120), draw))
    false = [claim for claim in claims_on(lookup, subjects) if not claim.true]
    tally = tallied(lookup, [*false, *mistaken(lookup, subjects, draw)], examples([3], range(4)))
    wrong, n = tally.share(False)
    assert n > 40
    assert wrong <= 0.01 * n, tally.wrong


def test_matters_is_said_of_features_that_do_more_than_those_that_fire_as_often(lookup: Features) -> None:
    """Hums fire always and do little; a decoy fires when its name is told, and writes where nothing reads."""
    lines = (
        f"({named('r3', MEANT[:6])}) -> m3 at END : matters",
        "told -> m3 at END : matters",
        "each decoys -> m3 at END : matters",
        f"r3[{HUMS[0]}] -> m3 at END : matters",
        "expect knockout(told) : matters",
        "expect knockout(decoys) : matters",
    )
    assert verdicts(lookup, *lines) == ["holds", "holds", "fails", "fails", "holds", "fails"]


def test_every_kind_of_claim_true_and_false(lookup: Features) -> None:
    lines = {
        "path told -> m3 at END -> logits : lowers": "holds",
        "path told -> m3 at END -> logits : negligible": "fails",
        "path decoys -> m3 at END -> logits : lowers": "fails",
        "told -> m3 at END : stronger than decoys -> m3 at END by 2 times": "holds",
        "decoys -> m3 at END : stronger than told -> m3 at END": "fails",
        "expect knockout(answers) : stronger than knockout(decoys)": "holds",
        "told -> logits at END : negligible": "holds",
        "told -> m3 at END : negligible": "fails",
        "told -> m3 at END ablate mean : lowers": "holds",
        "decoys -> m3 at END ablate mean : lowers": "fails",
        f"r3[{DEAD}] -> m3 at END : negligible": "error",
        "told -> m3 at S2 : lowers": "fails",
        "expect reconstruction(t3) >= 80%": "holds",
        "expect reconstruction(t3) <= 50%": "fails",
        "expect attribution(answers) > 3": "holds",
        "expect attribution(answers) < 0": "fails",
        "expect activation(told) > 1": "fails",
        'expect fires(r3[4], at = S1) <= 50% where stratum "9-*"': "holds",
    }
    found = on(lookup, *lines).claims
    assert {claim.text: claim.verdict for claim in found} == lines, [c.reason for c in found]


def test_conditions_reach_features_and_come_from_them(lookup: Features) -> None:
    """Without the movers no name is told, and without the answers none that was told is read."""
    lines = (
        "when mover is knocked out",
        "  expect knockout(told) : lowers",
        "when told -> m3 at END is patched",
        "  expect accuracy falls by >= 20 points",
        "  expect accuracy rises",
        "when suppressed is knocked out",
        "  expect attention(mover, END -> IO) falls",
        "  expect attention(mover, END -> IO) rises",
        "when answers is knocked out",
        "  expect knockout(told) : lowers",
    )
    expected = ["fails", "holds", "fails", "holds", "fails", "fails"]
    assert verdicts(lookup, *lines) == expected


def test_a_circuit_of_heads_and_features_alone_does_what_the_model_does(lookup: Features) -> None:
    """The neurons of the names do the lookup; twelve others of the MLP, in their place, do not."""
    lines = ("heads duplicate = 0.2 at S2", "heads inhibition = 1.1 1.5 at END", "expect faithfulness >= 75%")
    more = ("expect incompleteness <= 25%", "expect faithfulness <= 50%")
    chain = spec([]) + "heads mover = 2.3 2.4 at END\n" + "\n".join((*lines, *more))
    found = []
    for indices in (MEANT, range(20, 32)):
        text = f"{chain}\nfeatures answers = {named('t3', indices)} at END\n"
        found.append([claim.verdict for claim in verified(text, sample_bench(lookup, 5), folder=lookup.folder).claims])
    assert found == [["holds", "holds", "fails"], ["fails", "fails", "holds"]]


def test_features_as_readers(lookup: Features) -> None:
    """The movers tell a name, which the answers read; decoys are told as much, and nothing reads what they write."""
    true = (
        "mover -> told at END : lowers",
        "mover -> told at END ablate mean : lowers",
        "mover -> decoys at END : negligible",
        "mover -> told at END : stronger than mover -> decoys at END by 2 times",
        "told -> answers at END : lowers",
        "mover -> told at END : matters",
        "path mover -> told at END -> answers at END -> logits : lowers",
        "path suppressed -> mover.q at END -> told at END -> answers at END -> logits : lowers",
    )
    false = (
        "mover -> told at END : negligible",
        "mover -> decoys at END : lowers",
        "mover -> decoys at END : stronger than mover -> told at END",
        "0.0 -> told at END : lowers",
        "decoys -> answers at END : lowers",
        "suppressed -> told at END : lowers",
        "each mover -> decoys at END : matters",
        f"mover -> r3[{HUMS[0]}] at END : matters",
        f"mover -> r3[{DEAD}] at END : lowers",
        "path mover -> told at END -> answers at END -> logits : negligible",
        "path mover -> decoys at END -> answers at END -> logits : lowers",
        "path suppressed -> mover.v at END -> told at END -> answers at END -> logits : lowers",
    )
    still = (
        f"mover -> r3[{DEAD}] at END : negligible",
        f"mover -> (r3[12] r3[{DEAD}]) at END : effect in [-5%, 5%]",
        f"path mover -> r3[{DEAD}] at END -> answers at END -> logits : negligible",
    )
    for lines, verdict in ((true, "holds"), (false, "fails"), (still, "error")):
        found = on(lookup, *lines).claims
        assert {claim.text: claim.verdict for claim in found} == dict.fromkeys(lines, verdict), [
            (claim.text, claim.reason) for claim in found if claim.verdict != verdict
        ]


def test_features_that_are_changed(lookup: Features) -> None:
    """Without what is told there is no answer; of decoys, or where nothing is told, none is missed."""
    lines = (
        "intervention silent",
        "  scale told by 0",
        "  expect accuracy falls by >= 20 points",
        "intervention exchanged",
        "  replace told with corrupt",
        "  expect accuracy falls by >= 20 points",
        "intervention average",
        "  replace answers with mean",
        "  expect accuracy falls by >= 20 points",
        "intervention still",
        "  scale decoys by 0",
        "  expect accuracy falls by >= 5 points",
        "  expect logit_diff falls by >= 1",
        "intervention loud",
        "  scale told by 1.2",
        "  expect accuracy falls by >= 5 points",
    )
    assert verdicts(lookup, *lines) == ["holds", "holds", "holds", "fails", "fails", "fails"]
