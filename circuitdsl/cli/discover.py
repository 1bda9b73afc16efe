"""`circuitdsl discover`: a draft spec of the circuit that a model uses for a task."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import positive, seconds, seed, share
from circuitdsl.cli.models import add_model_arguments, models
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.terminal import say, status
from circuitdsl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from circuitdsl.circuit.claims import Circuit, TaskUse
    from circuitdsl.cli import Verbs
    from circuitdsl.discover.discover import Discovery
    from circuitdsl.discover.held_out import Parts
    from circuitdsl.discover.search import Progress
    from circuitdsl.models.parts import Transformer
    from circuitdsl.report.report import Report
    from circuitdsl.verify.bench import Bench

#: prompts that a draft is checked on, at most
_PROMPTS = 256
#: what a task given on the command line is read under
_ARGUMENT = "--task"
#: a claim, without which nothing can be checked
_ANYTHING = "expect accuracy >= 0%\n"


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("discover", help="search a model for its circuit of a task, and draft a spec")
    add_model_arguments(verb, "pocket unless named")
    verb.add_argument("--task", required=True, help="a task, with options as in a spec: ioi, 'ioi(corrupt = flip)'")
    verb.add_argument("--metric", default="logit_diff", help="as in a spec (default: logit_diff)")
    verb.add_argument("--prompts", type=positive, default=96, help="prompts to search on (default: 96)")
    verb.add_argument("--seed", type=seed, default=0, help="of these; the draft is checked on others")
    verb.add_argument("--threshold", type=share, default=0.02, help="smallest effect of interest (default: 2%%)")
    verb.add_argument("--depth", type=positive, default=6, help="stages back from the logits (default: 6)")
    verb.add_argument("--budget", type=seconds, metavar="TIME", help="stop searching after this time: 90, 90s, 5m")
    verb.add_argument("--name", help="name of the circuit (default: the task's)")
    verb.add_argument("-o", "--output", help="write the spec to this file (default: standard output)")
    verb.set_defaults(run=_discover)


def _discover(given: argparse.Namespace) -> int:
    target = output(given.output)
    if target and target.is_file():
        raise UsageError(f"{target} is there already", hint="drafts replace nothing: choose another name, or remove it")
    given.model = given.model or "pocket"
    start = time.monotonic()
    path, task = _task_from(given, target)
    circuit = _circuit(_text(given, task, given.prompts, given.seed), path)

    from circuitdsl.discover.discover import discover
    from circuitdsl.discover.search import Search

    model = models(given).of(circuit)
    use = circuit.tasks[0]
    parts = _parts(circuit, use, model, given) if use.file else None
    bench = _bench(circuit, use, model, parts)

    def head(number: int) -> list[str]:
        if parts is None:
            return _text(given, task, _PROMPTS, number)
        return _text(given, task, parts.checked or len(parts.searched.pairs), parts.seed, parts.notes)

    def check(text: str) -> Report:
        return _check(text, path, model)

    def seen(text: str) -> Report:
        return _check(text, path, model, {use.name: bench})

    with _search_progress(given.budget, start) as progress:
        found = discover(
            bench,
            head,
            seen if parts and not parts.checked else check,
            Search(given.threshold, given.prompts, given.depth),
            progress,
            seen if parts else None,
        )
    if target:
        write(target, found.text)
    else:
        sys.stdout.write(found.text)
    _say_what(found, time.monotonic() - start)
    if parts:
        say(parts.notes[0])
    return 0


def _task_from(given: argparse.Namespace, target: Path | None) -> tuple[str, str]:
    """The path that the draft is read under, and its task: a prompt file as it is called from where the draft lies.

    Raises:
        PromptFileError: the prompt file is missing, or cannot be read.
    """
    from circuitdsl.api import check_prompt_files, loads

    spec = loads("\n".join([*_text(given, given.task, given.prompts, given.seed), _ANYTHING]), _ARGUMENT)
    check_prompt_files(spec)
    file = next((use.file for circuit in spec.circuits for use in circuit.tasks if use.file), None)
    if target is None or file is None:
        return _ARGUMENT, given.task
    return str(target), given.task.replace(f'"{file}"', f'"{_beside(target, file)}"')


def _beside(spec: Path, file: str) -> str:
    """What a spec calls a file that is named from the current folder: by the way from the spec's own."""
    named = Path(file)
    if named.is_absolute():
        return file
    where = named.parent.resolve() / named.name
    return Path(os.path.relpath(where, spec.parent.resolve())).as_posix()


def _parts(circuit: Circuit, use: TaskUse, model: Transformer, given: argparse.Namespace) -> Parts:
    """The prompts of a file, some of them held back."""
    from circuitdsl.api import make_data
    from circuitdsl.discover.held_out import parts

    whole = make_data(circuit, replace(use, prompts=sys.maxsize), model)
    return parts(whole, given.prompts, _PROMPTS)


def _bench(circuit: Circuit, use: TaskUse, model: Transformer, parts: Parts | None) -> Bench:
    """The prompts to search on."""
    from circuitdsl.api import make_bench
    from circuitdsl.verify.bench import bench

    return make_bench(circuit, use, model) if parts is None else bench(model, parts.searched, circuit.metric)


def _text(
    given: argparse.Namespace, task: str, prompts: int, number: int, notes: tuple[str, ...] | None = None
) -> list[str]:
    """The lines that open the spec, on prompts of a seed."""
    name, _, options = task.partition("(")
    inside = options.rstrip().removesuffix(")").strip()
    asked = ", ".join([*([inside] if inside else []), f"prompts = {prompts}", f"seed = {number}"])
    circuit = given.name or name.strip()
    said = notes or (
        f"drafted by a search on {given.prompts} prompts of seed {given.seed}",
        "its bounds lie well inside what was measured there",
    )
    return [
        f'circuit {circuit} "{circuit}, {given.model.rstrip("/").rpartition("/")[2]}"',
        *(f'  note "{note}"' for note in said),
        "",
        f'model "{given.model}"',
        f"task {name.strip()}({asked})",
        f"metric {given.metric}",
    ]


def _circuit(lines: list[str], path: str) -> Circuit:
    """The circuit whose task is searched; options are checked as in any spec."""
    from circuitdsl.api import loads

    spec = loads("\n".join([*lines, _ANYTHING]), path)
    wrong = [d.message for d in spec.diagnostics if d.severity == "error"]
    if wrong:
        raise UsageError(wrong[0], hint="write the task as in a spec: --task 'ioi(corrupt = abc)'")
    return spec.circuits[0]


def _check(text: str, path: str, model: Transformer, benches: Mapping[str, Bench] | None = None) -> Report:
    """Verify a text, each line at the level it has among all of them; on its own prompts, unless others are given."""
    from circuitdsl.api import loads, make_benches
    from circuitdsl.verify.verify import verify

    spec = loads(text, path)
    assert spec.ok, spec.problems
    with status("checking what was found"):
        return verify(spec.circuits[0], model, benches or make_benches(spec.circuits[0], model))


@contextmanager
def _search_progress(budget: float | None, start: float) -> Iterator[Progress]:
    """Says what is searched, and when the time is up."""
    with status("searching") as spinner:

        def progress(edges: int, what: str) -> bool:
            if spinner:
                spinner.update(f"{what} ({edges} edges so far)")
            return budget is None or time.monotonic() - start < budget

        yield progress


def _say_what(found: Discovery, took: float) -> None:
    what = found.found
    end = "" if what.complete else "; the time was up before the search was through"
    groups, claims = len(found.draft.groups), len(found.draft.claims) + len(found.draft.expectations)
    say(f"{groups} groups and {claims} claims from {what.edges} edges in {took:.0f} s{end}")
    for line in found.dropped:
        say(f"dropped, not clear on other prompts: {line}")
