"""`verify --per-prompt`: the numbers behind a report; `--memory`: sizes as people write them."""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.cli.arguments import size
from circuitdsl.verify.per_prompt import PerPrompt

SPEC = """circuit {name}
model "pocket"
task ioi(prompts = 40)
heads mover = 2.4 2.5 at END
each mover -> logits at END : effect in [-50%, 50%]
mover -> m3 at END : effect in [-50%, 50%]
expect denoise(mover) : effect >= -50%
expect attention(mover, END -> IO) >= 10%
expect accuracy >= 50%
"""


@pytest.fixture
def specs(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.circ").write_text(SPEC.format(name=name))
    return [str(tmp_path / "a.circ"), str(tmp_path / "b.circ")]


def means(rows: list[dict[str, str]], column: str, *by: str) -> dict[tuple[str, ...], float]:
    """`groupby(by)[column].mean()`: what is empty is left out."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row[column]:
            groups.setdefault(tuple(row[name] for name in by), []).append(float(row[column]))
    return {key: sum(found) / len(found) for key, found in groups.items()}


def test_every_number_is_there_and_gives_the_report(specs, tmp_path: Path) -> None:
    table, report = tmp_path / "n.csv", tmp_path / "r.json"
    options = ("--no-early-stop", "--per-prompt", str(table), "--per-prompt-pairs", "-o", str(report))
    assert cli.run(["verify", *specs, *options]) == 0
    rows = list(csv.DictReader(table.open()))
    assert {row["circuit"] for row in rows} == {"a", "b"}
    for found in json.loads(report.read_text()):
        for claim in found["claims"]:
            mine = [r for r in rows if (r["circuit"], r["claim"]) == (found["spec"]["circuit"], claim["id"])]
            assert len({r["prompt"] for r in mine}) == claim["measured"]["n"] == 40
            assert all(r["clean_text"] and r["stratum"] for r in mine)
            assert all(r["corrupt_text"] and not r["file_line"] for r in mine)
            assert len(mine) == 40 * max(1, len(claim["members"]) + (claim["line"] == 6))
            one = [r for r in mine if r["row"] == "figure"]
            assert len(one) == 40
            assert means(one, "figure", "line") == {(str(claim["line"]),): pytest.approx(claim["measured"]["value"])}
            effects = means(mine, "effect", "member").values()
            for member in claim["members"]:
                assert any(mean == pytest.approx(member["effect"], abs=1e-6) for mean in effects)


#: a claim of every kind that is decided by runs of the prompts
KINDS = """circuit kinds
model "pocket"
task ioi(prompts = 64)
heads mover = 2.4 2.5 at END
heads suppressor = 0.3 0.5 0.6 at END
suppressor -> logits at END : lowers
suppressor -> logits at END
each suppressor -> logits at END : effect <= -1%
suppressor -> mover.q at END : effect in [-50%, 50%] and delta >= -9
suppressor -> logits at END : delta <= -1
suppressor -> logits at END : stronger than mover -> logits at END
expect knockout(suppressor) : lowers
expect denoise(suppressor) : effect >= -50%
expect attention(mover, END -> IO) >= 10%
expect entropy(mover, END) >= 0
expect attribution(suppressor) >= -99
expect copying(mover) >= 1%
expect role(mover)
expect accuracy >= 50%
expect accuracy above chance
expect logit_diff >= 1
expect faithfulness >= -100%
expect faithfulness(form = wang) >= 0
expect incompleteness <= 100%
expect minimality >= 0%
expect sufficiency >= 0%
when suppressor -> logits at END is patched
  expect logit_diff falls
  expect attention(mover, END -> IO) falls
  expect knockout(mover) : effect in [-50%, 50%]
"""


@pytest.mark.parametrize("early", [True, False])
def test_the_obvious_mean_is_the_figure_of_every_kind_of_claim(pocket, early: bool) -> None:
    import circuitdsl

    table = circuitdsl.PerPrompt()
    spec = circuitdsl.loads(KINDS)
    assert spec.ok, spec.problems
    with circuitdsl.Session(pocket) as session:
        report = session.verify(spec, per_prompt=table, early_stop=early)
    rows = list(csv.DictReader(table.to_csv().splitlines()))
    assert {row["row"] for row in rows} == {"figure"}
    counts = {line: sum(row["line"] == line for row in rows) for line in {row["line"] for row in rows}}
    figures, effects = means(rows, "figure", "line"), means(rows, "effect", "line")
    for claim in report.claims:
        line = str(claim.line)
        assert claim.measured, claim.text
        if claim.text == "expect sufficiency >= 0%":  # a rank among circuits is of no prompt
            assert (line,) not in figures
            continue
        assert counts[line] == claim.measured.n, claim.text
        assert figures[line,] == pytest.approx(claim.measured.value, abs=1e-9), claim.text
        if claim.measured.unit == "gap":
            assert effects[line,] == pytest.approx(claim.measured.value, abs=1e-9), claim.text


def test_pairs_are_asked_of_a_file(specs, capsys) -> None:
    assert cli.run(["verify", specs[0], "--per-prompt-pairs"]) == 2
    assert "name it with --per-prompt FILE.csv" in capsys.readouterr().err


def test_the_partner_that_was_drawn_is_named(tmp_path: Path) -> None:
    """By its corrupt text, and by its line in the file."""
    clean = "When Mary and John went to the store, John gave a drink to"
    partners = [clean.replace("John gave", f"{name} gave") for name in ("Mary", "Amy", "Emily", "David")]
    record = {"clean": clean, "answer": " Mary", "distractor": " John"}
    lines = [json.dumps(record | {"corrupt": corrupt}) for corrupt in partners]
    (tmp_path / "p.jsonl").write_text("\n\n".join(lines) + "\n")
    spec, table = tmp_path / "t.circ", tmp_path / "n.csv"
    spec.write_text('circuit t\nmodel "pocket"\ntask mine = file("p.jsonl")\nexpect logit_diff > 0\n')
    cli.run(["verify", str(spec), "--per-prompt", str(table)])
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0])[-2:] == ["corrupt_text", "file_line"]
    (row,) = rows
    assert int(row["file_line"]) in (1, 3, 5, 7)
    assert row["corrupt_text"] == partners[int(row["file_line"]) // 2]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_is_no_formula_of_a_spreadsheet(text: str) -> None:
    rows = PerPrompt()
    rows.append((text, -1.5, "1=1"))
    (cells,) = list(csv.reader(io.StringIO(rows.to_csv(), newline="")))[1:]
    assert cells == ["'" + text, "-1.5", "1=1"]


def test_a_place_that_cannot_be_written_is_said_before_anything_runs(specs, capsys) -> None:
    assert cli.run(["verify", specs[0], "--per-prompt", "/nowhere/n.csv"]) == 3
    assert "there is no folder /nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "bytes_"), [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("300m", 3 * 10**8)]
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["", "2", "GB", "-2GB", "2PB", "1e3GB", "nan", "2 G B", "1KB", "٢GB"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"size such as|too little"):
        size(text)


def test_little_memory_gives_the_same_numbers(specs, tmp_path: Path) -> None:
    found = []
    for options in ((), ("--memory", "16MB")):
        target = tmp_path / "r.json"
        assert cli.run(["verify", specs[0], "--no-cache", "-o", str(target), *options]) == 0
        found.append([claim["measured"]["value"] for claim in json.loads(target.read_text())["claims"]])
    assert found[0] == pytest.approx(found[1], abs=1e-5)
