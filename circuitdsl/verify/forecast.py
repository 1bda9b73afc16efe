"""What verifying a circuit will run and about how long it takes, without loading weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.shapes import place_of
from circuitdsl.engine.count import calibrate
from circuitdsl.errors import UserError
from circuitdsl.models.load import device_named
from circuitdsl.models.outline import outline, parameters
from circuitdsl.report.shown import Shown
from circuitdsl.verify.cost import TaskWork, memory, seconds, workload
from circuitdsl.verify.options import with_overrides
from circuitdsl.verify.prompts import MEAN_PROMPTS, make_data, tasks_in_use
from circuitdsl.verify.session import Session

if TYPE_CHECKING:
    from circuitdsl.api import Spec


@dataclass(frozen=True, slots=True)
class Forecast(Shown):
    """What one circuit takes: counts that are exact, and estimates of time (seconds) and memory (bytes).

    `seconds` are those if every claim is decided at the first look, and those if one needs all prompts.
    """

    circuit: str
    path: str
    model: dict[str, Any]
    tasks: tuple[TaskWork, ...]
    seconds: tuple[float, float]
    weights: int
    memory: int

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain values."""
        return asdict(self)

    def show(self, console: Console) -> None:
        """Print the model, a row for each task, the work, and what the figures mean."""
        model = self.model
        console.print(
            Text.assemble(
                (self.circuit, "bold"),
                f" · {model['name']} ({model['n_layers']} layers × {model['n_heads']} heads,"
                f" {model['parameters'] / 1e6:,.1f} M parameters) · {model['device']} {model['dtype']}",
            )
        )
        console.print()
        if not self.tasks:
            console.print(Text("  the claims are about weights alone: nothing is run"))
            return
        table = _table("task", "prompts", "tokens", "claims", "asked for", "experiments", "nulls", "attention")
        table.columns[0].no_wrap = True
        for task in self.tasks:
            low, high = task.tokens
            length = str(low) if low == high else f"{low} to {high}"
            counts = (task.claims, task.requests, task.experiments, task.nulls, task.reads)
            table.add_row(f"  {task.task}", f"{task.prompts:,}", length, *(f"{count:,}" for count in counts))
        console.print(table)
        console.print()
        console.print(self._work())
        console.print()
        for line in self._remarks():
            console.print(Text(line, "dim"))

    def _work(self) -> Table:
        table = _table("work", "at the first look", "on all prompts")
        for says, field in (
            ("block-positions recomputed", "block_positions"),
            ("MLPs at one position, for edges via MLPs", "flow_positions"),
            ("tokens through the whole model", "run_tokens"),
            ("passes", "passes"),
        ):
            least, most = (sum(getattr(getattr(t, side), field) for t in self.tasks) for side in ("least", "most"))
            if most:
                table.add_row(f"  {says}", f"{least:,}", f"{most:,}")
        table.add_row("  time, estimated", *map(_duration, self.seconds), style="bold")
        return table

    def _remarks(self) -> list[str]:
        looks = "; ".join(dict.fromkeys(", ".join(map(str, task.looks)) for task in self.tasks))
        lines = [
            f"  looks at {looks} prompts: a claim that is settled is measured no further",
            f"  memory: weights {_bytes(self.weights)}, and at most {_bytes(self.memory)} for measuring",
            "  the time is an estimate from a moment's trial of one layer on this machine, without loading the model",
        ]
        if left_out := sum(task.uncounted for task in self.tasks):
            what = "trace or score on random tokens" if left_out == 1 else "traces and scores on random tokens"
            lines.append(f"  not counted: {left_out} {what}, which run the model by themselves")
        return lines


def plan(
    session: Session,
    *specs: Spec | str | Path,
    prompts: int | None = None,
    seed: int | None = None,
    early_stop: bool = True,
) -> tuple[Forecast, ...]:
    """What verifying some specs runs, and about how long it takes: a forecast for each circuit that makes claims.

    No weights are loaded, and nothing is measured: one layer of the model's shape is timed.

    Raises:
        UserError: the specs make no claim, the model's shape is not known, prompts cannot be made, or the memory is too
            little for one of them.
    """
    circuits = [circuit for spec in specs for circuit in session.spec(spec).circuits if circuit.claims]
    if not circuits:
        raise UserError("nothing to plan: the spec makes no claim that can be measured")
    return tuple(_forecast(session, with_overrides(circuit, prompts, seed), early_stop) for circuit in circuits)


def _forecast(session: Session, circuit: Circuit, early_stop: bool) -> Forecast:
    name, place, revision = place_of(circuit, session.name)
    with session.busy(f"counting {circuit.name}"):
        model, device = outline(place, session.dtype, revision), device_named(session.device)
        datasets = {use.name: make_data(circuit, use, model) for use in tasks_in_use(circuit)}
        work = workload(circuit, model, datasets, MEAN_PROMPTS, early_stop, session.memory)
        session.use_threads(model.d_model, device.type)
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
            "dtype": session.dtype,
        },
        tasks=work,
        seconds=(
            sum(seconds(model, task, task.least, machine) for task in work),
            sum(seconds(model, task, task.most, machine) for task in work),
        ),
        weights=size * torch.finfo(model.dtype).bits // 8,
        memory=memory(model, work, device, session.memory),
    )


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    table.add_column(f"  {first}")
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size < 2e9 else f"{size / 1e9:,.1f} GB"
