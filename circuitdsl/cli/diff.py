"""`circuitdsl diff`: two reports compared."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.terminal import console

if TYPE_CHECKING:
    from circuitdsl.cli import Verbs


def register(verbs: Verbs) -> None:
    diff = verbs.add_parser(
        "diff",
        help="compare two reports: verdicts that changed, numbers that moved",
        epilog="exit status: 1 where a claim that held does not any more, or is gone; 2 for a file that is no report",
    )
    diff.add_argument("old", help="a report made by verify --format json")
    diff.add_argument("new", help="a later one")
    diff.add_argument("--format", choices=("text", "json", "github"), default="text")
    diff.set_defaults(run=_diff)


def _diff(given: argparse.Namespace) -> int:
    from circuitdsl.report.diff import compare
    from circuitdsl.report.diff_view import show_diff
    from circuitdsl.report.github import of_diff
    from circuitdsl.report.past import read_reports

    found = compare(read_reports(Path(given.old)), read_reports(Path(given.new)))
    if given.format == "json":
        print(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        show_diff(found, console())
    if given.format == "github":
        for line in of_diff(found):
            print(line)
    return found.exit_status()
