"""docs/language.md: every example is right and in the canonical layout, and what the tutorial claims holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circuitdsl.api import load, loads
from circuitdsl.language.diagnostics import codes
from circuitdsl.language.format import format_text
from circuitdsl.language.lexer import KEYWORDS
from circuitdsl.report.report import Report

PAGE = (Path(__file__).parent.parent / "docs" / "language.md").read_text(encoding="utf-8")
#: (what the page says of a block in a comment above it, the block)
BLOCKS = re.findall(r"(?:<!-- ([a-z0-9-]+) -->\n)?```circ\n(.*?)```", PAGE, re.DOTALL)
STEPS = [text for kind, text in BLOCKS if kind == "step"]
#: what a block that is a part of a spec is a part of
AROUND = {
    "": "",
    "gpt2": """circuit around
model "gpt2"
task ioi(corrupt = abc)
heads inhibition = 7.3 7.9 8.6 8.10 at END
heads mover = 9.6 9.9 10.0 at END
heads backup = 9.0 10.1 at END role backup_mover
""",
    "pocket": 'circuit around\nmodel "pocket"\ntask ioi(corrupt = abc)\n',
    "gpt2-medium": 'circuit around\nmodel "gpt2-medium"\ntask colored_objects(corrupt = query)\n',
}
LAB = "role reader\n  expect attention(self, END -> IO) >= 5%\n"


def test_the_page_has_its_tutorial_and_its_examples() -> None:
    assert len(STEPS) == 10
    assert len(BLOCKS) >= 22


@pytest.mark.parametrize(("kind", "text"), [b for b in BLOCKS if b[0] != "step"])
def test_examples_are_right(kind: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "lab_roles.circ").write_text(LAB)
    spec = tmp_path / "spec.circ"
    spec.write_text(AROUND[kind] + text)
    found = load(spec).diagnostics
    assert [d.message for d in found if d.severity == "error"] == []


@pytest.mark.parametrize("text", [text for _, text in BLOCKS])
def test_examples_are_in_the_canonical_layout(text: str) -> None:
    assert format_text(text) == text


def test_what_the_tutorial_claims_holds() -> None:
    spec = loads("\n".join(STEPS), "mine.circ")
    assert spec.diagnostics == ()
    report = spec.verify()
    assert isinstance(report, Report)
    assert [(c.line, c.text, c.reason) for c in report.claims if c.verdict != "holds"] == []


def test_all_reserved_words_are_listed() -> None:
    (listed,) = re.findall(r"(?:^> .*\n)+", PAGE, re.MULTILINE)
    assert sorted(KEYWORDS) == listed.replace(">", " ").split()


def test_codes_named_on_the_page_exist() -> None:
    assert set(re.findall(r"\b([EWN]\d{3})\b", PAGE)) <= set(codes())
