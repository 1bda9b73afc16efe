"""`circuitdsl compare`: what two circuits have in common, against chance."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import add_session, positive, session
from circuitdsl.cli.outputs import picture
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_one, one_circuit
from circuitdsl.cli.terminal import as_json, console, say

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("compare", help="compare the heads and edges of two circuits, against chance")
    verb.add_argument("first", help="a spec, or SPEC#CIRCUIT where it has several")
    verb.add_argument("second", help="another, of the same model")
    verb.add_argument("--control", metavar="SPEC", help="a circuit of another task, as a control")
    verb.add_argument("--measure", action="store_true", help="measure every head on both tasks, and correlate")
    verb.add_argument("--prompts", type=positive, default=128, help="prompts a task for --measure (default: 128)")
    verb.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    verb.add_argument("-o", "--output", help="draw the model's heads into this file: .svg or .png")
    add_session(verb)
    verb.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> int:
    target = picture(given.output)
    first, second = (_circuit(name, given.model) for name in (given.first, given.second))
    control = _circuit(given.control, given.model) if given.control else None
    with session(given) as running:
        found = running.compare(first, second, control, given.measure, given.prompts)
    if target:
        found.draw(target)
        say(f"wrote {target}")
    if given.format == "json":
        sys.stdout.write(as_json([found]))
    else:
        found.show(console())
    return 0


def _circuit(name: str, model: str | None) -> Circuit:
    path, _, circuit = name.partition("#")
    return one_circuit(load_one(path, model), circuit or None)
