"""`sweep`: activation patching at every layer and position, as a heat map. `direction`: a difference of means."""

from __future__ import annotations

import argparse
from pathlib import Path

from circuitdsl.cli.arguments import Verbs, add_circuit, add_outside, add_session, session
from circuitdsl.cli.files import load_one, output, picture, write
from circuitdsl.cli.terminal import as_json, present, say
from circuitdsl.errors import UsageError
from circuitdsl.limits import positive, seed

#: what a name without a suffix is written as
SUFFIXES = (".json", ".svg", ".png")


def register(verbs: Verbs) -> None:
    verb = verbs.verb(_sweep, "sweep", "patch every layer or head at every position, as a heat map")
    verb.add_argument("spec", nargs="?", help="a .circ file or a shipped spec: its model, task and metric")
    verb.add_argument("--task", help="a task as in a spec, or a prompt file; of a spec, which of its tasks")
    verb.add_argument("--over", default="resid", choices=("resid", "heads", "mlps"), help="default: resid")
    verb.add_argument("--positions", nargs="+", metavar="POS", help="END S1+1 …, all places, or * (default: all names)")
    verb.add_argument("--denoise", action="store_true", help="put clean terms into the corrupt run instead")
    verb.add_argument("--metric", help="as in a spec (default: the spec's, or logit_diff)")
    verb.add_argument("--prompts", type=positive, help="prompts to patch (default: 96)")
    verb.add_argument("--seed", type=seed, help="of these (default: the spec's, or 0)")
    add_circuit(verb)
    add_outside(verb)
    verb.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    what = "write values and picture: NAME.json, NAME.svg and NAME.png, or the one that the name says"
    verb.add_argument("-o", "--output", metavar="NAME", help=what)
    add_session(verb, "instead of the spec's own, or pocket")

    make = verbs.verb(_direction, "direction", "make a direction of the residual stream from prompts")
    make.add_argument("spec", nargs="?", help="a .circ file or a shipped spec: its model and task")
    make.add_argument("--task", help="a task as in a spec, or a prompt file; of a spec, which of its tasks")
    make.add_argument(
        "--from", dest="sides", default="clean,corrupt", help="first minus second (default: clean,corrupt)"
    )
    make.add_argument("--at", default="END", metavar="POS", help="where (default: END)")
    make.add_argument("--layer", type=int, required=True, help="the layer that the stream enters")
    make.add_argument("--prompts", type=positive, help="prompts to take means over (default: 96)")
    make.add_argument("--seed", type=seed, help="of these (default: the spec's, or 0)")
    make.add_argument("--tensor", default="direction", help="what the tensor is called (default: direction)")
    make.add_argument("--overwrite", action="store_true", help="replace a file of that name")
    add_circuit(make)
    add_outside(make)
    make.add_argument("-o", "--output", required=True, metavar="FILE", help="write it to this file: .safetensors")
    add_session(make, "instead of the spec's own, or pocket")


def _sweep(given: argparse.Namespace) -> int:
    if given.spec is None and given.task is None:
        raise UsageError("there is nothing to sweep", hint="name a spec, or a task: circuitdsl sweep --task ioi")
    targets = _targets(given.output)
    spec = load_one(given.spec, given) if given.spec else None
    wanted = ("task", "over", "positions", "denoise", "metric", "prompts", "seed", "circuit")
    with session(given, None if spec else "pocket") as running:
        found = running.sweep(spec, **{name: getattr(given, name) for name in wanted})
    present([found], given.format)
    for target in targets:
        if target.suffix == ".json":
            write(target, as_json([found]))
        else:
            found.draw(target)
            say(f"wrote {target}")
    return 0


def _targets(name: str | None) -> list[Path]:
    """The files to write, refused early where they cannot be."""
    if not name:
        return []
    suffix = Path(name).suffix.lower()
    names = [name] if suffix in SUFFIXES else [f"{name}{each}" for each in SUFFIXES]
    if suffix and suffix not in SUFFIXES and not suffix[1:].isdigit():
        raise UsageError(f"cannot write {name}: the suffix says what to write", hint="use .json, .svg, .png or none")
    check = {".json": output}
    return [path for each in names if (path := check.get(Path(each).suffix, picture)(each))]


def _direction(given: argparse.Namespace) -> int:
    if given.spec is None and given.task is None:
        raise UsageError("there are no prompts", hint="name a spec, or a task: circuitdsl direction --task ioi")
    target = output(given.output)
    if target and target.exists() and not given.overwrite:
        raise UsageError(f"{target} is there already", hint="choose another name, or give --overwrite")
    spec = load_one(given.spec, given) if given.spec else None
    wanted = ("task", "at", "layer", "prompts", "seed", "circuit")
    with session(given, None if spec else "pocket") as running:
        sides = [word.strip() for word in given.sides.split(",")]
        found = running.direction(spec, sides=sides, **{name: getattr(given, name) for name in wanted})
    found.save(given.output, given.tensor, given.overwrite)
    present([found], "text")
    say(f"wrote {target}")
    return 0
