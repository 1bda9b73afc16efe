"""Specs typed character by character: whatever stands there, every question has an answer, and it is of this text."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from circuitdsl.language import parse
from circuitdsl.language import syntax as s
from circuitdsl.language.parse import Read
from circuitdsl.lsp.colours import colours
from circuitdsl.lsp.completion import complete
from circuitdsl.lsp.document import Document, read
from circuitdsl.lsp.files import from_disk
from circuitdsl.lsp.hover import hover
from circuitdsl.lsp.navigation import definitions, references
from circuitdsl.lsp.outline import folds, outline
from circuitdsl.lsp.rename import CannotRename, rename
from circuitdsl.lsp.verdicts import hints, lenses
from tests.conftest import ROOT
from tests.drawing import examples

SPECS = sorted((ROOT / "specs").rglob("*.circ"))
POCKET = ROOT / "specs" / "pocket" / "ioi.circ"


def ask_everything(document: Document) -> None:
    """Every question, at the end of the text, where its author types."""
    row, column = len(document.rows), len(document.rows[-1]) + 1
    complete(document, row, column)
    hover(document, row, column)
    definitions(document, row, column, from_disk)
    references(document, row, column, from_disk, ())
    with suppress(CannotRename):
        rename(document, row, column, "other", from_disk)
    spans = [each.span for each in colours(document)]
    assert all(a[2:] <= b[:2] for a, b in pairwise(spans))
    outline(document), folds(document), hints(document, ()), lenses(document, ())
    for each in document.diagnostics:
        assert 1 <= each.span.line <= row and each.span.end_line <= row


@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_spec_is_typed(path: Path) -> None:
    text, before = path.read_text(encoding="utf-8"), Read()
    step = examples(211, 1)
    for length in range(len(text) % step, len(text) + 1, step):
        document = read(str(path), text[:length], before)
        ask_everything(document)
        if length % (step * 5) == len(text) % step:
            fresh = read(str(path), text[:length])
            assert document.diagnostics == fresh.diagnostics
            assert document.circuits == fresh.circuits


def test_lines_are_inserted_and_deleted_anywhere() -> None:
    """What was read before serves only where the same text stands in the same place."""
    before, lines = Read(), POCKET.read_text(encoding="utf-8").splitlines()
    for number in range(0, len(lines), examples(9, 1)):
        for changed in (lines[:number] + lines[number + 1 :], [*lines[:number], "heads x = (1.1", *lines[number:]]):
            text = "\n".join(changed)
            assert read("x.circ", text, before).diagnostics == read("x.circ", text).diagnostics


def test_a_line_that_moves_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    statement = parse._statement
    monkeypatch.setattr(parse, "_statement", lambda line, sink: parsed.append(line) or statement(line, sink))
    lines, before = thousand_lines(), Read()
    lines[700:700] = ["expect attention(mover,", "  END -> IO) >= 3%"]
    read(str(POCKET), "\n".join(lines), before)
    for change in (["expect attention(mover, END -> IO) >= 2%", "", *lines[500:]], lines[503:]):
        parsed.clear()
        document = read(str(POCKET), text := "\n".join(lines[:500] + change), before)
        assert len(parsed) <= 1
        for one, fresh in zip(document.file.statements, read(str(POCKET), text).file.statements, strict=True):
            assert [each.span for each in s.walk(one)] == [each.span for each in s.walk(fresh)]


def thousand_lines() -> list[str]:
    """A spec of a thousand lines, no claim twice."""
    head, *_ = POCKET.read_text(encoding="utf-8").partition("# the names come")
    kinds = (
        "each embed -> suppressor.v at S2 : effect <= -{}%  # the names come in",
        "suppressor -> mover.q at END : matters and effect <= -{}%",
        "expect attention(suppressor, END -> S2) >= {}%",
        'expect knockout(suppressor + 1.0 - 0.3) : effect <= -{}%  "§3"',
    )
    top = head.rstrip("\n").split("\n")
    return top + [kinds[i % 4].format(i / 20) for i in range(1000 - len(top))]


def test_a_key_stroke_in_a_thousand_lines() -> None:
    """Seconds of the processor from a key stroke to its diagnostics."""
    lines, before, found = thousand_lines(), Read(), []
    read(str(POCKET), "\n".join(lines), before)
    for number in range(4):
        lines[500] += " "
        lines[501] = f"expect attention(mover, END -> IO) >= {number}.5%"
        text = "\n".join(lines)
        start = time.process_time()
        document = read(str(POCKET), text, before)
        found.append(time.process_time() - start)
        assert not [each for each in document.diagnostics if each.severity == "error"]
    assert min(found) < 0.25, found  # a tenth of a second where nothing else runs
