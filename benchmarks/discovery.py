"""CPR, CMD and CPU seconds of every method that scores edges, on the pocket tasks and two of a small Llama.

Scores are made on prompts of one seed, curves are run on those of another (of a prompt file: on other lines). All
methods see the same prompts, on one thread.

    python -m benchmarks.discovery -o docs/discovery.md
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from benchmarks.growth_verbs import STORIES
from benchmarks.marked import write_part
from circuitdsl.discover.scoring import METHODS
from circuitdsl.interop.mib import text_of
from circuitdsl.report.curves import Curve
from circuitdsl.verify.session import Session

POCKET = ("ioi", "colored_objects", "greater_than", "induction", "laundry_list")
#: prompts and seeds that scores are made on, and curves run on
SCORED, RUN = (100, 5), (200, 77)
MOODS = ("big", "small", "happy", "sad", "kind", "little", "good", "nice")
THINGS = "ball toy dog cat box car book tree bird hat cake bed bear fish boat frog".split()
#: of the small Llama: prompts with the answers of both sides
STORY_TASKS = {
    "pronoun": ("There was a {mood} {who}. The {who} had a {thing}. One day,", ("girl", " she"), ("boy", " he")),
    "name": ("There was a {mood} child named {who}. {who} had a {thing}. One day,", ("Lily", " Lily"), ("Tim", " Tim")),
}


@dataclass(frozen=True)
class Row:
    """What a method gives on a task."""

    task: str
    method: str
    seconds: float
    curve: Curve


def story_task(name: str, folder: Path) -> tuple[str, str]:
    """Prompt files of a task, to make scores on and to run curves on: odd and even things."""
    text, (who, answer), (other, distractor) = STORY_TASKS[name]
    files = []
    for part in range(2):
        path = folder / f"{name}-{part}.jsonl"
        with path.open("w") as file:
            for mood, thing in product(MOODS, THINGS[part::2]):
                sides = {"clean": who, "corrupt": other}
                line = {side: text.format(mood=mood, who=word, thing=thing) for side, word in sides.items()}
                line |= {"answer": answer, "distractor": distractor, "stratum": mood}
                file.write(json.dumps(line) + "\n")
        files.append(str(path))
    return files[0], files[1]


def rows(model: str, name: str, scored: str, run: str, folder: Path, methods: Sequence[str]) -> Iterator[Row]:
    """Every method on one task."""
    with Session(model, cache=False) as session:
        session.scores(scored, prompts=SCORED[0], seed=SCORED[1], method="attribution")  # what is read once
        for method in methods:
            start = time.process_time()
            found = session.scores(scored, prompts=SCORED[0], seed=SCORED[1], method=method)
            seconds = time.process_time() - start
            file = folder / f"{name}-{method}.json"
            file.write_text(text_of(found))
            (curve,) = session.curves([file], run, prompts=RUN[0], seed=RUN[1]).curves
            print(f"{name} {method}: {curve.cpr} {curve.cmd}, {seconds:.1f} s", file=sys.stderr, flush=True)
            yield Row(name, method, seconds, curve)


def table(found: Sequence[Row]) -> str:
    """CPR / CMD of each method on each task, the means, and the seconds."""
    tasks, methods = (list(dict.fromkeys(getattr(row, of) for row in found)) for of in ("task", "method"))
    by = {(row.task, row.method): row for row in found}

    def cell(task: str, method: str) -> str:
        row = by[task, method]
        return f"{row.curve.cpr.value:.3f} / {row.curve.cmd.value:.3f}"

    def mean(method: str, what: str) -> float:
        some = [row for row in found if row.method == method]
        values = [row.seconds if what == "seconds" else getattr(row.curve, what).value for row in some]
        return sum(values) / len(values)

    lines = [f"| CPR / CMD | {' | '.join(f'`{method}`' for method in methods)} |", "|---" * (1 + len(methods)) + "|"]
    lines += [f"| {task} | {' | '.join(cell(task, method) for method in methods)} |" for task in tasks]
    means = [f"**{mean(method, 'cpr'):.3f} / {mean(method, 'cmd'):.3f}**" for method in methods]
    lines.append(f"| mean | {' | '.join(means)} |")
    seconds = [f"{mean(method, 'seconds'):.1f}" for method in methods]
    lines.append(f"| CPU seconds a task | {' | '.join(seconds)} |")
    best = {what: {task: _best(found, task, what) for task in tasks} for what in ("cpr", "cmd")}
    lost = [f"{what.upper()} on {task} ({one})" for what in best for task, one in best[what].items() if one != "hybrid"]
    lines += ["", f"`hybrid` is not the best by {', '.join(lost)}." if lost else "`hybrid` is the best in every cell."]
    return "\n".join(lines)


def _best(found: Sequence[Row], task: str, what: str) -> str:
    sign = -1 if what == "cpr" else 1
    return min((sign * getattr(row.curve, what).value, row.method) for row in found if row.task == task)[1]


def main() -> None:
    """Measure and print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--tasks", nargs="+", default=[*POCKET, *STORY_TASKS])
    asked.add_argument("--methods", nargs="+", default=list(METHODS))
    asked.add_argument("-o", "--output", type=Path, help="replace the part of this page that is marked `methods`")
    given = asked.parse_args()
    torch.set_num_threads(1)
    found = list[Row]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task in given.tasks:
            on_stories = task in STORY_TASKS
            scored, run = story_task(task, folder) if on_stories else (task, task)
            model = str(STORIES) if on_stories else "pocket"
            found += rows(model, task, scored, run, folder, given.methods)
    made = table(found)
    print(made)
    if given.output:
        write_part(given.output, "methods", made)


if __name__ == "__main__":
    main()
