"""Activation patching everywhere: the effect of every residual stream, head or MLP, at every position.

Each cell is a knock-out of its own, `knockout(resid6 at S2)`, or a `denoise`. What a cell is, and whether it is clear,
is decided as for claims (semantics §3 and §4): the ratio of means is tested without dividing, over all cells together.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from circuitdsl.api import as_task
from circuitdsl.brief import quoted
from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, Direction, Node, Position, Site
from circuitdsl.circuit.vocabulary import GENERAL_POSITIONS, METRICS, Metric
from circuitdsl.discover.asked import circuit_of, name_of, opening, refuse_undone
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UsageError
from circuitdsl.language.diagnostics import did_you_mean, listing, suggest
from circuitdsl.measurements.requests import NodeRequest
from circuitdsl.report.numbers import percent, plain
from circuitdsl.report.shown import Shown
from circuitdsl.report.tables import table_of
from circuitdsl.verdict.means import pair
from circuitdsl.verdict.ratios import Ratio
from circuitdsl.verify.measure import Series, measure
from circuitdsl.verify.session import Session, with_overrides

if TYPE_CHECKING:
    from circuitdsl.api import Spec
    from circuitdsl.diagram.heatmap import HeatMap

#: what is swept, in words
OVER = {
    "resid": "the residual stream as it enters a layer, or the final norm (end)",
    "heads": "every head",
    "mlps": "every MLP",
}
#: effects this small, as a share of the gap, are not outlined; and how many are by chance in a sweep where all are
MARGIN, LEVEL = 0.01, 0.05
#: prompts that a map is made of, unless others are asked for
PROMPTS = 96
#: stands for every place of the prompts, counted from their ends
ALL = "all"
_POSITION = re.compile(r"([A-Z][A-Z0-9_]*)([+-]\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Swept:
    """What patching one node at one position does.

    Attributes:
        effect: as a share of the gap; 0 where the patch changes nothing.
        ci: its 95 % interval, of this cell alone; None where the patch changes nothing, or the prompts are too few to
            tell their gap from 0.
        delta: the same in the metric's own unit.
        n: the prompts that have the position.
        clear: whether it is surely beyond the margin, all cells of the sweep taken together.
    """

    node: Node
    position: Position
    effect: float
    ci: tuple[float, float] | None
    delta: float
    n: int
    clear: bool

    def to_json(self) -> dict[str, Any]:
        """Fractions are fractions."""
        own = {name: getattr(self, name) for name in ("effect", "ci", "delta", "n", "clear")}
        return {"node": _name(self.node), "position": str(self.position), **own}


@dataclass(frozen=True, slots=True)
class Sweep(Shown):
    """The effects of patching nodes of one kind, each at each position; prompts that lack a position are left out.

    Attributes:
        over: `resid`, `heads` or `mlps`.
        direction: `noise` puts corrupt terms into the clean run, `denoise` clean terms into the corrupt run.
        clean, corrupt: the metric of the two runs.
        cells: by node, the lowest layer first, then by position; cells that no prompt has are left out.
        seconds: how long measuring took.
    """

    model: str
    task: str
    metric: str
    over: str
    direction: Direction
    prompts: int
    seed: int
    clean: float
    corrupt: float
    positions: tuple[Position, ...]
    n_layers: int
    n_heads: int
    cells: tuple[Swept, ...]
    seconds: float

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What was patched, the lowest layer first."""
        return tuple(dict.fromkeys(cell.node for cell in self.cells))

    def to_json(self) -> dict[str, Any]:
        """What was run, and every cell."""
        own = ("model", "task", "metric", "over", "direction", "prompts", "seed", "clean", "corrupt", "seconds")
        head = {"schema": 1} | {name: getattr(self, name) for name in own}
        return head | {"positions": list(map(str, self.positions)), "cells": [cell.to_json() for cell in self.cells]}

    def show(self, console: Console) -> None:
        """Print the effects in percent, layers down and positions (of heads: heads, for each position) across."""
        console.print(Text(self._title, style="bold"))
        console.print(Text(f"  {self._about}", "dim"))
        at = {(cell.node, cell.position): cell for cell in self.cells}
        for place in self.positions if self.over == "heads" else (None,):
            heads = range(self.n_heads)
            names = [str(head) for head in heads] if place else [str(position) for position in self.positions]
            console.print()
            if place:
                console.print(Text(f"  {place}", "bold"))
            table = table_of("layer", *names)
            for layer, nodes in self._layers():
                sites = [(node, place) for node in nodes] if place else [(nodes[0], p) for p in self.positions]
                row = [at.get(site) for site in sites]
                table.add_row(layer, *(Text(percent(c.effect), "bold" if c.clear else "") if c else "" for c in row))
            console.print(table)

    def _layers(self) -> Iterator[tuple[str, list[Node]]]:
        """The layers, the highest first, each with what is patched in it."""
        known = [-1 if node == EMBED else node.layer for node in self.nodes]
        for layer in sorted(set(known), reverse=True):
            nodes = [node for node, own in zip(self.nodes, known, strict=True) if own == layer]
            last = self.over == "resid" and layer == self.n_layers
            yield "end" if last else str(max(layer, 0)), nodes

    @property
    def _title(self) -> str:
        what = {"resid": "the residual stream", "heads": "heads", "mlps": "MLPs"}[self.over]
        verb = "Patching" if self.direction == "noise" else "Restoring"
        return f"{verb} {what}: {self.task}, {Path(self.model).name or self.model}"

    @property
    def _about(self) -> str:
        noise = self.direction == "noise"
        how = "the corrupt term put into the clean run" if noise else "the clean term put into the corrupt run"
        figures = f"{self.metric} {plain(self.clean)} clean, {plain(self.corrupt)} corrupt"
        return f"{OVER[self.over]}; {how}; {figures}; {self.prompts} prompts of seed {self.seed}"

    @property
    def heat_map(self) -> HeatMap:
        """The picture's contents."""
        from circuitdsl.diagram.heatmap import Cell, HeatMap

        at = {(cell.node, cell.position): cell for cell in self.cells}

        def cell(node: Node, place: Position) -> Cell | None:
            found = at.get((node, place))
            if found is None:
                return None
            none = ", too few prompts for an interval" if found.delta else ", nothing changes there"
            known = f" [{percent(found.ci[0])}, {percent(found.ci[1])}]" if found.ci else none
            story = f"{_name(node)} at {place}: effect {percent(found.effect)}{known}, {found.n} prompts"
            return Cell(found.effect, "", story, found.clear)

        rows = list(self._layers())
        heads = self.over == "heads"
        several = heads and len(self.positions) > 1
        within = [(f"{place}.{i}" if several else str(i)) for place in self.positions for i in range(self.n_heads)]
        return HeatMap(
            title=self._title,
            subtitle=f"{self._about[0].upper()}{self._about[1:]}.",
            rows=tuple(name for name, _ in rows),
            columns=tuple(within if heads else map(str, self.positions)),
            row_title="layer",
            column_title="heads, at each position"
            if several
            else f"head, at {self.positions[0]}"
            if heads
            else "position",
            cells=tuple(
                tuple(cell(node, place) for place in self.positions for node in nodes)
                if heads
                else tuple(cell(nodes[0], place) for place in self.positions)
                for _, nodes in rows
            ),
            outline=f"surely beyond ±{100 * MARGIN:.0f} %, all cells taken together",
            unit="effect, as a share of the gap between clean and corrupt",
            signed=True,
        )

    def svg(self) -> str:
        """The heat map."""
        from circuitdsl.diagram.heatmap import picture

        return picture(self.heat_map)

    def draw(self, path: str | Path) -> None:
        """Draw the heat map into a file: .svg or .png."""
        from circuitdsl.diagram.formats import write_picture

        write_picture(self.svg(), path)

    def _repr_html_(self) -> str:
        """The heat map; a cell says its figure where it is pointed at."""
        return self.svg()


def _name(node: Node) -> str:
    return "resid0" if node == EMBED else str(node)


# --- measuring --------------------------------------------------------------------------------------


def sweep(prompts: Prompts, over: str, positions: Sequence[Position], direction: Direction = "noise") -> Sweep:
    """Patch every node of a kind at each of some positions.

    Args:
        over: `resid`, `heads` or `mlps`.
    """
    start, model = time.perf_counter(), prompts.model
    sites = [Site(node, place) for node in _nodes(over, model.n_layers, model.n_heads) for place in positions]
    requests = {site: NodeRequest((site,), direction=direction) for site in sites}
    found = measure(prompts, list(requests.values()), np.arange(len(prompts.pairs)))
    cells = tuple(_cells({site: found[request] for site, request in requests.items()}, prompts, direction))
    return Sweep(
        prompts.model.name,
        prompts.data.task,
        str(prompts.metric),
        over,
        direction,
        len(prompts.pairs),
        prompts.data.seed,
        float(prompts.clean.mean()),
        float(prompts.corrupt.mean()),
        tuple(positions),
        model.n_layers,
        model.n_heads,
        cells,
        time.perf_counter() - start,
    )


def _nodes(over: str, layers: int, heads: int) -> list[Node]:
    if over == "heads":
        return [Node("head", layer, head) for layer in range(layers) for head in range(heads)]
    if over == "mlps":
        return [Node("mlp", layer) for layer in range(layers)]
    return [EMBED, *(Node("resid", layer + 1) for layer in range(layers))]


def _cells(found: Mapping[Site, Series], prompts: Prompts, direction: Direction) -> Iterator[Swept]:
    """The figures of all cells; those of one set of prompts are weighed together."""
    alike: dict[bytes, list[Site]] = {}
    for site, series in found.items():
        alike.setdefault(series.present.tobytes(), []).append(site)
    known: dict[Site, Swept] = {}
    for sites in alike.values():
        here = found[sites[0]].present
        if here.sum() >= 2:
            values = np.stack([found[site].values for site in sites])
            base = prompts.clean if direction == "noise" else prompts.corrupt
            idle = [not (found[site].changed & here).any() for site in sites]
            known |= _weighed(sites, (values - base)[:, here], idle, np.flatnonzero(here), prompts, len(found))
    yield from (known[site] for site in found if site in known)


def _weighed(
    sites: Sequence[Site], moved: np.ndarray, idle: Sequence[bool], indices: np.ndarray, prompts: Prompts, cells: int
) -> dict[Site, Swept]:
    """The figures of some cells on the same prompts; `moved` is how far each patch moves the metric [cells, n]."""
    n, known = len(indices), {site: Swept(*site, 0.0, None, 0.0, len(indices), False) for site in sites}
    alive = [(site, d) for site, d, same in zip(sites, moved, idle, strict=True) if not same]
    if not alive:
        return known
    gap, strata = (prompts.clean - prompts.corrupt)[indices], prompts.strata[indices]
    ratio = Ratio(pair(np.stack([d for _, d in alive]), gap, strata, METRICS[prompts.metric.name].range, "first"))
    lows, highs = ratio.interval()
    p_values = 2 * np.minimum(ratio.below(-MARGIN), ratio.above(MARGIN))
    for (site, d), value, low, high, p in zip(alive, ratio.value, lows, highs, p_values, strict=True):
        clear = bool(p * cells <= LEVEL) and not -MARGIN <= float(value) <= MARGIN
        ci = None if np.isnan([low, high]).any() else (float(low), float(high))
        known[site] = Swept(*site, float(value), ci, float(d.mean()), n, clear)
    return known


# --- in a session -----------------------------------------------------------------------------------


def swept(
    session: Session,
    spec: Spec | str | Path | None = None,
    task: str | None = None,
    over: str = "resid",
    positions: Iterable[str] | str | None = None,
    denoise: bool = False,
    metric: str | None = None,
    prompts: int | None = None,
    seed: int | None = None,
    circuit: str | None = None,
) -> Sweep:
    """Patch every residual stream, head or MLP of a model, each at each position: activation patching.

    Args:
        spec: gives the model, the task, its prompts and the metric; without one the session's model (by default
            `pocket`) is swept on `task`.
        task: of a spec, which of its tasks, by default the first; else a task as in a spec, or a prompt file.
        over: `resid` (the residual stream as it enters each layer, and the final norm), `heads` or `mlps`.
        positions: names that the task has, with offsets (`S1+1`), or `*` for all places together; `all` is every place
            of the prompts, counted from their ends. Several may stand in one text, with commas: `"S1+1, END"`. By
            default all that have names.
        denoise: put clean terms into the corrupt run, instead of the other way round.
        metric: as in a spec.
        prompts: 96 by default.
        seed: by default that of the spec, or 0.

    Raises:
        UsageError: an argument names nothing that there is.
        UserError: a file or the model cannot be read, or the model does not do the task.
    """
    if over not in OVER:
        guess = did_you_mean(suggest(over, OVER))
        raise UsageError(f"a sweep is over {listing(OVER)}, not {quoted(over)}{guess}")
    direction: Direction = "denoise" if denoise else "noise"
    found = asked_of(session, spec, task, metric, prompts or PROMPTS, seed, circuit)
    refuse_undone(found)
    places = _positions(found, _listed((positions,) if isinstance(positions, str) else tuple(positions or ())))
    with session.busy(f"patching {len(places)} positions"):
        return sweep(found, over, places, direction)


def asked_of(
    session: Session,
    spec: Spec | str | Path | None,
    task: str | None,
    metric: str | None,
    prompts: int,
    seed: int | None,
    circuit: str | None,
) -> Prompts:
    """The prompts of a spec's task, or of a task alone on the session's model; raises what `swept` raises."""
    if spec is None and task is None:
        raise UsageError("no task is named", hint="give a spec, or a task such as ioi")
    if spec is None:
        written, measured = as_task(task or ""), metric or "logit_diff"
        lines = opening(session.name or "pocket", name_of(written), measured, written, prompts, seed or 0, ())
        alone = circuit_of(lines)
        return session.prompts_of(alone, alone.tasks[0])
    known = with_overrides(session.circuit(spec, circuit), prompts, seed)
    if metric is not None:
        known = replace(known, metric=_metric(metric))
    names = [use.name for use in known.tasks]
    if not names or (task is not None and task not in names):
        has = f"has {listing(names)}" if names else "has no task"
        raise UsageError(f"the circuit {known.name} has no task {quoted(task or '')}", hint=f"it {has}")
    return session.prompts_of(known, known.tasks[names.index(task) if task else 0])


def _metric(text: str) -> Metric:
    return circuit_of(["circuit sweep", 'model "pocket"', "task ioi", f"metric {text}"]).metric


def _listed(given: Iterable[object]) -> list[str]:
    """The names in some texts, between commas and blanks."""
    return [name for text in given for name in str(text).replace(",", " ").split()]


def _positions(prompts: Prompts, names: Sequence[str]) -> tuple[Position, ...]:
    """The positions that are asked for, or those that have names, in the order in which they mostly stand."""
    if list(names) == [ALL]:
        longest = max(len(pair.clean_tokens) for pair in prompts.pairs)
        return tuple(Position("END", -back) for back in reversed(range(longest)))
    found = tuple(dict.fromkeys(position_named(prompts, name) for name in names))
    return found or _named(prompts, list(dict.fromkeys(name for pair in prompts.pairs for name in pair.positions)))


def position_named(prompts: Prompts, word: str) -> Position:
    """A position as a spec writes it; raises `UsageError` where the prompts have none of the name."""
    known = [*dict.fromkeys(name for pair in prompts.pairs for name in pair.positions), "END"]
    if word == str(EVERYWHERE):
        return EVERYWHERE
    match = _POSITION.fullmatch(word)
    if match is None or match[1] not in known:
        guess = did_you_mean(suggest(word.upper(), known))
        has = f"it has {listing(dict.fromkeys(known))}, and 'all' is every place"
        raise UsageError(f"the task has no position {quoted(word)}{guess}", hint=has)
    place = Position(match[1], int(match[2] or 0))
    if not any(indices_of(pair, place) for pair in prompts.pairs):
        raise UsageError(f"no prompt of the task has a token at {place}", hint="name another place")
    return place


def _named(prompts: Prompts, names: Sequence[str]) -> tuple[Position, ...]:
    """One name for each place: the task's own before general ones, such as ANSWER for IO."""
    ordered = sorted(names, key=lambda name: (name in GENERAL_POSITIONS and name != "END", names.index(name)))
    at = {name: [indices_of(pair, Position(name)) for pair in prompts.pairs] for name in ordered}
    kept: list[str] = []
    for name in ordered:
        covered = [set().union(*(at[other][i] for other in kept)) for i in range(len(prompts.pairs))]
        if any(set(here) - there for here, there in zip(at[name], covered, strict=True)):
            kept.append(name)
    mean = partial(_mean_place, at)
    return tuple(Position(name) for name in sorted(kept, key=mean))


def _mean_place(at: Mapping[str, Sequence[Sequence[int]]], name: str) -> float:
    found = [i for here in at[name] for i in here]
    return float(np.mean(found)) if found else float("inf")
