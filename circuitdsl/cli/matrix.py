"""`run` verifies many specs on many models, tasks and seeds; `stability` says how often each claim holds."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.circuit.paths import prompts_instead
from circuitdsl.cli.arguments import Verbs, add_outside, add_prompts, add_session, size
from circuitdsl.cli.files import output, write
from circuitdsl.cli.terminal import as_json, console, progress, say, status
from circuitdsl.errors import INTERRUPTED, UsageError, UserError
from circuitdsl.limits import positive
from circuitdsl.report.formats import View, format_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from circuitdsl.matrix.cell import Record
    from circuitdsl.matrix.results import Results
    from circuitdsl.matrix.running import Executor
    from circuitdsl.matrix.runs import Run
    from circuitdsl.matrix.worker import Settings

#: seeds over which `stability` looks where none is given
SEEDS = (0, 1, 2, 3, 4)
#: options of `verify` that say something of one report
OF_A_REPORT = (
    *("claim", "format", "output", "against", "verbose", "watch", "view", "found"),
    *("with_prompts", "per_prompt", "per_prompt_pairs"),
)


def register(verbs: Verbs) -> None:
    run = verbs.verb(_run, "run", "verify the matrix of a circuitdsl.toml")
    run.add_argument("file", nargs="?", default="circuitdsl.toml", help="the matrix (default: circuitdsl.toml)")
    add_results(run)
    run.add_argument("--dry-run", action="store_true", help="say how many cells there are, and what they take")
    run.add_argument("--memory", type=size, metavar="SIZE", help="measure in no more than this beside a model (2GB)")
    no_cache = "measure everything, whatever earlier runs have found"
    run.add_argument("--no-cache", dest="cache", action="store_false", help=no_cache)
    run.add_argument("--allow-undecided", action="store_true", help="exit with 0 where nothing fails")
    add_outside(run)

    steady = verbs.verb(_stability, "stability", "say how often each claim holds, over seeds and models")
    what = "a results directory, or specs to verify now"
    steady.add_argument("source", nargs="+", metavar="DIR|SPEC", help=what)
    add_session(steady, several=True)
    add_prompts(steady, several=True)
    add_tasks(steady)
    add_results(steady)
    add_outside(steady)
    steady.add_argument("--format", choices=("text", "json"), help="default: text, or json for -o FILE.json")
    steady.add_argument("-o", "--output", help="write to this file")


def add_tasks(verb: argparse.ArgumentParser) -> None:
    """Add tasks that take the place of those of specs."""
    what = (
        "verify on this task instead of the spec's: ioi, 'ioi(corrupt = flip)', a prompt file; with NAME=FILE, on the "
        "spec's own tasks, of which one has the prompts of a file; may be given again"
    )
    verb.add_argument("--task", action="append", help=what)


def add_results(verb: argparse.ArgumentParser) -> None:
    """Add the directory in which the results of a matrix are kept."""
    verb.add_argument("--results", metavar="DIR", help="keep a report for each cell in this directory, or at s3://…")
    verb.add_argument("--resume", action="store_true", help="go on with what the directory holds already")
    ray = "verify cells on a Ray cluster: at this address, or on workers that are started here"
    verb.add_argument("--ray", nargs="?", const="here", metavar="ADDRESS", help=ray)
    verb.add_argument("--workers", type=positive, metavar="N", help="with --ray: on so many workers at the most")


def is_matrix(given: argparse.Namespace) -> bool:
    """Whether `verify` was asked for a matrix, and not for one report on each spec."""
    several = any(len(getattr(given, name) or ()) > 1 for name in ("model", "seed"))
    files = [prompts_instead(task) for task in given.task or ()]
    several |= None in files or len({file and file[0] for file in files}) < len(files)
    return several or bool(given.results or given.resume or given.ray or given.workers)


def verify_matrix(given: argparse.Namespace) -> int:
    """Verify specs on several models, tasks and seeds."""
    for name in OF_A_REPORT:
        if getattr(given, name):
            option = "-o" if name == "output" else f"--{name.replace('_', '-')}"
            hint = "verify one spec on one model and one seed; reports of a matrix are in its --results"
            raise UsageError(f"{option} is about one report, and this is a matrix", hint=hint)
    if len({file and file[0] for file in map(prompts_instead, given.task or ())}) > 1:
        hint = "name the prompts of several tasks in the spec, or give one of these alone"
        raise UsageError("in a matrix each --task is verified by itself, and these are of several tasks", hint)
    found, interrupted = _results([_as_run(given, given.spec)], given, given.results)
    return _end(found, interrupted, given.allow_undecided)


def _as_run(given: argparse.Namespace, specs: Sequence[str], seeds: Sequence[int] = ()) -> Run:
    from circuitdsl.matrix.runs import OPTIONS, Run

    options = {name: value for name in OPTIONS if (value := getattr(given, name, None))}
    options |= {"early_stop": False} if getattr(given, "no_early_stop", False) else {}
    for name, usual in (("device", "auto"), ("dtype", "float32"), ("generalise", "prompts")):
        if options.get(name) == usual:
            del options[name]
    return Run(tuple(specs), tuple(given.model or ()), tuple(given.task or ()), tuple(given.seed or seeds), options)


def _run(given: argparse.Namespace) -> int:
    from circuitdsl.matrix.config import read

    asked = read(Path(given.file), given.allow_outside)
    place = given.results or asked.results
    if given.dry_run:
        return _dry_run(asked.runs, given, place)
    found, interrupted = _results(asked.runs, given, place)
    return _end(found, interrupted, given.allow_undecided)


def _dry_run(runs: Iterable[Run], given: argparse.Namespace, place: str) -> int:
    from circuitdsl.matrix.forecast import forecast
    from circuitdsl.matrix.planning import plan
    from circuitdsl.matrix.running import waiting

    cells = plan(runs, given.allow_outside, hashed=given.resume)
    left = waiting(cells, _opened(place)) if given.resume else cells
    with status("planning") as shown:
        found = forecast(left, len(cells) - len(left), _settings(given), shown.update)
    write(None, View(console).text([found.show]))
    return 0


def _settings(given: argparse.Namespace) -> Settings:
    from circuitdsl.matrix.worker import Settings

    return Settings(given.cache, given.memory, given.allow_outside)


def _executor(given: argparse.Namespace) -> Executor:
    from circuitdsl.matrix.running import InProcess

    if given.workers and not given.ray:
        raise UsageError("--workers is for --ray", hint="give --ray as well")
    if not given.ray:
        return InProcess(_settings(given), status)
    from circuitdsl.matrix.on_ray import OnRay

    return OnRay(_settings(given), given.ray, given.workers)


def _opened(place: str | None) -> Results:
    from circuitdsl.matrix.results import Results
    from circuitdsl.matrix.storage import storage

    return Results(storage(place))


def _results(runs: Iterable[Run], given: argparse.Namespace, place: str | None) -> tuple[list[Record], bool]:
    """What is known of the cells of some runs once they have been verified, and whether Ctrl-C ended it early."""
    from circuitdsl.matrix.planning import plan
    from circuitdsl.matrix.results import PAGE, refuse_strangers
    from circuitdsl.matrix.running import run, waiting

    if given.resume and not place:
        raise UsageError("--resume goes on with a directory", hint="name it with --results")
    results = _opened(place)
    with status("planning"):
        cells = plan(runs, given.allow_outside)
        refuse_strangers(results, cells, given.resume)
        left = waiting(cells, results)
        known = len(cells) - len(left)
    with progress() as told:
        interrupted = run(left, known, results, _executor(given), told)
    records = results.records(cell.key for cell in cells)
    if place:
        earlier = f", {known} of them from earlier" if known else ""
        said = f"{len(records)} of {len(cells)} cells are in {place}{earlier}"
        say(f"interrupted: {said}; --resume goes on" if interrupted else f"{said}; {place}/{PAGE} shows them")
    return records, interrupted


def _end(records: Sequence[Record], interrupted: bool, allow_undecided: bool) -> int:
    """Print the table; returns the exit status."""
    from circuitdsl.matrix.running import status_of
    from circuitdsl.matrix.shown import show
    from circuitdsl.matrix.table import table

    write(None, View(console).text([partial(show, table(records))]))
    return INTERRUPTED if interrupted else status_of(records, allow_undecided)


def _stability(given: argparse.Namespace) -> int:
    from circuitdsl.matrix.stability import stability

    target, interrupted = output(given.output), False
    first = given.source[0]
    if len(given.source) == 1 and _holds_results(first):
        wanted: dict[str, Any] = {name: getattr(given, name) for name in ("model", "task", "seed")}
        records = [record for record in _opened(first).records() if _is_wanted(record, wanted)]
    else:
        records, interrupted = _results([_as_run(given, given.source, SEEDS)], given, given.results)
    if not records:
        raise UserError("there are no cells to look at", hint="verify some with --results, or name specs")
    found = stability(records)
    if format_of(given.format, target).name == "json":
        text = as_json([found])
    else:
        text = View(partial(console, plain=target is not None)).text([found.show])
    write(target, text)
    return INTERRUPTED if interrupted else 0


def _holds_results(name: str) -> bool:
    from circuitdsl.matrix.storage import is_address

    return (is_address(name) or Path(name).is_dir()) and bool(_opened(name).keys())


def _is_wanted(record: Record, wanted: dict[str, Any]) -> bool:
    return all(values is None or getattr(record.cell, name) in values for name, values in wanted.items())
