"""`dictionaries`: what sparse autoencoders and transcoders are, and what they do on a task."""

from __future__ import annotations

import argparse

from circuitdsl.cli.arguments import Verbs, add_session, session
from circuitdsl.cli.files import picture
from circuitdsl.cli.terminal import present, say
from circuitdsl.limits import positive, seed


def register(verbs: Verbs) -> None:
    verb = verbs.verb(_dictionaries, "dictionaries", "say what a dictionary of features does on a task")
    verb.add_argument("name", metavar="DIR", help="a directory, a file, a shipped one, or OWNER/REPOSITORY/DIR")
    verb.add_argument("--task", required=True, help="a task as in a spec, or a prompt file, x.jsonl")
    verb.add_argument("--prompts", type=positive, default=128, help="prompts to look at (default: 128)")
    verb.add_argument("--seed", type=seed, default=0, help="of these (default: 0)")
    verb.add_argument("--at", metavar="HOOK", help="what it writes, where its files do not say: blocks.12.hook_mlp_out")
    verb.add_argument("--top", type=positive, default=10, help="features to list (default: 10)")
    verb.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    verb.add_argument("-o", "--output", help="draw the features' activations into this file: .svg or .png")
    add_session(verb, "pocket unless named", cache=False)


def _dictionaries(given: argparse.Namespace) -> int:
    target = picture(given.output)
    wanted = {name: getattr(given, name) for name in ("prompts", "seed", "at", "top")}
    with session(given, "pocket") as running:
        found = running.dictionaries(given.name, given.task, **wanted)
    present([found], given.format)
    if target:
        from circuitdsl.diagram.features import picture as drawn
        from circuitdsl.diagram.formats import write_picture

        write_picture(drawn(found), target)
        say(f"wrote {target}")
    return 0
