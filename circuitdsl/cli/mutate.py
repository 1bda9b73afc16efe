"""`circuitdsl mutate`: mutation testing for specs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import positive, seed
from circuitdsl.cli.models import add_model_arguments, models
from circuitdsl.cli.specs import load_all
from circuitdsl.cli.terminal import console, progress
from circuitdsl.errors import SPEC_WRONG

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "mutate",
        help="change a spec line by line, and see what its claims notice",
        epilog="exit status: 1 where fewer mutants than --at-least are killed; 2 a wrong spec; 3 it could not run",
    )
    verb.add_argument("spec", help="a .circ file, or a shipped spec such as pocket/ioi")
    add_model_arguments(verb)
    verb.add_argument("--prompts", type=positive, help="prompts per task at most, instead of the spec's number")
    verb.add_argument("--seed", type=seed, help="seed of the prompts, instead of the spec's")
    verb.add_argument("--at-least", type=_share, default=0.0, metavar="SHARE", help="the share to kill, such as 90%%")
    verb.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    verb.add_argument("-v", "--verbose", action="store_true", help="list the killed and the equivalent mutants too")
    verb.set_defaults(run=_mutate)


def _mutate(given: argparse.Namespace) -> int:
    specs = load_all([given.spec], given.model)
    if specs is None:
        return SPEC_WRONG
    from circuitdsl.testing.mutate import mutate
    from circuitdsl.testing.mutate_view import show_mutation

    (spec,), loaded, found = specs, models(given), []
    for circuit in spec.circuits:
        model = loaded.of(circuit)
        with progress() as meter:
            found.append(mutate(spec, circuit, model, given.prompts, given.seed, meter))
    if given.format == "json":
        body = [each.to_json() for each in found]
        print(json.dumps(body[0] if len(body) == 1 else body, indent=1, ensure_ascii=False))
    else:
        for each in found:
            show_mutation(each, console(), given.verbose)
    return 1 if any(each.share < given.at_least for each in found) else 0


def _share(text: str) -> float:
    """`90%` or `0.9`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share such as 90%")
    return value
