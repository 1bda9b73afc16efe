"""`compare` blocks from the text to the report: no model is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.report.report import Report
from circuitdsl.verify.judged import verify_without_model

TWO = """model "gpt2-medium"
circuit one
heads mover     = 15.14 16.15 17.4  at END
heads induction = 9.3               at END
heads aside     = 1.1               at END outside
circuit two
heads mover          = 16.15 17.4 18.5  at END
heads negative_mover = 9.3              at END
compare one with two
"""


def verified(lines: str) -> Report:
    spec = loads(TWO + lines)
    assert spec.ok, [d.message for d in spec.diagnostics]
    assert not spec.circuits[1].claims
    report = verify_without_model(spec.circuits[0], lambda: pytest.fail("weights were loaded"))
    assert report is not None, "a model must run"
    return report


def test_overlap_is_intersection_over_union_of_heads() -> None:
    report = verified("  expect overlap >= 60%\n  expect overlap > 60%\n  expect overlap in [50%, 70%]\n")
    assert [c.verdict for c in report.claims] == ["holds", "fails", "holds"]  # 3 of 5 heads
    first = report.claims[0]
    assert first.measured and first.measured.value == 0.6
    assert first.task is None
    assert "3 heads shared of 4 and 4, 75 % of the first" in first.notes[0]
    assert first.block == "compare one with two"


def test_above_chance_is_exact() -> None:
    (claim,) = verified("  expect overlap above chance\n").claims
    # shared heads: one of 16 in three layers, each by chance with probability 1/16
    assert claim.verdict == "holds"
    assert "0.0" in claim.reason


def test_roles_of_shared_heads_agree_or_are_named() -> None:
    (claim,) = verified("  expect roles agree\n").claims
    assert claim.verdict == "fails"
    assert "2 of 3 shared heads play the same role" in claim.reason
    assert "9.3 is induction here and negative_mover there" in claim.notes


def test_weights_that_are_not_at_hand_are_not_needed(tmp_path: Path) -> None:
    spec = tmp_path / "two.circ"
    spec.write_text(TWO + "  expect overlap >= 50%\n")
    assert cli.run(["verify", str(spec), "-o", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["summary"]["holds"] == 1
    assert report["claims"][0]["kind"] == "compare"
    found = loads(spec.read_text()).verify(cache=False)
    assert [claim.verdict for one in found for claim in one.claims] == ["holds"]
