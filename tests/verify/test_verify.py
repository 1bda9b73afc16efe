"""Whole verifications of small specs on the pocket model: what comes out, and what must never come out."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from rich.console import Console

from circuitdsl.api import loads
from circuitdsl.circuit.criteria import Within
from circuitdsl.circuit.nodes import EVERYWHERE, Node, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.plan import Part
from circuitdsl.measurements.requests import NodeRequest
from circuitdsl.report.report import Report, exit_status
from circuitdsl.report.terminal import show
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify import verify as verification
from circuitdsl.verify.measure import Series, measure
from circuitdsl.verify.prompts import prompts_by_task, scored_prompts
from circuitdsl.verify.samples import sample_of
from tests.verdict.deciding import decide

HEAD = """circuit t "a test"
model "pocket"
task ioi(corrupt = {corrupt}, prompts = {prompts}, seed = 3)
"""


def spec(*lines: str, corrupt: str = "abc", prompts: int = 64) -> str:
    return HEAD.format(corrupt=corrupt, prompts=prompts) + "\n".join(lines) + "\n"


def verdicts(report: Report) -> list[str]:
    return [claim.verdict for claim in report.claims]


def test_the_corrupt_embedding_takes_the_model_all_the_way(check) -> None:
    """Knocking out the embedding everywhere gives the corrupt run, by definition an effect of -100 %."""
    report = check(spec("nodes input = embed at *", "expect knockout(input) : effect in [-103%, -97%]"))
    (claim,) = report.claims
    assert claim.verdict == "holds"
    assert claim.measured.value == pytest.approx(-1, abs=1e-4)


def test_wrong_claims_do_not_hold(check) -> None:
    report = check(
        spec(
            "nodes input = embed at *",
            "expect knockout(input) : raises",
            "expect knockout(input) : negligible",
            "expect knockout(input) : effect >= -50%",
            "expect accuracy <= 50%",
            "expect logit_diff <= 0",
        )
    )
    assert verdicts(report) == ["fails"] * 5
    assert report.exit_status() == 1


def test_a_patch_that_changes_nothing_is_an_error(check) -> None:
    """Role flip leaves everything before S2 as it is."""
    report = check(spec("heads early = 0.0 0.1 at S1", "early -> 1.0.v : negligible", corrupt="flip"))
    (claim,) = report.claims
    assert claim.verdict == "error"
    assert claim.reason.startswith("this corruption does not change 0.0 at S1, 0.1 at S1 (try corrupt = abc)")
    assert claim.measured is None
    assert report.exit_status() == 3


def test_a_null_of_too_few_pairs_leaves_matters_undecided(check) -> None:
    report = check(spec("embed -> m0 at IO", "embed -> m0 at S1, S2"))
    for claim in report.claims:
        assert claim.verdict != "holds"
        assert claim.null is not None and claim.null.size < 19


def test_each_must_hold_for_every_pair(check) -> None:
    mixed = ("nodes mixed = m3 3.3 at END",)  # the last MLP does much, one head beside it next to nothing
    together = check(spec(*mixed, "mixed -> logits : lowers", prompts=256)).claims[0]
    apart = check(spec(*mixed, "each mixed -> logits : lowers", prompts=256)).claims[0]
    assert [m.sender for m in together.members] == [m.sender for m in apart.members] == ["m3", "3.3"]
    assert (together.verdict, {m.verdict for m in together.members}) == ("holds", {None})
    assert {m.sender: m.verdict for m in apart.members} == {"m3": "holds", "3.3": "fails"}
    assert apart.verdict == "fails"
    assert apart.reason.startswith("3.3 -> logits at END: ")


def test_reasons_in_json_are_plain_ascii_and_have_the_level_of_their_interval(check, all_looks) -> None:
    report = check(spec("heads s = 0.5 0.6 at END", "each s -> logits : lowers", "expect accuracy >= 50%", prompts=128))
    claim = report.to_json()["claims"][0]
    for one in (claim, *claim["members"]):
        assert re.search(
            r"effect -[\d.]+% \[-[\d.]+%, -[\d.]+%\] at 9[\d.]+%( \(look 1 of 2\))? is below -1%$", one["reason"]
        )


def test_positions_that_some_prompts_lack_leave_those_prompts_out(check) -> None:
    """Two of the fifteen templates name no place."""
    (claim,) = check(spec("expect attention(0.0, END -> PLACE) >= 0%"), early_stop=False).claims
    assert 32 < claim.measured.n < 64


def test_nothing_depends_on_what_else_is_verified(check) -> None:
    lines = ["nodes input = embed at *", "m3 -> logits at END : lowers", "expect knockout(input) : lowers"]
    whole, alone = check(spec(*lines), early_stop=False), check(spec(*lines), early_stop=False, claim="c01")
    assert [c.id for c in alone.claims] == ["c01"]
    assert alone.claims[0].measured.value == whole.claims[0].measured.value


def test_same_spec_same_numbers(check) -> None:
    text = spec("heads a = 0.0 0.1 at END", "a -> 1.0.q : matters", "expect attention(a, END -> IO) >= 10%")
    first, second = (check(text).to_json() for _ in range(2))
    first["seconds"] = second["seconds"] = 0
    assert first == second


def test_stopping_early_only_saves_prompts(check, all_looks) -> None:
    lines = ("0.6 -> m1 at END : lowers", "m3 -> logits at END : lowers", "expect accuracy >= 90%")
    fast, slow = check(spec(*lines, prompts=256)), check(spec(*lines, prompts=256), early_stop=False)
    assert verdicts(fast) == verdicts(slow)
    assert fast.claims[1].measured.n < slow.claims[1].measured.n == 256
    assert fast.block_positions < slow.block_positions


def test_an_interrupted_run_reports_what_it_has(check, monkeypatch) -> None:
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return measure(*arguments)

    measure = verification.measure
    monkeypatch.setattr(verification, "measure", interrupted)
    report = check(spec("0.0 -> logits at END : effect <= -99%", "expect accuracy >= 99.9%", prompts=256))
    assert report.interrupted
    assert len(report.claims) == 2
    assert "holds" not in verdicts(report)
    assert report.exit_status() != 0


def test_parts_of_nodes_are_measured_in_every_place(check) -> None:
    """Edges, knock-outs (means too), conditions, attribution, properties and whole circuits."""
    report = check(
        spec(
            "heads a = 0.0 at END",
            "0.0[2] -> logits at END : effect in [-100%, 100%]",
            "m1[5] -> 3.0.q at END : negligible",
            "expect knockout(m1[5] 0.0[1], ablate = mean) : effect in [-100%, 100%]",
            "expect denoise(2.1[0]) : effect in [-100%, 100%]",
            "expect attribution(3.0[0] m2[7]) in [-50, 50]",
            "expect faithfulness <= 1000%",
            "when m1[5] is knocked out",
            "  expect attribution(3.0[0] m2[7]) in [-50, 50]",
            'property "bounded"',
            "  expect attribution(3.0[0] m2[7]) in [-500, 500]",
            prompts=128,
        )
    )
    assert verdicts(report) == ["holds"] * 8


@pytest.mark.parametrize(
    ("found", "allow", "status"),
    [
        (["holds", "holds"], False, 0),
        (["holds", "undecided"], False, 1),
        (["holds", "undecided"], True, 0),
        (["fails", "error"], False, 1),
        (["holds", "error"], False, 3),
        (["undecided", "error"], True, 3),
    ],
)
def test_exit_status(found: list[str], allow: bool, status: int, check) -> None:
    one = check(spec("expect accuracy >= 90%"))
    claims = tuple(dataclasses.replace(one.claims[0], verdict=v) for v in found)
    assert exit_status([dataclasses.replace(one, claims=claims)], allow) == status


def test_matters_holds_for_what_stands_out_from_its_null(check) -> None:
    (claim,) = check(spec("heads strong = 0.3 0.5 0.6 at END", "strong -> logits", prompts=256)).claims
    assert claim.verdict == "holds"
    assert claim.null.size >= 19
    assert claim.null.percentile > 0.95


def test_every_task_that_has_the_positions_is_checked(check) -> None:
    text = spec("expect accuracy >= 90%", "0.6 -> m1 at S2", "0.6 -> logits at END : lowers")
    report = check(text.replace("task ioi", "task laundry = laundry_list(corrupt = abc, prompts = 64)\ntask ioi"))
    found = [(claim.id, claim.task) for claim in report.claims]
    assert found == [("c01", "laundry"), ("c01", "ioi"), ("c02", "ioi"), ("c03", "laundry"), ("c03", "ioi")]
    assert [task.name for task in report.tasks] == ["laundry", "ioi"]
    assert [c.verdict for c in report.claims if c.id != "c02"] == ["holds"] * 4


@pytest.mark.parametrize(
    ("metric", "claim", "unit"),
    [
        ("kl", "raises", "gap"),
        ("kl", "effect <= -1%", "gap"),
        ("prob_diff", "delta <= 0 points", "points"),
        ("logprob", "delta <= 0", "nats"),
    ],
)
def test_other_metrics_have_their_own_sign_and_unit(check, metric: str, claim: str, unit: str) -> None:
    """Knocking out the heads that read the subject makes the model worse by every metric."""
    worse = claim if metric != "kl" or claim == "raises" else "effect >= 1%"
    lines = (f"metric {metric}", "heads readers = 0.0 0.3 0.5 0.6 0.7 at END", f"expect knockout(readers) : {worse}")
    (found,) = check(spec(*lines, prompts=256)).claims
    if metric == "kl":  # clean minus corrupt is below 0: a divergence that rises is a negative share of it
        assert found.measured.value < 0
    assert found.measured.unit == unit
    assert found.verdict == ("holds" if worse == claim else "fails")
    if found.verdict == "holds":
        assert found.measured.right_sign > 0.9


def test_an_unchanged_member_does_not_hide_a_failing_one(check) -> None:
    """`m0` at S1+1 is the same on both prompts of a role flip; `m3` at END is not, and does not raise the metric."""
    lines = ("nodes mixed = embed m3 at END", "each mixed -> logits : raises")
    (claim,) = check(spec(*lines, corrupt="flip"), early_stop=False).claims
    assert {m.sender: m.verdict for m in claim.members} == {"embed": "error", "m3": "fails"}
    assert claim.verdict == "fails"


def test_a_claim_alone_has_the_verdict_it_has_among_all(check) -> None:
    lines = [f"{layer}.{head} -> logits at END : lowers" for layer in (0, 2) for head in (0, 5, 7)]
    whole = check(spec(*lines, prompts=128), early_stop=False)
    for claim in whole.claims:
        (alone,) = check(spec(*lines, prompts=128), early_stop=False, claim=claim.id).claims
        assert alone.verdict in {claim.verdict, "undecided"}  # Holm's later steps are easier than the first
        assert alone.measured.value == pytest.approx(claim.measured.value, abs=1e-5)


@pytest.mark.parametrize("corrupt", ["swap", "s"])  # no gap, and one of the wrong sign
def test_without_a_gap_the_pairs_of_an_edge_have_no_effect_either(check, corrupt: str) -> None:
    lines = ("heads a = 0.5 0.6 at END", "a -> logits via mlps : lowers")
    (claim,) = check(spec(*lines, corrupt=corrupt)).claims
    assert claim.verdict == "error" and claim.measured is None
    assert [(pair.effect, pair.ci) for pair in claim.members] == [(None, None)] * 2
    assert all(pair.delta for pair in claim.members)
    assert not any("direct" in note for note in claim.notes)


def test_via_mlp_edges_also_say_what_is_direct(check) -> None:
    lines = ("heads a = 0.5 0.6 at END", "each a -> logits via mlps : lowers")
    (claim,) = check(spec(*lines, prompts=128)).claims
    assert claim.protocol["patch"] == "via_mlps"
    assert [note.split(": ")[0] for note in claim.notes] == ["0.5 -> logits at END", "0.6 -> logits at END"]
    assert all("direct −" in note and note.endswith(f", both on {claim.measured.n} prompts") for note in claim.notes)


@pytest.mark.parametrize(("name", "highest"), [("prob_diff", 1.0), ("logprob", 0.0)])
def test_intervals_stay_within_what_a_metric_can_be(pocket, pocket_tokens, name: str, highest: float) -> None:
    """A few prompts on which the model is unsure: a symmetric interval would go beyond what is possible."""
    data = sample(TASKS["ioi"], pocket_tokens, 40, seed=1)
    request = Behaviour(Metric(name))
    values = np.where(np.arange(40) % 20 == 0, highest - 0.9, highest)
    series = Series(np.arange(40), values, np.ones(40, bool), np.ones(40, bool))
    found = sample_of(scored_prompts(pocket, data, Metric(name)), Part("", request), {request: series})
    low, high = decide(Within("value", -2.0, None, ">= -2"), found).ci
    assert low < values.mean() < high <= highest


def test_a_knock_out_says_where_it_replaces_a_node_that_is_named_alone(check, capsys) -> None:
    lines = ("heads a = 0.5 0.6 at END", "heads control = 0.3 at S1 outside")
    claims = (f"expect knockout({nodes}) : negligible" for nodes in ("0.3", "0.6 0.3", "0.6", "a"))
    report = check(spec(*lines, *claims, prompts=32))
    assert [claim.protocol["at"] for claim in report.claims] == ["*", "0.3 at *, 0.6 at END", "END", "END"]
    show(report, Console(width=120))
    printed = capsys.readouterr().out
    assert "replaced everywhere\n" in printed and "replaced 0.3 everywhere, 0.6 at END\n" in printed
    assert printed.count("replaced at END\n") == 1


def test_a_prompt_file_is_verified_like_its_task(check, tmp_path, pocket_tokens) -> None:
    pairs = sample(TASKS["ioi"], pocket_tokens, 64, seed=3).pairs
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(pair.record()) + "\n" for pair in pairs))
    claims = "heads a = 0.6 at END\na -> logits : lowers\nexpect attention(a, END -> S2) >= 50%\n"
    own = check(spec(claims), early_stop=False)
    text = f'circuit t\nmodel "pocket"\ntask mine = file("{path}", prompts = 64)\n{claims}'
    file = check(text, early_stop=False)
    assert verdicts(own) == verdicts(file) == ["holds", "holds"]
    for a, b in zip(own.claims, file.claims, strict=True):
        assert a.measured.value == pytest.approx(b.measured.value, abs=1e-4)


def test_no_flip_of_accuracy_is_not_no_effect(check) -> None:
    """On 64 prompts, up to 5 % of others may flip though none did: too many for a margin of 1 %."""
    lines = ("metric accuracy", "heads idle = 3.3 3.5 at END", "expect knockout(idle) : negligible")
    (claim,) = check(spec(*lines, corrupt="flip")).claims
    assert claim.verdict == "undecided"
    assert "may differ" in claim.reason


def test_means_do_not_depend_on_how_many_prompts_are_measured(check) -> None:
    few, many = (
        check(spec("expect knockout(m1, ablate = mean) : lowers", prompts=n), early_stop=False).claims[0]
        for n in (32, 256)
    )
    assert few.measured.value == pytest.approx(many.measured.value, abs=0.15)
    assert few.notes == many.notes == ()


@pytest.fixture
def from_file(tmp_path, pocket_tokens):
    """`from_file(n, lines)`: a spec on the first n prompts of a file of 120."""
    pairs = sample(TASKS["ioi"], pocket_tokens, 120, seed=3).pairs
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(pair.record()) + "\n" for pair in pairs))
    head = f'circuit t\nmodel "pocket"\ntask mine = file("{path}", prompts = {{}})\n'
    return lambda n, *lines: head.format(n) + "\n".join(lines)


def test_a_used_up_prompt_file_is_not_asked_for_more(check, from_file) -> None:
    """The file has 120 prompts."""

    def said(n: int, bound: str) -> tuple[str, bool]:
        report = check(from_file(n, f"0.6 -> logits at END : effect <= {bound}"))
        console = Console(width=200)
        with console.capture() as shown:
            show(report, console)
        assert report.claims[0].verdict == "undecided"
        return report.claims[0].reason.partition("; ")[2], "(--prompts)" in shown.get()

    would = "would decide"
    assert said(64, "-9%") == (f"about 320 prompts like these {would}, but the prompt file has 120", False)
    assert said(120, "-9.3%") == (f"about 4100 prompts like these {would}, but the prompt file has no more", False)
    assert said(48, "-8%") == (f"about 96 prompts like these {would}", True)


def test_means_over_a_prompt_file_are_those_of_the_whole_file(pocket, from_file) -> None:
    """Of 8 prompts in 8 templates each would be its own mean."""
    claims = ("expect accuracy >= 0%",)
    specs = (loads(from_file(n, *claims), allow_outside=True) for n in (8, 120))
    few, many = (prompts_by_task(spec.circuits[0], pocket)["mine"] for spec in specs)
    request, first = NodeRequest((Site(Node("mlp", 1), EVERYWHERE),), "mean"), np.arange(8)
    a, b = (measure(bench, [request], first)[request].values for bench in (few, many))
    assert few.pairs == many.pairs[:8]
    assert a == pytest.approx(b, abs=1e-4)


def test_means_over_few_prompts_are_said_to_be(check, from_file) -> None:
    lines = (
        "heads a = 0.6 at END",
        "expect knockout(a, ablate = mean) : lowers",
        "expect faithfulness(ablate = mean) >= 0%",
        "expect faithfulness >= 0%",
        "intervention quiet",
        "  replace a with mean",
        "  expect logit_diff falls",
    )
    said = ["some means are over" in " ".join(claim.notes) for claim in check(from_file(32, *lines, "")).claims]
    assert said == [True, True, False, True]


def test_a_metric_that_cannot_be_taken_is_an_error_of_its_claim(check) -> None:
    """Under `abc` the corrupt prompt asks for nothing."""
    report = check(spec("expect logit_diff(against = corrupt) >= 1", "expect accuracy >= 90%"))
    assert verdicts(report) == ["error", "holds"]
    assert "ask for something else" in report.claims[0].reason


def test_a_share_is_surely_at_most_all(check) -> None:
    assert verdicts(check(spec("expect accuracy <= 100%", "expect accuracy >= 0%"))) == ["holds", "holds"]
