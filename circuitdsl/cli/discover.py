"""`circuitdsl discover`: a draft spec of the circuit that a model uses for a task."""

from __future__ import annotations

import argparse
import sys

from circuitdsl.cli.arguments import add_session, positive, seconds, seed, session, share
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.terminal import say
from circuitdsl.errors import UsageError


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("discover", help="search a model for its circuit of a task, and draft a spec")
    add_session(verb, "pocket unless named")
    verb.add_argument("--task", required=True, help="a task, with options as in a spec: ioi, 'ioi(corrupt = flip)'")
    verb.add_argument("--metric", default="logit_diff", help="as in a spec (default: logit_diff)")
    verb.add_argument("--prompts", type=positive, default=96, help="prompts to search on (default: 96)")
    verb.add_argument("--seed", type=seed, default=0, help="of these; the draft is checked on others")
    verb.add_argument("--threshold", type=share, default=0.02, help="smallest effect of interest (default: 2%%)")
    verb.add_argument("--depth", type=positive, default=6, help="stages back from the logits (default: 6)")
    verb.add_argument("--budget", type=seconds, metavar="TIME", help="stop searching after this time: 90, 90s, 5m")
    verb.add_argument("--name", help="name of the circuit (default: the task's)")
    verb.add_argument("-o", "--output", help="write the spec to this file (default: standard output)")
    verb.set_defaults(run=_discover)


def _discover(given: argparse.Namespace) -> int:
    target = output(given.output)
    if target and target.is_file():
        raise UsageError(f"{target} is there already", hint="drafts replace nothing: choose another name, or remove it")
    wanted = ("metric", "prompts", "seed", "threshold", "depth", "budget", "name")
    with session(given, "pocket") as running:
        found = running.discover(given.task, **{name: getattr(given, name) for name in wanted}, target=target)
    if target:
        write(target, found.text)
    else:
        sys.stdout.write(found.text)
    for line in found.summary:
        say(line)
    return 0
