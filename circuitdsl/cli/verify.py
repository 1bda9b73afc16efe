"""`verify` checks every claim of a spec against the model; `plan` says what that will take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.cli.arguments import Verbs, add_prompt_files, add_prompts, add_session, add_spec, level, session
from circuitdsl.cli.files import load_all, output, write
from circuitdsl.cli.matrix import add_results, add_tasks, is_matrix, verify_matrix
from circuitdsl.cli.terminal import as_json, console, say, say_error
from circuitdsl.cli.view import add_against, add_found, against, found_again, show
from circuitdsl.errors import INTERRUPTED, UsageError, UserError
from circuitdsl.report.formats import FORMATS, View, format_of

if TYPE_CHECKING:
    from circuitdsl.api import Spec
    from circuitdsl.report.again import Again
    from circuitdsl.report.report import Report


def register(verbs: Verbs) -> None:
    verify = verbs.verb(_verify, "verify", "check every claim of a spec against the model")
    add_spec(verify, "+")
    add_session(verify, several=True)
    add_prompts(verify, several=True)
    add_tasks(verify)
    add_results(verify)
    some = "verify some claims alone, by their lines or as c07: 27, or 27,28"
    verify.add_argument("--claim", metavar="ID", action="append", help=some)
    verify.add_argument("--format", choices=FORMATS, help="default: text, or what the suffix of -o says")
    verify.add_argument("-o", "--output", help="write the report to this file")
    add_against(verify)
    add_found(verify)
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
    verify.add_argument("--watch", action="store_true", help="verify again whenever the spec is saved, until Ctrl-C")
    verify.add_argument("--view", action="store_true", help="open the page in a browser; with --watch it follows")
    verify.add_argument("--with-prompts", action="store_true", help="keep all numbers in the JSON report, for view")
    verify.add_argument("--per-prompt", metavar="FILE.csv", help="write the numbers of every prompt to this file")
    verify.add_argument(
        "--per-prompt-pairs", action="store_true", help="with --per-prompt: the other parts and pairs of claims as well"
    )

    plan = verbs.verb(_plan, "plan", "say what verify will run, and about how long it takes")
    add_spec(plan, "+")
    add_session(plan)
    add_prompts(plan)
    add_prompt_files(plan)
    plan.add_argument("--no-early-stop", action="store_true", help="plan for all prompts for every claim")
    plan.add_argument("--format", choices=("text", "json"), help="default: text, or json for -o FILE.json")
    plan.add_argument("-o", "--output", help="write to this file")


def _verify(given: argparse.Namespace) -> int:
    if is_matrix(given):
        return verify_matrix(given)
    given.model, given.seed = ((each or [None])[0] for each in (given.model, given.seed))
    from circuitdsl.report.report import Reports, exit_status
    from circuitdsl.report.terminal import summary_line
    from circuitdsl.verify.per_prompt import PerPrompt

    names = ("prompts", "seed", "other_corruptions", "claim", "each_at", "generalise", "full")
    wanted = {name: getattr(given, name) for name in names} | {"early_stop": not given.no_early_stop}
    form = format_of(given.format, Path(given.output) if given.output else None)
    if given.with_prompts and form.name not in ("json", "html"):
        raise UsageError("--with-prompts keeps numbers in a JSON report", hint="name it with -o FILE.json")
    if given.view or given.with_prompts or form.name == "html":
        wanted["behind"] = given.command
    if given.watch:
        return _watch(given, wanted)
    if given.per_prompt_pairs and not given.per_prompt:
        raise UsageError("--per-prompt-pairs adds rows to a file", hint="name it with --per-prompt FILE.csv")
    base, again = against(given, form), found_again(given, FORMATS["html"] if given.view else form)
    specs = load_all(given.spec, given, annotate=given.format == "github")
    target, numbers = output(given.output), output(given.per_prompt)
    table = PerPrompt(given.per_prompt_pairs) if numbers else None
    reports: list[Report] = []
    trouble: UserError | KeyboardInterrupt | None = None
    with session(given) as running:
        try:
            for report in running.reports(specs, per_prompt=table, **wanted):
                reports.append(report)
        except (UserError, KeyboardInterrupt) as error:  # the reports made by then are written first
            trouble = error
    if trouble and not reports:
        raise trouble
    plain = partial(console, plain=target is not None)
    view = View(plain, given.verbose, given.allow_undecided, partial(_picture, specs, again), base)
    text = form.reports(Reports(reports), view)
    if numbers and table is not None:
        write(numbers, table.to_csv())
    write(target, text)
    if given.view:
        show(FORMATS["html"].reports(Reports(reports), view), None)
    for report in reports if target else ():
        say(f"{report.spec.circuit}: {summary_line(report).plain.strip()}")
    if trouble:
        raise trouble
    if any(report.interrupted for report in reports):
        return INTERRUPTED
    return exit_status(reports, given.allow_undecided)


def _picture(specs: Sequence[Spec], again: Again | None, report: Report) -> str:
    from circuitdsl.viewing import pictures

    return pictures(specs, again)(report)


def _watch(given: argparse.Namespace, wanted: dict[str, Any]) -> int:
    """Print the first reports, and after every change of a file what is other than before."""
    from circuitdsl.cli.live import Live
    from circuitdsl.report.diff import diff_text
    from circuitdsl.report.report import Reports, exit_status
    from circuitdsl.report.terminal import summary_line

    for name in ("output", "format", "against", "per_prompt"):
        if getattr(given, name):
            raise UsageError(f"--watch writes to the terminal: leave out --{name.replace('_', '-')}")
    view, last = View(console, given.verbose, given.allow_undecided), Reports(())
    again = found_again(given, FORMATS["html" if given.view else "text"])
    live = Live(again) if given.view else None
    with session(given) as running:
        try:
            for turn in running.watch(given.spec, **wanted):
                if turn.trouble:
                    say_error(turn.trouble)
                elif turn.changes is None:
                    write(None, FORMATS["text"].reports(turn.reports, view))
                else:
                    write(None, f"\n{datetime.now():%H:%M:%S}  {turn.seconds:.1f} s after the change\n\n")
                    write(None, diff_text(turn.changes, view))
                    lines = (f"{each.spec.circuit}: {summary_line(each).plain.strip()}\n" for each in turn.reports)
                    write(None, "".join(lines))
                if live and turn.reports:
                    live.show(turn.reports)
                last = turn.reports or last
                say("watching; Ctrl-C ends")
        except KeyboardInterrupt:
            say("")
    return exit_status(last, given.allow_undecided) if last else INTERRUPTED


def _plan(given: argparse.Namespace) -> int:
    specs, target = load_all(given.spec, given), output(given.output)
    with session(given) as running:
        found = running.plan(*specs, prompts=given.prompts, seed=given.seed, early_stop=not given.no_early_stop)
    if format_of(given.format, target).name == "json":
        text = as_json(found)
    else:
        text = View(partial(console, plain=target is not None)).text(forecast.show for forecast in found)
    write(target, text)
    return 0
