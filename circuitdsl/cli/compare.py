"""`circuitdsl compare`: what two circuits have in common, against chance."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli import outputs
from circuitdsl.cli.arguments import positive
from circuitdsl.cli.models import add_model_arguments, models
from circuitdsl.cli.specs import load_all, one_circuit
from circuitdsl.cli.terminal import console, progress, say
from circuitdsl.errors import SPEC_WRONG, UsageError, UserError

if TYPE_CHECKING:
    from circuitdsl.circuit.catalogue import ModelShape
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.circuit.compare import Comparison
    from circuitdsl.cli import Verbs
    from circuitdsl.verify.profile import Correlation, Profile
    from circuitdsl.verify.verify import Progress


def register(verbs: Verbs) -> None:
    verb = verbs.add_parser("compare", help="compare the heads and edges of two circuits, against chance")
    verb.add_argument("first", help="a spec, or SPEC#CIRCUIT where it has several")
    verb.add_argument("second", help="another, of the same model")
    verb.add_argument("--control", metavar="SPEC", help="a circuit of another task, as a control")
    verb.add_argument("--measure", action="store_true", help="measure every head on both tasks, and correlate")
    verb.add_argument("--prompts", type=positive, default=128, help="prompts a task for --measure (default: 128)")
    verb.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    verb.add_argument("-o", "--output", help="draw the model's heads into this file: .svg or .png")
    add_model_arguments(verb)
    verb.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> int:
    from circuitdsl.circuit.compare import compare
    from circuitdsl.report.comparison import show, to_json

    target = outputs.picture(given.output)
    names = [given.first, given.second, *([given.control] if given.control else [])]
    circuits = [_circuit(name, given.model) for name in names]
    if any(circuit is None for circuit in circuits):
        return SPEC_WRONG
    first, second, *control = [circuit for circuit in circuits if circuit is not None]
    shape = _shape([first, second, *control], given.model)
    heads = shape.n_heads if shape else None
    found = compare(first, second, heads)
    controls = (compare(first, control[0], heads), compare(second, control[0], heads)) if control else None
    if target:
        _draw(found, shape, target)
    measured = _measured(first, second, given) if given.measure else None
    if given.format == "json":
        record = to_json(found)
        record["controls"] = [to_json(each) for each in controls or ()]
        record["importance"] = _importance(measured) if measured else None
        sys.stdout.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        return 0
    screen = console()
    show(found, screen, controls)
    if measured:
        _show_importance(measured)
    return 0


def _circuit(name: str, model: str | None) -> Circuit | None:
    path, _, circuit = name.partition("#")
    specs = load_all([path], model)
    return one_circuit(specs[0], circuit or None) if specs else None


def _shape(circuits: list[Circuit], model: str | None) -> ModelShape | None:
    """The shape of the one model that the circuits are about."""
    from circuitdsl.circuit.shapes import near, shape_of

    named = {model or (circuit.model.name if circuit.model else "") for circuit in circuits}
    if len(named) > 1:
        raise UsageError(
            f"these circuits are about different models: {', '.join(sorted(named))}",
            hint="heads of different models have nothing but their numbers in common",
        )
    name = named.pop()
    return shape_of(near(name, circuits[0].path))[0] if name else None


def _draw(found: Comparison, shape: ModelShape | None, target: Path) -> None:
    from circuitdsl.diagram.comparison import picture
    from circuitdsl.diagram.formats import write_picture

    if shape is None:
        raise UserError("the model's shape is not known, so its heads cannot be drawn", hint="give --model DIR")
    write_picture(picture(found, shape.n_layers, shape.n_heads), target)
    say(f"wrote {target}")


# --- the measured form -----------------------------------------------------------------------------


def _measured(first: Circuit, second: Circuit, given: argparse.Namespace) -> tuple[Profile, Profile, Correlation]:
    from circuitdsl.api import make_bench
    from circuitdsl.verify.profile import correlation, profile
    from circuitdsl.verify.verify import with_overrides

    loaded = models(given)
    found = []
    with progress() as meter:
        for number, circuit in enumerate(with_overrides(each, given.prompts) for each in (first, second)):
            if not circuit.tasks:
                raise UserError(f"circuit {circuit.name} has no task to measure its heads on")
            model = loaded.of(circuit)
            bench = make_bench(circuit, circuit.tasks[0], model)
            work = model.n_layers * model.n_heads * len(bench.pairs)
            meter_from = _from(meter, number * work, 2 * work)
            found.append(profile(bench, circuit.tasks[0].name, given.prompts, meter_from))
    return found[0], found[1], correlation(found[0], found[1])


def _from(meter: Progress | None, start: int, whole: int) -> Callable[[int], None]:
    """Counts work on from `start`."""
    state = start

    def done(work: int) -> None:
        nonlocal state
        state += work
        if meter:
            meter(state, whole, "measuring every head")

    return done


def _importance(measured: tuple[Profile, Profile, Correlation]) -> dict:
    first, second, found = measured
    heads = {
        str(head): {first.task: a, second.task: b}
        for head, a, b in zip(first.heads, first.effects, second.effects, strict=True)
    }
    return {"rho": found.rho, "p": found.p, "prompts": [first.n, second.n], "effects": heads}


def _show_importance(measured: tuple[Profile, Profile, Correlation]) -> None:
    from rich.table import Table
    from rich.text import Text

    from circuitdsl.report.numbers import percent

    first, second, found = measured
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("head", first.task, second.task):
        table.add_column(heading, justify="right")
    rows = sorted(
        zip(first.heads, first.effects, second.effects, strict=True), key=lambda r: -max(abs(r[1]), abs(r[2]))
    )
    for head, a, b in rows[:12]:
        table.add_row(str(head), percent(a), percent(b))
    screen = console()
    screen.print()
    screen.print(
        f"total effect of every head, all positions corrupted ({first.n} and {second.n} prompts); "
        f"rank correlation of sizes {found.rho:.2f}, as high in {percent(found.p)} of shuffles within layers"
    )
    screen.print()
    screen.print(table)
    if len(rows) > 12:
        screen.print(Text(f"  and {len(rows) - 12} more with smaller effects (all of them: --format json)", "dim"))
