"""Faithfulness and its kin on the pocket model: known figures, known verdicts, and what is written beside them."""

from __future__ import annotations

import jsonschema
import pytest

from circuitdsl.measurements.whole_circuit import WholeCircuit
from circuitdsl.report.report import Report
from tests.schema import schema

HEAD = """circuit t "a test"
model "pocket"
task ioi(corrupt = abc, prompts = 64, seed = 3)
"""
EVERY = "heads everything = " + " ".join(f"{layer}.{head}" for layer in range(4) for head in range(8)) + " at *\n"
PARTS = """heads suppressor = 0.3 0.5 0.6 at END
heads reader     = 0.0 0.7     at END
suppressor -> logits : lowers
"""


def run(check, *lines: str, spec: str = PARTS, **options) -> Report:
    return check(HEAD + spec + "\n".join(f"expect {line}" for line in lines) + "\n", **options)


def test_a_circuit_of_all_heads_is_the_model(check) -> None:
    report = run(
        check,
        "faithfulness in [97%, 103%]",
        "faithfulness(ablate = mean) in [97%, 103%]",
        "faithfulness(form = wang) <= 0.5",
        "incompleteness <= 3%",
        "sufficiency >= 90%",
        spec=EVERY,
    )
    assert [claim.verdict for claim in report.claims] == ["holds"] * 4 + ["error"]
    assert report.claims[0].measured.value == pytest.approx(1, abs=1e-5)
    assert report.claims[-1].reason.startswith("every circuit of this shape is this one")
    for claim, name in zip(report.claims, ["faithfulness"] * 3 + ["incompleteness", "sufficiency"], strict=True):
        assert claim.kept == {"nodes": 1}
        assert claim.notes == (
            f"the circuit keeps 100 % of the model's heads at their positions: {name} says nothing of it",
        )


def test_a_circuit_of_nearly_all_heads_says_little(check) -> None:
    nearly, half = EVERY.replace(" 0.0 0.1", ""), EVERY.partition(" 2.0")[0] + " at *\n"
    (claim,) = run(check, "faithfulness >= -500%", spec=nearly).claims
    assert 0.9 < claim.kept["nodes"] < 1
    assert claim.notes[0].endswith("heads at their positions: faithfulness says little of it")
    (claim,) = run(check, "faithfulness >= -500%", spec=half).claims
    assert 0.5 < claim.kept["nodes"] < 0.9 and claim.notes == ()
    (claim,) = run(check, "faithfulness >= -500%", spec=EVERY + "mlps one = m1 at END\n").claims
    assert claim.kept["nodes"] < 0.9 and claim.notes == (), "MLPs that are ablated count"


def test_what_counts_as_all_is_all_that_reaches_the_logits(check) -> None:
    spec = (
        EVERY.partition(" 3.0")[0] + " at *\nheads last = " + " ".join(f"3.{head}" for head in range(8)) + " at END\n"
    )
    (claim,) = run(check, "faithfulness in [97%, 103%]", spec=spec).claims
    assert claim.kept == {"nodes": 1} and claim.measured.value == pytest.approx(1, abs=1e-5)


def test_what_is_kept_is_said_everywhere(check) -> None:
    report = run(check, "faithfulness >= -500%", "faithfulness(keep = edges) >= -500%", full=True)
    nodes, edges = report.claims[1:]
    assert set(nodes.kept) == {"nodes"} and set(edges.kept) == {"edges"}
    assert 0 < edges.kept["edges"] < 0.01 < nodes.kept["nodes"] < 0.1
    assert report.claims[0].kept is None
    body = report.to_json()
    jsonschema.validate(body, schema())
    assert [one["kept"] for one in body["measurements"]] == [nodes.kept] * 4
    page = report._repr_html_()
    assert page.count("keep nodes (1.3 % of them)") == 5 and page.count("keep edges (") == 1


def test_no_edge_kept_with_mlps_named_is_the_corrupt_run(check) -> None:
    """Every edge of the model but one that reads the same on both prompts is patched."""
    spec = "heads late = 3.3 at END\nmlps none_of_them = m0 at END outside\nembed -> 0.1.q at END : effect >= -100%\n"
    (_, claim) = run(check, "faithfulness(keep = edges) in [-3%, 3%]", spec=spec).claims
    assert claim.verdict == "holds"
    assert claim.measured.value == pytest.approx(0, abs=1e-4)
    assert claim.protocol["mlps"] == "ablated unless kept"


def test_wrong_circuits_are_not_faithful(check) -> None:
    report = run(
        check,
        "faithfulness >= 50%",
        "faithfulness(keep = edges) >= 50%",
        "incompleteness <= 10%",
        "faithfulness(form = wang) <= 3",
        "sufficiency >= 99%",
        spec="heads wrong = 3.3 3.5 at END\n3.3 -> logits : lowers\nmlps all = m0 m1 m2 m3 at END outside\n",
    )
    assert "holds" not in [claim.verdict for claim in report.claims[1:]]
    assert [claim.verdict for claim in report.claims[1:3]] == ["fails", "fails"]


def test_without_a_gap_there_are_no_shares_of_it(check) -> None:
    spec = "heads some = 0.5 0.6 2.4 at END\nexpect incompleteness <= 500%\nexpect minimality <= 500%\n"
    report = check(HEAD.replace("abc", "s") + spec)
    assert [(claim.verdict, claim.measured, claim.details) for claim in report.claims] == [("error", None, ())] * 2


def test_every_figure_says_how_it_was_measured(check) -> None:
    report = run(
        check,
        "faithfulness(keep = edges, ablate = zero, positions = all) >= -500%",
        "faithfulness(form = wang) >= 0.1",
        "incompleteness <= 500%",
        "minimality <= 500%",
        "sufficiency >= 0%",
    )
    assert [claim.verdict for claim in report.claims[1:]] == ["holds"] * 5
    edges, wang, incomplete, minimal, sufficient = report.claims[1:]
    assert edges.protocol == {
        "keep": "edges",
        "ablate": "zero",
        "positions": "all",
        "form": "normalised",
        "mlps": "live",
    }
    assert (wang.measured.name, wang.measured.unit) == ("|F(M) − F(C)|", "logits")
    assert wang.measured.value == pytest.approx(abs(wang.measured.delta))
    assert incomplete.protocol["subsets"] == str(len(incomplete.details))
    assert [d.name for d in incomplete.details][:2] == ["without suppressor", "without reader"]
    assert incomplete.measured.value == pytest.approx(max(abs(d.value) for d in incomplete.details))
    assert len(minimal.details) == 5  # one for each head
    assert minimal.measured.value == pytest.approx(min(abs(d.value) for d in minimal.details))
    assert sufficient.protocol["circuits"] == "100" and "100 random circuits" in sufficient.reason
    assert (sufficient.measured.unit, sufficient.measured.n) == ("share", 32)


def test_full_measures_everything_and_judges_nothing(check) -> None:
    report = run(check, "accuracy >= 50%", full=True)
    assert [one.name for one in report.measurements] == list(WholeCircuit.words)
    assert all(one.measured is not None and one.protocol["keep"] == "nodes" for one in report.measurements)
    assert sum(report.summary.values()) == len(report.claims) == 2
    body = report.to_json()
    jsonschema.validate(body, schema())
    assert [one["measured"]["n"] for one in body["measurements"]] == [64, 64, 64, 32]
    assert not run(check, "accuracy >= 50%").measurements


def test_what_full_measures_is_what_a_claim_measures(check) -> None:
    lines = ("faithfulness >= -500%", "incompleteness <= 500%", "minimality <= 500%", "sufficiency >= 0%")
    report = run(check, *lines, full=True, early_stop=False)
    for claim, besides in zip(report.claims[1:], report.measurements, strict=True):
        assert claim.measured.value == pytest.approx(besides.measured.value, abs=1e-6), claim.text
        assert claim.protocol == besides.protocol


def test_the_terminal_shows_protocol_and_measurements(check, capsys) -> None:
    from rich.console import Console

    from circuitdsl.report.terminal import show

    console = Console(width=140)
    show(run(check, "faithfulness >= -500%", full=True), console, verbose=True)
    out = capsys.readouterr().out
    assert out.count("keep nodes (1.3 % of them), ablate corrupt, positions spec, form normalised, mlps live") == 2
    assert "measured besides, nothing claimed" in out
    assert "without suppressor: " in out


def test_verbosely_it_is_said_how_prompts_differ(check, capsys) -> None:
    from rich.console import Console

    from circuitdsl.report.terminal import show

    show(run(check, "accuracy >= 50%"), Console(width=140), verbose=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "claimed sign on" in line]
    assert line.strip().startswith("prompts: median −") and ", quartiles [−" in line


def test_a_tie_is_no_win_however_it_is_rounded(check) -> None:
    """A circuit that is the corrupt run but for rounding is tied with random ones: it beats none of them."""
    dead = (
        "mlps control = m1 at END outside\n"
        + "0.5 -> 2.6.k at IO : effect >= -1000%\n0.7 -> 2.7.k at S1 : effect >= -1000%\n"
        + "3.5 -> logits at END : effect >= -1000%\n"
    )
    *_, beaten, faithful = run(
        check, "sufficiency(keep = edges) >= 10%", "faithfulness(keep = edges) >= -1000%", spec=dead
    ).claims
    assert abs(faithful.measured.value) < 1e-6
    assert beaten.verdict == "fails" and beaten.measured.value == 0
