"""Mutants say something else; those that a spec notices are killed, the others are listed with their numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.language.parse import parse
from circuitdsl.testing import noticed
from circuitdsl.testing.mutants import Mutant, mutants
from circuitdsl.testing.mutate import Mutation, Outcome, ToMeasure
from circuitdsl.verdict.decide import ruled, verdict_of
from circuitdsl.verify import anew
from circuitdsl.verify.anew import measure_anew
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.session import Session
from circuitdsl.verify.verify import weigh_plans

HEAD = """circuit t
model "pocket"
task ioi(prompts = 128)
heads suppressor = 0.3 0.5 0.6 at END
heads idle = 3.3 3.5 at END outside
"""


def made(lines: str) -> list[tuple[str, str]]:
    """The changed lines of all mutants but those of the head, with their operators."""
    spec = loads(HEAD + lines, "t.circ")
    assert spec.ok, spec.diagnostics
    file, _ = parse(spec.text, "t.circ")
    found = mutants(file, spec.circuits, (4, 8), lambda place: "S1" if place.name == "S2" else None)
    return [(m.what, m.after) for m in found if m.line > 5]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "embed -> suppressor.v at S2 : lowers",
            [
                ("input changed", "embed -> suppressor.k at S2 : lowers"),
                ("position changed", "embed -> suppressor.v at S1 : lowers"),
                ("sign turned", "embed -> suppressor.v at S2 : raises"),
            ],
        ),
        (
            'suppressor -> logits at END : lowers where stratum "ABBA*"',
            [
                ("sign turned", 'suppressor -> logits at END : raises where stratum "ABBA*"'),
                ("strata dropped", "suppressor -> logits at END : lowers"),
            ],
        ),
        (
            "expect knockout(suppressor) : stronger than knockout(idle) by 2 times",
            [
                ("sides swapped", "expect knockout(idle) : stronger than knockout(suppressor) by 2 times"),
                ("factor doubled", "expect knockout(suppressor) : stronger than knockout(idle) by 4 times"),
            ],
        ),
        (
            "expect attention(suppressor, END -> S2) > attention(idle, END -> S2) by 20 points",
            [
                (
                    "position changed",
                    "expect attention(suppressor, END -> S1) > attention(idle, END -> S2) by 20 points",
                ),
                ("sides swapped", "expect attention(idle, END -> S2) > attention(suppressor, END -> S2) by 20 points"),
                (
                    "difference doubled",
                    "expect attention(suppressor, END -> S2) > attention(idle, END -> S2) by 40 points",
                ),
            ],
        ),
        (
            "expect knockout(0.3) < knockout(idle)",
            [("sides swapped", "expect knockout(idle) < knockout(0.3)")],
        ),
        (
            "expect knockout(suppressor, ablate = mean) : lowers",
            [
                ("sign turned", "expect knockout(suppressor, ablate = mean) : raises"),
                ("ablation changed", "expect knockout(suppressor, ablate = corrupt) : lowers"),
            ],
        ),
        (
            "expect faithfulness(ablate = mean) >= 40%",
            [
                ("ablation changed", "expect faithfulness(ablate = corrupt) >= 40%"),
                ("bound tightened", "expect faithfulness(ablate = mean) >= 80%"),
                ("sign turned", "expect faithfulness(ablate = mean) <= 40%"),
            ],
        ),
        (
            "suppressor -> logits at END direct ablate mean : lowers",
            [
                ("sign turned", "suppressor -> logits at END direct ablate mean : raises"),
                ("ablation changed", "suppressor -> logits at END direct ablate corrupt : lowers"),
            ],
        ),
        (
            "edges ablate mean\n0.3 -> m1 at END ablate corrupt : negligible",
            [
                ("ablation changed", "edges ablate corrupt"),
                ("negligible turned", "0.3 -> m1 at END ablate corrupt : matters"),
                ("ablation changed", "0.3 -> m1 at END ablate mean : negligible"),
            ],
        ),
        (
            "when suppressor is knocked out and embed -> m1 at END is patched\n  expect logit_diff falls",
            [
                ("condition dropped", "when suppressor is knocked out"),
                ("condition dropped", "when embed -> m1 at END is patched"),
                ("sign turned", "expect logit_diff rises"),
            ],
        ),
        (
            "0.* - 0.3 -> logits at END : lowers",
            [
                ("subtraction dropped", "0.* -> logits at END : lowers"),
                ("layer swapped", "1.* - 0.3 -> logits at END : lowers"),
                ("head swapped", "0.* - 0.7 -> logits at END : lowers"),
                ("sign turned", "0.* - 0.3 -> logits at END : raises"),
            ],
        ),
        (
            "suppressor -> logits at END : effect <= -10%",
            [
                ("bound tightened", "suppressor -> logits at END : effect <= -20%"),
                ("sign turned", "suppressor -> logits at END : effect >= 10%"),
            ],
        ),
        (
            "suppressor -> logits at END : effect in [-40%, -10%]",
            [
                ("bound tightened", "suppressor -> logits at END : effect in [-32.5%, -17.5%]"),
                ("sign turned", "suppressor -> logits at END : effect in [10%, 40%]"),
            ],
        ),
        (
            "intervention off\n  replace idle with mean\n  expect logit_diff falls by >= 2",
            [
                ("sign turned", "expect logit_diff rises by >= 2"),
                ("bound tightened", "expect logit_diff falls by >= 4"),
            ],
        ),
        # of an absence the subject is not moved
        ("embed -> suppressor.k at S2 : negligible", [("negligible turned", "embed -> suppressor.k at S2 : matters")]),
        (
            "embed -> suppressor.k at S2 : effect in [-4%, 4%]",
            [("bound tightened", "embed -> suppressor.k at S2 : effect in [-2%, 2%]")],
        ),
        ("suppressor -> logits", [("matters turned", "suppressor -> logits : negligible")]),
        (
            "expect attention(suppressor, END -> S2) >= 80%",
            [
                ("position changed", "expect attention(suppressor, END -> S1) >= 80%"),
                ("bound tightened", "expect attention(suppressor, END -> S2) >= 90%"),
                ("sign turned", "expect attention(suppressor, END -> S2) <= 80%"),
            ],
        ),
        (
            "expect logit_diff >= 12",
            [("bound tightened", "expect logit_diff >= 24"), ("sign turned", "expect logit_diff <= 12")],
        ),
        (
            "expect knockout(suppressor) : effect <= -60%  # a comment",
            [
                ("bound tightened", "expect knockout(suppressor) : effect <= -120%"),
                ("sign turned", "expect knockout(suppressor) : effect >= 60%"),
            ],
        ),
    ],
)
def test_operators(line: str, expected: list[tuple[str, str]]) -> None:
    assert made(line) == expected


def test_heads_are_swapped_for_heads_of_the_layer_outside_the_circuit() -> None:
    ((what, after), *_) = made("0.6 -> logits at END : lowers")
    assert what == "head swapped"
    layer, head = after.split()[0].split(".")
    assert layer == "0" and int(head) not in (3, 5, 6)


def test_groups_lose_and_exchange_members_controls_do_not() -> None:
    spec = loads(HEAD, "t.circ")
    file, _ = parse(spec.text, "t.circ")
    found = mutants(file, spec.circuits, (4, 8), lambda _: None)
    assert [m.what for m in found] == ["member swapped"] * 3 + ["member dropped"] * 3
    assert {m.line for m in found} == {4}
    assert found[3].after == "heads suppressor = 0.5 0.6 at END"


def fates(found: Mutation) -> dict[str, str]:
    return {outcome.mutant.after: outcome.fate for outcome in found.outcomes}


@pytest.fixture(autouse=True)
def means_over_few_prompts() -> None:
    """Whether a mutant is noticed depends on the means."""


@pytest.fixture
def judged(pocket):
    def run(lines: str) -> Mutation:
        spec = loads(HEAD + lines, "t.circ")
        (found,) = Session(pocket, cache=False).mutate(spec)
        return found

    return run


def test_what_is_noticed_is_killed_and_what_is_not_survives(judged) -> None:
    found = fates(judged("suppressor -> logits at END : effect <= -10%\nexpect logit_diff >= 2\n"))
    assert found["suppressor -> logits at END : effect >= 10%"] == "killed"
    assert found["expect logit_diff <= 2"] == "killed"
    assert found["expect logit_diff >= 4"] == "survived"  # it is about 15
    assert found["suppressor -> logits at END : effect <= -20%"] == "survived"  # it is about -26 %


def test_a_tighter_claim_leaves_no_survivor_of_its_bound(judged) -> None:
    found = judged("suppressor -> logits at END : effect <= -18%\nexpect logit_diff >= 12\n")
    assert not [o for o in found.of("survived") if o.mutant.what == "bound tightened"]


def test_equivalent_impossible_and_open_mutants_are_set_apart(judged) -> None:
    found = judged("expect logit_diff >= 99\nembed -> suppressor.v at S2 : lowers\nsuppressor -> logits : lowers\n")
    named = fates(found)
    assert named["expect logit_diff >= 198"] == "open"
    assert named["heads suppressor = 0.5 0.6 at END"] in ("killed", "survived")
    impossible = judged("suppressor -> logits at END : lowers\n").of("impossible")
    assert [o.mutant.what for o in impossible] == ["position changed"]
    # the group is named by no claim: whoever is in it says the same
    equivalent = judged("expect logit_diff >= 12\n").of("equivalent")
    assert len(equivalent) == 6
    assert found.judged == len(found.of("killed")) + len(found.of("survived"))


def test_whoever_is_in_the_circuit_is_noticed_by_what_it_does_alone(judged) -> None:
    """A group that no claim names is part of the circuit all the same, and so is an edge that is not negligible."""
    found = judged("0.2 -> logits at END : negligible\nexpect faithfulness(ablate = mean) in [80%, 120%]\n")
    assert not found.of("equivalent")
    of_group = [o for o in found.outcomes if o.mutant.line == 4]
    assert len(of_group) == 6
    assert all((o.claims, o.by) == (1, "expect faithfulness(ablate = mean) in [80%, 120%]") for o in of_group)
    assert "killed" in {o.fate for o in of_group}
    (turned,) = [o for o in found.outcomes if o.mutant.what == "negligible turned"]
    assert (turned.fate, turned.claims) == ("killed", 2)  # its own line, and what is said of the whole circuit


def test_what_is_refuted_is_measured_no_further(judged, monkeypatch) -> None:
    """What is said of whole circuits is the most work; a mutant that fails by its own line does not ask for it."""
    rounds: list[list[str]] = []

    def noted(plans, *rest):  # type: ignore[no-untyped-def]
        rounds.append([plan.claim.text for plan in plans])
        return weigh_plans(plans, *rest)

    monkeypatch.setattr(noticed, "weigh_plans", noted)
    whole = "expect incompleteness <= 300%"
    found = judged(f"{whole}\nsuppressor -> logits at END : effect <= -22%\nexpect logit_diff >= 12\n")
    own, first, second = rounds
    assert len(own) == 3, "the spec itself comes first"
    assert not any("incompleteness" in text for text in first) and all("incompleteness" in text for text in second)
    groups = [o for o in found.outcomes if o.mutant.line == 4]
    refuted = [o for o in groups if o.fate == "killed" and o.by != whole and "undecided" not in o.reason]
    assert 0 < len(refuted) < len(groups)
    # the two other bounds, and the mutants of the group that nothing refuted
    assert len(second) == 2 + len(groups) - len(refuted)
    assert all(o.claims == 2 for o in groups)


def test_open_mutants_are_not_measured(judged, monkeypatch) -> None:
    """What changes nothing but claims that do not hold is open, whatever could be measured of it."""
    measured: list[str] = []

    def noted(plans, *rest):  # type: ignore[no-untyped-def]
        measured.extend(plan.claim.text for plan in plans)
        return weigh_plans(plans, *rest)

    monkeypatch.setattr(noticed, "weigh_plans", noted)
    found = judged("suppressor -> logits at END : raises\nexpect logit_diff >= 12\n")
    opened = [o.mutant.after for o in found.of("open")]
    assert "suppressor -> logits at END : lowers" in opened and "heads suppressor = 0.5 0.6 at END" in opened
    lines = ["suppressor -> logits at END : raises", "expect logit_diff >= 12"]
    assert measured == [*lines, "expect logit_diff >= 24", "expect logit_diff <= 12"]


def test_random_edges_are_measured_where_nothing_else_decides(judged, monkeypatch) -> None:
    """An effect inside the margin does not matter, whatever random edges do."""
    nulls: list[tuple[str, int]] = []

    def noted(plans, *rest):  # type: ignore[no-untyped-def]
        nulls.extend((str(plan.claim), len(plan.null_requests)) for plan in plans if plan.null_requests)
        return weigh_plans(plans, *rest)

    monkeypatch.setattr(noticed, "weigh_plans", noted)
    found = judged("margin 3%\nidle -> logits at END : negligible\nsuppressor -> logits at END : lowers\n")
    (turned,) = (o for o in found.outcomes if o.mutant.what == "negligible turned")
    assert turned.fate == "killed" and turned.reason.endswith("is inside the margin of 3 %")
    assert not nulls
    found = judged("suppressor -> logits at END\nexpect logit_diff >= 12\n")
    groups = [o for o in found.outcomes if o.mutant.line == 4]
    assert len(groups) == 6 and "survived" in {o.fate for o in groups}
    assert len(nulls) == 1 + sum("inside the margin" not in o.reason for o in groups)


def test_the_weakest_claim_is_the_one_that_all_verdicts_have(pocket) -> None:
    """One verdict of each mutant is written out; it is the one that writing out all of them would have picked."""
    lines = "suppressor -> logits at END\neach suppressor -> m1 at END : effect <= -2%\nexpect incompleteness <= 90%\n"
    spec = loads(HEAD + lines, "t.circ")
    cases = noticed.Cases(spec, spec.circuits[0], ModelShape("pocket", 4, 8))
    by_task = prompts_by_task(spec.circuits[0], pocket)
    made = mutants(cases.file, spec.circuits, (4, 8), lambda _: None)
    found = [case for case in map(cases.case, made) if not isinstance(case, str)]
    cases.weigh(found, pocket, by_task)
    several = 0
    for case, judged in zip(found, cases.judged(found), strict=True):
        evidence, levels = cases._levels(case.plans)
        places = [i for i in sorted(case.changed) if i in cases.held and case.plans[i] in cases.evidence]
        several += len(places) > 1
        decided = ruled([evidence[i] for i in places], [levels[i] for i in places])
        for i, one in zip(places, decided, strict=True):
            assert verdict_of(evidence[i], levels[i]) == (one.verdict, one.p_holds)
        rank = ("fails", "undecided", "error", "holds")
        worst = min(decided, key=lambda one: (rank.index(one.verdict), -one.p_holds), default=None)
        assert (judged.weakest and judged.weakest[2].value) == (worst and worst.value)
    assert several > 2


def test_what_a_title_says_is_not_said_again() -> None:
    mutant = Mutant(4, "bound", "a", "b", "")
    console = Console(width=100)
    with console.capture() as shown:
        Outcome(mutant, "open", reason="the claim that it changes does not hold to begin with").show(console)
    assert shown.get() == "   4  b   bound\n        was: a\n"


def test_a_forecast_says_one_time_where_two_would_be_the_same() -> None:
    takes = ToMeasure("t", 9, 8, 64, 100, 0, (8.11, 8.12))
    assert "about 8.1 s on this machine" in str(takes)
    assert "about 8.1 s to 9.0 s on" in str(replace(takes, seconds=(8.1, 9.0)))


def test_requests_of_several_mutants_are_measured_once(judged, monkeypatch) -> None:
    asked: list[tuple[object, int]] = []

    def noted(prompts, requests, indices, done=None):  # type: ignore[no-untyped-def]
        asked.extend((request, i) for request in requests for i in indices.tolist())
        return measure_anew(prompts, requests, indices, done)

    monkeypatch.setattr(anew, "measure_anew", noted)
    found = judged("suppressor -> logits at END : lowers\n0.6 -> logits at END : lowers\nexpect logit_diff >= 12\n")
    assert len(found.outcomes) > 10
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("embed -> suppressor.v at S2 : lowers", "embed -> suppressor.v at S2 : raises"),
        ("each embed -> suppressor.v at S2 : effect <= -1%", "each embed -> suppressor.v at S2 : effect <= 4 points"),
        ("heads suppressor = 0.3 0.5 0.6 at END", "heads suppressor = 0.3 0.5 at END"),
        ("when 0.6 is knocked out\n  expect accuracy rises", "when 0.6 is knocked out\n  expect accuracy falls"),
        ("expect attention(suppressor,\n  END -> S2) >= 80%", "expect attention(suppressor,\n  END -> S1) >= 80%"),
    ],
)
def test_a_mutant_says_what_its_text_says(line: str, changed: str) -> None:
    """It is read and resolved in one statement, and comes out as the whole text does."""
    text = (HEAD + "suppressor -> logits at END\nexpect faithfulness >= 1%\n") + (line + "\n") * (line not in HEAD)
    spec, whole = loads(text, "t.circ"), loads(text.replace(line, changed), "t.circ")
    row = 1 + next(i for i, (a, b) in enumerate(zip(text.split("\n"), whole.text.split("\n"), strict=True)) if a != b)
    cases = noticed.Cases(spec, spec.circuits[0], ModelShape("pocket", 4, 8))
    case = cases.case(Mutant(row, "", "", "", whole.text))
    if isinstance(case, str):
        assert case in whole.problems
    else:
        assert case.circuit == whole.circuits[0]
        assert [claim.line for claim in case.circuit.claims] == [claim.line for claim in whole.circuits[0].claims]


@pytest.mark.parametrize(
    "lines",
    [
        "suppressor -> logits at END\neach suppressor -> m1 at END : effect <= -2%\n0.6 -> logits : lowers\n",
        pytest.param(
            "suppressor -> logits at END : lowers\nexpect faithfulness(ablate = mean) >= 1%\n", marks=pytest.mark.long
        ),
    ],
)
def test_a_mutant_is_judged_as_verify_would(judged, pocket, lines: str) -> None:
    found = judged(lines)
    assert len(found.outcomes) > 8
    verifier = Session(pocket)
    for outcome in found.outcomes:
        if outcome.fate in ("killed", "survived"):
            report = verifier.verify(loads(outcome.mutant.text, "t.circ"))
            holds = all(claim.verdict == "holds" for claim in report.claims)
            assert holds == (outcome.fate == "survived"), outcome


def test_from_the_command_line(pocket, capsys, tmp_path) -> None:
    path = tmp_path / "t.circ"
    path.write_text(HEAD + "expect logit_diff >= 2\n")
    assert cli.run(["mutate", str(path)]) == 0
    out = capsys.readouterr().out
    assert "expect logit_diff >= 4   bound tightened" in out
    assert "was: expect logit_diff >= 2" in out
    assert "1 of 2 killed, 50 %" in out
    assert cli.run(["mutate", str(path), "--at-least", "90%", "--format", "json"]) == 1
    body = json.loads(capsys.readouterr().out)
    assert body["share"] == 0.5
    assert body["summary"] == {"killed": 1, "survived": 1, "equivalent": 6, "impossible": 0, "open": 0}
    path.write_text(HEAD)
    assert cli.run(["mutate", str(path)]) == 3


@pytest.mark.parametrize(("task", "said"), [("ioi", "score >= 5% on ioi: 3 %"), ("", "score >= 5%: 3 %")])
def test_a_claim_of_no_task_is_named_without_one(task: str, said: str) -> None:
    """Scores on random tokens have no task."""
    outcome = Outcome(Mutant(4, "bound", "a", "b", ""), "killed", 2, "score >= 5%", task, "3 %")
    console = Console(width=100)
    with console.capture() as shown:
        outcome.show(console)
    assert shown.get().splitlines()[-1].strip() == said
