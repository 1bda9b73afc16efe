"""A forecast of a verification, and how it is said."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.measurements.peers import ROUNDS
from circuitdsl.report.numbers import duration
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import table_of
from circuitdsl.verify.work import TaskWork


@dataclass(frozen=True, slots=True)
class Forecast(Shown):
    """What one circuit takes: counts that are exact, and estimates of time (seconds) and memory (bytes).

    `seconds` are those if every claim is decided at the first look, and those if one needs all prompts. `edited` are
    those of them that an edit costs again where it changes which nodes or edges belong to the circuit: for the claims
    about the whole circuit. `threads` are those of the trial that the estimate is made from; there the number format
    took `slower` times as long as float32. `weights_by_device` are bytes, where the model is laid over several GPUs.
    """

    circuit: str
    path: str
    model: dict[str, Any]
    tasks: tuple[TaskWork, ...]
    seconds: tuple[float, float]
    weights: int
    memory: int
    edited: tuple[float, float] = (0.0, 0.0)
    threads: int = 1
    slower: float = 1.0
    new_seconds: float = 0.0
    all_new: str = ""
    weights_by_device: dict[str, int] = field(default_factory=dict)

    @property
    def measurements(self) -> int:
        """Distinct requests on all tasks, nulls included."""
        return sum(task.measurements for task in self.tasks)

    @property
    def portions(self) -> tuple[int, int]:
        """Into how many portions the work is cut, at the first look and on all prompts."""
        least, most = (sum(task.portions[end] for task in self.tasks) for end in (0, 1))
        return least, most

    @property
    def new(self) -> int:
        """Those of them that are not known from earlier runs."""
        return sum(task.new for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"measurements": self.measurements, "new": self.new}

    def show(self, console: Console) -> None:
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
        names = ("prompts", "tokens", "claims", "asked for", "experiments", "nulls", "attention")
        table = table_of("  task", *names, left=("  task",), dim=True, no_wrap=True)
        for task in self.tasks:
            low, high = task.tokens
            length = str(low) if low == high else f"{low} to {high}"
            counts = (task.claims, task.requests, task.experiments, task.nulls, task.reads)
            table.add_row(f"  {task.task}", f"{task.prompts:,}", length, *(f"{count:,}" for count in counts))
        console.print(table)
        console.print()
        console.print(self._work())
        console.print()
        console.print(Text(self._news()))
        for line in self._remarks():
            console.print(Text(line, "dim"))

    def _news(self) -> str:
        """How much of it is known, and what the rest takes."""
        every = self.measurements
        if self.all_new:
            return f"  all {every:,} measurements count as new: {self.all_new}"
        if not self.new:
            return f"  all {every:,} measurements are known from earlier runs, as far as the first look goes"
        if self.new == every:
            return f"  none of the {every:,} measurements is known from earlier runs"
        verb = "is" if self.new == 1 else "are"
        about = duration(self.new_seconds)
        return (
            f"  {self.new:,} of {every:,} measurements {verb} new: about {about} at the first look, the rest is known"
        )

    def _work(self) -> Table:
        table = table_of("  work", "at the first look", "on all prompts", left=("  work",), dim=True)
        for says, what in (
            ("block-positions recomputed", "block_positions"),
            ("MLPs at one position, for edges via MLPs", "flow_positions"),
            ("tokens through the whole model", "run_tokens"),
            ("passes", "passes"),
        ):
            least, most = (sum(getattr(getattr(t, side), what) for t in self.tasks) for side in ("least", "most"))
            if most:
                table.add_row(f"  {says}", f"{least:,}", f"{most:,}")
        table.add_row("  time, estimated", *map(duration, self.seconds), style="bold")
        return table

    def _remarks(self) -> list[str]:
        looks = "; ".join(dict.fromkeys(", ".join(map(str, task.looks)) for task in self.tasks))
        early = any(len(task.looks) > 1 for task in self.tasks)
        why = "a claim that is settled is measured no further" if early else "looking earlier costs more than it saves"
        on = "one thread" if self.threads == 1 else f"{self.threads} threads"
        lines = [
            f"  looks at {looks} prompts: {why}",
            f"  memory: weights {size(self.weights)}, and at most {size(self.memory)} for measuring",
            f"  the time is for this machine as busy as it was in a moment's trial of one layer, on {on}",
            *self._by_device(),
            *self._half_precision(),
            "  the table leaves out loading the model, and counts nothing as known from earlier runs",
            *self._after_edits(),
        ]
        if left_out := sum(task.uncounted for task in self.tasks):
            what = "trace or score on random tokens" if left_out == 1 else "traces and scores on random tokens"
            lines.append(f"  not counted: {left_out} {what}, which run the model by themselves")
        if any(task.ranked for task in self.tasks):
            lines.append(
                f"  counted: {ROUNDS[0]} random circuits; where these do not decide, up to {ROUNDS[-1]} are drawn"
            )
        return lines

    def _by_device(self) -> list[str]:
        """What each of several GPUs holds."""
        if not self.weights_by_device:
            return []
        each = ", ".join(f"{name} {size(number)}" for name, number in self.weights_by_device.items())
        return [f"  weights by device: {each}; what is measured lies where its layer does"]

    def _half_precision(self) -> list[str]:
        """How its speed compares with that of float32."""
        dtype = self.model["dtype"]
        if dtype == "float32":
            return []
        if self.slower > 1:
            return [f"  {dtype} takes {self.slower:.1f} times as long as float32 here: it saves memory alone"]
        return [f"  {dtype} takes {self.slower:.2f} of the time of float32 here"]

    def _after_edits(self) -> list[str]:
        """What is measured again once all of this is known."""
        lines = ["  after an edit: a changed bound runs nothing, a new or changed claim its own patches alone"]
        if self.edited[1]:
            times = " to ".join(map(duration, self.edited))
            lines.append(
                f"  claims about the whole circuit, {times} of that: only where other nodes or edges belong to it"
            )
        return lines


def size(number: int) -> str:
    """`120 MB`, `3.4 GB`"""
    return f"{number / 1e6:,.0f} MB" if number < 2e9 else f"{number / 1e9:,.1f} GB"
