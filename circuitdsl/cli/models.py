"""`circuitdsl models`: the models that can be loaded here."""

from __future__ import annotations

import argparse

from circuitdsl.cli.parser import Verbs


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
