"""`expect FIGURE > FIGURE by …`: from text to verdict, against the two figures measured one by one."""

from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import validate
from rich.console import Console

from circuitdsl.api import loads
from circuitdsl.report.report import Detail, Report
from circuitdsl.report.terminal import show
from circuitdsl.verify.plan import plan, shape_of
from tests.drawing import examples
from tests.schema import schema

HEAD = """circuit t "a test"
model "pocket"
task ioi(corrupt = abc, prompts = {prompts}, seed = 4)
dictionary t1 = transcoder("pocket/transcoders/1")
heads suppressor = 0.3 0.5 0.6    at END
heads mover      = 2.4 2.5        at END
"""
#: two figures of one kind, and the unit in which their difference is written
PAIRS = (
    ("attention(suppressor, END -> S2)", "attention(mover, END -> IO)", "points"),
    ("attention(mover, END -> IO)", "attention(mover, END -> S1)", "points"),
    ("entropy(mover, END)", "entropy(suppressor, END)", ""),
    ("attribution(mover)", "attribution(suppressor)", ""),
    ("activation(m1[17])", "activation(m1[18])", ""),
    ("fires(t1[49], at = END)", "fires(t1[49], at = S2)", "points"),
    ("knockout(mover)", "knockout(suppressor)", "%"),
    ("knockout(mover, ablate = mean)", "knockout(suppressor, ablate = zero)", "%"),
    ("denoise(suppressor -> logits at END)", "denoise(mover)", "%"),
    ("accuracy(top = 5)", "accuracy", "points"),
    ("copying(mover)", "copying(suppressor)", "points"),
    ("induction_score(2.4)", "induction_score(0.3)", "points"),
)


def spec(*lines: str, prompts: int = 32) -> str:
    return HEAD.format(prompts=prompts) + "\n".join(lines) + "\n"


def figures(report: Report) -> list[Detail]:
    return [each for claim in report.claims for both in claim.comparisons for each in (both.first, both.second)]


def open_claim(figure: str) -> str:
    return f"expect {figure} {': effect <= 900%' if figure.startswith(('knock', 'denoise')) else '>= 0'}"


@settings(max_examples=examples(4, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PAIRS), st.booleans(), st.integers(0, 40), st.sampled_from(("", "first", "change")))
def test_a_comparison_is_the_difference_of_two_figures(check, pair, swapped: bool, by: int, under: str) -> None:
    """Value, both sides, verdict: as of the two figures measured one by one, in the same place of the spec."""
    first, second, unit = (pair[1], pair[0], pair[2]) if swapped else pair
    if under and first.startswith(("denoise", "fires", "activ", "copy", "indu")):
        under = ""
    if under == "change" or "ablate" in first:
        under = "" if first.startswith("knock") else under
    header, indent = {"": ((), ""), "first": (("when 0.0 is knocked out",), "  ")}.get(
        under, (("intervention c", "  scale 0.0 by 0"), "  ")
    )
    amount = f" by {by} {unit}".rstrip() if unit != "%" else f" by {by}%"
    lines = (f"expect {first} > {second}{amount}", open_claim(first), open_claim(second))
    claim, mine, theirs = check(spec(*header, *(indent + line for line in lines)), early_stop=False).claims
    alone, other = mine.measured, theirs.measured
    assert claim.measured and alone and other
    assert claim.measured.value == pytest.approx(alone.value - other.value, abs=1e-6)
    assert claim.measured.name == "difference" and claim.measured.n == alone.n
    (both,) = claim.comparisons
    assert (both.first.name, both.second.name, claim.against) == (first, second, second)
    for side, figure in ((both.first, alone), (both.second, other)):
        assert side.value == pytest.approx(figure.value, abs=1e-6)
        assert side.unit == figure.unit
        assert side.ci == pytest.approx(figure.ci, abs=1e-6)
    bound = by / 100 if unit in ("points", "%") else by
    if claim.verdict == "holds":
        assert claim.measured.value > bound
    elif claim.verdict == "fails":
        assert claim.measured.value < bound


def test_both_figures_of_every_comparison_are_in_the_report(check) -> None:
    report = check(
        spec(
            "expect attention(suppressor, END -> S2) > attention(mover, END -> IO) by 2 times",
            "suppressor -> logits at END : stronger than mover -> logits by 2 times",
            "each suppressor -> logits at END : stronger than 3.3 -> logits",
            "expect knockout(suppressor) : lowers and stronger than knockout(mover) and stronger than knockout(0.0)",
            prompts=64,
        ),
        early_stop=False,
    )
    validate(report.to_json(), schema())
    first, edge, each, several = report.claims
    assert first.comparisons[0].times == edge.comparisons[0].times == 2
    assert edge.comparisons[0].first.name == "suppressor -> logits at END"
    assert edge.comparisons[0].first.unit == "logits" and edge.measured
    assert edge.comparisons[0].first.value == pytest.approx(edge.measured.value)
    assert [both.part for both in each.comparisons] == [f"0.{i} -> logits at END" for i in (3, 5, 6)]
    assert [both.second.name for both in several.comparisons] == ["knockout(mover)", "knockout(0.0)"]
    assert all(side.ci and side.ci[0] <= side.value <= side.ci[1] for side in figures(report))
    out = io.StringIO()
    show(report, Console(file=out, width=240))
    assert "attention(suppressor, END -> S2): " in out.getvalue()
    assert "against 2 times attention(mover, END -> IO): " in out.getvalue()


def test_a_role_may_compare_what_its_heads_do(check) -> None:
    text = spec(
        'role reader "looks at the second subject"',
        "  expect attention(self, END -> S2) > attention(self, END -> IO) by 20 points",
        "heads some = 0.3 0.5 at END role reader",
        "heads more = 0.3 2.4 at END role reader",
        "expect role(some)",
        "expect role(more)",
    )
    right, wrong = check(text, early_stop=False).claims
    assert (right.verdict, wrong.verdict) == ("holds", "fails")
    assert [both.first.name for both in right.comparisons] == [f"attention(0.{i}, END -> S2)" for i in (3, 5)]


def test_a_property_compares_on_every_prompt(check) -> None:
    text = spec(
        'property "reads the subject"',
        "  expect attention(suppressor, END -> S2) > attention(mover, END -> IO)",
        'property "reads the subject much more"',
        "  expect attention(suppressor, END -> S2) > attention(mover, END -> IO) by 50 points",
    )
    _, wrong = check(text).claims
    assert wrong.verdict == "fails" and wrong.counterexample
    (found,) = wrong.counterexample["found"].values()
    assert found <= 0.5
    assert (
        "by 50 points" in wrong.notes[0] and " points, not > attention(mover, END -> IO) by 50 points" in wrong.notes[0]
    )


def test_a_comparison_asks_for_both_figures_and_for_nothing_else(pocket) -> None:
    (circuit,) = loads(
        spec("expect attention(mover, END -> IO) < attention(suppressor, END -> S2) by 4 times")
    ).circuits
    (found,) = plan(circuit, shape_of(pocket))
    assert len(found.requests) == 2 and not found.null_requests
    assert found.parts[0].times == pytest.approx(1 / 4)


def test_the_other_figure_must_be_possible_under_the_condition_too() -> None:
    text = spec("when m1[17] is knocked out", "  expect knockout(mover) < knockout(t1[49])")
    (found,) = [each for each in loads(text).diagnostics if each.severity == "error"]
    assert (found.code, found.span.column) == ("E087", text.splitlines()[-1].index("< k") + 3)
    assert "m1[17] and t1[49] cannot be patched together" in found.message


def test_where_the_metric_is_better_when_lower_changes_are_shares_of_the_gap_with_and_without_by(check) -> None:
    """What holds by 20 % holds without a number, too: `kl` rises when the metric falls."""
    lines = [f"expect knockout({one}) < knockout({other}){by}" for one, other, by in KL_SIDES]
    verdicts = [claim.verdict for claim in check(spec("metric kl", *lines), early_stop=False).claims]
    assert verdicts == ["holds", "holds", "fails"]


KL_SIDES = (("embed", "m3", ""), ("embed", "m3", " by 20%"), ("m3", "embed", ""))
