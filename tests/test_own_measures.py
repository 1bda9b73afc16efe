"""The package that docs/extending.md is about: installed as a user's is, and as the page shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.measurements import KINDS
from circuitdsl.testing import check_measurement
from tests.conftest import ROOT

PACKAGE = ROOT / "docs" / "examples" / "own-measures"
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed it."""
    target = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_the_page_shows_its_files() -> None:
    blocks = re.findall(r"```(?:toml|python|text)\n(.*?)```", PAGE, re.S)
    names = ("pyproject.toml", *(f"own_measures/{name}.py" for name in ("surprise", "loudness", "reader")), "own.circ")
    assert blocks == [(PACKAGE / name).read_text(encoding="utf-8") for name in names]


def test_its_spec_is_verified_as_the_page_says(site: Path, tmp_path: Path) -> None:
    given = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "CIRCUITDSL_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "circuitdsl", "verify", "own.circ"]
    done = subprocess.run(command, capture_output=True, text=True, env=given, cwd=PACKAGE)
    assert done.returncode == 0, done.stdout + done.stderr
    said = PAGE[PAGE.index("$ circuitdsl verify own.circ\n") :].split("\n", 1)[1].split("```")[0]
    for line in filter(None, (line.split("claims:")[0].strip(" …") for line in said.split("\n"))):
        assert line in done.stdout


def test_its_words_pass_the_battery(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(KINDS, "_words", dict(KINDS._words))
    monkeypatch.setattr(METRICS, "own", dict(METRICS.own))
    kind = KINDS.word("loudness")
    assert kind is not None and kind.__module__ == "own_measures.loudness"
    check_measurement(kind)
    assert METRICS["surprise"].falls
