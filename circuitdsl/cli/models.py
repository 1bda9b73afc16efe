"""`circuitdsl models`, and how every verb loads the model of a circuit."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import size
from circuitdsl.cli.terminal import status

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs
    from circuitdsl.models.cache import Models


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


def add_model_arguments(verb: argparse.ArgumentParser, otherwise: str = "instead of the spec's own") -> None:
    """The options that say which model to run, where and in what precision."""
    verb.add_argument("--model", help=f"a model's name or directory, {otherwise}")
    verb.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: a GPU, if any")
    verb.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="number format")


def add_memory_argument(verb: argparse.ArgumentParser) -> None:
    """The option that limits the memory of measuring."""
    verb.add_argument("--memory", type=size, metavar="SIZE", help="measure in no more than this beside the model (2GB)")


def models(given: argparse.Namespace) -> Models:
    """The models of the circuits that a verb runs, each loaded once."""
    from circuitdsl.models.cache import Models

    return Models(given.model, given.device, given.dtype, status)
