"""`circuitdsl falsify`: a search for prompts that break a property."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import positive, seed
from circuitdsl.cli.models import add_model_arguments, models
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.specs import HOW_CLAIMS_ARE_NAMED, load_all
from circuitdsl.cli.terminal import console
from circuitdsl.errors import SPEC_WRONG, UsageError

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit, Claim
    from circuitdsl.cli import Verbs


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "falsify",
        help="search for prompts that break a property, and shrink them",
        epilog="exit status: 0 nothing was found; 1 a prompt breaks a property; 2 a wrong spec; 3 it could not run",
    )
    verb.add_argument("spec", help="a .circ file, or a shipped spec such as pocket/ioi")
    add_model_arguments(verb)
    verb.add_argument("--property", metavar="TITLE", help="this property alone, by its title or line")
    verb.add_argument("--claim", metavar="ID", help="an expectation of behaviour or attention, taken prompt by prompt")
    verb.add_argument("--budget", type=positive, default=1000, metavar="N", help="prompts to look at (default: 1000)")
    verb.add_argument("--seed", type=seed, default=0, help="of the search")
    verb.add_argument("-o", "--output", metavar="FILE.jsonl", help="save what was found as a prompt file for file(…)")
    verb.set_defaults(run=_falsify)


@dataclass(frozen=True, slots=True)
class _Wanted:
    circuit: Circuit
    claim: Claim
    task: str


def _falsify(given: argparse.Namespace) -> int:
    specs = load_all([given.spec], given.model)
    if specs is None:
        return SPEC_WRONG
    target = output(given.output)
    wanted = list(_wanted(specs[0].circuits, given))
    from circuitdsl.testing.falsify import falsify
    from circuitdsl.testing.falsify_view import show_search
    from circuitdsl.verify.store import default_path

    # what Hypothesis remembers has its place beside our own cache, not in the folder that one happens to be in
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(default_path().parent / "hypothesis"))
    loaded, found = models(given), []
    for number, each in enumerate(wanted):
        model = loaded.of(each.circuit)
        search = falsify(each.circuit, model, each.claim, each.task, given.budget, given.seed)
        if number:
            print()
        show_search(search, model.tokenizer, console())
        if search.found:
            found.append(search.found.pair)
    if target:
        lines = "".join(json.dumps(pair.record(), ensure_ascii=False) + "\n" for pair in found)
        write(target, lines)
    return 1 if found else 0


def _wanted(circuits: tuple[Circuit, ...], given: argparse.Namespace) -> Iterator[_Wanted]:
    """The properties to search, on their tasks.

    Raises:
        UsageError: there is none, none of that name, or it is not about single prompts.
    """
    from circuitdsl.testing.falsify import searchable

    every = [(circuit, claim) for circuit in circuits for claim in circuit.claims]
    if given.claim is not None:
        chosen = [(circuit, claim) for circuit, claim in every if claim.answers_to(given.claim)]
        if not chosen:
            raise UsageError(f"there is no claim {given.claim}", hint=HOW_CLAIMS_ARE_NAMED)
    else:
        properties = [(circuit, claim) for circuit, claim in every if claim.kind == "property"]
        if not properties:
            hint = "write one (docs/testing.md), or name an expectation of behaviour with --claim LINE"
            raise UsageError("the spec has no property to break", hint=hint)
        title = f'"{given.property}"'
        chosen = [
            (circuit, claim)
            for circuit, claim in properties
            if given.property is None or title in claim.text or claim.answers_to(given.property)
        ]
        if not chosen:
            known = "; ".join(f"line {claim.line}, {claim.text}" for _, claim in properties)
            raise UsageError(f"there is no property {title}", hint=f"the spec has: {known}")
    for _, claim in chosen:
        searchable(claim)
    yield from (_Wanted(circuit, claim, task) for circuit, claim in chosen for task in claim.tasks)
