"""`circuitdsl edit`: an intervention written into the weights of a new model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from circuitdsl.cli.arguments import CIRCUIT, add_spec, session
from circuitdsl.cli.outputs import check_folder
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_one, one_circuit


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("edit", help="save a model whose weights an intervention has changed")
    add_spec(verb)
    verb.add_argument("--intervention", metavar="NAME", help="which of them, where the circuit has several")
    verb.add_argument("--circuit", help=CIRCUIT)
    verb.add_argument("--model", help="a model's name or directory, instead of the spec's own")
    verb.add_argument("-o", "--output", required=True, metavar="DIR", help="the new model directory")
    verb.set_defaults(run=_edit)


def _edit(given: argparse.Namespace) -> int:
    spec, target = load_one(given.spec, given.model), Path(given.output)
    circuit = one_circuit(spec, given.circuit)
    check_folder(target)
    with session(given) as running:
        name = running.edit(spec, target, given.intervention, circuit.name)
    print(f"wrote {target}: {name} of {circuit.name}, in weights; use it with --model {target}")
    return 0
