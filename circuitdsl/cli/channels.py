"""`circuitdsl channels`: which heads write what a head reads, from weights alone."""

from __future__ import annotations

import argparse

from circuitdsl.cli.arguments import CIRCUIT, positive, session
from circuitdsl.cli.outputs import picture
from circuitdsl.cli.parser import Verbs
from circuitdsl.cli.specs import load_one
from circuitdsl.cli.terminal import console, say
from circuitdsl.errors import UsageError


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("channels", help="find which heads write what a head reads, from weights alone")
    verb.add_argument("source", metavar="MODEL|SPEC", help="a model's name or directory, or a spec, whose groups count")
    verb.add_argument("--to", nargs="+", required=True, metavar="HEAD.q", help="receiver inputs: 9.9.q, or mover.q")
    verb.add_argument("--from", nargs="+", dest="senders", metavar="HEAD", help="senders: 8.10, 8.6[2], a group")
    verb.add_argument("--components", action="store_true", help="single singular components instead of whole heads")
    verb.add_argument("--top", type=positive, default=20, help="how many to list (default: 20)")
    verb.add_argument("--model", help="the model of a spec, instead of its own")
    verb.add_argument("--circuit", help=CIRCUIT)
    verb.add_argument("-o", "--output", help="draw a heat map into this file: .svg or .png")
    verb.set_defaults(run=_channels)


def _channels(given: argparse.Namespace) -> int:
    from circuitdsl.api import is_spec

    target = picture(given.output)
    spec = load_one(given.source, given.model) if is_spec(given.source) else None
    if spec is None and given.model is not None:
        raise UsageError("--model is for specs; here the model is named already", hint=f"{given.source} is a model")
    with session(given, None if spec else given.source) as running:
        found = running.channels(given.to, given.senders or (), given.components, spec, given.circuit)
    found.show(console(), given.top)
    if target:
        found.draw(target, given.top)
        say(f"wrote {target}")
    return 0
