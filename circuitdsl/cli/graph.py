"""`circuitdsl graph`: a circuit as a graph for other programs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.specs import check_model, load_all, one_circuit
from circuitdsl.errors import SPEC_WRONG, UsageError

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.cli import Verbs

FORMATS = ("json", "dot", "mermaid")


def register(verbs: Verbs) -> None:
    graph = verbs.add_parser("graph", help="write a circuit as a graph: JSON, dot or mermaid")
    graph.add_argument("spec", help="a .circ file, or a shipped spec")
    graph.add_argument("--format", choices=FORMATS, help="default: json, or what the name of -o says")
    graph.add_argument("--circuit", help="which circuit, where the file has several")
    graph.add_argument("-o", "--output", help="write to this file")
    graph.add_argument("--model", help="resolve against this model instead of the spec's own")
    graph.set_defaults(run=_graph)


def _graph(given: argparse.Namespace) -> int:
    check_model(given.model)
    specs = load_all([given.spec], given.model)
    if specs is None:
        return SPEC_WRONG
    target = output(given.output)
    text = _written(one_circuit(specs[0], given.circuit), given.format or _format_of(target))
    if target:
        write(target, text)
    else:
        sys.stdout.write(text)
    return 0


def _format_of(target: Path | None) -> str:
    """The format that the name of a file asks for; one without a suffix asks for none."""
    from circuitdsl.diagram.formats import FORMATS as DRAWINGS

    suffixes = {".json": "json"}
    suffixes |= {suffix: each.name for each in DRAWINGS if each.name in FORMATS for suffix in each.suffixes}
    suffix = target.suffix.lower() if target else ""
    if suffix and suffix not in suffixes:
        known = ", ".join(suffixes)
        raise UsageError(f"the name {target} does not say what to write", hint=f"end it in {known}, or give --format")
    return suffixes.get(suffix, "json")


def _written(circuit: Circuit, form: str) -> str:
    from circuitdsl.diagram import draw
    from circuitdsl.diagram.formats import FORMATS as DRAWINGS

    for each in DRAWINGS:
        if each.name == form:
            text = each.write(draw(circuit))
            assert isinstance(text, str)
            return text
    import networkx

    return json.dumps(networkx.node_link_data(circuit.graph, edges="edges"), indent=1, ensure_ascii=False) + "\n"
