"""`circuitdsl verify`: every claim of a spec checked against the model."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import level, positive, seed
from circuitdsl.cli.models import add_memory_argument, add_model_arguments, models
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.specs import HOW_CLAIMS_ARE_NAMED, load_all
from circuitdsl.cli.terminal import console, progress, say
from circuitdsl.errors import INTERRUPTED, SPEC_WRONG, UsageError, UserError
from circuitdsl.report.formats import FORMATS, View, format_of

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.cli import Verbs
    from circuitdsl.measurements.plan import ClaimPlan
    from circuitdsl.measurements.requests import Request
    from circuitdsl.models.cache import Models
    from circuitdsl.report.report import Report
    from circuitdsl.verify.bench import Bench
    from circuitdsl.verify.measure import Series
    from circuitdsl.verify.per_prompt import Row
    from circuitdsl.verify.store import Store
    from circuitdsl.verify.verify import Options


def register(verbs: Verbs) -> None:
    verify = verbs.add_parser("verify", help="check every claim of a spec against the model")
    verify.add_argument("spec", nargs="+", help="a .circ file, or a shipped spec such as pocket/ioi")
    add_model_arguments(verify)
    verify.add_argument("--prompts", type=positive, help="prompts per task at most, instead of the spec's number")
    verify.add_argument("--seed", type=seed, help="seed of the prompts, instead of the spec's")
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
    add_memory_argument(verify)
    verify.add_argument("--per-prompt", metavar="FILE.csv", help="write the numbers of every prompt to this file")
    verify.add_argument("--no-cache", action="store_true", help="measure everything, whatever earlier runs have found")
    verify.set_defaults(run=_verify)


def _verify(given: argparse.Namespace) -> int:
    specs = load_all(given.spec, given.model, annotate=given.format == "github")
    if specs is None:
        return SPEC_WRONG
    circuits = [circuit for spec in specs for circuit in spec.circuits]
    _check_claim(circuits, given.claim)
    from circuitdsl.report.report import Reports, exit_status, until_interrupted
    from circuitdsl.report.terminal import summary_line

    target, numbers = output(given.output), output(given.per_prompt)
    table: list[Row] = []
    reports, trouble = _until_trouble(until_interrupted(_reports(circuits, given, table)))
    if trouble and not reports:
        raise trouble
    view = View(partial(console, plain=target is not None), given.verbose, given.allow_undecided)
    text = format_of(given.format, target).reports(Reports(reports), view)
    if numbers:
        write(numbers, _csv(table))
    if target:
        write(target, text)
        for report in reports:
            say(f"{report.spec.circuit}: {summary_line(report).plain.strip()}")
    else:
        sys.stdout.write(text)
    if trouble:
        raise trouble
    if any(report.interrupted for report in reports):
        return INTERRUPTED
    return exit_status(reports, given.allow_undecided)


def _csv(table: list[Row]) -> str:
    """Numbers of every prompt, a line each."""
    from circuitdsl.verify.per_prompt import COLUMNS

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([COLUMNS, *table])
    return out.getvalue()


def _record(circuit: str, table: list[Row], plan: ClaimPlan, series: Mapping[Request, Series], bench: Bench) -> None:
    from circuitdsl.verify.per_prompt import rows

    table.extend(rows(circuit, plan, series, bench))


def _until_trouble(reports: Iterator[Report]) -> tuple[list[Report], UserError | KeyboardInterrupt | None]:
    """The reports that could be made before one that could not, and why it could not."""
    made: list[Report] = []
    try:
        for report in reports:
            made.append(report)
    except (UserError, KeyboardInterrupt) as error:
        return made, error
    return made, None


def _check_claim(circuits: list[Circuit], wanted: str | None) -> None:
    claims = [claim for circuit in circuits for claim in circuit.claims]
    if not claims:
        raise UserError("nothing to verify: the spec makes no claim that can be measured")
    if wanted is not None and not any(claim.answers_to(wanted) for claim in claims):
        raise UsageError(f"there is no claim {wanted}", hint=HOW_CLAIMS_ARE_NAMED)


def _reports(circuits: list[Circuit], given: argparse.Namespace, table: list[Row]) -> Iterator[Report]:
    from circuitdsl.verify.store import Store, default_path
    from circuitdsl.verify.verify import Options

    options = Options(
        early_stop=not given.no_early_stop,
        holm=given.each_at is None,
        alpha=0.05 if given.each_at is None else given.each_at,
        only=given.claim,
        full=given.full,
        templates=given.generalise == "templates",
        max_memory=given.memory,
    )
    loaded = models(given)
    with nullcontext() if given.no_cache else Store(default_path(), warn=lambda text: say(f"warning: {text}")) as store:
        yield from _verified(circuits, loaded, given, options, store, table)


def _verified(
    circuits: list[Circuit],
    loaded: Models,
    given: argparse.Namespace,
    options: Options,
    store: Store | None,
    table: list[Row],
) -> Iterator[Report]:
    from dataclasses import replace

    from circuitdsl.api import make_benches, verify_other_corruptions
    from circuitdsl.verify.judged import verify_without_model
    from circuitdsl.verify.verify import verify, with_overrides

    for circuit in circuits:
        if not any(given.claim is None or claim.answers_to(given.claim) for claim in circuit.claims):
            continue
        if known := verify_without_model(circuit, partial(loaded.weights_of, circuit), given.claim):
            yield known
            continue
        circuit = with_overrides(circuit, given.prompts, given.seed)
        model = loaded.of(circuit)
        start = time.perf_counter()
        record = partial(_record, circuit.name, table) if given.per_prompt else None
        with progress() as meter:
            benches = make_benches(circuit, model, store, given.memory)
            report = verify(circuit, model, benches, options, meter, record)
            if given.other_corruptions and not report.interrupted:
                report = verify_other_corruptions(circuit, model, benches, report, options, store, given.memory)
        yield replace(report, seconds=time.perf_counter() - start)
