"""`circuitdsl check`: mistakes in specs, found without loading a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from circuitdsl.cli.specs import check_model, load_all
from circuitdsl.errors import SPEC_WRONG

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs


def register(verbs: Verbs) -> None:
    check = verbs.add_parser("check", help="find mistakes in specs without loading a model")
    check.add_argument("spec", nargs="+", help="a .circ file, or a shipped spec such as pocket/ioi")
    check.add_argument("--model", help="check against this model instead of the spec's own")
    check.set_defaults(run=_check)


def _check(given: argparse.Namespace) -> int:
    check_model(given.model)
    specs = load_all(given.spec, given.model)
    if specs is None:
        return SPEC_WRONG
    for spec in specs:
        claims = sum(len(circuit.claims) for circuit in spec.circuits)
        names = ", ".join(circuit.name for circuit in spec.circuits)
        warned = sum(diagnostic.severity == "warning" for diagnostic in spec.diagnostics)
        warnings = f", {warned} warning{'s' * (warned != 1)}" if warned else ""
        print(f"{spec.path}: {names}: {claims} claim{'s' * (claims != 1)}, no errors{warnings}")
    return 0
