"""`circuitdsl init`: a starter spec for a model and a task, with comments that say what to put where."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import Verbs
from circuitdsl.cli.tasks import task_named
from circuitdsl.cli.terminal import say
from circuitdsl.errors import UsageError, UserError

if TYPE_CHECKING:
    from circuitdsl.tasks.task import Task

_STARTER = """\
# A starter: it verifies as it is, but its heads are a guess, and claims may fail. Put your own circuit in their place.
circuit {name} "{title}"
  # source "who found it, and where"

model "{model}"
task {task}(corrupt = {corrupt}, prompts = 256, seed = 0)
metric {metric}
# corruptions of {task}: {corruptions}
# positions: {positions}

# who takes part, and where: LAYER.HEAD, counted from 0; m{layer} is an MLP
heads writer = {layer}.0 {layer}.1 at END

# who talks to whom: sender -> receiver.q, .k or .v; without a claim the edge must matter
writer -> logits at END
# each earlier -> writer.q at END : lowers
# earlier -> writer.v at {place} : negligible

# what the whole does
expect accuracy >= 50%
expect knockout(writer) : effect <= 20%
# expect attention(writer, END -> {place}) >= 30%
"""


def register(verbs: Verbs) -> None:
    init = verbs.verb(_init, "init", "write a starter spec for a model and a task")
    init.add_argument("file", nargs="?", help="the file to write (default: TASK.circ); one that exists is left alone")
    init.add_argument("-o", "--output", metavar="FILE", help="the same")
    init.add_argument("--model", default="pocket", help="a model's name or directory (default: pocket)")
    init.add_argument("--task", default="ioi", help="one of those that `circuitdsl tasks` lists (default: ioi)")


def _init(given: argparse.Namespace) -> int:
    from circuitdsl.report.report import write_whole

    task = task_named(given.task)
    if given.file and given.output and given.file != given.output:
        raise UsageError(f"two files are named, {given.file} and {given.output}", hint="-o FILE is the same as FILE")
    path = Path(given.file or given.output or f"{given.task}.circ")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} is there already, and is left as it is", hint="name another file")
    write_whole(path, starter(task, given.model))
    print(f"wrote {path}; try: circuitdsl verify {path}")
    return 0


def starter(task: Task, model: str) -> str:
    """The text of a starter spec, in the layout that `fmt` gives.

    Raises:
        UserError: the model is a directory that is none, or its name cannot stand in a spec.
    """
    from circuitdsl.circuit.shapes import shape_of
    from circuitdsl.language.format import format_text

    if not model.isprintable() or '"' in model or "\\" in model:
        raise UsageError(f"a model cannot be called {model!r} in a spec")
    shape, problem = shape_of(model)
    if problem:
        raise UserError(problem)
    if shape is None:
        say(
            f"warning: {model} is not known here: whether it is a model, and has these heads, is seen when it is loaded"
        )
    places = [name for name in task.positions if name != "END"]
    return format_text(
        _STARTER.format(
            name=task.name,
            title=task.title.replace('"', "'"),
            model=model,
            task=task.name,
            corrupt=next(iter(task.corruptions)),
            corruptions=", ".join(task.corruptions),
            positions=", ".join(task.positions),
            metric=task.metric,
            layer=shape.n_layers - 1 if shape else 0,
            place="ANSWER" if "ANSWER" in places else (places or ["END"])[0],
        )
    )
