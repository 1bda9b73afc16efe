"""`circuitdsl plan`: what verifying a spec will run and about how long it takes, without running it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from circuitdsl.cli.arguments import positive, seed
from circuitdsl.cli.models import add_memory_argument, add_model_arguments
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.specs import load_all
from circuitdsl.cli.terminal import console, status
from circuitdsl.errors import SPEC_WRONG, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.cli import Verbs
    from circuitdsl.verify.cost import TaskWork


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one circuit takes: counts that are exact, and estimates of time (seconds) and memory (bytes)."""

    circuit: str
    path: str
    model: dict[str, Any]
    tasks: tuple[TaskWork, ...]
    seconds: tuple[float, float]
    weights: int
    memory: int


def register(verbs: Verbs) -> None:
    plan = verbs.add_parser("plan", help="say what verify will run, and about how long it takes")
    plan.add_argument("spec", nargs="+", help="a .circ file, or a shipped spec such as pocket/ioi")
    add_model_arguments(plan)
    plan.add_argument("--prompts", type=positive, help="prompts per task at most, instead of the spec's number")
    plan.add_argument("--seed", type=seed, help="seed of the prompts, instead of the spec's")
    plan.add_argument("--no-early-stop", action="store_true", help="plan for all prompts for every claim")
    add_memory_argument(plan)
    plan.add_argument("--format", choices=("text", "json"), help="default: text, or json for -o FILE.json")
    plan.add_argument("-o", "--output", help="write to this file")
    plan.set_defaults(run=_plan)


def _plan(given: argparse.Namespace) -> int:
    specs = load_all(given.spec, given.model)
    if specs is None:
        return SPEC_WRONG
    circuits = [circuit for spec in specs for circuit in spec.circuits]
    if not any(circuit.claims for circuit in circuits):
        raise UserError("nothing to plan: the spec makes no claim that can be measured")
    target = output(given.output)
    forecasts = [_forecast(circuit, given) for circuit in circuits if circuit.claims]
    if given.format == "json" or (given.format is None and target is not None and target.suffix == ".json"):
        found = [asdict(forecast) for forecast in forecasts]
        text = json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False) + "\n"
    else:
        text = _terminal(forecasts, plain=target is not None)
    if target:
        write(target, text)
    else:
        sys.stdout.write(text)
    return 0


def _forecast(circuit: Circuit, given: argparse.Namespace) -> Forecast:
    import torch

    from circuitdsl.api import MEAN_PROMPTS, make_data, tasks_in_use
    from circuitdsl.engine.count import calibrate
    from circuitdsl.models.cache import place_of, threads_for
    from circuitdsl.models.load import device_named
    from circuitdsl.models.outline import outline, parameters
    from circuitdsl.verify.cost import memory, seconds, workload
    from circuitdsl.verify.verify import with_overrides

    circuit = with_overrides(circuit, given.prompts, given.seed)
    name, place, revision = place_of(circuit, given.model)
    with status(f"counting {circuit.name}"):
        model = outline(place, given.dtype, revision)
        device = device_named(given.device)
        datasets = {use.name: make_data(circuit, use, model) for use in tasks_in_use(circuit)}
        work = workload(circuit, model, datasets, MEAN_PROMPTS, not given.no_early_stop, given.memory)
        torch.set_num_threads(threads_for(model.d_model, device.type, torch.get_num_threads()))
        machine = calibrate(model, device)
    size = parameters(model)
    return Forecast(
        circuit=circuit.name,
        path=circuit.path,
        model={
            "name": name,
            "n_layers": model.n_layers,
            "n_heads": model.n_heads,
            "parameters": size,
            "device": device.type,
            "dtype": given.dtype,
        },
        tasks=work,
        seconds=(
            sum(seconds(model, task, task.least, machine) for task in work),
            sum(seconds(model, task, task.most, machine) for task in work),
        ),
        weights=size * torch.finfo(model.dtype).bits // 8,
        memory=memory(model, work, device, given.memory),
    )


# --- on a terminal ---------------------------------------------------------------------------------


def _terminal(forecasts: Sequence[Forecast], plain: bool) -> str:
    """Print forecasts on the terminal; for a file return them as text instead."""
    screen = console(plain=plain)
    with screen.capture() if plain else nullcontext() as capture:
        for i, forecast in enumerate(forecasts):
            if i:
                screen.print()
            _show(forecast, screen)
    return capture.get() if capture else ""


def _show(forecast: Forecast, screen: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    model = forecast.model
    screen.print(
        Text.assemble(
            (forecast.circuit, "bold"),
            f" · {model['name']} ({model['n_layers']} layers × {model['n_heads']} heads,"
            f" {model['parameters'] / 1e6:,.1f} M parameters) · {model['device']} {model['dtype']}",
        )
    )
    screen.print()
    if not forecast.tasks:
        screen.print(Text("  the claims are about weights alone: nothing is run"))
        return
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("  task", no_wrap=True)
    for heading in ("prompts", "tokens", "claims", "asked for", "experiments", "nulls", "attention"):
        table.add_column(heading, justify="right")
    for task in forecast.tasks:
        low, high = task.tokens
        length = str(low) if low == high else f"{low} to {high}"
        counts = (task.claims, task.requests, task.experiments, task.nulls, task.reads)
        table.add_row(f"  {task.task}", f"{task.prompts:,}", length, *(f"{count:,}" for count in counts))
    screen.print(table)
    screen.print()
    screen.print(_work(forecast))
    screen.print()
    for line in _remarks(forecast):
        screen.print(Text(line, "dim"))


def _work(forecast: Forecast) -> Any:
    from rich.table import Table

    tasks = forecast.tasks
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("  work")
    for heading in ("at the first look", "on all prompts"):
        table.add_column(heading, justify="right")
    for says, count in (
        ("block-positions recomputed", lambda work: work.block_positions),
        ("MLPs at one position, for edges via MLPs", lambda work: work.flow_positions),
        ("tokens through the whole model", lambda work: work.run_tokens),
        ("passes", lambda work: work.passes),
    ):
        least, most = (
            sum(count(work) for work in side) for side in zip(*((t.least, t.most) for t in tasks), strict=True)
        )
        if most:
            table.add_row(f"  {says}", f"{least:,}", f"{most:,}")
    table.add_row("  time, estimated", *(_duration(value) for value in forecast.seconds), style="bold")
    return table


def _remarks(forecast: Forecast) -> list[str]:
    looks = "; ".join(dict.fromkeys(", ".join(map(str, task.looks)) for task in forecast.tasks))
    lines = [
        f"  looks at {looks} prompts: a claim that is settled is measured no further",
        f"  memory: weights {_bytes(forecast.weights)}, and at most {_bytes(forecast.memory)} for measuring",
        "  the time is an estimate from a moment's trial of one layer on this machine, without loading the model",
    ]
    if left_out := sum(task.uncounted for task in forecast.tasks):
        what = "trace or score on random tokens" if left_out == 1 else "traces and scores on random tokens"
        lines.append(f"  not counted: {left_out} {what}, which run the model by themselves")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size < 2e9 else f"{size / 1e9:,.1f} GB"
