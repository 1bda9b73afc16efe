"""`circuitdsl edit`: an intervention written into the weights of a new model directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.outputs import check_folder
from circuitdsl.cli.specs import load_all, one_circuit
from circuitdsl.cli.terminal import status
from circuitdsl.errors import SPEC_WRONG, UsageError

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("edit", help="save a model whose weights an intervention has changed")
    verb.add_argument("spec", help="a .circ file, or a shipped spec")
    verb.add_argument("--intervention", metavar="NAME", help="which of them, where the circuit has several")
    verb.add_argument("--circuit", help="which circuit, where the file has several")
    verb.add_argument("--model", help="a model's name or directory, instead of the spec's own")
    verb.add_argument("-o", "--output", required=True, metavar="DIR", help="the new model directory")
    verb.set_defaults(run=_edit)


def _edit(given: argparse.Namespace) -> int:
    specs = load_all([given.spec], given.model)
    if specs is None:
        return SPEC_WRONG
    circuit = one_circuit(specs[0], given.circuit)
    known = {each.name: each for each in circuit.interventions}
    if not known:
        raise UsageError(f"{circuit.name} has no intervention", hint="see docs/repair.md for how to write one")
    if (given.intervention is None and len(known) > 1) or given.intervention not in (None, *known):
        what = f"there is no intervention {given.intervention}" if given.intervention else "which intervention?"
        raise UsageError(what, hint=f"--intervention is one of {', '.join(known)}")
    change = known[given.intervention or next(iter(known))]
    from circuitdsl.models.cache import place_of
    from circuitdsl.models.edit import changes, save_edited
    from circuitdsl.models.weights import read_weights

    changes(change)  # refused before anything is read
    target = Path(given.output)
    check_folder(target)
    place, _, revision = place_of(circuit, given.model)
    with status(f"editing {place}"):
        save_edited(place, read_weights(place, revision), change, target)
    print(f"wrote {target}: {change.name} of {circuit.name}, in weights; use it with --model {target}")
    return 0
