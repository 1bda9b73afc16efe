"""`circuitdsl mutate`: mutation testing for specs."""

from __future__ import annotations

import argparse
import sys

from circuitdsl.cli.arguments import add_prompts, add_session, add_spec, fraction, session
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_one
from circuitdsl.cli.terminal import as_json, console


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "mutate",
        help="change a spec line by line, and see what its claims notice",
        epilog="exit status: 1 where fewer mutants than --at-least are killed; 2 a wrong spec; 3 it could not run",
    )
    add_spec(verb)
    add_session(verb)
    add_prompts(verb)
    least = fraction("share such as 90%", 0.0, 1.0)
    verb.add_argument("--at-least", type=least, default=0.0, metavar="SHARE", help="the share to kill, such as 90%%")
    verb.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    verb.add_argument("-v", "--verbose", action="store_true", help="list the killed and the equivalent mutants too")
    verb.set_defaults(run=_mutate)


def _mutate(given: argparse.Namespace) -> int:
    spec = load_one(given.spec, given.model)
    with session(given) as running:
        found = running.mutate(spec, given.prompts, given.seed)
    if given.format == "json":
        sys.stdout.write(as_json(found))
    else:
        for each in found:
            each.show(console(), given.verbose)
    return 1 if any(each.share < given.at_least for each in found) else 0
