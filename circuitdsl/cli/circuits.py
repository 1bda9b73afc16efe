"""`discover`, `compare`, `channels`, `edit` and `trace`: where circuits are, and what their heads read and write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.cli.arguments import (
    Verbs,
    add_circuit,
    add_outside,
    add_prompts,
    add_session,
    add_spec,
    budget,
    level,
    session,
    share,
)
from circuitdsl.cli.files import check_folder, load_one, output, picture, write, write_spec
from circuitdsl.cli.terminal import present, say, tell
from circuitdsl.errors import UsageError
from circuitdsl.limits import distance, positive, seed
from circuitdsl.visible import json_text

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit


def register(verbs: Verbs) -> None:
    discover = verbs.verb(_discover, "discover", "search a model for its circuit of a task, and draft a spec")
    add_session(discover, "pocket unless named")
    discover.add_argument("--task", help="a task as in a spec, or a prompt file, x.jsonl")
    discover.add_argument(
        "--from", dest="start", metavar="SPEC", help="keep what this spec says, and add what is missing"
    )
    discover.add_argument("--metric", help="as in a spec (default: logit_diff)")
    discover.add_argument("--prompts", type=positive, default=96, help="prompts to search on (default: 96)")
    discover.add_argument("--seed", type=seed, default=0, help="of these; the draft is checked on others")
    discover.add_argument("--threshold", type=share, help="smallest effect of interest (default: 2%%)")
    discover.add_argument("--claims", type=positive, metavar="N", help="of the draft, at most (default: 30)")
    discover.add_argument(
        "--budget", type=budget, metavar="B", help="stop searching after: 90s, 5m, or 2e6 blocks of work"
    )
    discover.add_argument("--resamples", type=positive, metavar="N", help="of the prompts, to search again on")
    discover.add_argument("--name", help="name of the circuit (default: the task's, or its file's)")
    discover.add_argument("-o", "--output", help="write the spec to this file (default: standard output)")
    discover.add_argument(
        "--found", metavar="FILE", help="write how often each part is found again to this file: .json"
    )
    discover.add_argument(
        "--features", action="append", metavar="DIR", help="a dictionary, or a set: search its features too; repeatable"
    )
    discover.add_argument("--scores", metavar="FILE", help="write a score for every edge to this file instead: .json")
    discover.add_argument("--method", metavar="M", help="of --scores: hybrid (default), exact, attribution, …")
    discover.add_argument("--steps", type=positive, help="of --scores by integrated gradients (default: 5)")

    compare = verbs.verb(_compare, "compare", "compare the heads and edges of two circuits, against chance")
    compare.add_argument("first", help="a spec, or SPEC#CIRCUIT where it has several")
    compare.add_argument("second", help="another, of the same model")
    compare.add_argument("--control", metavar="SPEC", help="a circuit of another task, as a control")
    compare.add_argument("--measure", action="store_true", help="measure every head on both tasks, and correlate")
    compare.add_argument("--prompts", type=positive, default=128, help="prompts a task for --measure (default: 128)")
    compare.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    compare.add_argument("-o", "--output", help="draw the model's heads into this file: .svg or .png")
    add_outside(compare)
    add_session(compare)

    verb = verbs.verb(_channels, "channels", "find, from weights, which heads write what a head reads")
    verb.add_argument("source", metavar="MODEL|SPEC", help="a model's name or directory, or a spec, whose groups count")
    verb.add_argument("--to", nargs="+", required=True, metavar="HEAD.q", help="receiver inputs: 9.9.q, or mover.q")
    verb.add_argument("--from", nargs="+", dest="senders", metavar="HEAD", help="senders: 8.10, 8.6[2], a group")
    verb.add_argument("--components", action="store_true", help="single singular components instead of whole heads")
    verb.add_argument("--distance", type=distance, help="tokens from key to query, into .q and .k of rotary models")
    verb.add_argument("--top", type=positive, default=20, help="how many to list (default: 20)")
    verb.add_argument("--model", help="the model of a spec, instead of its own")
    add_outside(verb)
    add_circuit(verb)
    verb.add_argument("-o", "--output", help="draw a heat map into this file: .svg or .png")

    edit = verbs.verb(_edit, "edit", "save a model whose weights an intervention has changed")
    add_spec(edit)
    edit.add_argument("--intervention", metavar="NAME", help="which of them, where the circuit has several")
    add_circuit(edit)
    edit.add_argument("--model", help="a model's name or directory, instead of the spec's own")
    edit.add_argument("-o", "--output", required=True, metavar="DIR", help="the new model directory")

    trace = verbs.verb(_trace, "trace", "find which heads made a head attend where it does")
    add_spec(trace)
    trace.add_argument("--head", required=True, metavar="L.H", help="the head to explain: 9.9")
    trace.add_argument("--from", required=True, dest="source", metavar="POS", help="where it attends from: END")
    trace.add_argument("--to", required=True, dest="target", metavar="POS", help="what it attends to: IO")
    trace.add_argument("--least", type=level, default=0.25, metavar="SHARE", help="of the firings, to be shown (25%%)")
    trace.add_argument("--task", help="which task, where the spec has several")
    add_circuit(trace)
    trace.add_argument(
        "--cut",
        nargs="*",
        choices=("local", "global"),
        help="take the signal out of what the head reads (local, the default) or of what its senders write (global)",
    )
    trace.add_argument("--boost", action="store_true", help="with --cut: add the signal once more instead")
    trace.add_argument("-o", "--output", help="draw into this file: .svg or .png")
    add_prompts(trace)
    add_session(trace)


def _discover(given: argparse.Namespace) -> int:
    from circuitdsl.api import load

    if given.scores:
        return _scores(given)
    _mean_nothing(given, "--scores FILE", "method", "steps")
    if given.start:
        _mean_nothing(given, "a --task, not --from", "metric", "name", "features")
    if bool(given.start) == bool(given.task):
        raise UsageError("name what to search: --task TASK, or --from SPEC" + " (not both)" * bool(given.task))
    if given.found and not given.resamples:
        raise UsageError("--found is about resamples of the prompts", hint="give --resamples 20")
    target = output(given.output)
    if target and target.is_file():
        raise UsageError(f"{target} is there already", hint="drafts replace nothing: choose another name, or remove it")
    with session(given, None if given.start else "pocket") as running:
        found = running.discover(
            given.task or "", **_given(given, *DRAFTS, "start"), target=target, prompts=given.prompts, seed=given.seed
        )
    write_spec(target, found.text)
    if given.found:
        write(output(given.found), json_text(found.to_json(), indent=1) + "\n")
    for line in found.summary:
        say(line)
    if target and not load(target).ok:
        say(f"{target} names a prompt file outside its folder: run it with --allow-outside")
    return 0


#: options of drafts, and of scores, that have a value only where they are given
DRAFTS = ("metric", "threshold", "claims", "budget", "name", "resamples", "features")
SCORES = ("metric", "method", "steps", "budget", "resamples")


def _given(given: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given, of some."""
    return {name: value for name in names if (value := getattr(given, name)) is not None}


def _mean_nothing(given: argparse.Namespace, of: str, *names: str) -> None:
    """Raise `UsageError` for options that were given and mean nothing; they are `of` something else."""
    for name in _given(given, *names):
        raise UsageError(f"--{name} goes with {of}", hint=f"leave out --{name}")


def _scores(given: argparse.Namespace) -> int:
    from circuitdsl.interop.mib import text_of

    if given.output:
        raise UsageError("--scores FILE names the file to write", hint="leave out -o, or --scores")
    _mean_nothing(given, "a draft, not --scores", "threshold", "claims", "name", "start", "found", "features")
    if not given.task:
        raise UsageError("name what to search: --task TASK")
    target = output(given.scores)
    with session(given, "pocket") as running:
        found = running.scores(given.task, **_given(given, *SCORES), prompts=given.prompts, seed=given.seed)
    write(target, text_of(found))
    about, kept = found.about, int(found.kept.sum())
    circuit = f"; {kept} of them are a circuit of their own" if kept else ""
    if len(found.found):
        often = int((found.found[found.kept] >= 0.9).sum())
        circuit += f", of which {often} are found in 90 % of {about['resamples']} resamples"
    end = "" if about["complete"] else "; the budget was up before the search was through"
    say(f"{len(found.scores)} edges scored in {about['seconds']} s{circuit}{end}")
    return 0


def _compare(given: argparse.Namespace) -> int:
    target = picture(given.output)
    first, second = (_circuit(name, given) for name in (given.first, given.second))
    control = _circuit(given.control, given) if given.control else None
    with session(given) as running:
        found = running.compare(first, second, control, given.measure, given.prompts)
    _draw(found, target)
    present([found], given.format)
    return 0


def _circuit(name: str, given: argparse.Namespace) -> Circuit:
    path, _, circuit = name.partition("#")
    return load_one(path, given).first(circuit or None)


def _draw(found: Any, target: Path | None, *view: float) -> None:
    if target:
        found.draw(target, *view)
        say(f"wrote {target}")


def _channels(given: argparse.Namespace) -> int:
    from circuitdsl.api import is_spec

    target = picture(given.output)
    spec = load_one(given.source, given) if is_spec(given.source) else None
    if spec is None and given.model is not None:
        raise UsageError("--model is for specs; here the model is named already", hint=f"{given.source} is a model")
    with session(given, None if spec else given.source) as running:
        wanted = given.to, given.senders or (), given.components
        found = running.channels(*wanted, spec, given.circuit, given.distance)
    present([found], "text", top=given.top)
    _draw(found, target, given.top)
    return 0


def _edit(given: argparse.Namespace) -> int:
    spec, target = load_one(given.spec, given), Path(given.output)
    check_folder(target)
    with session(given) as running:
        name = running.edit(spec, target, given.intervention, given.circuit)
    circuit = spec.first(given.circuit).name
    tell(f"wrote {target}: {name} of {circuit}, in weights; use it with --model {target}")
    return 0


def _trace(given: argparse.Namespace) -> int:
    if given.boost and given.cut is None:
        raise UsageError("--boost says what a cut does instead", hint="give --cut as well")
    target, cut = picture(given.output), () if given.cut is None else given.cut or ("local",)
    spec = load_one(given.spec, given)
    wanted = {name: getattr(given, name) for name in ("boost", "task", "prompts", "seed", "circuit")}
    with session(given) as running:
        found = running.trace(spec, given.head, given.source, given.target, cut, **wanted)
    present([found], "text", least=given.least)
    _draw(found, target, given.least)
    return 0
