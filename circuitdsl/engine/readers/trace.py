"""Traces: the firings of a head on a task's prompts, and who sent to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from circuitdsl.circuit.nodes import Node, Positions
from circuitdsl.engine.prompts import Array, Prompts
from circuitdsl.measurements.trace import TraceRequest
from circuitdsl.models.errors import NotTraced

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from circuitdsl.engine.trace import Firing


def of_prompts(prompts: Prompts, request: TraceRequest, indices: Array) -> Float[Array, " n"]:
    """On each prompt whether a head is among the senders of a firing, 1 or 0; NaN where there is none.

    Raises:
        NotTraced: the model turns queries and keys with the position.
    """

    def compute() -> Array:
        senders = [dict(firing.senders[request.side]) if firing else None for firing in _firings(prompts, request)]
        return np.asarray([np.nan if some is None else float(request.sender in some) for some in senders])

    known = prompts.cache
    return prompts.once(request, lambda: known.of_prompts(request, compute) if known else compute())[indices]


def present(prompts: Prompts, request: TraceRequest, indices: Array) -> Bool[Array, " n"]:
    """On which prompts the head fires."""
    try:
        return ~np.isnan(of_prompts(prompts, request, indices))
    except NotTraced:
        return np.zeros(len(indices), bool)


def absent(prompts: Prompts, request: TraceRequest) -> str:
    """Why a request has no firing on any prompt."""
    try:
        _firings(prompts, request)
    except NotTraced as error:
        return error.message
    from circuitdsl.engine.trace import FIRES

    arrow = " -> ".join(", ".join(map(str, places)) for places in (request.source, request.target))
    return (
        f"{request.head} does not fire {arrow} on any of {len(prompts.pairs)} prompts: nowhere does it give one token "
        f"there, other than the first, {FIRES:.0%} of its attention"
    )


def _firings(prompts: Prompts, request: TraceRequest) -> list[Firing | None]:
    """Each prompt's firing of a traced head from one position to another, or None; found once."""
    what = request.head, request.source, request.target
    return prompts.once(what, lambda: prompts.ask(f"{__name__}:firings", *what))


def firings(prompts: Prompts, head: Node, source: Positions, target: Positions) -> list[Firing | None]:
    """Each prompt's firing of a traced head from one position to another, or None; raises `NotTraced`."""
    from circuitdsl.engine.trace import fired

    groups = fired(prompts.model, prompts.pairs, head, source, target, prompts.max_memory)
    found = {number: firing for _, some in groups for number, firing in some.items()}
    return [found.get(number) for number in range(len(prompts.pairs))]
