"""Two reports compared: which verdicts changed, and which numbers moved by more than their intervals allow."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import pytest
from rich.console import Console

from circuitdsl.report.diff import compare, has_moved, show_diff
from circuitdsl.report.report import ClaimResult, Measured, ModelInfo, Report, Reports, SpecInfo, as_text, read_reports

TEXT = """circuit t
model "pocket"
task ioi(prompts = 64)
heads suppressor = 0.3 0.5 0.6 at END
suppressor -> logits at END : lowers
expect attention(suppressor, END -> S2) >= 80%
"""


def measured(value: float, ci: tuple[float, float] | None, name: str = "effect") -> Measured:
    return Measured(name, value, ci, 64, "gap")


def claim(
    verdict: str, text: str = "a", line: int = 5, task: str = "ioi", found: Measured | None = None
) -> ClaimResult:
    return ClaimResult("c01", line, text, "edge", task, verdict, "because", measured=found)  # type: ignore[arg-type]


def under(block: str, verdict: str) -> ClaimResult:
    return replace(claim(verdict, line=9), block=block)


def test_claims_of_the_same_text_in_other_blocks_are_not_the_same():
    found = compare(
        past(claim("holds"), under("intervention mute", "fails")), past(under("intervention mute", "holds"))
    )
    assert [(change.kind, change.claim.statement) for change in found.changes] == [
        ("mended", "intervention mute: a"),
        ("regression", "a"),
    ]


def past(*claims: ClaimResult, model: str = "", weights: str = "") -> list[Report]:
    info = ModelInfo(model, weights, 4, 8, "cpu", "float32", False)
    return [Report(SpecInfo("t.circ", "t", ""), info, (), claims, 1.0)]


@pytest.fixture
def run(pocket, run):  # the model first: a library keeps the standard error it is loaded under
    return run


@pytest.mark.parametrize(
    ("old", "new", "kind", "status"),
    [
        ("holds", "holds", "same", 0),
        ("holds", "fails", "regression", 1),
        ("holds", "undecided", "regression", 1),
        ("holds", "error", "regression", 1),
        ("holds", None, "regression", 1),
        ("fails", "holds", "mended", 0),
        ("fails", "undecided", "verdict", 0),
        ("fails", None, "gone", 0),
        (None, "fails", "new", 0),
    ],
)
def test_kinds_of_change(old: str | None, new: str | None, kind: str, status: int) -> None:
    before, after = (past(*([claim(verdict)] if verdict else [])) for verdict in (old, new))
    found = compare(before, after)
    assert [change.kind for change in found.changes] == [kind]
    assert found.exit_status() == status


def test_claims_are_the_same_by_circuit_task_and_text_wherever_they_stand() -> None:
    old = past(claim("holds", "a", 3), claim("holds", "b", 4), claim("holds", "a", 3, "flip"))
    new = past(claim("holds", "b", 9), claim("fails", "a", 12, "flip"), claim("holds", "a", 12))
    found = {(c.claim.text, c.claim.task): (c.kind, c.claim.line) for c in compare(old, new).changes}
    assert found == {("b", "ioi"): ("same", 9), ("a", "flip"): ("regression", 12), ("a", "ioi"): ("same", 12)}


def test_a_claim_made_twice_is_matched_in_order() -> None:
    old, new = past(claim("holds"), claim("fails")), past(claim("holds"))
    assert [c.kind for c in compare(old, new).changes] == ["same", "gone"]


def test_a_number_moves_beyond_the_combined_standard_error() -> None:
    assert not has_moved(measured(0.0, (-1.0, 1.0)), measured(1.4, (0.4, 2.4)))
    assert has_moved(measured(0.0, (-1.0, 1.0)), measured(1.5, (0.5, 2.5)))
    # arms that face each other count: the long ones look away
    assert has_moved(measured(0.0, (-9.0, 0.1)), measured(1.0, (0.9, 9.0)))
    assert not has_moved(measured(0.5, None), measured(0.5 * (1 + 1e-12), None))
    assert has_moved(measured(0.5, None), measured(0.51, None))
    assert has_moved(measured(0.5, (0.0, 1.0)), measured(0.5, (0.0, 1.0), "delta"))


def test_numbers_move_by_chance_one_time_in_twenty() -> None:
    rng = random.Random(3)

    def figure() -> Measured:
        value = rng.gauss(0, 1)
        return measured(value, (value - 1.96, value + 1.96))

    share = sum(has_moved(figure(), figure()) for _ in range(4000)) / 4000
    assert 0.04 < share < 0.06


def test_settings_that_differ_are_said() -> None:
    found = compare(past(model="a", weights="0" * 64), past(model="a", weights="1" * 64))
    assert [(s.what, s.old, s.new) for s in found.settings] == [("weights", "0" * 12, "1" * 12)]


def test_every_change_is_on_the_screen_at_any_width() -> None:
    old = past(claim("holds", "one"), claim("fails", "two", found=measured(0.0, (-1.0, 1.0))), claim("fails", "four"))
    new = past(claim("fails", "one"), claim("fails", "two", found=measured(5.0, (4.0, 6.0))), claim("holds", "three"))
    for width in (40, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        show_diff(compare(old, new), console)
        text = " ".join(console.export_text().split())
        for says in ("holds → fails", "500 %", "three", "fails, gone", "1 regression, 1 number moved, 1 new, 1 gone"):
            assert says in text


def test_from_the_command_line(run, tmp_path) -> None:
    (tmp_path / "t.circ").write_text(TEXT)
    (tmp_path / "new.circ").write_text(TEXT.replace("80%", "99%"))
    for spec, report in (("t", "old"), ("new", "new")):
        run("verify", str(tmp_path / f"{spec}.circ"), "-o", str(tmp_path / f"{report}.json"))
    old, new = (str(tmp_path / f"{name}.json") for name in ("old", "new"))
    assert run("diff", old, old)[:2] == (0, "  2 as before\n")
    status, out, _ = run("diff", old, new)
    assert status == 1
    assert "1 regression, 1 new, 1 as before" in out
    status, out, _ = run("diff", old, new, "--format", "json")
    body = json.loads(out)
    assert status == 1
    assert body["summary"]["regression"] == 1
    assert {change["kind"] for change in body["changes"]} == {"regression", "new"}
    _, out, _ = run("diff", old, new, "--format", "github")
    assert "::error file=" in out
    assert "80%25" in out


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "{}", '{"schema": 2}', '{"schema": 1, "spec": 3}', "[" * 100_000, '"\\ud800"', None]
)
def test_what_is_no_report_is_status_2(run, tmp_path, content: str | None) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    status, out, err = run("diff", str(path), str(path))
    assert (status, out) == (2, "")
    assert str(path) in err


def test_a_report_reads_back_as_it_was_written(check, tmp_path) -> None:
    report = check(TEXT)
    path = tmp_path / "r.json"
    path.write_text(as_text(Reports([report, report])))
    assert read_reports(path) == (report, report)


def test_another_weakest_part_and_another_version_are_told() -> None:
    before, after = (
        past(claim("holds", found=replace(measured(v, None), part=p))) for v, p in ((-0.4, "x"), (-0.2, "y"))
    )
    after = [replace(after[0], circuitdsl="9.9", versions={"torch": "9.1"})]
    console = Console(width=120, file=io.StringIO())
    with console.capture() as capture:
        show_diff(compare(before, after), console)
    text = capture.get()
    assert "the figures are of its weakest parts: x → y" in text
    assert "other circuitdsl: 0.1.0 → 9.9" in text and "torch" not in text  # of which one report says nothing


def test_what_does_not_hold_now_has_its_reason() -> None:
    console = Console(width=120, file=io.StringIO())
    old, new = (replace(claim(verdict), reason=f"it {verdict}") for verdict in ("holds", "fails"))
    with console.capture() as capture:
        show_diff(compare(past(old), past(new)), console)
        show_diff(compare(past(new), past(old)), console)
    assert capture.get().count("        it fails\n") == 1 and "it holds" not in capture.get()


def test_blanks_make_no_other_claim() -> None:
    found = compare(past(claim("holds", "a->b:lowers")), past(claim("holds", "a -> b : lowers")))
    assert [change.kind for change in found.changes] == ["same"]
