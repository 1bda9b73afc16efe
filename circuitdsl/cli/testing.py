"""`diff`, `falsify` and `mutate`: two reports compared, prompts that break a property, and mutants that claims miss."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from circuitdsl.cli.arguments import Verbs, add_prompt_files, add_prompts, add_session, add_spec, fraction, session
from circuitdsl.cli.files import load_one, output, write_prompts
from circuitdsl.cli.terminal import console, present, say
from circuitdsl.limits import positive, seed
from circuitdsl.report.formats import FORMATS, View


def register(verbs: Verbs) -> None:
    diff = verbs.verb(
        _diff,
        "diff",
        "compare two reports: changed verdicts, numbers that moved",
        epilog="exit status: 1 where a claim that held does not any more, or is gone (or as --fail-on says);"
        " 2 for a file that is no report",
    )
    diff.add_argument("old", help="a report made by verify --format json")
    diff.add_argument("new", help="a later one")
    diff.add_argument("--format", choices=[row.name for row in FORMATS.values() if row.of_diff], default="text")
    diff.add_argument(
        "--fail-on",
        choices=("regression", "change", "nothing"),
        default="regression",
        help="what makes the exit status 1: a claim that held and does not now (default), any change, or nothing",
    )

    falsify = verbs.verb(
        _falsify,
        "falsify",
        "search for prompts that break a property, and shrink them",
        epilog="exit status: 0 nothing was found; 1 a prompt breaks a property that is to hold; 2 a wrong spec;"
        " 3 it could not run",
    )
    add_spec(falsify)
    add_session(falsify, cache=False)
    add_prompt_files(falsify)
    falsify.add_argument("--property", metavar="TITLE", help="this property alone, by its title or line")
    falsify.add_argument("--claim", metavar="ID", help="an expectation with a value on each prompt")
    falsify.add_argument("--budget", type=positive, default=1000, metavar="N", help="prompts to look at (1000)")
    falsify.add_argument("--seed", type=seed, default=0, help="of the search")
    falsify.add_argument("-o", "--output", metavar="FILE.jsonl", help="save what was found as a prompt file, file(…)")

    mutate = verbs.verb(
        _mutate,
        "mutate",
        "change a spec line by line, and see what its claims notice",
        epilog="exit status: 1 where fewer mutants than --at-least are killed; 2 a wrong spec; 3 it could not run",
    )
    add_spec(mutate)
    add_session(mutate)
    add_prompts(mutate)
    add_prompt_files(mutate)
    least = fraction("share such as 90%", 0.0, 1.0)
    mutate.add_argument("--at-least", type=least, default=0.0, metavar="SHARE", help="the share to kill, such as 90%%")
    mutate.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    mutate.add_argument("-v", "--verbose", action="store_true", help="list all other mutants too")


def _diff(given: argparse.Namespace) -> int:
    from circuitdsl.report.diff import compare
    from circuitdsl.report.report import read_reports

    found = compare(read_reports(Path(given.old)), read_reports(Path(given.new)))
    sys.stdout.write(FORMATS[given.format].diff(found, View(console)))
    return found.exit_status(given.fail_on)


def _falsify(given: argparse.Namespace) -> int:
    from circuitdsl.verify.folder import default_path

    spec, target = load_one(given.spec, given), output(given.output)
    # Hypothesis keeps its files beside the cache of numbers, not in the current folder
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(default_path().parent / "hypothesis"))
    found, broken = [], False
    with session(given) as running:
        searches = running.falsify(spec, given.property, given.claim, given.budget, given.seed)
        for number, search in enumerate(searches):
            if number:
                print()
            present([search], "text")
            if search.found:
                found.append(search.found.pair)
                broken |= search.claim.expected_to_fail is None
    if target:
        write_prompts(target, found)
    return int(broken)


def _mutate(given: argparse.Namespace) -> int:
    spec = load_one(given.spec, given)
    with session(given) as running:
        found = running.mutate(spec, given.prompts, given.seed, announce=lambda takes: say(str(takes)))
    present(found, given.format, verbose=given.verbose)
    return 1 if any(each.share < given.at_least for each in found) else 0
