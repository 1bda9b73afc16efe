"""A report stays one of its spec when the spec is formatted or commented, and not when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import load, loads
from circuitdsl.report.report import SpecInfo, read_reports

SPEC = """circuit t
model "pocket"
task ioi(prompts=32)
heads late=2.4 2.5 at END   # two
late->logits at END:effect<=5 %
when late is knocked out
      expect logit_diff falls

expect logit_diff>=1
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "t.circ"
    path.write_text(SPEC)
    return path


def test_formatting_orphans_no_report(spec: Path, tmp_path: Path, capsys) -> None:
    old, new, picture = (str(tmp_path / name) for name in ("old.json", "new.json", "t.svg"))
    cli.run(["verify", str(spec), "-o", old])
    assert cli.run(["fmt", str(spec)]) == 0
    assert spec.read_text() != SPEC
    spec.write_text("# why\n\n" + spec.read_text())
    cli.run(["verify", str(spec), "-o", new])
    (before,), (after,) = read_reports(Path(old)), read_reports(Path(new))
    assert before.spec.sha256 != after.spec.sha256 and before.spec.meaning == after.spec.meaning
    capsys.readouterr()
    assert cli.run(["render", str(spec), "--report", old, "-o", picture]) == 0
    assert "another version" not in capsys.readouterr().err + Path(picture).read_text()
    assert cli.run(["diff", old, new]) == 0
    assert capsys.readouterr().out.strip() == "3 as before"
    spec.write_text(spec.read_text().replace("5%", "6%"))
    assert cli.run(["render", str(spec), "--report", old, "-o", picture]) == 0
    assert "is a report on another version of" in capsys.readouterr().err
    assert "another version of this spec" in Path(picture).read_text()


def test_a_comparison_says_that_a_group_is_another_one(spec: Path, tmp_path: Path, capsys) -> None:
    """No claim has another text, though some are about other heads."""
    old, new = (str(tmp_path / name) for name in ("old.json", "new.json"))
    cli.run(["verify", str(spec), "-o", old, "--claim", "9"])
    spec.write_text(SPEC.replace("2.4 2.5", "2.4"))
    cli.run(["verify", str(spec), "-o", new, "--claim", "9"])
    capsys.readouterr()
    assert cli.run(["diff", old, new]) == 0
    first, other, *_, last = capsys.readouterr().out.splitlines()
    assert first == "t" and other.startswith("  other spec: ") and last == "  1 as before"


def test_what_a_spec_uses_is_part_of_what_it_says(tmp_path: Path) -> None:
    roles, spec = tmp_path / "roles.circ", tmp_path / "t.circ"
    spec.write_text('use "roles.circ"\n' + SPEC)
    meanings = []
    for text in (
        "role r\n  expect entropy(self, END) >= 0\n",
        "# r\nrole r\n      expect entropy(self,END)>=0\n",
        "role r\n  expect entropy(self, END) >= 1\n",
    ):
        roles.write_text(text)
        meanings.append(load(spec).circuits[0].meaning)
    assert meanings[0] == meanings[1] != meanings[2]


def test_a_report_without_a_meaning_goes_by_its_text() -> None:
    circuit = loads(SPEC).circuits[0]
    assert SpecInfo("", "t", circuit.sha256).says_what(circuit)
    assert not SpecInfo("", "t", "b" * 64).says_what(circuit)
    assert not SpecInfo("", "t", circuit.sha256, "b" * 64).says_what(circuit)
    assert SpecInfo("", "t", "").says_what(circuit)
