"""The firings of a traced head on a task's prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from circuitdsl.engine.positions import indices_of
from circuitdsl.engine.trace import FIRES, Firing, NotTraced, fired
from circuitdsl.measurements.requests import TraceRequest

if TYPE_CHECKING:
    from circuitdsl.verify.bench import Bench


def firings(bench: Bench, request: TraceRequest) -> list[Firing | None]:
    """Every prompt's firing of a traced head from one position to another; worked out once.

    Raises:
        NotTraced: the model turns queries and keys with the position.
    """
    key = (request.head, request.source, request.target)
    if key not in bench._firings:
        sources, targets = (
            [tuple(i for position in positions for i in indices_of(pair, position)) for pair in bench.pairs]
            for positions in (request.source, request.target)
        )
        prompts = [pair.clean_tokens for pair in bench.pairs]
        bench._firings[key] = fired(bench.model, prompts, request.head, sources, targets, bench.max_memory)
    return bench._firings[key]


def why_silent(bench: Bench, request: TraceRequest) -> str:
    """Why there is no firing to look at."""
    try:
        firings(bench, request)
    except NotTraced as error:
        return error.message
    arrow = " -> ".join(", ".join(map(str, places)) for places in (request.source, request.target))
    return (
        f"{request.head} does not fire {arrow} on any of {len(bench.pairs)} prompts: nowhere does it give one token "
        f"there, other than the first, {FIRES:.0%} of its attention"
    )


def sent(bench: Bench, request: TraceRequest) -> Float[np.ndarray, " n"]:
    """On each prompt whether a head is among the senders of a firing, 1 or 0; NaN where there is none.

    Raises:
        NotTraced: the model turns queries and keys with the position.
    """

    def compute() -> np.ndarray:
        return np.asarray([_sends(firing, request) for firing in firings(bench, request)])

    if request not in bench._sent:
        bench._sent[request] = bench.memory.of_prompts(request, compute) if bench.memory else compute()
    return bench._sent[request]


def _sends(firing: Firing | None, request: TraceRequest) -> float:
    if firing is None:
        return np.nan
    return float(any(sender == request.sender for sender, _ in firing.senders[request.side]))
