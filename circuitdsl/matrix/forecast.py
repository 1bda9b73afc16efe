"""What a matrix will take: cells, time and memory, from the forecast of one cell for each spec, model and task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from circuitdsl.errors import UserError
from circuitdsl.matrix.asking import as_written, asked
from circuitdsl.matrix.cell import Cell
from circuitdsl.matrix.runs import OF_SESSION
from circuitdsl.matrix.worker import Settings
from circuitdsl.report.numbers import duration
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import table_of
from circuitdsl.verify.forecast import size
from circuitdsl.verify.portions import cutting
from circuitdsl.verify.session import Session

#: so many lines are printed; where there are more cells that differ, there is one for each model
MOST = 40


@dataclass(frozen=True, slots=True)
class CellWork:
    """What a cell takes, and how many there are that differ from it in their seed alone.

    Attributes:
        device: where it runs; empty where nothing could be planned.
        seconds: if every claim is decided at the first look, and if each needs all prompts.
        weights, memory: bytes of the weights, and of these and of measuring.
        portions: into how many the work is cut, at the first look and on all prompts.
        problem: why it could not be planned; empty where it could.
    """

    spec: str
    model: str
    task: str
    cells: int = 1
    device: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)
    weights: int = 0
    memory: int = 0
    portions: tuple[int, int] = (0, 0)
    problem: str = ""

    @property
    def all_seconds(self) -> tuple[float, float]:
        """Of all these cells, one after the other."""
        least, most = self.seconds
        return self.cells * least, self.cells * most


@dataclass(frozen=True)
class MatrixForecast(Shown):
    """What a matrix takes, in one process; `known` are cells that are done already and not counted."""

    works: tuple[CellWork, ...]
    known: int = 0

    @property
    def seconds(self) -> tuple[float, float]:
        """Of all cells, one after the other."""
        return _sum(each.all_seconds for each in self.works)

    @property
    def gpu_hours(self) -> tuple[float, float]:
        """Of the cells that run on a GPU."""
        return self._hours(gpu=True)

    @property
    def cpu_hours(self) -> tuple[float, float]:
        """Of the cells that run on the CPU, on the threads of this machine."""
        return self._hours(gpu=False)

    def _hours(self, gpu: bool) -> tuple[float, float]:
        least, most = _sum(each.all_seconds for each in self.works if each.device.startswith("cuda") == gpu)
        return least / 3600, most / 3600

    def to_json(self) -> dict[str, Any]:
        sums = {name: getattr(self, name) for name in ("seconds", "gpu_hours", "cpu_hours")}
        return asdict(self) | sums

    def show(self, console: Console) -> None:
        if len(self.works) > MOST:
            self._show_models(console)
        else:
            self._show_cells(console)
        console.print()
        hours = [f"{name} hours: {' to '.join(map(_hours, sums))}" for name, sums in self._sums if any(sums)]
        console.print(Text(f"  {', '.join(hours) or 'nothing is run'}"))
        if self.known:
            console.print(Text(f"  {self.known:,} more cells are done already"))
        problems = dict.fromkeys((each.model, each.problem) for each in self.works if each.problem)
        for model, problem in problems:
            console.print(Text(f"  {model}: {problem}", "yellow"), soft_wrap=True)
        notes = "in one process, without loading the models, and nothing known from earlier runs"
        console.print(Text(f"  {notes}", "dim"))

    @property
    def _sums(self) -> tuple[tuple[str, tuple[float, float]], ...]:
        return ("GPU", self.gpu_hours), ("CPU", self.cpu_hours)

    def _show_cells(self, console: Console) -> None:
        tasks = any(each.task for each in self.works)
        names = ("  spec", "model", *(["task"] * tasks), "device")
        figures = ("cells", "parts", "memory", "each at the first look", "on all prompts")
        table = table_of(*names, *figures, left=names, dim=True, no_wrap=True)
        for each in self.works:
            about = (f"  {each.spec}", each.model, *([each.task] * tasks), each.device)
            shown = (f"{each.cells:,}", _range(each.portions), size(each.memory), *map(duration, each.seconds))
            table.add_row(*map(Text, about), *shown)
        parts = _sum((each.cells * each.portions[0], each.cells * each.portions[1]) for each in self.works)
        blank = [""] * (len(names) - 1)
        most = size(max((each.memory for each in self.works), default=0))
        table.add_row("  all", *blank, *self._all(_range(parts), most), style="bold")
        console.print(table)

    def _show_models(self, console: Console) -> None:
        names = ("  model", "device")
        figures = ("cells", "memory", "at the first look", "on all prompts")
        table = table_of(*names, *figures, left=names, dim=True, no_wrap=True)
        for model in dict.fromkeys(each.model for each in self.works):
            mine = [each for each in self.works if each.model == model]
            cells, device = sum(each.cells for each in mine), next((each.device for each in mine if each.device), "")
            most = size(max(each.memory for each in mine))
            times = map(duration, _sum(each.all_seconds for each in mine))
            table.add_row(Text(f"  {model}"), device, f"{cells:,}", most, *times)
        table.add_row("  all", "", *self._all(size(max(each.memory for each in self.works))), style="bold")
        console.print(table)

    def _all(self, *between: str) -> tuple[str, ...]:
        """The figures of all cells together."""
        return f"{sum(each.cells for each in self.works):,}", *between, *map(duration, self.seconds)


def _sum(pairs: Iterable[tuple[float, float]]) -> tuple[Any, Any]:
    found = list(pairs)
    return sum(pair[0] for pair in found), sum(pair[1] for pair in found)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _range(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,} to {pair[1]:,}"


def forecast(
    cells: Sequence[Cell], known: int, settings: Settings, told: Callable[[str], object] = lambda _: None
) -> MatrixForecast:
    """What some cells take. Cells that differ in their seed alone are planned once; nothing is loaded or measured."""
    found, groups = list[CellWork](), alike(cells)
    for number, mine in enumerate(groups, start=1):
        told(f"planning {number} of {len(groups)}: {mine[0]}")
        found.append(replace(work_of_cell(mine[0], settings), cells=len(mine)))
    return MatrixForecast(tuple(found), known)


def alike(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that differ in their seed alone, together."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((*cell.place[:4], *cell.place[5:]), []).append(cell)
    return list(groups.values())


def work_of_cell(cell: Cell, settings: Settings, device: str | None = None) -> CellWork:
    """What a cell takes, on its own device or on another; nothing is loaded."""
    made = CellWork(cell.spec, cell.model, cell.task)
    own = {name: cell.options[name] for name in OF_SESSION if name in cell.options}
    own |= {"device": device, "device_map": None} if device else {}
    how = {name: cell.options[name] for name in ("prompts", "early_stop") if name in cell.options}
    try:
        spec, _ = asked(as_written(cell.spec, settings.allow_outside), cell.instead, cell.task)
        if not any(circuit.claims for circuit in spec.circuits):
            return made
        with (
            cutting(settings.sizes),
            Session(cell.instead, **own, cache=False, memory=settings.memory) as session,
        ):
            found = session.plan(spec, seed=cell.seed, **how)
    except UserError as error:
        return replace(made, problem=f"{cell.spec}: {error.message}")
    return replace(
        made,
        device=str(found[0].model["device"]),
        seconds=_sum(each.seconds for each in found),
        weights=max(each.weights for each in found),
        memory=max(each.weights + each.memory for each in found),
        portions=_sum(each.portions for each in found),
    )
