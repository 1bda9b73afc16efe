"""Every file in `fixtures/errors` is a spec with the diagnostics it must give, each below its line:

#~ CODE COLUMN-END: MESSAGE

Warnings of what is surely not meant are looked for in the files named `warn_…`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitdsl.language.diagnostics import START, codes

CASES = sorted((Path(__file__).parent.parent / "fixtures" / "errors").glob("*.circ"))
SOURCES = Path(__file__).parent.parent.parent / "circuitdsl"


def expected(text: str) -> list[str]:
    found, line = [], 0
    for number, written in enumerate(text.split("\n"), 1):
        if written.startswith("#~ "):
            code, columns, message = written[3:].split(" ", 2)
            found.append(f"{line}:{columns} {code} {message}")
        else:
            line = number
    return found


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_each_mistake_is_reported_once_at_its_place(path: Path, resolved: Callable[..., Any]) -> None:
    text = path.read_text(encoding="utf-8")
    _, found = resolved(text, warn=path.stem.startswith("warn_"))
    said = [f"{d.span.line}:{d.span.column}-{d.span.end_column}: {d.code} {d.message}" for d in found]
    assert said == expected(text)


def test_there_are_enough_cases_and_each_expects_something() -> None:
    texts = [path.read_text(encoding="utf-8") for path in CASES]
    assert len(CASES) >= 80
    assert all("#~ " in text for text in texts)


EXAMPLE_PRELUDE = """\
circuit ioi
model "gpt2"
task ioi(corrupt = abc)
task colored = colored_objects(corrupt = object)
heads duplicate  = 0.1 0.10 3.0   at S2
heads inhibition = 7.3 8.6        at END
heads mover      = 9.6 9.9 10.0   at END
"""
#: examples that are about a file without the prelude, or with less of it
WITHOUT = {
    "E004": "",
    "E090": "task ioi\n",
    "E093": "circuit x\ntask ioi\nheads mover = 9.9 at END outside\n",
    "E091": "circuit x\nheads mover = 9.9 at END\n",
    "E062": "circuit x\n",
    "E063": "circuit x\ntask ioi\n",
    "W003": "circuit x\ntask ioi\nheads mover = 9.9 at END\n",
}


#: found by looking at the whole spec
LINT = ("W001", "W002", "W003", "W004")


@pytest.mark.parametrize("code", [c for c in codes().values() if c.example], ids=lambda code: code.code)
def test_every_documented_example_gives_its_code(code: Any, resolved: Callable[..., Any]) -> None:
    text = WITHOUT.get(code.code, EXAMPLE_PRELUDE) + code.example + "\n"
    _, found = resolved(text, notes=True, warn=code.code in LINT)
    expected = [d.code for d in found if d.severity != "note" or code.code[0] == "N"]
    assert [c for c in expected if c != "W003" or code.code == c] == [code.code]


def test_every_code_in_the_sources_is_documented() -> None:
    folders = (SOURCES / "language", SOURCES / "circuit", SOURCES / "measurements")
    sources = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py"))
    used = set(re.findall(r'"([EWN]\d\d\d)"', sources))
    assert used == set(codes())


def test_a_code_can_be_explained() -> None:
    page = codes()["E040"]
    assert (page.code, page.title) == ("E040", "an unknown group")
    assert page.explanation
    assert "inhibiton -> mover.q at END" in page.example.split("\n")
    assert "E999" not in codes()


def test_all_errors_of_a_file_come_in_one_go_and_in_order(resolved: Callable[..., Any]) -> None:
    _, found = resolved(
        "circuit ioi\nmodel 'gpt2'\ntask iou\nheads mover = 9.12 at END\nmover -> loggits\nexpect accuracy >= 150%\n"
    )
    assert [(d.span.line, d.code) for d in found] == [(2, "E010"), (3, "E042"), (4, "E060"), (5, "E040"), (6, "E081")]


def test_an_empty_file_is_one_error_at_its_start(resolved: Callable[..., Any]) -> None:
    for text in ("", "\n\n", "# only a comment\r\n", "\ufeff"):
        _, found = resolved(text)
        assert [(d.code, d.span) for d in found] == [("E004", START)]
