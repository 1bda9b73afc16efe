"""Documents say what is so: no gaps, no dead links, and the specs they show are the ones that ship."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import loads, shipped_specs
from circuitdsl.circuit.shapes import EMBEDDED
from tests.site_scripts import HOOKS

ROOT = Path(__file__).parent.parent
CARDS = [directory / "README.md" for directory in EMBEDDED.values()]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CARDS]


@pytest.mark.parametrize("page", PAGES, ids=[page.parent.name + "/" + page.name for page in PAGES])
def test_a_page_has_no_gaps_and_no_dead_links(page: Path) -> None:
    text = page.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            made = page.parent.name == "docs" and target in HOOKS.pages()
            assert made or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(
    "page", [*(page for page in PAGES if page not in CARDS), ROOT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_lines_of_a_page_have_at_most_120_characters(page: Path) -> None:
    """Tables and blocks of code are as wide as they are."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|")] == []


#: language.md shows parts of specs, and has tests of its own
WHOLE = [page for page in PAGES if page.name != "language.md"]


@pytest.mark.parametrize("page", WHOLE, ids=[page.parent.name + "/" + page.name for page in WHOLE])
def test_specs_in_a_page_are_right(page: Path) -> None:
    for text in re.findall(r"```circ\n(.*?)```", page.read_text(), re.DOTALL):
        assert loads(text).ok, loads(text).diagnostics


def test_the_readme_shows_lines_of_the_spec_that_ships() -> None:
    shown = re.search(r"```circ\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shipped = iter((shipped_specs() / "pocket-deep" / "ioi.circ").read_text().splitlines())
    assert shown and all(line in shipped for line in shown[1].splitlines())


def test_the_guide_shows_the_spec_that_ships() -> None:
    shipped = (shipped_specs() / "pocket-deep" / "ioi.circ").read_text().strip()
    assert shipped in (ROOT / "docs" / "guide.md").read_text()


@pytest.mark.parametrize("path", sorted(shipped_specs().rglob("*.circ")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_specs_pass_check(path: Path) -> None:
    spec = loads(path.read_text(), str(path))
    assert spec.ok, [d.message for d in spec.diagnostics]
    assert spec.circuits


def test_the_readme_has_a_row_for_every_verb_with_options_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    rows = dict(re.findall(r"^\| `circuitdsl (\w+)(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE))
    with pytest.raises(SystemExit):
        cli.run(["--help"])
    assert sorted(rows) == sorted(re.findall(r"^    (\w+) +\S", capsys.readouterr().out, re.MULTILINE))
    for verb, row in rows.items():
        for words in ([verb], *([verb, inner] for inner in re.findall(rf"{verb} ([a-z]+)", row))):
            with pytest.raises(SystemExit):
                cli.run([*words, "--help"])
        taken = capsys.readouterr().out
        assert [option for option in re.findall(r"(?<=[ `])--?[a-z]+\b", row) if option not in taken] == []
