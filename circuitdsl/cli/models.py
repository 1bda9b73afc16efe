"""`circuitdsl models`, and how every verb loads the model of a circuit."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitdsl.cli.terminal import status
from circuitdsl.errors import UserError

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.cli import Verbs
    from circuitdsl.models.parts import Transformer
    from circuitdsl.models.weights import AttentionWeights

#: models up to this width run on one thread
SMALL_WIDTH = 256


def register(verbs: Verbs) -> None:
    verbs.add_parser("models", help="list the models that can be loaded here").set_defaults(run=_models)


def _models(given: argparse.Namespace) -> int:
    from circuitdsl.models.load import available_models

    found = available_models()
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        print(f"{model.name:<{width}}  {model.size / 1e6:8.1f} MB  {model.where}: {model.path}")
    print("any directory in Hugging Face's layout: --model DIR; any name on its hub, where that can be reached")
    return 0


# --- loading ---------------------------------------------------------------------------------------


def add_model_arguments(verb: argparse.ArgumentParser) -> None:
    """The options that say which model to run, where and in what precision."""
    verb.add_argument("--model", help="a model's name or directory, instead of the spec's own")
    verb.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    verb.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))


class Models:
    """Loads the models that circuits name (or the one that the command line names), each once."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch

        self.given = given
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

        given = self.given
        name, place, revision = place_of(circuit, given.model)
        if (place, revision) not in self.loaded:
            with status(f"loading {name}"):
                model = load_model(place, given.device, given.dtype, revision)
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

        name, place, revision = place_of(circuit, self.given.model)
        if (place, revision) not in self.read:
            with status(f"reading the weights of {name}"):
                self.read[place, revision] = replace(read_weights(place, revision), name=name)
        return self.read[place, revision]


def place_of(circuit: Circuit, override: str | None) -> tuple[str, str, str | None]:
    """The name of the model that a circuit is verified on, where to load it from, and its revision.

    Raises:
        UserError: the circuit names none, and none is given.
    """
    from circuitdsl.circuit.shapes import near

    if override:
        return override, override, None
    if circuit.model is None:
        raise UserError(f"circuit {circuit.name} names no model", hint='add a line `model "…"`, or give --model')
    return circuit.model.name, near(circuit.model.name, circuit.path), circuit.model.revision


def threads_for(width: int, device: str, threads: int) -> int:
    """One thread for a model whose matrices are too small to share: waiting costs more than it saves."""
    return 1 if device == "cpu" and width <= SMALL_WIDTH else threads
