"""`tasks` and `models`: the tasks, one of them on an example, or prompts of it; the models that can be loaded here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import Verbs
from circuitdsl.cli.files import output, write_prompts
from circuitdsl.cli.terminal import console, say
from circuitdsl.errors import UsageError, UserError
from circuitdsl.limits import positive, seed

if TYPE_CHECKING:
    from circuitdsl.tasks.task import Task


def register(verbs: Verbs) -> None:
    tasks = verbs.verb(_list, "tasks", "list tasks, show one, or make prompts")
    inner = tasks.add_verbs(metavar="show | sample")
    show = inner.verb(_show, "show", "mark the positions of a task on an example")
    show.add_argument("task")
    show.add_argument("--seed", type=seed, default=0)
    sample = inner.verb(_sample, "sample", "print prompt pairs as JSON Lines")
    sample.add_argument("task")
    sample.add_argument("--model", default="pocket", help="whose tokenizer to use (default: pocket)")
    sample.add_argument("-n", type=positive, default=10, help="how many pairs")
    sample.add_argument("--seed", type=seed, default=0)
    sample.add_argument("--corrupt", help="which corruption (default: the task's first)")
    sample.add_argument("-o", "--output", help="write to this file")
    verbs.verb(_models, "models", "list the models that can be loaded here")


def _list(given: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from circuitdsl.tasks.registry import TASKS

    table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
    for heading in ("task", "what it asks", "positions", "corruptions", "usual metric"):
        table.add_column(heading, overflow="fold")
    for name in TASKS:
        try:
            task = TASKS[name]
        except UserError as error:
            say(f"warning: {error.message}")
            continue
        about = Text.assemble(task.title, (f"\n{task.source}", "dim"))
        table.add_row(Text(task.name, "bold"), about, " ".join(task.positions), " ".join(task.corruptions), task.metric)
    console().print(table)
    return 0


def _show(given: argparse.Namespace) -> int:
    from circuitdsl.report.tables import show_task

    show_task(task_named(given.task), given.seed, console())
    return 0


def _sample(given: argparse.Namespace) -> int:
    from circuitdsl.models.load import load_tokenizer
    from circuitdsl.tasks.dataset import sample
    from circuitdsl.tasks.tokens import Tokens

    task, target = task_named(given.task), output(given.output)
    tokens = Tokens(load_tokenizer(given.model), given.model)
    data = sample(task, tokens, given.n, given.seed, given.corrupt)
    write_prompts(target, data.pairs)
    return 0


def task_named(name: str) -> Task:
    """The registered task of that name; raises `UsageError` where there is none."""
    from circuitdsl.tasks.registry import TASKS

    if name not in TASKS:
        raise UsageError(f"there is no task {name}", hint=f"tasks: {', '.join(TASKS)}")
    return TASKS[name]


def _models(given: argparse.Namespace) -> int:
    from circuitdsl.models.load import available_models

    found = available_models()
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        print(f"{model.name:<{width}}  {model.size / 1e6:8.1f} MB  {model.where}: {model.path}")
    print("any directory in Hugging Face's layout: --model DIR; any name on its hub, where that can be reached")
    return 0
