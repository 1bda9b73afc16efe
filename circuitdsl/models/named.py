"""The model that a circuit names: where it is, and on how many threads it runs best. Nothing heavy is imported."""

from __future__ import annotations

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.shapes import near
from circuitdsl.errors import UserError

#: models up to this width run on one thread
SMALL_WIDTH = 256


def place_of(circuit: Circuit | None, override: str | None) -> tuple[str, str, str | None]:
    """The name of the model that a circuit is verified on, where to load it from, and its revision.

    Raises:
        UserError: the circuit names none, and none is given.
    """
    if override:
        return override, override, None
    if circuit is None:
        raise UserError("no model is named", hint="name one, or a spec that does")
    if circuit.model is None:
        raise UserError(f"circuit {circuit.name} names no model", hint='add a line `model "…"`, or give --model')
    return circuit.model.name, near(circuit.model.name, circuit.path), circuit.model.revision


def threads_for(width: int, device: str, threads: int) -> int:
    """One thread for a model whose matrices are too small to share: waiting costs more than it saves."""
    return 1 if device == "cpu" and width <= SMALL_WIDTH else threads
