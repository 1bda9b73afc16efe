"""How often each claim holds, over seeds and models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.matrix.cell import NOT_APPLICABLE, Outcome, Record
from circuitdsl.report.behind import Interval
from circuitdsl.report.numbers import bracket, percent
from circuitdsl.report.shown import Shown

#: the two-sided 95 % point of the normal distribution
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How often one claim holds.

    Attributes:
        task: None for a claim about weights alone.
        held, asked: the cells in which it holds, and those that gave a verdict: holds, fails or undecided.
        share, ci: of `asked`, with Wilson's 95 % interval; None where it was never asked.
        outcomes: how often each outcome was reached, those without a verdict included.
        models: for each model, in how many cells it holds, and of how many that gave a verdict.
    """

    spec: str
    circuit: str
    line: int
    claim: str
    task: str | None
    held: int
    asked: int
    share: float | None
    ci: Interval | None
    outcomes: dict[Outcome, int]
    models: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Stability(Shown):
    """How often each claim holds, in the order of the specs.

    Attributes:
        cells, failed: those that were looked at, and those of them that could not be run.
    """

    claims: tuple[Steadiness, ...]
    cells: int
    failed: int

    def show(self, console: Console) -> None:
        models = list(dict.fromkeys(model for each in self.claims for model in each.models))
        tasks = len({each.task for each in self.claims}) > 1
        for spec in dict.fromkeys(each.spec for each in self.claims):
            console.print(Text(spec, "bold"))
            console.print(_grid([each for each in self.claims if each.spec == spec], models, tasks))
            console.print()
        some = f", {self.failed} of them failed" if self.failed else ""
        console.print(
            Text(f"  over {self.cells} cells{some}; the interval is Wilson's, for seeds and models like these", "dim")
        )


def stability(records: Sequence[Record]) -> Stability:
    """How often each claim holds in some cells; a cell that could not be run says nothing of any."""
    found: dict[tuple[str, str, int, str | None], list[tuple[str, str, Outcome]]] = {}
    for record in records:
        cell = record.cell
        for row in record.claims:
            key = (cell.spec, row.circuit, row.line, cell.task or row.task)
            found.setdefault(key, []).append((row.claim, cell.model, row.outcome))
    # a claim that one model lacks has no task there: it is counted with the only task that it has elsewhere
    for key in [key for key in found if key[3] is None]:
        others = [other for other in found if other[:3] == key[:3] and other[3] is not None]
        if len(others) == 1:
            found[others[0]] += found.pop(key)
    claims = (_steadiness(key, found[key]) for key in sorted(found, key=lambda key: (*key[:3], key[3] or "")))
    return Stability(tuple(claims), len(records), sum(record.state == "failed" for record in records))


def _steadiness(key: tuple[str, str, int, str | None], seen: Sequence[tuple[str, str, Outcome]]) -> Steadiness:
    models: dict[str, tuple[int, int]] = {}
    for _, model, outcome in seen:
        held, asked = models.get(model, (0, 0))
        verdict = outcome not in ("error", NOT_APPLICABLE)
        models[model] = (held + (outcome in ("holds", "unexpected")), asked + verdict)
    held, asked = (sum(pair[i] for pair in models.values()) for i in (0, 1))
    spec, circuit, line, task = key
    return Steadiness(
        *(spec, circuit, line, seen[0][0], task, held, asked),
        share=held / asked if asked else None,
        ci=wilson(held, asked) if asked else None,
        outcomes=dict(Counter(outcome for *_, outcome in seen)),
        models=models,
    )


def wilson(successes: int, n: int) -> Interval:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    share, square = successes / n, _Z**2 / n
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def _grid(claims: Sequence[Steadiness], models: Sequence[str], tasks: bool) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("", justify="right", width=4)
    grid.add_column("claim", no_wrap=True, overflow="ellipsis", min_width=36)
    for heading in (*["task"] * tasks, *models, "holds", "", "95 % interval"):
        grid.add_column(heading, justify="left" if heading in ("task", "95 % interval") else "right", no_wrap=True)
    for each in claims:
        counts = [_of(each.models.get(model, (0, 0))) for model in models]
        share = "" if each.share is None else percent(each.share)
        style = "" if each.share in (None, 1.0) else "bold red" if each.share == 0 else "yellow"
        ends = bracket(each.ci, "share") if each.ci else "never asked"
        numbers = (Text(_of((each.held, each.asked))), Text(share, style), Text(ends, "dim"))
        named = [Text(each.task or "weights")] * tasks
        grid.add_row(Text(str(each.line), "dim"), Text(each.claim), *named, *map(Text, counts), *numbers)
    return grid


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}" if pair[1] else "–"
