"""`render` and `graph`: a circuit as a diagram, and as a graph for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import Parser, Verbs, add_circuit, add_spec
from circuitdsl.cli.files import check_model, load_one, output, write
from circuitdsl.cli.terminal import say, tell
from circuitdsl.cli.view import add_found, found_again
from circuitdsl.errors import UsageError
from circuitdsl.visible import json_text

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.report.report import Report

#: formats of `graph`; the last two are drawings as well
GRAPHS = ("json", "transformer_lens", "dot", "mermaid")


def register(verbs: Verbs) -> None:
    render = verbs.verb(_render, "render", "draw a circuit, coloured by the verdicts of a report")
    _add_circuit(render)
    render.add_argument("-o", "--output", help="file to write: .svg, .png, .html, .dot or .mmd (default: NAME.svg)")
    render.add_argument("--report", help="colour edges by the verdicts of this JSON report")
    add_found(render)

    graph = verbs.verb(_graph, "graph", "write a circuit as JSON, hook names, dot or mermaid")
    _add_circuit(graph)
    graph.add_argument("--format", choices=GRAPHS, help="default: json, or what the name of -o says")
    graph.add_argument("-o", "--output", help="write to this file")


def _add_circuit(verb: Parser) -> None:
    add_spec(verb)
    add_circuit(verb)
    verb.add_argument("--model", help="resolve against this model instead of the spec's own")


def _circuit(given: argparse.Namespace) -> Circuit:
    check_model(given.model)
    return load_one(given.spec, given).first(given.circuit)


def _render(given: argparse.Namespace) -> int:
    from circuitdsl.diagram import render

    circuit = _circuit(given)
    report = _read_report(Path(given.report), circuit.name) if given.report else None
    if report and not report.spec.says_what(circuit):
        say(f"warning: {given.report} is a report on another version of {given.spec}")
    path = Path(given.output or f"{circuit.name}.svg")
    render(circuit, path, report, found_again(given))
    tell(f"wrote {path}")
    return 0


def _read_report(path: Path, circuit: str) -> Report:
    from circuitdsl.report.report import read_reports

    reports = {report.spec.circuit: report for report in read_reports(path)}
    if circuit not in reports:
        raise UsageError(f"{path} holds no report on circuit {circuit}", hint=f"it is on {', '.join(reports)}")
    return reports[circuit]


def _graph(given: argparse.Namespace) -> int:
    circuit, target = _circuit(given), output(given.output)
    form = given.format or _format_of(target)
    if form == "json":
        import networkx

        data = networkx.node_link_data(circuit.graph, edges="edges")
        text = json_text(data, indent=1) + "\n"
    elif form == "transformer_lens":
        from circuitdsl.interop.names import hook_graph

        text = json_text(hook_graph(circuit), indent=1) + "\n"
    else:
        from circuitdsl.diagram import draw
        from circuitdsl.diagram.formats import FORMATS

        text = str(next(row for row in FORMATS if row.name == form).write(draw(circuit)))
    write(target, text)
    return 0


def _format_of(target: Path | None) -> str:
    """The format that the suffix of a file's name asks for; JSON without a suffix."""
    from circuitdsl.diagram.formats import FORMATS

    suffixes = {".json": "json"} | {
        suffix: row.name for row in FORMATS if row.name in GRAPHS for suffix in row.suffixes
    }
    suffix = target.suffix.lower() if target else ""
    if suffix and suffix not in suffixes:
        known = ", ".join(suffixes)
        raise UsageError(f"the name {target} does not say what to write", hint=f"end it in {known}, or give --format")
    return suffixes.get(suffix, "json")
