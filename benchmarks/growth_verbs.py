"""What whole commands cost on the pocket model, start-up included, on a fresh cache."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.growth import Case, Figure

ERRORS = 7000


def process(folder: Path, *arguments: str) -> tuple[float, int]:
    """CPU seconds of a command, and the lines that it prints."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"CIRCUITDSL_CACHE": str(folder / "cache"), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    command = [sys.executable, "-m", "circuitdsl", *arguments]
    subprocess.run([*command[:3], "--version"], env=env, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1, 2, 5):
        raise SystemExit(done.stderr)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken, done.stdout.count("\n") + done.stderr.count("\n")


def _verb(name: str, aim: float, *arguments: str) -> Case:
    def work(folder: Path) -> list[Figure]:
        return [Figure("whole process", min(process(folder / str(at), *arguments)[0] for at in range(2)), "CPU s", aim)]

    return Case(name, f"`{' '.join(arguments)}`", work)


def errors(folder: Path) -> list[Figure]:
    """A file with a mistake on every line."""
    spec = folder / "wrong.circ"
    lines = [f"nobody{at} -> logits : lowers" for at in range(ERRORS)]
    spec.write_text("\n".join(["circuit wrong", 'model "pocket"', "task ioi", *lines]))
    seconds, printed = process(folder, "check", str(spec))
    return [Figure("whole process", seconds, "CPU s"), Figure("printed", printed, "lines", 400)]


CASES = (
    _verb("compare", 3.0, "compare", "pocket/ioi", "pocket/colored_objects", "--measure"),
    _verb("mutate", 8.0, "mutate", "pocket/ioi"),
    _verb("trace", 3.0, "trace", "pocket/ioi", "--head", "2.5", "--from", "END", "--to", "IO"),
    Case("errors", f"`check` on a file with {ERRORS} errors", errors),
)
