"""`verify` and `plan`: every claim of a spec checked against the model, or what that will take."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import add_prompts, add_session, add_spec, level, session
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_all
from circuitdsl.cli.terminal import as_json, console, say, wants_json
from circuitdsl.errors import INTERRUPTED, UserError
from circuitdsl.report.formats import FORMATS, View, format_of

if TYPE_CHECKING:
    from circuitdsl.report.report import Report


def register(verbs: Verbs) -> None:
    verify = verbs.add_parser("verify", help="check every claim of a spec against the model")
    add_spec(verify, "+")
    add_session(verify)
    add_prompts(verify)
    verify.add_argument("--claim", metavar="ID", help="verify one claim alone, by its line or as c07")
    verify.add_argument("--format", choices=FORMATS, help="default: text, or what the suffix of -o says")
    verify.add_argument("-o", "--output", help="write the report to this file")
    verify.add_argument("-v", "--verbose", action="store_true", help="give all reasons, and the pairs of group edges")
    verify.add_argument("--no-early-stop", action="store_true", help="measure all prompts for every claim")
    verify.add_argument("--full", action="store_true", help="measure the whole circuit besides, claimed or not")
    verify.add_argument(
        "--other-corruptions", action="store_true", help="say whether what matters does under the task's others too"
    )
    verify.add_argument(
        "--generalise",
        choices=("prompts", "templates"),
        default="prompts",
        help="whether verdicts are about prompts from the same templates (default) or from others (needs 15 strata)",
    )
    verify.add_argument("--each-at", type=level, metavar="LEVEL", help="judge claims one by one at this level (5%%)")
    verify.add_argument("--allow-undecided", action="store_true", help="exit with 0 where nothing fails")
    verify.add_argument("--per-prompt", metavar="FILE.csv", help="write the numbers of every prompt to this file")
    verify.set_defaults(run=_verify)

    plan = verbs.add_parser("plan", help="say what verify will run, and about how long it takes")
    add_spec(plan, "+")
    add_session(plan, cache=False)
    add_prompts(plan)
    plan.add_argument("--no-early-stop", action="store_true", help="plan for all prompts for every claim")
    plan.add_argument("--format", choices=("text", "json"), help="default: text, or json for -o FILE.json")
    plan.add_argument("-o", "--output", help="write to this file")
    plan.set_defaults(run=_plan)


def _verify(given: argparse.Namespace) -> int:
    from circuitdsl.report.report import Reports, exit_status
    from circuitdsl.report.terminal import summary_line
    from circuitdsl.verify.per_prompt import PerPrompt

    specs = load_all(given.spec, given.model, annotate=given.format == "github")
    target, numbers = output(given.output), output(given.per_prompt)
    table = PerPrompt() if numbers else None
    with session(given) as running:
        made = running.reports(
            specs,
            given.prompts,
            given.seed,
            given.other_corruptions,
            table,
            claim=given.claim,
            each_at=given.each_at,
            generalise=given.generalise,
            early_stop=not given.no_early_stop,
            full=given.full,
        )
        reports, trouble = _until_trouble(made)
    if trouble and not reports:
        raise trouble
    view = View(partial(console, plain=target is not None), given.verbose, given.allow_undecided)
    text = format_of(given.format, target).reports(Reports(reports), view)
    if numbers and table is not None:
        write(numbers, table.to_csv())
    write(target, text)
    for report in reports if target else ():
        say(f"{report.spec.circuit}: {summary_line(report).plain.strip()}")
    if trouble:
        raise trouble
    if any(report.interrupted for report in reports):
        return INTERRUPTED
    return exit_status(reports, given.allow_undecided)


def _until_trouble(reports: Iterator[Report]) -> tuple[list[Report], UserError | KeyboardInterrupt | None]:
    """The reports that could be made before one that could not, and why it could not."""
    made: list[Report] = []
    try:
        for report in reports:
            made.append(report)
    except (UserError, KeyboardInterrupt) as error:
        return made, error
    return made, None


def _plan(given: argparse.Namespace) -> int:
    specs, target = load_all(given.spec, given.model), output(given.output)
    with session(given) as running:
        found = running.plan(*specs, prompts=given.prompts, seed=given.seed, early_stop=not given.no_early_stop)
    if wants_json(given.format, target):
        text = as_json(found)
    else:
        text = View(partial(console, plain=target is not None)).text(forecast.show for forecast in found)
    write(target, text)
    return 0
