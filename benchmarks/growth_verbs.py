"""What whole commands cost on the pocket model, start-up included, on a fresh cache; the bytecode is there."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from benchmarks.growth import Case, Figure
from tests.hostile.large_texts import WHOLE

ERRORS, MANY = 7000, "20 000 claims"
STORIES = Path(__file__).parents[2] / "shared" / "data" / "stories260K"
HEAD = """task file("who.jsonl")
metric logit_diff
margin 2%
heads reader = 4.0 4.2         at END
heads early  = 2.1 3.2 3.5     at WHO
heads last   = 3.0 4.5         at END
mlps  writer = m2 m3           at WHO"""
TRACE = ("trace", "pocket/ioi", "--head", "2.5", "--from", "END", "--to", "IO")


def process(folder: Path, *arguments: str, worst: int = 1) -> tuple[float, int]:
    """CPU seconds of a command, and the lines that it prints; `worst` is the highest exit status that is no failure."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"CIRCUITDSL_CACHE": str(folder / "cache"), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    command = [sys.executable, "-m", "circuitdsl", *arguments]
    with tempfile.TemporaryDirectory() as other:  # what it imports is compiled first, torch included
        subprocess.run(command, env=env | {"CIRCUITDSL_CACHE": other}, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode > worst:
        raise SystemExit(done.stdout + done.stderr)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken, done.stdout.count("\n") + done.stderr.count("\n")


def _verb(name: str, aim: float, *arguments: str) -> Case:
    def work(folder: Path) -> list[Figure]:
        return [Figure("whole process", min(process(folder / str(at), *arguments)[0] for at in range(2)), "CPU s", aim)]

    return Case(name, f"`{' '.join(arguments)}`", work)


def _mutants(aim: float, whole: bool) -> Callable[[Path], list[Figure]]:
    def work(folder: Path) -> list[Figure]:
        spec = who(folder, whole)
        process(folder, "verify", spec)
        return [Figure("whole process", process(folder, "mutate", spec)[0], "CPU s", aim)]

    return work


def who(folder: Path, whole: bool = False) -> str:
    """The path of a spec about the small Llama, with its prompts beside it."""
    (folder / "who.circ").write_text(_claims(whole))
    with (folder / "who.jsonl").open("w") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in _prompts())
    return str(folder / "who.circ")


def _prompts() -> Iterator[dict[str, object]]:
    """128 pairs for the small Llama: who was it, a girl or a boy?"""
    moods = ("big", "small", "happy", "sad", "kind", "little", "good", "nice")
    things = "ball toy dog cat box car book tree bird hat cake bed bear fish boat frog".split()
    for mood, thing in product(moods, things):
        clean, corrupt = (f"There was a {mood} {who}. The {who} had a {thing}. One day," for who in ("girl", "boy"))
        line = {"clean": clean, "corrupt": corrupt, "answer": " she", "distractor": " he", "stratum": mood}
        yield line | {"positions": {"WHO": "girl#2", "THING": thing}}


def _claims(whole: bool) -> str:
    """49 claims: on edges, and four of them on the whole circuit where that is asked for."""
    receivers = [f"{to}.{port}" for to in ("reader", "4.0", "4.2") for port in "kv"]
    claims = {"writer": "effect in [-90%, 15%]", "m0": "effect in [-20%, 20%]", "m1": "effect in [-20%, 20%]"}
    claims |= dict.fromkeys(("early", "embed", "2.1", "3.2", "3.5"), "effect in [-20%, 20%]")
    claims |= dict.fromkeys(("early", "2.1", "3.2", "3.5"), "negligible")
    edges = [f"{sender} -> {to} at WHO : {says}" for sender, says in claims.items() for to in receivers]
    figures = ["faithfulness >= 2%", "incompleteness >= 2%", "minimality <= 5%", "sufficiency >= 50%"]
    lines = [*edges[: -len(figures)], *(f"expect {figure}" for figure in figures)] if whole else edges
    return "\n".join([f'circuit who\nmodel "{STORIES}"', HEAD, *lines, "expect accuracy >= 90%\n"])


def errors(folder: Path) -> list[Figure]:
    """A file with a mistake on every line."""
    spec = folder / "wrong.circ"
    lines = [f"nobody{at} -> logits : lowers" for at in range(ERRORS)]
    spec.write_text("\n".join(["circuit wrong", 'model "pocket"', "task ioi", *lines]))
    seconds, printed = process(folder, "check", str(spec), worst=2)
    return [Figure("whole process", seconds, "CPU s"), Figure("printed", printed, "lines", 400)]


def many_claims(folder: Path) -> list[Figure]:
    """A plan of claims on the same few patches."""
    spec = folder / "many.circ"
    spec.write_text(WHOLE[MANY]())
    return [Figure("whole process", process(folder, "plan", str(spec))[0], "CPU s", 10.0)]


CASES = (
    _verb("compare", 3.0, "compare", "pocket/ioi", "pocket/colored_objects", "--measure"),
    _verb("mutate", 8.0, "mutate", "pocket/ioi"),
    Case(
        "mutate_edges", "`mutate` on 49 claims on edges of a small Llama, verified before", _mutants(3.7, whole=False)
    ),
    Case("mutate_whole", "the same with four claims on the whole circuit", _mutants(15.0, whole=True)),
    _verb("trace", 3.0, *TRACE),
    _verb("trace_cut", 3.0, *TRACE, "--cut", "local", "global"),
    _verb("channels", 3.0, "channels", "pocket", "--to", "2.5.q"),
    _verb("plan", 1.5, "plan", "pocket/ioi"),
    Case("plan_many", f"`plan` on {MANY}", many_claims),
    Case("errors", f"`check` on a file with {ERRORS} errors", errors),
)
