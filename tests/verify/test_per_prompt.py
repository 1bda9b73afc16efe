"""`verify --per-prompt`: the numbers behind a report; `--memory`: sizes as people write them."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.cli.arguments import size

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


def test_every_number_is_there_and_gives_the_report(specs, tmp_path: Path) -> None:
    table, report = tmp_path / "n.csv", tmp_path / "r.json"
    options = ("--no-early-stop", "--per-prompt", str(table), "-o", str(report))
    assert cli.run(["verify", *specs, *options]) == 0
    rows = list(csv.DictReader(table.open()))
    assert {row["circuit"] for row in rows} == {"a", "b"}
    for found in json.loads(report.read_text()):
        for claim in found["claims"]:
            mine = [r for r in rows if (r["circuit"], r["claim"]) == (found["spec"]["circuit"], claim["id"])]
            assert len({r["prompt"] for r in mine}) == claim["measured"]["n"] == 40
            assert all(r["clean_text"] and r["stratum"] for r in mine)
            assert all(r["corrupt_text"] and not r["file_line"] for r in mine)
            key = "effect" if claim["measured"]["name"] == "effect" else "value"
            means = []
            for member in dict.fromkeys(r["member"] for r in mine):
                numbers = [float(r[key]) for r in mine if r["member"] == member]
                assert len(numbers) == 40
                means.append(sum(numbers) / 40)
            assert any(mean == pytest.approx(claim["measured"]["value"], abs=1e-6) for mean in means)
            for member in claim["members"]:
                assert any(mean == pytest.approx(member["effect"], abs=1e-6) for mean in means)


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
