"""`circuitdsl plan`: what verifying a spec will run and about how long it takes, without running it."""

from __future__ import annotations

import argparse
import sys

from circuitdsl.cli.arguments import add_prompts, add_session, add_spec, session
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_all
from circuitdsl.cli.terminal import as_json, printed, wants_json


def register(verbs: Verbs) -> None:
    plan = verbs.add_parser("plan", help="say what verify will run, and about how long it takes")
    add_spec(plan, "+")
    add_session(plan, cache=False)
    add_prompts(plan)
    plan.add_argument("--no-early-stop", action="store_true", help="plan for all prompts for every claim")
    plan.add_argument("--format", choices=("text", "json"), help="default: text, or json for -o FILE.json")
    plan.add_argument("-o", "--output", help="write to this file")
    plan.set_defaults(run=_plan)


def _plan(given: argparse.Namespace) -> int:
    specs, target = load_all(given.spec, given.model), output(given.output)
    with session(given) as running:
        found = running.plan(*specs, prompts=given.prompts, seed=given.seed, early_stop=not given.no_early_stop)
    if wants_json(given.format, target):
        text = as_json(found)
    else:
        text = printed([forecast.show for forecast in found], plain=target is not None)
    if target:
        write(target, text)
    else:
        sys.stdout.write(text)
    return 0
