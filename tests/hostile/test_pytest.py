"""Hostile specs as tests of pytest: what it prints and the JUnit XML that it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.hostile.inputs import HEAD
from tests.hostile.texts import TEXTS, commands, unseen


@pytest.mark.long
def test_what_pytest_prints_and_writes(tmp_path: Path) -> None:
    texts = [text for text in TEXTS.values() if text.isprintable() and '"' not in text] + ["a\u200b\u200f\ufeff\u2028b"]
    titles = "".join(f'expect logit_diff >= {900 + i} "{text}"\n' for i, text in enumerate(texts))
    (tmp_path / "held.circ").write_text(HEAD + titles)
    (tmp_path / "wrong.circ").write_text(HEAD + "expect acuracy \x1b[2J \u202e >= 5%\n")
    (tmp_path / "x\x1b[2J\u202e.circ").write_text(HEAD + "expect logit_diff >= 900\nexpect acuracy\n")
    (tmp_path / "own.circ").write_text(HEAD.replace("ioi(prompts = 4)", 'file("\u200b::error::x ##[y]")') + titles)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:pytest-lsp",
        "--continue-on-collection-errors",
    ]
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [*command, "--junitxml=out.xml", "--circ-device=cpu", "-c", "pytest.ini", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert not unseen(done.stdout + done.stderr), unseen(done.stdout + done.stderr)
    assert not commands(done.stdout), commands(done.stdout)
    written = (tmp_path / "out.xml").read_text()
    assert not unseen(written)
    cases = ElementTree.fromstring(written).findall(".//testcase")
    assert sum(case.find("failure") is not None for case in cases) >= len(texts)
    assert all({each.tag for each in case} <= {"failure", "error", "skipped"} for case in cases)
