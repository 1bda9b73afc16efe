"""`circuitdsl trace`: which heads made a head attend where it does, back to the first layer."""

from __future__ import annotations

import argparse

from circuitdsl.cli.arguments import CIRCUIT, add_prompts, add_session, add_spec, level, session
from circuitdsl.cli.outputs import picture
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_one
from circuitdsl.cli.terminal import console, say
from circuitdsl.errors import UsageError


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("trace", help="find which heads made a head attend where it does")
    add_spec(verb)
    verb.add_argument("--head", required=True, metavar="L.H", help="the head to explain: 9.9")
    verb.add_argument("--from", required=True, dest="source", metavar="POS", help="where it attends from: END")
    verb.add_argument("--to", required=True, dest="target", metavar="POS", help="what it attends to: IO")
    verb.add_argument("--least", type=level, default=0.25, metavar="SHARE", help="of the firings, to be shown (25%%)")
    verb.add_argument("--task", help="which task, where the spec has several")
    verb.add_argument("--circuit", help=CIRCUIT)
    verb.add_argument(
        "--cut",
        nargs="*",
        choices=("local", "global"),
        help="take the signal out of what the head reads (local, the default) or of what its senders write (global)",
    )
    verb.add_argument("--boost", action="store_true", help="with --cut: add the signal once more instead")
    verb.add_argument("-o", "--output", help="draw into this file: .svg or .png")
    add_prompts(verb)
    add_session(verb)
    verb.set_defaults(run=_trace)


def _trace(given: argparse.Namespace) -> int:
    if given.boost and given.cut is None:
        raise UsageError("--boost says what a cut does instead", hint="give --cut as well")
    file = picture(given.output)
    spec = load_one(given.spec, given.model)
    with session(given) as running:
        found = running.trace(
            spec,
            given.head,
            given.source,
            given.target,
            cut=() if given.cut is None else given.cut or ("local",),
            boost=given.boost,
            task=given.task,
            prompts=given.prompts,
            seed=given.seed,
            circuit=given.circuit,
        )
    found.show(console(), given.least)
    if file:
        found.draw(file, given.least)
        say(f"wrote {file}")
    return 0
