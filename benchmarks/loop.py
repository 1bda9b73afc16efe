"""The seconds between an edit and its verdict, of whole processes, and what they are spent on.

    python -m benchmarks.loop --repeats 5 -o docs/loop.md

Each case begins with a cache of its own. Run it on an idle machine: it is the clock that a user feels.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from benchmarks.engine_page import Machine
from circuitdsl.ordinary import write_whole
from circuitdsl.verify.session import Session

SPEC = Path(__file__).parent.parent / "specs" / "pocket" / "ioi.circ"
EDGE = "\n3.1 -> logits at END : negligible\n"
PAGE = """# From an edit to its verdict

Written by `python -m benchmarks.loop -o docs/loop.md`; run it to measure your own machine.

Machine: {machine}.

Seconds on the clock, the shortest of {repeats} runs, of whole processes: `circuitdsl verify pocket/ioi` (25 claims,
256 prompts), or what the row says. Each case begins with a cache of its own. *Imports* are shares of the time,
measured in a run of their own.

| | seconds | aim | CPU seconds | imports: torch | numpy, scipy | others |
|---|---|---|---|---|---|---|
{rows}

A model is loaded by transformers and checked once; then it is remembered (`circuitdsl/models/record.py`). Importing
transformers takes {transformers:.1f} s here. Where every number is known, torch is not imported either. The pocket
model ships with what transformers says of it.
"""


@dataclass(frozen=True)
class Case:
    """What is run: the arguments after `python -m`, on a text; the cache of the first run is there where `known`."""

    name: str
    aim: float
    known: bool
    edit: Callable[[str], str] = str
    arguments: tuple[str, ...] = ("circuitdsl", "verify")


CASES = (
    Case("the first time", 4.0, known=False),
    Case("every number is known", 1.0, known=True),
    Case("a bound is edited", 1.5, known=True, edit=lambda text: text.replace("logit_diff >= 12", "logit_diff >= 11")),
    Case("an edge is edited", 2.5, known=True, edit=lambda text: text + EDGE),
    Case("`circuitdsl check`", 0.3, known=True, arguments=("circuitdsl", "check")),
    Case("`pytest`, every number is known", 2.0, known=True, arguments=("pytest", "-q", "-p", "no:xdist")),
    Case("`pytest` on no test", 0.0, known=True, arguments=("pytest", "-q", "-p", "no:xdist", "--collect-only", "-k-")),
)


def run(case: Case, folder: Path, known: Path, *flags: str) -> tuple[float, float, str]:
    """One process on a fresh copy of what is known: its seconds, its CPU seconds, its standard error."""
    cache, spec = folder / "cache", folder / "ioi.circ"
    shutil.rmtree(cache, ignore_errors=True)
    if case.known:
        shutil.copytree(known, cache)
    spec.write_text(case.edit(SPEC.read_text()))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"CIRCUITDSL_CACHE": str(cache), "PYTHONPYCACHEPREFIX": str(known.parent / "bytecode")}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, *flags, "-m", *case.arguments, str(spec)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1, 5), done.stderr
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stderr


def shares(importtime: str) -> tuple[float, float, float]:
    """The seconds of imports of torch, of numpy and scipy, and of everything else, from `-X importtime`."""
    found = {"torch": 0.0, "numpy": 0.0, "scipy": 0.0}
    rest = 0.0
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)$", importtime, re.MULTILINE):
        package = name.partition(".")[0]
        if package in found:
            found[package] += int(own) / 1e6
        else:
            rest += int(own) / 1e6
    return found["torch"], found["numpy"] + found["scipy"], rest


def watched(folder: Path) -> float:
    """Seconds from the save of an edited edge to its verdict, in a watch."""
    spec = folder / "watched.circ"
    spec.write_text(SPEC.read_text())
    os.environ["CIRCUITDSL_CACHE"] = str(folder / "watch")
    edits: Iterator[Callable[[], object]] = iter([lambda: spec.write_text(SPEC.read_text() + EDGE)])
    with Session() as session:
        _, turn = islice(session.watch([spec], lambda: next(edits, lambda: None)()), 2)
    return turn.seconds


def main() -> None:
    """Measure all cases and write the page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--repeats", type=int, default=5)
    asked.add_argument("-o", "--output", type=Path)
    given = asked.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder, known = Path(name, "run"), Path(name, "known")
        folder.mkdir()
        for _ in range(2):  # the bytecode first
            shutil.rmtree(known, ignore_errors=True)
            run(CASES[0], folder, known)
            shutil.copytree(folder / "cache", known)
        for case in CASES:
            run(case, folder, known)
            seconds, cpu, _ = min(run(case, folder, known) for _ in range(given.repeats))
            timed = run(case, folder, known, "-X", "importtime")
            of = [f"{part / timed[0]:.0%}".replace("%", " %") for part in shares(timed[2])]
            aim = f"{case.aim:g}" if case.aim else ""
            rows.append(f"| {case.name} | {seconds:.2f} | {aim} | {cpu:.2f} | {' | '.join(of)} |")
            print(rows[-1], flush=True)
        turn = min(watched(folder) for _ in range(given.repeats))
        rows.append(f"| an edge is edited, in `verify --watch` | {turn:.2f} | 0.5 | | | | |")
        code = "import torch, time; t = time.perf_counter(); import transformers.models.gpt2.modeling_gpt2; "
        code += "print(time.perf_counter() - t)"
        took = min(
            float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
            for _ in range(3)
        )
    here = Machine.here("cpu")
    machine = f"{here.processor}, {here.cores} cores. {here.system}; torch {version('torch')}"
    page = PAGE.format(machine=machine, repeats=given.repeats, rows="\n".join(rows), transformers=took)
    if given.output:
        write_whole(given.output, page)
    else:
        print(page)


if __name__ == "__main__":
    main()
