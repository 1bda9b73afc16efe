"""The models that circuits name, each loaded once. Nothing heavy is imported before one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.shapes import near
from circuitdsl.errors import UserError

if TYPE_CHECKING:
    from circuitdsl.models.parts import Transformer
    from circuitdsl.models.weights import AttentionWeights

#: models up to this width run on one thread
SMALL_WIDTH = 256


class Models:
    """Loads the models that circuits name, or the one `model` given for all of them.

    `busy` is entered with a sentence while something is read: a place for a spinner.
    """

    def __init__(
        self,
        model: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        busy: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext(),
    ) -> None:
        import torch

        self.model, self.device, self.dtype, self.busy = model, device, dtype, busy
        self.loaded: dict[tuple[str, str | None], Transformer] = {}
        self.read: dict[tuple[str, str | None], AttentionWeights] = {}
        self.threads = torch.get_num_threads()

    def of(self, circuit: Circuit) -> Transformer:
        """The model to verify a circuit on; sets the number of threads that suits it.

        Raises:
            UserError: the circuit names none, or it cannot be loaded.
        """
        import torch

        from circuitdsl.models.load import load_model

        name, place, revision = place_of(circuit, self.model)
        if (place, revision) not in self.loaded:
            with self.busy(f"loading {name}"):
                model = load_model(place, self.device, self.dtype, revision)
            self.loaded[place, revision] = replace(model, name=name)
        found = self.loaded[place, revision]
        torch.set_num_threads(threads_for(found.d_model, found.device.type, self.threads))
        return found

    def weights_of(self, circuit: Circuit) -> AttentionWeights:
        """The attention weights of a circuit's model, straight from its files: no model is built.

        Raises:
            UserError: the circuit names none, or they cannot be read.
        """
        from circuitdsl.models.weights import read_weights

        name, place, revision = place_of(circuit, self.model)
        if (place, revision) not in self.read:
            with self.busy(f"reading the weights of {name}"):
                self.read[place, revision] = replace(read_weights(place, revision), name=name)
        return self.read[place, revision]


def place_of(circuit: Circuit, override: str | None) -> tuple[str, str, str | None]:
    """The name of the model that a circuit is verified on, where to load it from, and its revision.

    Raises:
        UserError: the circuit names none, and none is given.
    """
    if override:
        return override, override, None
    if circuit.model is None:
        raise UserError(f"circuit {circuit.name} names no model", hint='add a line `model "…"`, or give --model')
    return circuit.model.name, near(circuit.model.name, circuit.path), circuit.model.revision


def threads_for(width: int, device: str, threads: int) -> int:
    """One thread for a model whose matrices are too small to share: waiting costs more than it saves."""
    return 1 if device == "cpu" and width <= SMALL_WIDTH else threads
