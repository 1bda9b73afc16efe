"""Conditions, denoising and comparisons of edges, from the text of a spec to its report."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from circuitdsl.report.terminal import show
from circuitdsl.tasks.dataset import sample
from circuitdsl.tasks.registry import TASKS
from tests.schema import schema

HEAD = """circuit t "a test"
model "pocket"
task ioi(corrupt = {corrupt}, prompts = {prompts}, seed = 4)
heads suppressor = 0.3 0.5 0.6    at END
heads mover      = 2.4 2.5        at END
nodes input      = embed at *
"""


def spec(*lines: str, corrupt: str = "abc", prompts: int = 64) -> str:
    return HEAD.format(corrupt=corrupt, prompts=prompts) + "\n".join(lines) + "\n"


def test_denoising_everything_gives_the_clean_run(check) -> None:
    (whole, part) = check(
        spec(
            "expect denoise(input) : effect in [97%, 103%]",
            "expect denoise(suppressor -> logits at END) : raises",
        )
    ).claims
    assert (whole.verdict, part.verdict) == ("holds", "holds")
    assert whole.measured.value == pytest.approx(1, abs=1e-4)
    assert whole.protocol["direction"] == part.protocol["direction"] == "denoise"
    assert 0 < part.measured.value < 0.5


def test_denoising_is_matched_with_denoising(check) -> None:
    """Everywhere random nodes restore less than the ones that decide, and the null has enough members."""
    (claim,) = check(spec("expect denoise(suppressor) : matters")).claims
    assert claim.verdict == "holds"
    assert claim.null.size == 40 and claim.null.percentile > 0.95


def test_of_two_edges_one_is_stronger(check) -> None:
    report = check(
        spec(
            "suppressor -> logits at END : stronger than mover -> logits",
            "mover -> logits at END : stronger than suppressor -> logits",
            "each suppressor -> logits at END : stronger than 0.6 -> logits",
        ),
        early_stop=False,
    )
    first, second, each = report.claims
    assert (first.verdict, second.verdict) == ("holds", "fails")
    assert first.measured.name == "delta" and first.measured.value == pytest.approx(-3.8, abs=0.4)
    assert " is stronger than " in first.reason and first.reason.endswith("of mover -> logits")
    assert " is weaker than " in second.reason
    assert each.verdict != "holds"  # no edge is stronger than itself
    assert [m.verdict for m in each.members if m.sender == "0.6"] != ["holds"]


def test_an_edge_compared_with_one_that_cannot_change_is_an_error(check) -> None:
    (claim,) = check(
        spec("suppressor -> logits at END : stronger than 0.0 -> 1.0.v at S1", corrupt="flip"), early_stop=False
    ).claims
    assert claim.verdict == "error"
    assert claim.reason.startswith("this corruption does not change 0.0 at S1")


FLIP = {"corrupt": "flip"}
UNDER = (
    "when suppressor is knocked out",
    "  expect attention(mover, END -> IO) falls",
    "  expect attention(mover, END -> IO) rises",
    "  expect attention(0.0, END -> IO) rises",
    "  expect attention(0.0, END -> IO) falls",
    "  expect logit_diff falls by >= 8",
    "  expect logit_diff >= 8",
    "  expect accuracy falls",
    "  expect knockout(input) : effect in [-60%, -1%]",
)


def test_what_a_condition_changes(check) -> None:
    report = check(spec(*UNDER), early_stop=False)
    by_line = {claim.line - 7: claim for claim in report.claims}
    assert [by_line[i].verdict for i in (1, 2, 5, 6)] == ["holds", "fails", "holds", "fails"]
    # a head of layer 0 is upstream of nothing that is patched: its attention does not change at all
    assert [by_line[i].verdict for i in (3, 4)] == ["undecided", "undecided"]
    falls = by_line[1]
    assert falls.block == "when suppressor is knocked out" and falls.block_line == 7
    assert falls.protocol == {"read": "attention", "run": "patched", "under": "suppressor is knocked out"}
    assert (falls.measured.name, falls.measured.unit) == ("change", "points")
    assert falls.measured.right_sign > 0.5


def test_numbers_under_a_condition_are_those_of_single_runs(check, pocket, pocket_tokens) -> None:
    """The change of the metric is that of runs made one prompt at a time by brute force."""
    import numpy as np
    import torch

    from circuitdsl.circuit.nodes import Node, Position, Site
    from circuitdsl.engine.experiment import Experiment
    from tests.engine import reference

    prompts = 12
    (claim,) = check(spec(*UNDER[:1], UNDER[5], prompts=prompts)).claims
    out = frozenset(Site(Node("head", 0, head), Position("END")) for head in (3, 5, 6))
    changes = []
    for pair in sample(TASKS["ioi"], pocket_tokens, prompts, seed=4, corrupt="abc").pairs:
        tokens = torch.tensor([pair.clean_tokens]), torch.tensor([pair.corrupt_tokens])
        at = {Position("END"): torch.tensor([[len(pair.clean_tokens) - 1]])}
        two = [reference.logits(pocket, *tokens, Experiment(sites=sites), at)[0] for sites in (frozenset(), out)]
        clean, patched = (x[list(pair.answers)].mean() - x[list(pair.distractors)].mean() for x in two)
        changes.append(float(patched - clean))
    assert claim.measured.value == pytest.approx(np.mean(changes), abs=1e-3)


def test_a_condition_that_changes_nothing_is_an_error(check) -> None:
    report = check(
        spec("when 0.3 -> 1.0.v at S1 is patched", "  expect accuracy falls", "  expect logit_diff >= 1", **FLIP)
    )
    assert [claim.verdict for claim in report.claims] == ["error", "error"]
    assert all("does not change 0.3 at S1" in claim.reason for claim in report.claims)


def test_a_knockout_under_a_condition_is_measured_against_the_condition_alone(check) -> None:
    """Taking out all there is takes away what was left."""
    (rest,) = check(
        spec("when suppressor is knocked out", "  expect knockout(input) : lowers"), early_stop=False
    ).claims
    alone = check(spec("expect knockout(suppressor) : lowers"), early_stop=False).claims[0].measured.value
    assert rest.measured.value == pytest.approx(-1 - alone, abs=1e-3)


def test_the_report_shows_the_condition_above_its_lines(check) -> None:
    report = check(spec("expect accuracy >= 5%", *UNDER[:3]))
    out = Console(file=io.StringIO(), width=140, no_color=True)
    show(report, out)
    lines = out.file.getvalue().split("\n")  # type: ignore[attr-defined]
    at = lines.index("   8  when suppressor is knocked out")
    assert lines[at + 1].startswith("   9  expect attention(mover, END -> IO) falls")
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(report.to_json(), schema())


def test_above_chance_is_against_guesses_on_the_same_prompts(check) -> None:
    """Of one answer and one distractor guesses find half; the corrupt run knows nothing of which it is."""
    lines = ["expect accuracy above chance", "when input is knocked out", "  expect accuracy above chance"]
    clean, corrupt = check(spec(*lines, corrupt="abc"), early_stop=False).claims
    assert clean.verdict == "holds"
    assert clean.measured.value == pytest.approx(0.5)
    assert clean.measured.unit == "points" and clean.measured.name == "accuracy − chance"
    assert corrupt.verdict != "holds"
    assert abs(corrupt.measured.value) < 0.2
    assert "above chance" in corrupt.text


def test_a_role_may_ask_for_more_than_another_group_does(check) -> None:
    """Each head of the group is compared with the other, on the same prompts."""
    text = spec(
        "heads strong = 0.3 at END",
        "expect role(strong)",
        "expect role(mover)",
        "role strong",
        "  expect knockout(self) : stronger than knockout(2.7 at END)",
        "role mover",
        "  expect knockout(self) : lowers and stronger than knockout(0.3 0.5 0.6 at END) by 0.9 times",
    )
    strong, movers = check(text).claims
    assert (strong.verdict, movers.verdict) == ("holds", "fails")
    assert "0.9 times" in movers.reason and " of knockout(0.3 0.5 0.6 at END)" in movers.reason
