"""`circuitdsl diff`: two reports compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from circuitdsl.cli.arguments import Verbs
from circuitdsl.cli.terminal import console
from circuitdsl.report.formats import FORMATS, View


def register(verbs: Verbs) -> None:
    diff = verbs.verb(
        _diff,
        "diff",
        "compare two reports: verdicts that changed, numbers that moved",
        epilog="exit status: 1 where a claim that held does not any more, or is gone; 2 for a file that is no report",
    )
    diff.add_argument("old", help="a report made by verify --format json")
    diff.add_argument("new", help="a later one")
    diff.add_argument("--format", choices=[row.name for row in FORMATS.values() if row.of_diff], default="text")


def _diff(given: argparse.Namespace) -> int:
    from circuitdsl.report.diff import compare
    from circuitdsl.report.report import read_reports

    found = compare(read_reports(Path(given.old)), read_reports(Path(given.new)))
    sys.stdout.write(FORMATS[given.format].diff(found, View(console)))
    return found.exit_status()
