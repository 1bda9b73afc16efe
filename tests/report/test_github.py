"""Annotations read by GitHub: one line each, escaped so that no claim can end or forge one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitdsl import cli
from circuitdsl.report.github import annotation
from circuitdsl.visible import visible

COMMAND = re.compile(r"::(error|warning|notice) ((?:\w+=[^,:\r\n]*,?)+)::([^\r\n]*)")


def read(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it."""
    found = COMMAND.fullmatch(line)
    assert found, line

    def plain(text: str) -> str:
        for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            text = text.replace(code, char)
        return text

    pairs = (pair.split("=", 1) for pair in found[2].split(","))
    return found[1], {key: plain(value) for key, value in pairs}, plain(found[3])


@given(st.text(), st.text(min_size=1), st.text())
def test_whatever_is_said_comes_back_whole(message: str, title: str, file: str) -> None:
    line = annotation("error", message, title, file, line=3)
    level, properties, said = read(line)
    assert (level, properties["line"], said) == ("error", "3", visible(message, "\n"))
    assert (properties["title"], properties.get("file", "")) == (visible(title), visible(file))
    assert len(line.splitlines()) == 1


@pytest.fixture
def run(pocket, capsys, tmp_path, monkeypatch):  # the model first, as a library keeps the stderr it is loaded under
    monkeypatch.chdir(tmp_path)

    def call(text: str, *arguments: str) -> tuple[int, list[tuple[str, dict[str, str], str]]]:
        Path("t.circ").write_text(text)
        status = cli.run(["verify", str(tmp_path / "t.circ"), "--format", "github", *arguments])
        return status, [read(line) for line in capsys.readouterr().out.splitlines() if line.startswith("::")]

    return call


SPEC = """circuit t
model "pocket"
task ioi(prompts = 64)
heads suppressor = 0.3 0.5 0.6 at END
suppressor -> logits at END : lowers
expect attention(suppressor, END -> S2) >= 99%
"""


def test_claims_that_do_not_hold_are_annotated_where_they_stand(run) -> None:
    status, found = run(SPEC)
    assert status == 1
    ((level, properties, message),) = found
    assert level == "error"
    assert properties == {"file": "t.circ", "line": "6", "title": "fails: t on ioi"}
    assert message.startswith("expect attention(suppressor, END -> S2) >= 99%\nattention ")
    assert message.endswith("is below 99 %")


def test_undecided_is_a_warning_where_it_is_allowed(run) -> None:
    text = SPEC.replace("99%", "93%").replace("64", "32")
    assert run(text)[1][0][0] == "error"
    status, ((level, properties, _),) = run(text, "--allow-undecided")
    assert (status, level) == (0, "warning")
    assert properties["title"] == "undecided: t on ioi"


def test_mistakes_are_annotated_with_their_columns(run) -> None:
    status, ((level, properties, message),) = run(SPEC.replace("suppressor -> logits", "supressor -> logits"))
    assert (status, level) == (2, "error")
    assert properties["title"] == "E040"
    assert (properties["line"], properties["col"], properties["endColumn"]) == ("5", "1", "9")
    assert "did you mean 'suppressor'?" in message
