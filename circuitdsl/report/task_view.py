"""A task on one screen: an example prompt with its positions marked, and what each corruption changes."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.tasks.task import Draft, Task
from circuitdsl.tasks.template import Marked

_WIDTH = 92
Span = tuple[int, int, str]


def show_task(task: Task, seed: int, console: Console) -> None:
    """Print a task: example, positions, corruptions, options."""
    words, settings = {name: each.words for name, each in task.lists.items()}, task.settings({})
    examples = {name: task.draw(random.Random(f"show/{seed}"), words, name, settings) for name in task.corruptions}
    first = next(iter(examples.values()))
    console.print(Text.assemble((task.name, "bold"), f"  {task.title}", (f"  ({task.source})", "dim")))
    console.print()
    for line in marked_lines(first.clean.text, _spans(task, first.clean)):
        console.print(line, soft_wrap=True)
    answers = _some(first.answers), _some(first.distractors)
    console.print(Text.assemble("  answer ", (answers[0], "bold green"), ", not ", (answers[1], "bold red")))
    console.print(f"  usual metric {task.metric}")
    console.print()
    _table(console, "positions", task.positions)
    _table(console, "corruptions", {n: f"{says}\n{_change(examples[n])}" for n, says in task.corruptions.items()})
    if task.options:
        _table(console, "options", {n: f"{o.says} ({', '.join(map(str, o.values))})" for n, o in task.options.items()})


def marked_lines(text: str, spans: Iterable[Span], width: int = _WIDTH) -> Iterator[Text]:
    """The lines of a text; below each line stand the names of the positions in it."""
    spans = sorted(spans)
    for start, line in _wrapped(text, width):
        inside = [(a - start, b - start, name) for a, b, name in spans if start < b <= start + len(line)]
        shown = Text("  " + line)
        for a, b, _ in inside:
            shown.stylize("bold cyan", 2 + max(a, 0), 2 + b)
        yield shown
        yield from (Text("  " + row, "cyan") for row in _rows(inside))


def _wrapped(text: str, width: int) -> Iterator[tuple[int, str]]:
    """Lines no wider than `width`, each with where in the text it starts."""
    at = 0
    for paragraph in text.split("\n"):
        for line in textwrap.wrap(paragraph, width, drop_whitespace=False) or [""]:
            yield at, line
            at += len(line)
        at += 1


def _rows(spans: list[Span]) -> list[str]:
    """Names below their words, on as many rows as are needed so that no two overlap."""
    rows: list[str] = []
    for a, b, name in spans:
        column = max(0, a if len(name) <= b - a or a + len(name) < _WIDTH else b - len(name))
        for i, row in enumerate(rows):
            if len(row) < column:
                rows[i] = row.ljust(column) + name
                break
        else:
            rows.append(" " * column + name)
    return rows


def _spans(task: Task, text: Marked) -> list[Span]:
    """Every position of the task in a text; names that share a place are joined."""
    places: dict[tuple[int, int], list[str]] = {}
    for name in task.positions:
        for mark in task.marks_of(name):
            for span in text.marks.get(mark, ()):
                places.setdefault(span, []).append(name)
    last = len(text.text)
    start = max((text.text.rfind(" ") + 1, *(a for a, b in places if b == last)))
    places.setdefault((start, last), []).append("END")
    return [(a, b, "=".join(dict.fromkeys(names))) for (a, b), names in places.items()]


def _some(texts: tuple[str, ...]) -> str:
    return ", ".join(text.strip() for text in texts[:4]) + (", …" if len(texts) > 4 else "")


def _change(draft: Draft) -> str:
    """The words that the corrupt prompt changes."""
    clean, corrupt = draft.clean.text.split(), draft.corrupt.text.split()
    changes = [f"{a.strip('.,?')} → {b.strip('.,?')}" for a, b in zip(clean, corrupt, strict=False) if a != b]
    return "; ".join(changes[:4]) + ("; …" if len(changes) > 4 else "")


def _table(console: Console, title: str, rows: Mapping[str, str]) -> None:
    console.print(Text(title, "bold"))
    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, says in rows.items():
        head, _, rest = says.partition("\n")
        table.add_row(name, Text.assemble(head, (f"\n{rest}" if rest else "", "dim")))
    console.print(table)
    console.print()
