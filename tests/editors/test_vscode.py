"""The VS Code extension: its grammar knows the language, and it can be built where node is at hand."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from circuitdsl.language.parse import parse
from circuitdsl.version import __version__
from tests.conftest import ROOT

EXTENSION = ROOT / "editors" / "vscode"
LONG = bool(os.environ.get("CIRCUITDSL_LONG"))


def read(name: str) -> dict:
    return json.loads((EXTENSION / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected() -> dict:
    return runpy.run_path(str(EXTENSION / "test" / "expected.py"))


def test_the_grammar_lists_every_keyword(expected: dict) -> None:
    """The function compares them with those of the language."""
    assert len(expected["keyword_scopes"]()) > 60


def test_every_shipped_spec_says_what_its_words_are(expected: dict) -> None:
    specs = sorted((ROOT / "specs").rglob("*.circ"))
    texts = [expected["expectations"](path) for path in specs]
    words = sum(text.count("\n#") for text in texts)
    assert words > 4000


def test_versions_and_files_agree() -> None:
    package = read("package.json")
    assert package["version"] == __version__
    contributed = package["contributes"]
    named = [package["icon"], contributed["grammars"][0]["path"], contributed["snippets"][0]["path"]]
    assert all((EXTENSION / name).is_file() for name in named)
    assert package["contributes"]["languages"][0]["extensions"] == [".circ"]
    assert "resolved" not in (EXTENSION / "package-lock.json").read_text()


@pytest.mark.parametrize("name", read("snippets/circ.json"))
def test_a_snippet_is_read_without_errors(name: str) -> None:
    body = read("snippets/circ.json")[name]["body"]
    text = body if isinstance(body, str) else "\n".join(body)
    text = re.sub(r"\$\{\d+\|((?:[^,\\]|\\.)*).*?\|\}", lambda found: found[1].replace("\\", ""), text)
    text = re.sub(r"\$\{\d+:([^}]*)\}", r"\1", text)
    text = re.sub(r"\$\d+", "x", text.replace("$0", ""))
    assert "$" not in text
    _, found = parse(text)
    assert found == ()


def test_it_is_tested_and_packed_by_node(tmp_path: Path) -> None:
    """`npm test` holds the grammar to every shipped spec."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no node here")
    if not (EXTENSION / "node_modules").is_dir():
        if not LONG:
            pytest.skip("the packages of node are not installed: npm ci, or CIRCUITDSL_LONG=1")
        done = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=EXTENSION, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm ci cannot install: {done.stderr[-200:]}")
    env = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    tested = subprocess.run([npm, "test"], cwd=EXTENSION, capture_output=True, text=True, env=env)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert tested.stdout.count("run successfuly") == 1 + len(list((ROOT / "specs").rglob("*.circ")))
    made = tmp_path / "circ.vsix"
    vsce = [str(EXTENSION / "node_modules" / ".bin" / "vsce"), "package", "--no-dependencies", "-o", str(made)]
    packed = subprocess.run(vsce, cwd=EXTENSION, capture_output=True, text=True)
    assert packed.returncode == 0, packed.stdout + packed.stderr
    assert 50_000 < made.stat().st_size < 1_000_000
