"""Directions made from a task's prompts: the difference between the mean residual streams of its two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from circuitdsl.brief import quoted
from circuitdsl.circuit.directions import NoDirection, unit_of
from circuitdsl.circuit.nodes import EMBED, Node, Position
from circuitdsl.discover.sweep import PROMPTS, asked_of, position_named
from circuitdsl.engine import runs as engine
from circuitdsl.engine.ends import tokens_of
from circuitdsl.engine.memory import run_at_once
from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.prompts import SIDES, Prompts
from circuitdsl.errors import UsageError, UserError
from circuitdsl.language.diagnostics import listing
from circuitdsl.measurements.kept import replacing
from circuitdsl.ordinary import write_whole
from circuitdsl.report.numbers import plain
from circuitdsl.report.shown import Shown
from circuitdsl.verify.session import Session

if TYPE_CHECKING:
    from circuitdsl.api import Spec

#: what the tensor of a direction is called, unless another name is asked for
TENSOR = "direction"


@dataclass(frozen=True, slots=True)
class Direction(Shown):
    """The difference of two means of the residual stream, as a unit vector.

    Attributes:
        sides: of which the second is subtracted from the first.
        length: that of the difference, before it was divided by it; `size`: the mean length of the stream there.
        unit: the unit vector.
    """

    model: str
    task: str
    sides: tuple[str, str]
    at: str
    layer: int
    prompts: int
    seed: int
    length: float
    size: float
    unit: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {"schema": 1} | asdict(self)

    def show(self, console: Console) -> None:
        """Print what it is of, and how long the difference was."""
        first, second = self.sides
        what = f"resid{self.layer} at {self.at}, mean of {first} minus mean of {second}"
        console.print(Text(f"{what}: {self.task}, {self.model}, {self.prompts} prompts of seed {self.seed}", "bold"))
        length = f"its length was {plain(self.length)}, that of the stream is {plain(self.size)} on average"
        console.print(Text(f"  {len(self.unit)} numbers of length 1; {length}"))

    def save(self, path: str | Path, tensor: str = TENSOR, overwrite: bool = False) -> None:
        """Write it as safetensors, whole or not at all.

        Raises:
            UserError: the file is there already, or cannot be written.
        """
        from safetensors.torch import save

        target = Path(path)
        if target.exists() and not overwrite:
            raise UserError(f"{target} is there already", hint="choose another name, or overwrite it")
        about = {name: str(value) for name, value in asdict(self).items() if name != "unit"}
        write_whole(target, save({tensor: torch.tensor(self.unit)}, {"format": "pt", **about}))


def made(
    session: Session,
    spec: Spec | str | Path | None = None,
    task: str | None = None,
    at: str = "END",
    layer: int = 0,
    sides: Sequence[str] = SIDES,
    prompts: int | None = None,
    seed: int | None = None,
    circuit: str | None = None,
) -> Direction:
    """The difference of means of the residual stream between the sides of a task's prompts.

    Args:
        spec, task: as for `sweep`.
        at: a position that the task has; of several tokens the mean is taken.
        layer: which the stream enters; the number of layers means the final norm.
        sides: `clean` and `corrupt`, in the order in which they are subtracted.

    Raises:
        UsageError: an argument names nothing that there is.
        UserError: a file or the model cannot be read, or the two means are the same.
    """
    if sorted(sides) != sorted(SIDES):
        hint = "write clean,corrupt, or corrupt,clean"
        raise UsageError(f"the sides of prompts are {listing(SIDES)}, not {quoted(','.join(sides))}", hint)
    found = asked_of(session, spec, task, None, prompts or PROMPTS, seed, circuit)
    most = found.model.n_layers
    if not 0 <= layer <= most:
        raise UsageError(f"{found.model.name} has no layer {layer}", f"from 0 to {most}, which is the final norm")
    place = position_named(found, at)
    with session.busy("running the prompts"):
        means, size = _means(found, Node("resid", layer) if layer else EMBED, place)
    difference = means[sides[0]] - means[sides[1]]
    try:
        along, length = unit_of(f"resid{layer} at {place}", tuple(difference.tolist()))
    except NoDirection:
        what = f"clean and corrupt prompts have the same mean stream at {place}, layer {layer}"
        raise UserError(what, "take a later layer, or a position that the corruption changes") from None
    unit = tuple(np.frombuffer(along.unit, dtype="<f4").astype(float).tolist())
    about, many = found.data, len(found.pairs)
    first, second = sides
    return Direction(
        found.model.name, about.task, (first, second), str(place), layer, many, about.seed, length, size, unit
    )


def _means(prompts: Prompts, node: Node, place: Position) -> tuple[Mapping[str, torch.Tensor], float]:
    """The mean stream of each side over prompts and the tokens of a position, and its mean length."""
    model, pairs = prompts.model, prompts.pairs
    total = {side: torch.zeros(model.d_model, dtype=torch.float64) for side in SIDES}
    count, size = 0, 0.0
    at_once = lambda length: run_at_once(model, length, prompts.max_memory)  # noqa: E731
    for group, clean in engine.by_length([pair.clean_tokens for pair in pairs], at_once):
        some = [pairs[i] for i in group.tolist()]
        runs = engine.run(model, clean, tokens_of(some, "corrupt_tokens"), kept=replacing((node,)))
        for side, terms in zip(SIDES, (runs.clean, runs.corrupt), strict=True):
            value = terms.value(node).double().cpu()
            for i, pair in enumerate(some):
                rows = value[i, list(indices_of(pair, place))]
                total[side] += rows.sum(dim=0)
                if side == SIDES[0]:
                    count, size = count + len(rows), size + float(rows.norm(dim=1).sum())
    if not count:
        raise UserError(f"no prompt has the position {place}", "take another position")
    return {side: vector / count for side, vector in total.items()}, size / count
