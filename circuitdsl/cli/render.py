"""`circuitdsl render`: a diagram of a circuit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.specs import check_model, load_all, one_circuit
from circuitdsl.cli.terminal import say
from circuitdsl.errors import SPEC_WRONG, UsageError

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs
    from circuitdsl.report.report import Report


def register(verbs: Verbs) -> None:
    render = verbs.add_parser("render", help="draw a circuit, coloured by the verdicts of a report")
    render.add_argument("spec", help="a .circ file, or a shipped spec")
    render.add_argument("-o", "--output", help="file to write: .svg, .png, .html, .dot or .mmd (default: NAME.svg)")
    render.add_argument("--report", help="colour edges by the verdicts of this JSON report")
    render.add_argument("--circuit", help="which circuit, where the file has several")
    render.add_argument("--model", help="resolve against this model instead of the spec's own")
    render.set_defaults(run=_render)


def _render(given: argparse.Namespace) -> int:
    from circuitdsl.diagram import render

    check_model(given.model)
    specs = load_all([given.spec], given.model)
    if specs is None:
        return SPEC_WRONG
    circuit = one_circuit(specs[0], given.circuit)
    report = _read_report(Path(given.report), circuit.name) if given.report else None
    if report and report.spec.sha256 != circuit.sha256:
        say(f"warning: {given.report} is a report on another version of {given.spec}")
    path = Path(given.output or f"{circuit.name}.svg")
    render(circuit, path, report)
    print(f"wrote {path}")
    return 0


def _read_report(path: Path, circuit: str) -> Report:
    from circuitdsl.report.report import read_reports

    reports = {report.spec.circuit: report for report in read_reports(path)}
    if circuit not in reports:
        raise UsageError(f"{path} holds no report on circuit {circuit}", hint=f"it is on {', '.join(reports)}")
    return reports[circuit]
