"""`circuitdsl discover`: a draft spec of the circuit that a model uses for a task."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import positive, seconds, seed, share
from circuitdsl.cli.models import add_model_arguments, models
from circuitdsl.cli.outputs import output, write
from circuitdsl.cli.terminal import say, status
from circuitdsl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.cli import Verbs
    from circuitdsl.discover.discover import Discovery
    from circuitdsl.discover.search import Progress
    from circuitdsl.models.parts import Transformer
    from circuitdsl.report.report import Report


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("discover", help="search a model for its circuit of a task, and draft a spec")
    add_model_arguments(verb, "pocket unless named")
    verb.add_argument("--task", required=True, help="a task, with options as in a spec: ioi, 'ioi(corrupt = flip)'")
    verb.add_argument("--metric", default="logit_diff", help="as in a spec (default: logit_diff)")
    verb.add_argument("--prompts", type=positive, default=96, help="prompts to search on (default: 96)")
    verb.add_argument("--seed", type=seed, default=0, help="of these; the draft is checked on those of the next seed")
    verb.add_argument("--threshold", type=share, default=0.02, help="smallest effect of interest (default: 2%%)")
    verb.add_argument("--depth", type=positive, default=6, help="stages back from the logits (default: 6)")
    verb.add_argument("--budget", type=seconds, metavar="TIME", help="stop searching after this time: 90, 90s, 5m")
    verb.add_argument("--name", help="name of the circuit (default: the task's)")
    verb.add_argument("-o", "--output", help="write the spec to this file (default: standard output)")
    verb.set_defaults(run=_discover)


def _discover(given: argparse.Namespace) -> int:
    from circuitdsl.api import make_bench
    from circuitdsl.discover.discover import discover
    from circuitdsl.discover.search import Search

    target = output(given.output)
    if target and target.is_file():
        raise UsageError(f"{target} is there already", hint="drafts replace nothing: choose another name, or remove it")
    given.model = given.model or "pocket"
    start = time.monotonic()
    circuit = _circuit(_text(given, given.seed, given.prompts))
    model = models(given).of(circuit)
    bench = make_bench(circuit, circuit.tasks[0], model)
    with _search_progress(given.budget, start) as progress:
        found = discover(
            bench,
            lambda number: _text(given, number),
            lambda text: _check(text, model),
            Search(given.threshold, given.prompts, given.depth),
            progress,
        )
    if target:
        write(target, found.text)
    else:
        sys.stdout.write(found.text)
    _say_what(found, time.monotonic() - start)
    return 0


def _text(given: argparse.Namespace, number: int, prompts: int = 256) -> list[str]:
    """The lines that open the spec, on prompts of a seed."""
    name, _, options = given.task.partition("(")
    inside = options.rstrip().removesuffix(")").strip()
    asked = ", ".join([*([inside] if inside else []), f"prompts = {prompts}", f"seed = {number}"])
    circuit = given.name or name.strip()
    return [
        f'circuit {circuit} "{circuit}, {given.model.rstrip("/").rpartition("/")[2]}"',
        f'  note "drafted by a search on {given.prompts} prompts of seed {given.seed}"',
        '  note "its bounds lie well inside what was measured there"',
        "",
        f'model "{given.model}"',
        f"task {name.strip()}({asked})",
        f"metric {given.metric}",
    ]


def _circuit(lines: list[str]) -> Circuit:
    """The circuit whose task is searched; options are checked as in any spec."""
    from circuitdsl.api import loads

    spec = loads("\n".join([*lines, "expect accuracy >= 0%", ""]), "--task")
    wrong = [d.message for d in spec.diagnostics if d.severity == "error"]
    if wrong:
        raise UsageError(wrong[0], hint="write the task as in a spec: --task 'ioi(corrupt = abc)'")
    return spec.circuits[0]


def _check(text: str, model: Transformer) -> Report:
    """Verify a text, each line at the level it has among all of them."""
    from circuitdsl.api import loads, make_benches
    from circuitdsl.verification.verify import verify

    spec = loads(text)
    assert spec.ok, spec.problems
    with status("checking what was found"):
        return verify(spec.circuits[0], model, make_benches(spec.circuits[0], model))


@contextmanager
def _search_progress(budget: float | None, start: float) -> Iterator[Progress]:
    """Says what is searched, and when the time is up."""
    with status("searching") as spinner:

        def progress(edges: int, what: str) -> bool:
            if spinner:
                spinner.update(f"{what} ({edges} edges so far)")
            return budget is None or time.monotonic() - start < budget

        yield progress


def _say_what(found: Discovery, took: float) -> None:
    what = found.found
    end = "" if what.complete else "; the time was up before the search was through"
    groups, claims = len(found.draft.groups), len(found.draft.claims) + len(found.draft.expectations)
    say(f"{groups} groups and {claims} claims from {what.edges} edges in {took:.0f} s{end}")
    for line in found.dropped:
        say(f"dropped, not clear on other prompts: {line}")
