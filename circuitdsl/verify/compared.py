"""Two circuits of one model compared: what they have in common, and how alike their heads matter to the two tasks.

Overlap compares what two specs say. Importance compares what every head of the model does for two tasks, whatever was
written down (after Merullo et al. 2023, arXiv 2310.08744, section 4, who correlate importance across tasks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from circuitdsl.circuit import compare as overlap
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.nodes import EVERYWHERE, Node, Site
from circuitdsl.circuit.shapes import ModelShape, near, shape_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UsageError, UserError
from circuitdsl.measurements.requests import NodeRequest
from circuitdsl.report.numbers import percent
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import comparison_to_json, show_comparison, table_of
from circuitdsl.verify.measure import measure as measured
from circuitdsl.verify.session import Session, with_overrides

if TYPE_CHECKING:
    from circuitdsl.api import Spec

#: heads that the table of measured effects shows
_SHOWN = 12
PERMUTATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Profile:
    """The total effect of every head on one task: the share of the gap that its corruption at all positions costs.

    Attributes:
        task: its name in the spec.
        heads: all heads of the model.
        effects: mean of (patched − clean) over mean of (clean − corrupt), for each of them.
        n: prompts that it was measured on.
    """

    task: str
    heads: tuple[Node, ...]
    effects: tuple[float, ...]
    n: int


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of two figures of the same heads.

    `p` is the share of random pairings of heads within each layer that correlate at least as well: heads of one layer
    are alike in what they can reach, which alone makes profiles similar.
    """

    rho: float
    p: float


@dataclass(frozen=True, slots=True)
class Importance(Shown):
    """The total effect of every head on two tasks, and how alike they rank."""

    first: Profile
    second: Profile
    found: Correlation

    def to_json(self) -> dict[str, Any]:
        effects = {str(head): {self.first.task: a, self.second.task: b} for head, a, b in self._rows()}
        return {**asdict(self.found), "prompts": [self.first.n, self.second.n], "effects": effects}

    def show(self, console: Console) -> None:
        table = table_of("head", self.first.task, self.second.task)
        rows = sorted(self._rows(), key=lambda row: -max(abs(row[1]), abs(row[2])))
        for head, a, b in rows[:_SHOWN]:
            table.add_row(str(head), percent(a), percent(b))
        console.print(
            f"total effect of every head, all positions corrupted ({self.first.n} and {self.second.n} prompts); rank "
            f"correlation of sizes {self.found.rho:.2f}, as high in {percent(self.found.p)} of shuffles within layers"
        )
        console.print()
        console.print(table)
        if len(rows) > _SHOWN:
            more = f"  and {len(rows) - _SHOWN} more with smaller effects (all of them: --format json)"
            console.print(Text(more, "dim"))

    def _rows(self) -> list[tuple[Any, float, float]]:
        return list(zip(self.first.heads, self.first.effects, self.second.effects, strict=True))


@dataclass(frozen=True, slots=True)
class Compared(Shown):
    """What two circuits have in common.

    Attributes:
        shape: of the one model that they are about; None where it is not known.
        controls: each of them compared with a circuit of another task.
        importance: what was measured, if anything.
    """

    comparison: overlap.Comparison
    shape: ModelShape | None
    controls: tuple[overlap.Comparison, ...]
    importance: Importance | None

    def to_json(self) -> dict[str, Any]:
        controls = [comparison_to_json(each) for each in self.controls]
        importance = self.importance.to_json() if self.importance else None
        return {**comparison_to_json(self.comparison), "controls": controls, "importance": importance}

    def show(self, console: Console) -> None:
        show_comparison(self.comparison, console, self.controls)
        if self.importance:
            console.print()
            self.importance.show(console)

    def draw(self, path: str | Path) -> None:
        """Draw the model's heads into a file: .svg or .png.

        Raises:
            UserError: the model's shape is not known, or the file cannot be written.
        """
        from circuitdsl.diagram.comparison import picture
        from circuitdsl.diagram.formats import write_picture

        if self.shape is None:
            raise UserError("the model's shape is not known, so its heads cannot be drawn", hint="give --model DIR")
        write_picture(picture(self.comparison, self.shape.n_layers, self.shape.n_heads), Path(path))


def compare(
    session: Session,
    first: Circuit | Spec | str | Path,
    second: Circuit | Spec | str | Path,
    control: Circuit | Spec | str | Path | None = None,
    measure: bool = False,
    prompts: int = 128,
) -> Compared:
    """What two circuits of one model have in common, against chance.

    Args:
        control: a circuit of another task, with which both are compared as well.
        measure: measure every head of the model on both tasks, on so many `prompts`, and correlate.

    Raises:
        UserError: the circuits are about different models, or one of them has no task to measure on.
    """
    one, two = session.circuit(first), session.circuit(second)
    others = [] if control is None else [session.circuit(control)]
    shape = _shape([one, two, *others], session.name)
    heads = shape.n_heads if shape else None
    controls = tuple(overlap.compare(each, other, heads) for other in others for each in (one, two))
    importance = _importance(session, [one, two], prompts) if measure else None
    return Compared(overlap.compare(one, two, heads), shape, controls, importance)


def _shape(circuits: list[Circuit], model: str | None) -> ModelShape | None:
    """The shape of the one model that the circuits are about."""
    named = {model or (circuit.model.name if circuit.model else "") for circuit in circuits}
    if len(named) > 1:
        raise UsageError(
            f"these circuits are about different models: {', '.join(sorted(named))}",
            hint="heads of different models have nothing but their numbers in common",
        )
    name = named.pop()
    return shape_of(near(name, circuits[0].path))[0] if name else None


def _importance(session: Session, circuits: list[Circuit], prompts: int) -> Importance:
    """The effect of every head on the first task of each of two circuits."""
    for circuit in circuits:
        if not circuit.tasks:
            raise UserError(f"circuit {circuit.name} has no task to measure its heads on")
    done = 0
    with session.meter() as progress:
        wanted = [with_overrides(circuit, prompts) for circuit in circuits]
        by_task = [session.prompts_of(circuit, circuit.tasks[0]) for circuit in wanted]
        whole = sum(prompts.model.n_layers * prompts.model.n_heads * len(prompts.pairs) for prompts in by_task)

        def count(work: int) -> None:
            nonlocal done
            done += work
            if progress:
                progress(done, whole, "measuring every head")

        pairs = zip(by_task, circuits, strict=True)
        first, second = (profile(each, circuit.tasks[0].name, prompts, count) for each, circuit in pairs)
    return Importance(first, second, correlation(first, second))


# --- importance -------------------------------------------------------------------------------------


def profile(prompts: Prompts, task: str, count: int, done: Callable[[int], None] | None = None) -> Profile:
    """Measure the importance of every head on the first `count` prompts.

    Raises:
        UserError: the metric is the same on clean and corrupt prompts, so that there is nothing to take a share of.
    """
    model = prompts.model
    heads = tuple(Node("head", layer, head) for layer in range(model.n_layers) for head in range(model.n_heads))
    indices = np.arange(min(count, len(prompts.pairs)))
    requests = [NodeRequest((Site(head, EVERYWHERE),)) for head in heads]
    found = measured(prompts, requests, indices, done)
    gap = float((prompts.clean - prompts.corrupt)[indices].mean())
    if not gap:
        raise UserError(f"task {task} has no gap: {prompts.metric} is the same on clean and corrupt prompts")
    effects = (float((found[request].values - prompts.clean[indices]).mean()) / gap for request in requests)
    return Profile(task, heads, tuple(effects), len(indices))


def correlation(first: Profile, second: Profile) -> Correlation:
    """How alike the sizes of the effects of all heads are on two tasks."""
    return rank_correlation(first.heads, np.abs(first.effects), np.abs(second.effects))


def rank_correlation(heads: Sequence[Node], first: np.ndarray, second: np.ndarray) -> Correlation:
    """How alike two figures rank some heads [heads]."""
    x, y = (ranks - ranks.mean() for ranks in map(_ranks, (first, second)))
    size, product = float(np.sqrt((x @ x) * (y @ y))), float(x @ y)
    layers = np.asarray([head.layer for head in heads])
    rng = np.random.default_rng(0)
    shuffled = np.tile(y, (PERMUTATIONS, 1))
    for layer in np.unique(layers):
        here = np.flatnonzero(layers == layer)
        shuffled[:, here] = rng.permuted(shuffled[:, here], axis=1)
    as_high = int(np.count_nonzero(shuffled @ x >= product - 1e-12 * size))
    return Correlation(product / size if size else 0.0, (1 + as_high) / (1 + PERMUTATIONS))


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value [values]; equal ones have the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
