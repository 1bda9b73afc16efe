"""`score`, `import` and `export`: circuits as the field exchanges them, lists of edges with a score each."""

from __future__ import annotations

import argparse
from pathlib import Path

from circuitdsl.cli.arguments import Verbs, add_circuit, add_session, add_spec, session
from circuitdsl.cli.files import check_model, load_one, output, picture, write, write_spec
from circuitdsl.cli.terminal import as_json, present, say
from circuitdsl.errors import UsageError, UserError
from circuitdsl.limits import positive, seed

TASK = "a task as in a spec, or a prompt file, x.jsonl"
METRIC = "as in a spec (default: logit_diff)"


def register(verbs: Verbs) -> None:
    score = verbs.verb(_score, "score", "say how much of a task the best edges of scored lists do")
    score.add_argument("files", nargs="+", metavar="SCORES", help="JSON of `discover --scores`, of EAP-IG or of MIB")
    score.add_argument("--task", required=True, help=TASK)
    score.add_argument("--metric", default="logit_diff", help=METRIC)
    score.add_argument("--prompts", type=positive, default=256, help="prompts to run circuits on (default: 256)")
    score.add_argument("--seed", type=seed, default=1, help="of these; another than that of the scores (default: 1)")
    score.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    score.add_argument("-o", "--output", help="draw all curves into this file: .svg or .png; .json: the numbers")
    add_session(score, "pocket unless named")

    read = verbs.verb(_import, "import", "write a spec of scored edges, or of an attribution graph")
    read.add_argument(
        "file", metavar="FILE", help="JSON of `discover --scores`, EAP-IG or MIB; of circuit-tracer or Neuronpedia"
    )
    read.add_argument("--task", help=f"{TASK}; needed where the file names none")
    read.add_argument("--metric", help=METRIC)
    read.add_argument("--model", help="a model's name or directory; needed where the file names none")
    which = read.add_mutually_exclusive_group()
    which.add_argument("--top", type=positive, metavar="N", help="the N edges with the largest scores (graphs: 20)")
    which.add_argument("--threshold", type=_number, metavar="X", help="the edges whose scores are X or larger")
    read.add_argument(
        "--dictionary",
        action="append",
        metavar="DIR",
        help="of a graph: the transcoders of its features, one or a set; may be given again",
    )
    read.add_argument(
        "--position",
        action="append",
        metavar="NAME=N",
        help="of a graph: the token where a position stands: S2=10",
    )
    read.add_argument("--name", help="name of the circuit (default: the task's)")
    read.add_argument("-o", "--output", help="write the spec to this file (default: standard output)")

    export = verbs.verb(_export, "export", "write the edges of a spec for EAP-IG and MIB")
    add_spec(export)
    add_circuit(export)
    export.add_argument("--format", choices=("mib",), default="mib", help="default: mib")
    export.add_argument("--model", help="resolve against this model instead of the spec's own")
    export.add_argument("-o", "--output", help="write to this file (default: standard output)")


def _number(text: str) -> float:
    """A number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return found


def _score(given: argparse.Namespace) -> int:
    numbers = (given.output or "").endswith(".json")
    target = output(given.output) if numbers else picture(given.output)
    wanted = {name: getattr(given, name) for name in ("metric", "prompts", "seed")}
    with session(given, "pocket") as running:
        found = running.curves(given.files, given.task, **wanted)
    present([found], given.format)
    if target and numbers:
        write(target, as_json([found]))
    elif target:
        from circuitdsl.diagram.curves import picture as drawn
        from circuitdsl.diagram.formats import write_picture

        write_picture(drawn(found), target)
        say(f"wrote {target}")
    return 0


def _import(given: argparse.Namespace) -> int:
    if given.dictionary:
        return _import_graph(given)
    if given.position:
        raise UsageError("--position is about the prompt of an attribution graph", hint="give its --dictionary too")
    from circuitdsl.api import as_task
    from circuitdsl.circuit.shapes import shape_of
    from circuitdsl.circuit.whole_graph import WholeGraph
    from circuitdsl.discover.asked import name_of
    from circuitdsl.discover.exchanged import chosen, spec_of
    from circuitdsl.interop.mib import read, refuse_another

    target, found, file = output(given.output), read(Path(given.file)), Path(given.file).name
    words = {}
    for name, otherwise in (("task", ""), ("model", ""), ("metric", "logit_diff")):
        words[name] = getattr(given, name) or str(found.about.get(name, otherwise))
        if not words[name]:
            raise UserError(f"{given.file} does not say of which {name} it is", hint=f"give --{name}")
    check_model(given.model)
    if shape := shape_of(words["model"])[0]:
        refuse_another(Path(given.file), found.graph, words["model"], WholeGraph.of(shape))
    kept, asked = chosen(found, given.top, given.threshold)
    task, left = as_task(words["task"]), int(kept.sum())
    which = "the edges that it keeps" if given.top is None and given.threshold is None else "its largest scores"
    without = f"; {asked - left} more are on no way from the embedding to the logits" if left < asked else ""
    said = f"{left} edges of {file}: {which}{without}"
    name = given.name or name_of(task)
    text = spec_of(found.graph, kept, words["model"], task, words["metric"], name, said)
    say(said)
    write_spec(target, text)
    return 0


def _import_graph(given: argparse.Namespace) -> int:
    """The same of an attribution graph of circuit-tracer or Neuronpedia."""
    from circuitdsl.api import as_task, load
    from circuitdsl.circuit.shapes import shape_of
    from circuitdsl.dictionaries import read_set
    from circuitdsl.discover.hypotheses import draft, drawn
    from circuitdsl.interop.attribution_graphs import read

    target, graph = output(given.output), read(Path(given.file))
    positions = dict(_position(each) for each in given.position or ())
    if not given.task:
        raise UsageError(
            "a graph has one prompt and no corrupt partner, without which nothing can be measured", hint="give --task"
        )
    dictionaries = [found for name in given.dictionary for found in read_set(name)]
    model = given.model or next((each.model for each in dictionaries if each.model), "")
    if not model:
        raise UserError(f"{given.dictionary[0]} does not say of which model it is", hint="give --model")
    check_model(model)
    shape = shape_of(model)[0]
    if shape and shape.n_layers != graph.layers:
        raise UsageError(f"{given.file} is of a model with {graph.layers} layers, and {model} has {shape.n_layers}")
    opens, pairs = drawn(model, as_task(given.task), given.metric or "logit_diff", given.name, target)
    found = draft(
        graph, dictionaries, pairs, opens, given.metric or "logit_diff", positions, given.top, given.threshold, target
    )
    for line in found.said:
        say(line)
    write_spec(target, found.text)
    if target and any(each.code == "E032" for each in load(target).diagnostics):
        say(f"{target} names files outside its folder: run it with --allow-outside")
    return 0


def _position(text: str) -> tuple[str, int]:
    """`S2=10`; raises `UsageError` where it is not written so."""
    name, _, token = text.partition("=")
    if not name or not (token.isascii() and token.isdigit()) or len(token) > 7:
        raise UsageError(f"--position {text!r} is not written NAME=TOKEN, such as S2=10")
    return name, int(token)


def _export(given: argparse.Namespace) -> int:
    from circuitdsl.circuit.shapes import shape_of
    from circuitdsl.circuit.whole_graph import WholeGraph
    from circuitdsl.discover.exchanged import of_spec
    from circuitdsl.interop.mib import text_of

    check_model(given.model)
    target, circuit = output(given.output), load_one(given.spec, given).first(given.circuit)
    model = given.model or (circuit.model.name if circuit.model else "")
    shape = shape_of(model)[0] if model else None
    if shape is None:
        raise UserError(f"how many layers and heads {model or 'its model'} has is not known", hint="give --model DIR")
    write(target, text_of(of_spec(circuit, WholeGraph.of(shape), shape.d_model or shape.n_heads * (shape.d_head or 0))))
    return 0
