"""What grows with the work: claims, edges, tokens, threads. One table, for docs/performance.md.

    OMP_NUM_THREADS=1 python -m benchmarks.growth -o docs/performance.md     # writes its part of the page
    OMP_NUM_THREADS=1 python -m benchmarks.growth --only claims_1000 --profile

Every case runs in a process of its own, so that its memory is its own. *Phases* are shares of the time that Python's
profiler counts inside functions, by the folder of the package that they stand in; it is measured in a further run.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.marked import write_part

ROOT = Path(__file__).parent.parent
#: the modules that have cases
TOPICS = ("big", "claims", "engine", "files", "long", "matrix", "memory", "pictures", "texts", "verbs")


@dataclass(frozen=True)
class Figure:
    """A number of a case: at most, or at least, its aim. A figure without an aim is there to be read."""

    what: str
    value: float
    unit: str
    aim: float | None = None
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        if self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim


@dataclass(frozen=True)
class Case:
    """One row or several: what is done, and the function that does it and says what it took."""

    name: str
    says: str
    work: Callable[[Path], list[Figure]]
    threads: int = 1


Cases = Mapping[str, Case]


def cases() -> Cases:
    """All cases, by name, in the order of the table."""
    found = [case for topic in TOPICS for case in import_module(f"benchmarks.growth_{topic}").CASES]
    return {case.name: case for case in found}


def measured(case: Case, profile: bool) -> tuple[list[Figure], dict[str, float]]:
    """The figures of a case from a process of its own; with a profile, the shares of the phases instead."""
    command = [sys.executable, "-m", "benchmarks.growth", "--one", case.name, *(["--profile"] if profile else [])]
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"OMP_NUM_THREADS": str(case.threads), "CIRCUITDSL_CACHE": f"{folder}/cache"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{case.name} ended with status {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    return [Figure(**figure) for figure in found["figures"]], found["phases"]


def one(case: Case, profile: bool) -> None:
    """Measure a case here and print its figures as a line of JSON."""
    profiler = cProfile.Profile() if profile else None
    with tempfile.TemporaryDirectory() as folder:
        figures = profiler.runcall(case.work, Path(folder)) if profiler else case.work(Path(folder))
    phases = shares(profiler) if profiler else {}
    print(json.dumps({"figures": [asdict(figure) for figure in figures], "phases": phases}))


def shares(profiler: cProfile.Profile) -> dict[str, float]:
    """The share of time inside functions, by folder of the package; the largest first, small ones left out.

    A function of a library counts for whoever calls it, but torch and numpy, which stand for themselves.
    """
    spent: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, callers) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        library = next((each for each in ("torch", "numpy", "scipy") if each in file or each in name), None)
        if phase := library or folder_of(file):
            spent[phase] += own
            continue
        for (calling, _, _), (_, _, of_caller, _) in callers.items():
            spent[folder_of(calling) or "others"] += of_caller
    total = sum(spent.values())
    return {name: seconds / total for name, seconds in spent.most_common() if seconds > 0.02 * total}


def folder_of(file: str) -> str | None:
    """The folder of the package that a file stands in."""
    return file.partition("/circuitdsl/")[2].partition("/")[0].removesuffix(".py") or None


def table(found: Sequence[tuple[Case, list[Figure], dict[str, float]]]) -> str:
    """The part of the page."""
    rows = []
    for case, figures, phases in found:
        shown = ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(phases.items())[:6])
        for at, figure in enumerate(figures):
            aim = "" if figure.aim is None else f"{'≥' if figure.at_least else '≤'} {figure.aim:g}"
            verdict = {None: "", True: "reached", False: "missed"}[figure.reached]
            says = case.says if at == 0 else ""
            cells = [
                says,
                f"{figure.what}, {figure.unit}",
                f"{figure.value:.3g}",
                aim,
                verdict,
                shown if at == 0 else "",
            ]
            rows.append("| " + " | ".join(cells) + " |")
    head = "| what is done | figure | measured | aim | | phases |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def main() -> None:
    """Measure all cases, or some, and print the table; write it into a page where asked."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="+", choices=list(cases()), metavar="CASE", help=" ".join(cases()))
    asked.add_argument("--one", choices=list(cases()), help=argparse.SUPPRESS)
    asked.add_argument(
        "--profile", nargs="*", metavar="CASE", help="measure the shares of phases as well, of all or some"
    )
    asked.add_argument("-o", "--output", type=Path, help="replace the part of this page that is marked `growth`")
    given = asked.parse_args()
    if given.one:
        return one(cases()[given.one], given.profile is not None)
    found, profiled = [], set(given.profile or cases()) if given.profile is not None else set()
    for name in given.only or cases():
        case = cases()[name]
        figures, _ = measured(case, profile=False)
        phases = measured(case, profile=True)[1] if name in profiled else {}
        found.append((case, figures, phases))
        print(f"{name}: " + "; ".join(f"{f.what} {f.value:.3g} {f.unit}" for f in figures), file=sys.stderr, flush=True)
        if given.output:
            write_part(given.output, "growth", table(found))
    print(table(found))
    return None


if __name__ == "__main__":
    main()
