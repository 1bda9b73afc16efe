"""The command line: one thin function a verb."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from circuitdsl import __version__
from circuitdsl.errors import UsageError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from circuitdsl.api import Spec
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.models.parts import Transformer
    from circuitdsl.report.report import Report
    from circuitdsl.tasks.task import Task
    from circuitdsl.verification.verify import Progress

SPEC_WRONG, NOT_RUN = 2, 3
INTERRUPTED = 130
#: prompts at the most, as in a spec
MOST = 1_000_000
#: models up to this width run on one thread
SMALL_WIDTH = 256


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a minus sign still gets a report
    try:
        status = run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of our output has gone, as `head` does
            _say(f"error: cannot write the output: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = NOT_RUN
    sys.exit(status)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 holds, 1 fails, 2 spec wrong, 3 could not be run)."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except UserError as error:
        _say(f"error: {error.message}")
        if error.hint:
            _say(f"  help: {error.hint}")
        return error.status


def _say(text: str) -> None:
    print(text, file=sys.stderr)


# --- verify ----------------------------------------------------------------------------------------


def _verify(given: argparse.Namespace) -> int:
    specs = _load_all(given.spec, given.model)
    if specs is None:
        return SPEC_WRONG
    circuits = [circuit for spec in specs for circuit in spec.circuits]
    _check_claim(circuits, given.claim)
    from circuitdsl.report.report import dumps, exit_status, write_whole

    target = Path(given.output) if given.output else None
    if target and not target.parent.is_dir():
        raise UserError(f"cannot write {target}: there is no folder {target.parent}")
    if target and target.is_dir():
        raise UserError(f"cannot write {target}: it is a folder")
    reports, trouble = _until_trouble(_reports(circuits, given))
    if trouble and not reports:
        raise trouble
    as_json = given.format == "json" or (given.format is None and target is not None and target.suffix == ".json")
    if as_json:
        text = dumps(reports)
    else:
        text = _terminal(reports, given, plain=target is not None)
    if target:
        write_whole(target, text)
    elif text:
        sys.stdout.write(text)
    if trouble:
        raise trouble
    if any(report.interrupted for report in reports):
        return INTERRUPTED
    return exit_status(reports, given.allow_undecided)


def _until_trouble(reports: Iterator[Report]) -> tuple[list[Report], UserError | None]:
    """The reports that could be made before one that could not, and why it could not."""
    made: list[Report] = []
    try:
        for report in reports:
            made.append(report)
    except UserError as error:
        return made, error
    return made, None


def _check_claim(circuits: list[Circuit], wanted: str | None) -> None:
    claims = [claim for circuit in circuits for claim in circuit.claims]
    if not claims:
        raise UserError("nothing to verify: the spec makes no claim that can be measured")
    if wanted is not None and not any(claim.answers_to(wanted) for claim in claims):
        raise UsageError(f"there is no claim {wanted}", hint="a claim is named by its line in the spec, or c01, c02, …")


def _reports(circuits: list[Circuit], given: argparse.Namespace) -> Iterator[Report]:
    from dataclasses import replace

    import torch

    from circuitdsl.api import make_benches
    from circuitdsl.circuit.shapes import near
    from circuitdsl.models.load import load_model
    from circuitdsl.verification.verify import Options, verify, with_overrides

    options = Options(
        early_stop=not given.no_early_stop,
        holm=given.each_at is None,
        alpha=0.05 if given.each_at is None else given.each_at,
        only=given.claim,
    )
    models: dict[tuple[str, str | None], Transformer] = {}
    threads = torch.get_num_threads()
    for circuit in circuits:
        if not any(given.claim is None or claim.answers_to(given.claim) for claim in circuit.claims):
            continue
        circuit = with_overrides(circuit, given.prompts, given.seed)
        name = given.model or (circuit.model.name if circuit.model else None)
        if name is None:
            raise UserError(f"circuit {circuit.name} names no model", hint='add a line `model "…"`, or give --model')
        revision = circuit.model.revision if circuit.model and not given.model else None
        place = name if given.model else near(name, circuit.path)
        if (place, revision) not in models:
            with _status(f"loading {name}"):
                models[place, revision] = replace(load_model(place, given.device, given.dtype, revision), name=name)
        model = models[place, revision]
        _use_threads(model, threads)
        start = time.perf_counter()
        with _progress() as progress:
            report = verify(circuit, model, make_benches(circuit, model), options, progress)
        yield replace(report, seconds=time.perf_counter() - start)


def _use_threads(model: Transformer, usual: int) -> None:
    """One thread for a model whose matrices are too small to share: waiting costs more than it saves."""
    import torch

    torch.set_num_threads(1 if model.device.type == "cpu" and model.d_model <= SMALL_WIDTH else usual)


def _terminal(reports: list[Report], given: argparse.Namespace, plain: bool) -> str:
    """Print reports on the terminal; for a file (or a pipe) return them as text instead."""
    from circuitdsl.report.terminal import show

    console = _console(plain=plain)
    with console.capture() if plain else _nothing() as capture:
        for i, report in enumerate(reports):
            if i:
                console.print()
            show(report, console, given.verbose)
    return capture.get() if capture else ""


# --- check, render ---------------------------------------------------------------------------------


def _check(given: argparse.Namespace) -> int:
    specs = _load_all(given.spec, given.model)
    if specs is None:
        return SPEC_WRONG
    for spec in specs:
        claims = sum(len(circuit.claims) for circuit in spec.circuits)
        names = ", ".join(circuit.name for circuit in spec.circuits)
        left_out = sum(len(circuit.unmeasured) for circuit in spec.circuits)
        more = f", {left_out} not measured yet" if left_out else ""
        print(f"{spec.path}: {names}: {claims} claim{'s' * (claims != 1)}{more}, no errors")
    return 0


def _load_all(names: Sequence[str], model: str | None) -> list[Spec] | None:
    """All specs, their diagnostics printed; `None` where some spec is wrong."""
    from circuitdsl.api import check_prompt_files, load
    from circuitdsl.language.diagnostics import render

    specs = [load(name, model) for name in names]
    for spec in specs:
        for diagnostic in spec.diagnostics:
            _say(render(diagnostic, spec.text, spec.path))
        check_prompt_files(spec)
    wrong = sum(d.severity == "error" for spec in specs for d in spec.diagnostics)
    if wrong:
        _say(f"{wrong} error{'s' * (wrong != 1)}")
        return None
    return specs


def _render(given: argparse.Namespace) -> int:
    from circuitdsl.report.diagram import render

    specs = _load_all([given.spec], given.model)
    if specs is None:
        return SPEC_WRONG
    circuits = {circuit.name: circuit for circuit in specs[0].circuits}
    if given.circuit and given.circuit not in circuits:
        raise UsageError(f"there is no circuit {given.circuit}", hint=f"the file has {', '.join(circuits)}")
    if not circuits:
        raise UserError(f"{given.spec} has no circuit to draw")
    circuit = circuits[given.circuit] if given.circuit else next(iter(circuits.values()))
    report = _read_report(Path(given.report), circuit.name) if given.report else None
    if report and report["spec"].get("sha256") != circuit.sha256:
        _say(f"warning: {given.report} is a report on another version of {given.spec}")
    path = Path(given.output or f"{circuit.name}.svg")
    render(circuit, path, report)
    print(f"wrote {path}")
    return 0


def _read_report(path: Path, circuit: str) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read the report {path}: {error}") from None
    reports = found if isinstance(found, list) else [found]
    for report in reports:
        spec = report.get("spec") if isinstance(report, dict) else None
        if isinstance(spec, dict) and spec.get("circuit") == circuit:
            return report
    raise UserError(f"{path} holds no report on circuit {circuit}", hint="make one with verify --format json -o FILE")


# --- tasks, models ---------------------------------------------------------------------------------


def _tasks_list(given: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from circuitdsl.tasks.registry import TASKS

    table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
    for heading in ("task", "what it asks", "positions", "corruptions", "usual metric"):
        table.add_column(heading, overflow="fold")
    for task in TASKS.values():
        about = Text.assemble(task.title, (f"\n{task.source}", "dim"))
        table.add_row(Text(task.name, "bold"), about, " ".join(task.positions), " ".join(task.corruptions), task.metric)
    _console().print(table)
    return 0


def _tasks_show(given: argparse.Namespace) -> int:
    from circuitdsl.report.task_view import show_task

    show_task(_task(given.task), given.seed, _console())
    return 0


def _tasks_sample(given: argparse.Namespace) -> int:
    from circuitdsl.models.load import load_tokenizer
    from circuitdsl.report.report import write_whole
    from circuitdsl.tasks.dataset import sample
    from circuitdsl.tasks.tokens import Tokens

    task = _task(given.task)
    tokens = Tokens(load_tokenizer(given.model), given.model)
    data = sample(task, tokens, given.n, given.seed, given.corrupt)
    lines = "".join(json.dumps(pair.record(), ensure_ascii=False) + "\n" for pair in data.pairs)
    if given.output:
        write_whole(Path(given.output), lines)
    else:
        sys.stdout.write(lines)
    return 0


def _task(name: str) -> Task:
    from circuitdsl.tasks.registry import TASKS

    if name not in TASKS:
        raise UsageError(f"there is no task {name}", hint=f"tasks: {', '.join(TASKS)}")
    return TASKS[name]


def _models(given: argparse.Namespace) -> int:
    from circuitdsl.models.load import available_models

    found = available_models()
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        print(f"{model.name:<{width}}  {model.size / 1e6:8.1f} MB  {model.where}: {model.path}")
    print("any directory in Hugging Face's layout: --model DIR; any name on its hub, where that can be reached")
    return 0


# --- terminals -------------------------------------------------------------------------------------


def _console(plain: bool = False) -> Console:
    """Standard output: colours and the terminal's width on a terminal, plain wide text elsewhere."""
    from rich.console import Console

    console = Console(highlight=False, no_color=plain or None)
    if plain or not console.is_terminal:
        console = Console(highlight=False, no_color=True, width=160, color_system=None)
    return console


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@contextmanager
def _status(text: str) -> Iterator[None]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A progress bar with the time that is left at most, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


# --- arguments -------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="circuitdsl",
        description="Verify circuits of transformers, written as text, claim by claim against the real model.",
        epilog="exit status: 0 every claim holds; 1 some fail or are undecided; 2 a wrong spec; 3 it could not run",
    )
    parser.add_argument("--version", action="version", version=f"circuitdsl {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _verify_arguments(verbs.add_parser("verify", help="check every claim of a spec against the model"))

    check = verbs.add_parser("check", help="find mistakes in specs without loading a model")
    check.add_argument("spec", nargs="+", help="a .circ file, or a shipped spec such as pocket/ioi")
    check.add_argument("--model", help="check against this model instead of the spec's own")
    check.set_defaults(run=_check)

    render = verbs.add_parser("render", help="draw a circuit")
    render.add_argument("spec", help="a .circ file, or a shipped spec")
    render.add_argument("-o", "--output", help="file to write: .svg, .png, .dot or .html (default: NAME.svg)")
    render.add_argument("--report", help="colour edges by the verdicts of this JSON report")
    render.add_argument("--circuit", help="which circuit, where the file has several")
    render.add_argument("--model", help="resolve against this model instead of the spec's own")
    render.set_defaults(run=_render)

    _tasks_arguments(verbs.add_parser("tasks", help="list tasks, show one, or make prompts"))
    models = verbs.add_parser("models", help="list the models that can be loaded here")
    models.set_defaults(run=_models)
    return parser


def _verify_arguments(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("spec", nargs="+", help="a .circ file, or a shipped spec such as pocket/ioi")
    verify.add_argument("--model", help="a model's name or directory, instead of the spec's own")
    verify.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    verify.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    verify.add_argument("--prompts", type=_positive, help="prompts per task at most, instead of the spec's number")
    verify.add_argument("--seed", type=_seed, help="seed of the prompts, instead of the spec's")
    verify.add_argument("--claim", metavar="ID", help="verify one claim alone, by its line or as c07")
    verify.add_argument("--format", choices=("text", "json"), help="default: text, or json for -o FILE.json")
    verify.add_argument("-o", "--output", help="write the report to this file")
    verify.add_argument("-v", "--verbose", action="store_true", help="give all reasons, and the pairs of group edges")
    verify.add_argument("--no-early-stop", action="store_true", help="measure all prompts for every claim")
    verify.add_argument("--each-at", type=_level, metavar="LEVEL", help="judge claims one by one at this level (5%%)")
    verify.add_argument("--allow-undecided", action="store_true", help="exit with 0 where nothing fails")
    verify.set_defaults(run=_verify)


def _tasks_arguments(tasks: argparse.ArgumentParser) -> None:
    tasks.set_defaults(run=_tasks_list)
    verbs = tasks.add_subparsers(metavar="show | sample")
    show = verbs.add_parser("show", help="mark the positions of a task on an example")
    show.add_argument("task")
    show.add_argument("--seed", type=_seed, default=0)
    show.set_defaults(run=_tasks_show)
    sample = verbs.add_parser("sample", help="print prompt pairs as JSON Lines")
    sample.add_argument("task")
    sample.add_argument("--model", default="pocket", help="whose tokenizer to use (default: pocket)")
    sample.add_argument("-n", type=_positive, default=10, help="how many pairs")
    sample.add_argument("--seed", type=_seed, default=0)
    sample.add_argument("--corrupt", help="which corruption (default: the task's first)")
    sample.add_argument("-o", "--output", help="write to this file")
    sample.set_defaults(run=_tasks_sample)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to {MOST}")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _level(text: str) -> float:
    """A significance level: `5%` or `0.05`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 1e-9 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a level such as 5%")
    return value
