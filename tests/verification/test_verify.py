"""Whole verifications of small specs on the pocket model: what comes out, and what must never come out."""

from __future__ import annotations

import dataclasses

import pytest

from circuitdsl.report.report import Report, exit_status
from circuitdsl.verification import verify as verification

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
    report = check(spec("nodes input = embed at *", "expect knockout(input) : effect in [-100.1%, -99.9%]"))
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
    together = check(spec(*mixed, "mixed -> logits : lowers")).claims[0]
    apart = check(spec(*mixed, "each mixed -> logits : lowers")).claims[0]
    assert [m.sender for m in together.members] == [m.sender for m in apart.members] == ["m3", "3.3"]
    assert (together.verdict, {m.verdict for m in together.members}) == ("holds", {None})
    assert {m.sender: m.verdict for m in apart.members} == {"m3": "holds", "3.3": "fails"}
    assert apart.verdict == "fails"
    assert apart.reason.startswith("3.3 -> logits at END: ")


def test_positions_that_some_prompts_lack_leave_those_prompts_out(check) -> None:
    """Two of the fifteen templates name no place."""
    (claim,) = check(spec("expect attention(0.0, END -> PLACE) >= 0%"), early_stop=False).claims
    assert 32 < claim.measured.n < 64


def test_nothing_depends_on_what_else_is_verified(check) -> None:
    lines = ["nodes input = embed at *", "m3 -> logits at END : lowers", "expect knockout(input) : lowers"]
    whole, alone = check(spec(*lines), early_stop=False), check(spec(*lines), early_stop=False, only="c01")
    assert [c.id for c in alone.claims] == ["c01"]
    assert alone.claims[0].measured.value == whole.claims[0].measured.value


def test_same_spec_same_numbers(check) -> None:
    text = spec("heads a = 0.0 0.1 at END", "a -> 1.0.q : matters", "expect attention(a, END -> IO) >= 10%")
    first, second = (check(text).to_json() for _ in range(2))
    first["seconds"] = second["seconds"] = 0
    assert first == second


def test_stopping_early_only_saves_prompts(check) -> None:
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


def test_what_is_not_measured_never_counts_as_holding(check) -> None:
    report = check(spec("heads a = 0.0 at END", "expect accuracy >= 90%", "expect faithfulness >= 80%"))
    assert verdicts(report) == ["holds"]
    assert [u.line for u in report.unmeasured] == [6]
    assert report.exit_status() == 3


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
