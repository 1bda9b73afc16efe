"""The table on a terminal, as a page and as lines; stability; the dry run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scipy.stats import binomtest

from circuitdsl.cli.terminal import console
from circuitdsl.matrix.cell import Cell, ClaimRow, Record
from circuitdsl.matrix.page import page
from circuitdsl.matrix.results import Results, index
from circuitdsl.matrix.shown import show
from circuitdsl.matrix.stability import stability, wilson
from circuitdsl.matrix.storage import Directory, InMemory
from circuitdsl.matrix.table import csv_text, table
from circuitdsl.report.formats import View
from circuitdsl.report.screen import Screen
from circuitdsl.visible import json_text
from tests.hostile.texts import TEXTS, commands, unseen
from tests.matrix.conftest import run


def record(model: str, seed: int | None, outcomes: str, task: str = "", own: str | None = "t", **more) -> Record:
    """A cell whose claims, from line 1 on, have outcomes as a word of their first letters says."""
    words = {"h": "holds", "f": "fails", "u": "undecided", "e": "error", "n": "not applicable"}
    rows = tuple(
        ClaimRow(
            "c", line, f"claim {line}", None if letter == "n" else own, words[letter], f"why {line}", "effect", -0.5
        )
        for line, letter in enumerate(outcomes, start=1)
    )
    cell = Cell("a.circ", model, task=task, seed=seed, options=more.pop("options", {}))
    return Record(cell, more.pop("state", "done"), rows, **more)


RECORDS = (
    record("one", 0, "hfu", report="reports/x.json"), record("one", 10, "hhe"), record("two", 0, "hnn"),
    record("two", 10, "", state="failed", error="no such file", hint="make it"),
)  # fmt: skip


def text_of(records: Sequence[Record], width: int = 120) -> str:
    return View(lambda: Screen(width=width, no_color=True, color_system=None)).text(
        [lambda console: show(table(records), console)]
    )


def test_the_table_has_a_sign_for_each_claim_and_seed() -> None:
    lines = [line.rstrip() for line in text_of(RECORDS).splitlines()]
    assert lines[0] == "a.circ"
    assert lines[1].split() == ["one", "two"] and lines[2].split() == ["t", "t"]
    assert [line.split() for line in lines[3:8]] == [
        ["claim,", "and", "seeds", "0", "10", "0", "10"],
        ["all", "claims", "!"],
        ["1", "claim", "1", "✓", "✓", "✓"],
        ["2", "claim", "2", "✗", "✓", "–"],
        ["3", "claim", "3", "?", "!", "–"],
    ]
    said = "\n".join(lines)
    assert "failed  a.circ on two, seed 10: no such file" in said and "help: make it" in said
    assert "! a.circ on one: why 3: line 3" in said and "– a.circ on two: why 2: line 2" in said
    assert lines[-1].strip() == "4 cells, 1 of them failed: 4 hold, 1 fails, 1 undecided, 1 error, 2 not applicable"


def test_what_does_not_fit_stands_below(width: int = 70) -> None:
    records = [record(f"a model with a name {number}", seed, "hf") for number in range(5) for seed in range(3)]
    lines = text_of(records, width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert sum("claim, and seeds" in line for line in lines) > 1
    assert sum(line.count("✓") for line in lines[:-3]) == 15


def test_more_seeds_than_fit_stand_below_too(width: int = 80) -> None:
    records = [record(model, seed, "hf") for model in ("one", "two") for seed in range(40)]
    lines = text_of(records, width).splitlines()
    assert all(len(line) <= width for line in lines) and "…" not in "".join(lines)
    assert sum(line.count("✓") for line in lines[:-3]) == sum(line.count("✗") for line in lines[:-3]) == 80
    seeds = [word for line in lines if "claim, and seeds" in line for word in line.split()[3:]]
    assert seeds == [str(seed) for seed in range(40)] * 2


def test_a_piece_has_no_rows_of_claims_that_were_not_asked_in_it() -> None:
    records = [record("a model of some length", 0, "h"), record("another, of more length", 0, "", state="failed")]
    lines = text_of(records, 70).splitlines()
    assert sum("claim, and seeds" in line for line in lines) == 2
    assert sum("all claims" in line for line in lines) == sum("  claim 1" in line for line in lines) == 1


def test_the_index_has_a_line_for_each_cell() -> None:
    lines = index(RECORDS).splitlines()
    assert len(lines) == len(RECORDS) + 2
    found = [json.loads(line.rstrip(","))["claims"] for line in lines[1:-1]]
    assert [claims["holds"] for claims in found] == [1, 2, 1, 0]


def test_cells_of_other_options_are_other_columns() -> None:
    shown = text_of([record("one", 0, "h"), record("one", 0, "f", options={"prompts": 5, "full": True})])
    assert "prompts = 5, full = true" in shown
    assert re.search(r"claim 1 +✓ +✗", shown)
    alike = text_of([record("one", seed, "h", options={"prompts": 5}) for seed in (0, 1)])
    assert alike.splitlines()[0].rstrip() == "a.circ  prompts = 5"


def test_where_only_ascii_can_be_written_signs_differ() -> None:
    written = "✓✗?!–".encode("ascii", "circuitdsl.plain").decode()
    assert len(set(written)) == 5 and written.isascii()


def test_lines_have_the_figures(lab: Path) -> None:
    lines = csv_text(RECORDS).splitlines()
    assert lines[0].startswith("spec,circuit,line,claim,model,task,seed,options,outcome,figure,value,low,high,unit")
    assert lines[1] == "a.circ,c,1,claim 1,one,t,0,,holds,effect,-0.5,,,,why 1,reports/x.json"
    assert lines[-1] == "a.circ,,0,all claims,two,,10,,error,,,,,,no such file,"


class Tags(HTMLParser):
    """What a page is made of, without its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))


def test_the_page_links_to_reports_and_says_why() -> None:
    text = page(table(RECORDS))
    assert "<a href='reports/x.json'>" in text and 'title="fails: effect −0.50. why 2"' in text
    assert "no such file" in text and "make it" in text
    assert "<script" not in text and "default-src 'none'" in text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_texts_change_no_view(text: str) -> None:
    def made(text: str) -> tuple[Record, ...]:
        row = ClaimRow(f"c{text}", 3, text, f"t{text}", "fails", text, text, 0.5, (0.1, 0.9), text)
        cell = Cell(f"s{text}", f"m{text}", task=text, seed=1)
        failed = Record(cell, "failed", (), "", f"e{text}", f"h{text}", (text,))
        return Record(cell, "done", (row,), text), failed

    harmless, hostile = made("zzz"), made(text)
    assert Tags(page(table(hostile))).found == Tags(page(table(harmless))).found
    for written in (page(table(hostile)), text_of(hostile), View(console).text([stability(hostile).show])):
        assert not unseen(written) and not commands(written)
    assert len(list(csv.reader(io.StringIO(csv_text(hostile), newline="")))) == 3
    for body in (hostile[1].to_json(), json.loads(index(hostile))):
        shown = json_text(body, indent=1)
        assert not unseen(shown) and not commands(shown) and json.loads(shown) == json.loads(json.dumps(body))


# --- stability ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "of"), [(0, 5), (5, 5), (3, 7), (40, 50), (1, 1)])
def test_the_interval_is_wilsons(held: int, of: int) -> None:
    theirs = binomtest(held, of).proportion_ci(method="wilson")
    assert wilson(held, of) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_how_often_each_claim_holds() -> None:
    found = {each.line: each for each in stability(RECORDS).claims}
    assert (found[1].held, found[1].asked, found[1].models) == (3, 3, {"one": (2, 2), "two": (1, 1)})
    assert (found[2].held, found[2].asked, found[2].share) == (1, 2, 0.5)
    assert found[2].outcomes == {"fails": 1, "holds": 1, "not applicable": 1}
    assert (found[3].held, found[3].asked) == (0, 1)
    nowhere = stability([record("one", 0, "n")]).claims[0]
    assert (nowhere.share, nowhere.ci, nowhere.asked) == (None, None, 0)


def test_stability_of_a_directory_and_of_specs(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify ioi.circ --model pocket --model small --seed 0 --seed 1 --results r") in (0, 1)
    capsys.readouterr()
    assert run("stability r --format json") == 0
    body = json.loads(capsys.readouterr().out)
    records = Results(Directory(lab / "r")).records()
    for claim in body["claims"]:
        mine = [row.outcome for r in records for row in r.claims if row.line == claim["line"]]
        assert claim["held"] == mine.count("holds")
        assert claim["asked"] == len(mine) - mine.count("not applicable") - mine.count("error")
    assert body["cells"] == 4
    assert run("stability r --model small --seed 1 --format json") == 0
    assert json.loads(capsys.readouterr().out)["cells"] == 1
    assert run("stability ioi.circ --model pocket --seed 0 --seed 1") == 0
    assert re.search(r"6  early -> logits at END : lowers +2/2 +2/2 +100 %  \[34, 100\]", capsys.readouterr().out)


def test_stability_without_cells_says_so(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify ioi.circ --results r") in (0, 1)
    assert run("stability r --seed 7") == 3
    assert run("stability nowhere") == 2
    (lab / "empty").mkdir()
    assert run("stability empty") == 2


# --- what it will take ------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_takes_and_does_nothing(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lab / "circuitdsl.toml").write_text(
        '[[run]]\nspecs = ["ioi.circ", "weights.circ"]\nmodels = ["pocket", "small"]\nseeds = [0, 1, 2]\n'
    )
    before = sorted(lab.iterdir())
    assert run("run --dry-run") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:5] for line in lines[1:5]] == [
        ["ioi.circ", "pocket", "cpu", "3", "1"],
        ["weights.circ", "pocket", "cpu", "3", "0"],
        ["ioi.circ", "small", "cpu", "3", "1"],
        ["weights.circ", "small", "3", "0", "0"],
    ]
    assert lines[5][:3] == ["all", "12", "6"]
    assert "CPU hours:" in " ".join(map(" ".join, lines)) and "GPU" not in " ".join(map(" ".join, lines))
    assert sorted(lab.iterdir()) == before


def test_results_in_memory_end_with_the_process() -> None:
    kept = Results(InMemory())
    assert kept.keys() == frozenset() and kept.records() == []
