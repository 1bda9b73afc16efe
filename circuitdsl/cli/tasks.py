"""`tasks` and `models`: tasks listed, shown on prompts, checked or sampled; the models that can be loaded here."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.brief import quoted
from circuitdsl.cli.arguments import Verbs, add_session, session
from circuitdsl.cli.files import json_lines, output, write, write_prompts
from circuitdsl.cli.terminal import console, say, tell
from circuitdsl.errors import SPEC_WRONG, UsageError, UserError
from circuitdsl.limits import positive, seed
from circuitdsl.report.formats import FORMATS, View, format_of
from circuitdsl.shown import SHOW

if TYPE_CHECKING:
    from circuitdsl.tasks.dataset import PromptPair
    from circuitdsl.tasks.records import Line
    from circuitdsl.tasks.task import Task


def register(verbs: Verbs) -> None:
    tasks = verbs.verb(_list, "tasks", "list tasks; show, check or make prompts")
    inner = tasks.add_verbs(metavar="show | check | sample")
    show = inner.verb(_show, "show", "show a task's prompts token by token, and what a model makes of them")
    show.add_argument("task", help="a task as in a spec, 'ioi(order = abba)', or a prompt file, x.jsonl")
    show.add_argument("-n", type=positive, help="how many pairs (default: 4)")
    show.add_argument("--seed", type=seed)
    show.add_argument("--corrupt", help="which corruption (default: the task's first)")
    forms = [row.name for row in FORMATS.values() if row.of_prompts]
    show.add_argument("--format", choices=forms, help="default: text, or what the suffix of -o says")
    show.add_argument("-o", "--output", help="write to this file: .html, .json")
    add_session(show, "to show tokens and predictions; without it, a task is described")

    check = inner.verb(
        _check,
        "check",
        "list the bad lines of a prompt file, with the reasons",
        epilog="exit status: 0 every line can be used; 2 some cannot; 3 there is no tokenizer",
    )
    check.add_argument("file", help="a prompt file, .jsonl or .csv")
    check.add_argument("--model", help="whose tokenizer to use (default: pocket)")
    check.add_argument("--bos", choices=("yes", "no"), help="as in the spec; default: what the tokenizer does")
    check.add_argument("--chat", action="store_true", help="prompts are turns, as with chat = yes in the spec")
    check.add_argument("--all", action="store_true", help="list all bad lines, not the first 50 alone")
    check.add_argument("--good", metavar="FILE.jsonl", help="write the lines that can be used to this file")
    check.add_argument("--bad", metavar="FILE.jsonl", help="write the others to this file, each with its `reason`")

    sample = inner.verb(_sample, "sample", "print prompt pairs as JSON Lines")
    sample.add_argument("task")
    sample.add_argument("--model", default="pocket", help="whose tokenizer to use (default: pocket)")
    sample.add_argument("-n", type=positive, default=10, help="how many pairs")
    sample.add_argument("--seed", type=seed, default=0)
    sample.add_argument("--corrupt", help="which corruption (default: the task's first)")
    sample.add_argument("-o", "--output", help="write to this file")
    models = verbs.verb(_models, "models", "list the models that can be loaded here")
    models.add_argument(
        "--families",
        action="store_true",
        help="list the families that are known, refused, and why",
    )


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

    target = output(given.output)
    form = format_of(given.format, target, of="of_prompts")
    if given.task.isidentifier():
        task = task_named(given.task)
        if given.model is given.n is given.corrupt is given.format is given.output is None:
            show_task(task, given.seed or 0, console())
            return 0
    with session(given) as running:
        wanted = {name: getattr(given, name) for name in ("n", "seed", "corrupt")}
        found = running.prompts(given.task, **{name: value for name, value in wanted.items() if value is not None})
    write(target, form.prompts(found, View(partial(console, plain=target is not None))))
    return 0


def _check(given: argparse.Namespace) -> int:
    from circuitdsl.models.load import load_tokenizer, vocabulary_size
    from circuitdsl.report.terminal import listed
    from circuitdsl.tasks.dataset import scored_tokens
    from circuitdsl.tasks.from_file import pairs_in
    from circuitdsl.tasks.reading import Reading, as_bad
    from circuitdsl.tasks.records import BadLine
    from circuitdsl.tasks.tokens import Tokens

    path, targets = Path(given.file), (output(given.good), output(given.bad))
    if len({path.resolve(), *(t.resolve() for t in targets if t)}) < 1 + sum(t is not None for t in targets):
        raise UsageError("two of the files that are named are the same", hint="the prompt file is never written over")
    bos = None if given.bos is None else given.bos == "yes"
    model = given.model or "pocket"
    tokens, found = Tokens(load_tokenizer(model), model, bos, given.chat), Reading(path)

    def usable(lines: Iterable[tuple[Line, PromptPair | BadLine]]) -> Iterator[PromptPair]:
        for line, pair in lines:
            if found.note(line, pair) and not isinstance(pair, BadLine):
                keep(line.value)
                yield pair
            elif isinstance(pair, BadLine):
                leave_out(as_bad(line, pair))
                if given.all:
                    tell(found.place(line, pair))

    with ExitStack() as stack:
        if given.all:  # the lines show by themselves how far it is
            stack.callback(SHOW.reset, SHOW.set(lambda _: nullcontext()))
        keep, leave_out = (stack.enter_context(json_lines(target)) for target in targets)
        lines = stack.enter_context(pairs_in(path, tokens, vocabulary_size(model)))
        answers, distractors = scored_tokens(usable(lines), tokens)
    for named in [] if given.all else [*found.named, *found.rest()]:
        tell(named)
    good, bad = found.good, found.bad
    tell(f"{path}: {good + bad} line{'s' * (good + bad != 1)}, {good} can be used, {bad} cannot")
    if bad and given.model is None:
        tell(f"no model is named: these are the tokens of {model} (--model)")
    if good:
        tell(f"answer tokens {listed(answers)} against {listed(distractors)}")
    for target in filter(None, targets):
        say(f"wrote {target}")
    return SPEC_WRONG if bad or not good else 0


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
        raise UsageError(f"there is no task {quoted(name)}", hint=f"tasks: {', '.join(TASKS)}")
    return TASKS[name]


def _models(given: argparse.Namespace) -> int:
    if given.families:
        return _families()
    from circuitdsl.models.load import available_models

    found = available_models()
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        tell(f"{model.name:<{width}}  {model.size / 1e6:8.1f} MB  {model.where}: {model.path}")
    tell("any directory in Hugging Face's layout: --model DIR; any name on its hub, where that can be reached")
    return 0


def _families() -> int:
    from circuitdsl.models.families import BRIDGED, FAMILIES, REFUSED
    from circuitdsl.models.towers import TOWERS

    width = max(map(len, (*FAMILIES, *BRIDGED, *REFUSED, *TOWERS)))
    known = {kind: [family.title] for kind, family in FAMILIES.items()}
    known |= {whole: [f"the text model alone, as {text}"] for whole, text in TOWERS.items()}
    for kind, family in FAMILIES.items():
        known[kind] += [f"but not one that {refusal.why}" for refusal in family.refused]
    through, refused = ({kind: [said] for kind, said in rows.items()} for rows in (BRIDGED, REFUSED))
    for heading, rows in (
        ("known", known),
        ("known through a bridge of TransformerLens", through),
        ("refused", refused),
    ):
        tell(f"{heading}:")
        for kind, (first, *more) in sorted(rows.items()):
            tell(f"  {kind:<{width}}  {'it ' if rows is refused else ''}{first}")
            for each in more:
                tell(f"  {'':<{width}}  {each}")
    tell("Refused too: rotary positions that scale with the prompt's length (dynamic, longrope), in any family.")
    tell("Whatever is known is compared with its own library's logits when it is loaded.")
    return 0
