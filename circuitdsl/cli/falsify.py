"""`circuitdsl falsify`: a search for prompts that break a property."""

from __future__ import annotations

import argparse
import json
import os

from circuitdsl.cli.arguments import add_session, add_spec, positive, seed, session
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_one
from circuitdsl.cli.terminal import console


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "falsify",
        help="search for prompts that break a property, and shrink them",
        epilog="exit status: 0 nothing was found; 1 a prompt breaks a property; 2 a wrong spec; 3 it could not run",
    )
    add_spec(verb)
    add_session(verb, cache=False)
    verb.add_argument("--property", metavar="TITLE", help="this property alone, by its title or line")
    verb.add_argument("--claim", metavar="ID", help="an expectation of behaviour or attention, taken prompt by prompt")
    verb.add_argument("--budget", type=positive, default=1000, metavar="N", help="prompts to look at (default: 1000)")
    verb.add_argument("--seed", type=seed, default=0, help="of the search")
    verb.add_argument("-o", "--output", metavar="FILE.jsonl", help="save what was found as a prompt file for file(…)")
    verb.set_defaults(run=_falsify)


def _falsify(given: argparse.Namespace) -> int:
    from circuitdsl.verify.store import default_path

    spec, target = load_one(given.spec, given.model), output(given.output)
    # what Hypothesis remembers lies beside our cache of numbers, not in the current folder
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(default_path().parent / "hypothesis"))
    found = []
    with session(given) as running:
        searches = running.falsify(spec, given.property, given.claim, given.budget, given.seed)
        for number, search in enumerate(searches):
            if number:
                print()
            search.show(console())
            if search.found:
                found.append(search.found.pair)
    if target:
        write(target, "".join(json.dumps(pair.record(), ensure_ascii=False) + "\n" for pair in found))
    return 1 if found else 0
