"""What a matrix will take: cells, time and memory, from the forecast of one cell for each spec, model and task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.errors import UserError
from circuitdsl.matrix.asking import as_written, asked
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.runs import OF_SESSION
from circuitdsl.matrix.worker import Settings
from circuitdsl.report.numbers import duration, plain
from circuitdsl.report.shown import Shown
from circuitdsl.verify.session import Session


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What the cells of one model take, all together.

    Attributes:
        device: where they run; empty where nothing could be planned.
        seconds: if every claim is decided at the first look, and if each needs all prompts.
        memory: bytes for the weights and for measuring, of the largest cell.
        problem: why some of them could not be planned; empty where all could.
    """

    model: str
    device: str
    cells: int
    seconds: tuple[float, float]
    memory: int
    problem: str = ""


@dataclass(frozen=True)
class MatrixForecast(Shown):
    """What a matrix takes, in one process; `known` are cells that are done already and not counted."""

    models: tuple[ModelWork, ...]
    known: int = 0

    @property
    def seconds(self) -> tuple[float, float]:
        """Of all cells, one after the other."""
        least, most = (sum(each.seconds[end] for each in self.models) for end in (0, 1))
        return least, most

    @property
    def gpu_hours(self) -> tuple[float, float]:
        """Of the cells that run on a GPU."""
        gpu = [each.seconds for each in self.models if each.device.startswith("cuda")]
        least, most = (sum(pair[end] for pair in gpu) / 3600 for end in (0, 1))
        return least, most

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"seconds": self.seconds, "gpu_hours": self.gpu_hours}

    def show(self, console: Console) -> None:
        """Print a line for each model, and the sum."""
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("  model", no_wrap=True)
        for heading in ("device", "cells", "at the first look", "on all prompts", "memory"):
            table.add_column(heading, justify="left" if heading == "device" else "right")
        for each in self.models:
            times = map(duration, each.seconds)
            table.add_row(
                Text(f"  {each.model}"), each.device, f"{each.cells:,}", *times, f"{each.memory / 1e6:,.0f} MB"
            )
        cells = sum(each.cells for each in self.models)
        table.add_row("  all", "", f"{cells:,}", *map(duration, self.seconds), style="bold")
        console.print(table)
        console.print()
        hours = " to ".join(plain(hour) for hour in self.gpu_hours)
        console.print(Text(f"  GPU hours: {hours if any(self.gpu_hours) else '0, all of it runs on the CPU'}"))
        if self.known:
            console.print(Text(f"  {self.known:,} more cells are done already"))
        for each in self.models:
            if each.problem:
                console.print(Text(f"  {each.model}: {each.problem}", "yellow"), soft_wrap=True)
        notes = (
            "in one process, one cell after the other; without loading the models, and nothing known from earlier runs"
        )
        console.print(Text(f"  {notes}", "dim"))


def forecast(
    cells: Sequence[Cell], known: int, settings: Settings, told: Callable[[str], object] = lambda _: None
) -> MatrixForecast:
    """What some cells take. Cells that differ in their seed alone are planned once; nothing is loaded or measured."""
    alike: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((*cell.place[:4], *cell.place[5:]), []).append(cell)
    found: dict[str, list[tuple[int, ModelWork]]] = {}
    for number, mine in enumerate(alike.values(), start=1):
        told(f"planning {number} of {len(alike)}: {mine[0]}")
        found.setdefault(mine[0].model, []).append((len(mine), _of_cell(mine[0], settings)))
    return MatrixForecast(tuple(_sum(model, works) for model, works in found.items()), known)


def _of_cell(cell: Cell, settings: Settings) -> ModelWork:
    own = {name: cell.options[name] for name in OF_SESSION if name in cell.options}
    how = {name: cell.options[name] for name in ("prompts", "early_stop") if name in cell.options}
    try:
        spec, _ = asked(as_written(cell.spec, settings.allow_outside), cell.instead, cell.task)
        if not any(circuit.claims for circuit in spec.circuits):
            return ModelWork(cell.model, "", 1, (0.0, 0.0), 0)
        with Session(cell.instead, **own, cache=False, memory=settings.memory) as session:
            found = session.plan(spec, seed=cell.seed, **how)
    except UserError as error:
        return ModelWork(cell.model, "", 1, (0.0, 0.0), 0, f"{cell.spec}: {error.message}")
    least, most = (sum(each.seconds[end] for each in found) for end in (0, 1))
    memory = max(each.weights + each.memory for each in found)
    return ModelWork(cell.model, str(found[0].model["device"]), 1, (least, most), memory)


def _sum(model: str, works: Sequence[tuple[int, ModelWork]]) -> ModelWork:
    least, most = (sum(many * work.seconds[end] for many, work in works) for end in (0, 1))
    return ModelWork(
        model,
        next((work.device for _, work in works if work.device), ""),
        sum(many for many, _ in works),
        (least, most),
        max(work.memory for _, work in works),
        next((work.problem for _, work in works if work.problem), ""),
    )
