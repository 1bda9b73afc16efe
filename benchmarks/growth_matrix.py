"""Growth with the cells of a matrix: planning them, and what is made of their results at the end of a run."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

from benchmarks.growth import ROOT, Case, Figure
from circuitdsl.matrix.cell import Cell, ClaimRow, Outcome, Record
from circuitdsl.matrix.config import read
from circuitdsl.matrix.planning import plan
from circuitdsl.matrix.results import Results, report_name
from circuitdsl.matrix.storage import Directory
from circuitdsl.models.load import POCKET

SPECS, MODELS, SEEDS = 10, 10, 100
CELLS = SPECS * MODELS * SEEDS
SPEC = """circuit s{number}
model "pocket"
task ioi
heads early = 0.3 0.5 0.6 at END
heads late  = 2.4 2.5 at END
early -> logits at END : lowers
late -> logits at END : effect <= 50%
0.3 -> late.q at END : effect <= -1.7%
0.5 -> late.q at END : effect <= -1.7%
0.6 -> late.q at END : effect <= -1.7%
expect logit_diff >= 12
expect attention(early, END -> S2) >= 10%
expect attention(late, END -> IO) >= 10%
expect accuracy >= 90%
expect faithfulness >= 5%
"""
CLAIMS = [(line, text) for line, text in enumerate(SPEC.splitlines(), start=1) if ":" in text or "expect" in text]
#: plans the cells or runs a command line; the last line says the exit status, CPU seconds and kilobytes at the most
METERED = """import sys, time
from pathlib import Path
from circuitdsl import cli
if sys.argv[1:] == ["plan"]:
    from circuitdsl.matrix.config import read
    from circuitdsl.matrix.planning import plan
    status = len(plan(read(Path("circuitdsl.toml")).runs)) < 10_000
else:
    status = cli.run(sys.argv[1:])
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(f"\\n{status:d}", time.process_time(), peak)
"""


def lab(folder: Path) -> Path:
    """A configuration of 10,000 cells."""
    for number in range(SPECS):
        (folder / f"s{number}.circ").write_text(SPEC.format(number=number))
    for number in range(MODELS):
        shutil.copytree(POCKET, folder / f"model-{number}")
    run = {"specs": ["*.circ"], "models": [f"./model-{number}" for number in range(MODELS)]}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in run.items())
    (folder / "circuitdsl.toml").write_text(f"[[run]]\n{lines}\nseeds = {list(range(SEEDS))}\n")
    return folder


#: what becomes of claims, as often as each stands here
BECOMES: tuple[Outcome, ...] = ("holds",) * 8 + ("fails", "undecided")


def verified(cell: Cell) -> Record:
    """What might become of a cell."""
    draw = random.Random(cell.key)
    rows = []
    for line, text in CLAIMS:
        value = draw.uniform(-1, 1)
        outcome = draw.choice(BECOMES)
        why = "the interval lies on the side that is claimed"
        rows.append(ClaimRow("s", line, text, "ioi", outcome, why, "effect", value, (value - 0.1, value + 0.1), "gap"))
    return Record(cell, "done", tuple(rows), report_name(cell), seconds=1.5, finished="2026-12-01T00:00:00.000+00:00")


def metered(folder: Path, *arguments: str) -> tuple[float, float]:
    """CPU seconds and peak MB of a command of which claims may fail, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", METERED, *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    status, seconds, peak = done.stdout.splitlines()[-1].split() if done.stdout else ("3", "0", "0")
    if done.returncode or int(status) > 1:
        raise SystemExit(done.stdout[-2000:] + done.stderr)
    return float(seconds), int(peak) * 1024 / 1e6


def planned(folder: Path) -> list[Figure]:
    """From the configuration to cells, with hashes of their specs and models."""
    seconds, peak = metered(lab(folder), "plan")
    return [Figure("whole process", seconds, "CPU s", 5.0), Figure("peak", peak, "MB", 500)]


def ended(folder: Path) -> list[Figure]:
    """A run of which all cells are done: their records are read, and table, page, lines and index are made."""
    with chdir(lab(folder)):
        results = Results(Directory(Path("circuitdsl-results")))
        for cell in plan(read(Path("circuitdsl.toml")).runs):
            results.keep(verified(cell))
    seconds, peak = metered(folder, "run", "--resume")
    steady, most = metered(folder, "stability", "circuitdsl-results")
    return [
        Figure("`run --resume`, whole process", seconds, "CPU s", 5.0),
        Figure("peak", peak, "MB", 300),
        Figure("`stability`, whole process", steady, "CPU s", 5.0),
        Figure("peak", most, "MB", 300),
    ]


CASES = (
    Case("matrix_planned", f"{CELLS:,} cells planned, {SPECS} specs × {MODELS} models × {SEEDS} seeds", planned),
    Case("matrix_ended", f"the end of a run of {CELLS:,} cells with {len(CLAIMS)} claims each", ended),
)
