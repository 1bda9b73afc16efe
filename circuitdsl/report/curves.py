"""How much of a behaviour circuits of growing size do, as `score` measures it (`discover.curve`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.report.numbers import percent, plain
from circuitdsl.report.shown import Shown


@dataclass(frozen=True, slots=True)
class Area:
    """A figure with the interval of its resamples."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "interval": [self.low, self.high]}

    def __str__(self) -> str:
        return f"{plain(self.value, 3)} [{plain(self.low, 3)}, {plain(self.high, 3)}]"


@dataclass(frozen=True, slots=True)
class Step:
    """One size: the share of edges, how many of them are left on a way, and the faithfulness of these."""

    share: float
    edges: int
    faithfulness: Area


@dataclass(frozen=True, slots=True)
class Curve:
    """The curves of one file of scores: by the highest scores, and by the largest."""

    name: str
    highest: tuple[Step, ...]
    largest: tuple[Step, ...]
    cpr: Area
    cmd: Area

    def to_json(self) -> dict[str, Any]:
        def steps(found: Iterable[Step]) -> list[dict[str, Any]]:
            return [{"share": one.share, "edges": one.edges, **one.faithfulness.to_json()} for one in found]

        areas = {"cpr": self.cpr.to_json(), "cmd": self.cmd.to_json()}
        return {"name": self.name, **areas, "curve": steps(self.highest), "curve_of_sizes": steps(self.largest)}


@dataclass(frozen=True, slots=True)
class Curves(Shown):
    """Curves of several files on the same prompts."""

    model: str
    task: str
    metric: str
    prompts: int
    seed: int
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in ("model", "task", "metric", "prompts", "seed")}
        return {**about, "notes": list(self.notes), "circuits": [one.to_json() for one in self.curves]}

    def show(self, console: Console) -> None:
        about = f"{self.task} on {self.model}: faithfulness ({self.metric}) by the share of edges that is kept"
        console.print(Text(f"{about}; {self.prompts} prompts of seed {self.seed}"))
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("scores", *(percent(step.share) for step in self.curves[0].highest[:-1]), "CPR", "CMD"):
            table.add_column(name, justify="left" if name == "scores" else "right", no_wrap=True)
        for one in self.curves:
            by_sign = [plain(step.faithfulness.value) for step in one.highest[:-1]]
            by_size = [plain(step.faithfulness.value) for step in one.largest[:-1]]
            table.add_row(Text(one.name), *by_sign, str(one.cpr), "" if by_sign != by_size else str(one.cmd))
            if by_sign != by_size:
                table.add_row(Text("  by size"), *by_size, "", str(one.cmd))
        console.print(table)
        for note in self.notes:
            console.print(Text(f"note: {note}"))
