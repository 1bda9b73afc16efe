"""Tables of what other verbs than `verify` find or list.

Strong senders, the trace of a head, two circuits side by side, and a task with its positions marked on an example.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.circuit.compare import Comparison, Overlap
from circuitdsl.circuit.nodes import Node
from circuitdsl.circuit.traced import Link, TraceGraph
from circuitdsl.report.numbers import interval, percent, plain, value
from circuitdsl.report.report import Measured, Standing
from circuitdsl.tasks.task import Draft, Task
from circuitdsl.tasks.template import Marked

#: the width of an example prompt
_WIDTH = 92
Span = tuple[int, int, str]


def table_of(*headings: str, left: Collection[str] = (), dim: bool = False, no_wrap: bool = False) -> Table:
    """An empty table; the columns with headings in `left` are aligned left, those of numbers right.

    Args:
        dim: headings are faint, and the table begins at the edge.
        no_wrap: columns in `left` are not broken into lines.
    """
    table = Table(box=None, padding=(0, 3, 0, 0) if dim else (0, 2), pad_edge=not dim)
    table.header_style = "dim" if dim else "bold"
    for heading in headings:
        own = heading in left
        table.add_column(heading, justify="left" if own else "right", no_wrap=own and no_wrap)
    return table


#: the standing of every sender into one receiver input
Standings = Mapping[Node, Standing]


def show_senders(console: Console, receiver: str, found: Standings, top: int) -> None:
    """Print the strongest senders into one receiver input; at most `top` of them."""
    ranked = sorted(found.items(), key=lambda item: -item[1].composition)
    first = ranked[0][1]
    level = f", chance {plain(first.chance, 3)}" if first.chance is not None else ", too few for a chance level"
    kind = "components" if ranked[0][0].index >= 0 else "heads"
    console.print(Text.assemble((f"into {receiver}", "bold"), (f"  {first.of} {kind} upstream{level}", "dim")))
    table = table_of("rank", "sender", "composition", "z", "", left=("sender", ""))
    for node, where in ranked[:top]:
        above = where.chance is not None and where.composition > where.chance
        row = (str(where.rank), str(node), plain(where.composition, 3), plain(where.z))
        table.add_row(*row, "above chance" if above else "", style=None if above else "dim")
    console.print(table)
    if len(ranked) > top:
        console.print(Text(f"  {len(ranked) - top} more (--top)", "dim"))


def show_trace(console: Console, found: TraceGraph, least: float) -> None:
    """Print who sends what, on at least this share of the firings."""
    start = next(place for place in found.fired if place.head == found.head)
    size = found.fired[start]
    console.print(
        Text.assemble(
            (f"{found.head} fires {found.source} -> {found.target}", "bold"),
            f" on {found.firings} of {found.prompts} prompts; its signal takes {plain(size.dimensions, 1)} of "
            f"{found.d_head} dimensions ({size.least} to {size.most})",
        )
    )
    for side, parts in found.parts.items():
        at = found.source if side == "destination" else found.target
        words = ", ".join(f"{name} {plain(value)}" for name, value in parts.items())
        console.print(Text(f"  at {at}, added to the signal on average: {words}", "dim"))
    console.print()
    table = table_of("receiver", "sender", "firings", "adds", left=("receiver", "sender"))
    links = shown(found, least)
    for link in links:
        end, share = "asks" if link.side == "destination" else "is asked", percent(link.count / found.firings)
        table.add_row(f"{link.receiver} ({end})", str(link.sender), share, plain(link.weight))
    console.print(table)
    if rest := len(found.links) - len(links):
        console.print(Text(f"  {rest} more, each on under {percent(least)} of the firings (--least)", "dim"))
    console.print()
    table = table_of("signals of", "firings", "dimensions", "least", "most", left=("signals of",))
    kept = {link.receiver for link in links}
    for place, fired in sorted(found.fired.items(), key=lambda item: (-item[0].head.layer, -item[1].count)):
        if place in kept:
            table.add_row(str(place), str(fired.count), plain(fired.dimensions, 1), str(fired.least), str(fired.most))
    console.print(table)


def shown(found: TraceGraph, least: float) -> list[Link]:
    """The links on at least a share of the firings that lead to the first head, the last layer first."""
    frequent = [link for link in found.links if link.count >= least * found.firings]
    reached = {place for place in found.fired if place.head == found.head}
    kept: list[Link] = []
    for link in sorted(frequent, key=lambda link: (-link.receiver.head.layer, -link.count)):
        if link.receiver in reached:
            kept.append(link)
            reached.add(link.sender)
    return kept


@dataclass(frozen=True, slots=True)
class ChangeFigures:
    """What a cut changes, as means over prompts.

    `metric` and `score` are the changes of the metric and of the attention score. `norm` and `cosine` compare what is
    cut into with what it was before: the ratio of their lengths, and their cosine.
    """

    metric: Measured
    score: Measured
    norm: float
    cosine: float


@dataclass(frozen=True, slots=True)
class CutFigures:
    """A cut beside its control.

    Attributes:
        reach: `local` or `global`.
        score: the mean attention score before.
        fewer: on how many prompts the signal leaves fewer singular vectors for the control than it takes itself.
    """

    reach: str
    score: float
    signal: ChangeFigures
    control: ChangeFigures
    fewer: int


def show_cuts(console: Console, of: TraceGraph, found: Sequence[CutFigures], boost: bool) -> None:
    """Print what changes when a signal is taken out, or with `boost` is added once more."""
    places = {"local": f"what {of.head} reads", "global": "what they write"}
    verb, link = ("added once more to", "to") if boost else ("taken out of", "of")
    where = f", or {link} ".join(f"{places[cut.reach]} ({cut.reach})" for cut in found)
    console.print(Text(f"what the senders of {of.head} write along its signal, {verb} {where}", "bold"))
    first = found[0]
    table = table_of("", f"change of {first.signal.metric.name}", "change of score", "norm", "cosine", left=("",))
    table.padding = (0, 1)
    for cut in found:
        for along, change in (("signal", cut.signal), ("control", cut.control)):
            figures = (f"{value(each)} {interval(each)}" for each in (change.metric, change.score))
            table.add_row(f"{cut.reach}, {along}", *figures, plain(change.norm, 3), plain(change.cosine, 3))
    console.print(table)
    fewer = f"; on {first.fewer} of {first.signal.metric.n} prompts there are fewer" if first.fewer else ""
    console.print(Text(f"  control: along as many singular vectors outside the signal, at random{fewer}", "dim"))
    console.print(Text(f"  score: of attention {of.source} -> {of.target}, {plain(first.score)} before", "dim"))
    console.print(Text(f"  norm, cosine: of what it is {verb}, after against before", "dim"))


def show_comparison(found: Comparison, console: Console, controls: Sequence[Comparison] = ()) -> None:
    """Print a comparison; `controls` compare the first and the second circuit with one of another task."""
    console.print(Text.assemble((found.first, "bold"), " and ", (found.second, "bold")))
    console.print()
    rows = [("heads", _overlap(found.heads)), ("edges", _overlap(found.edges))]
    if found.chance:
        rare = "above chance" if found.chance.exceeded else "not above chance"
        level = (
            f"{found.chance.expected:.1f} shared heads, overlap {percent(found.chance.jaccard)}; "
            f"as many as here or more: {percent(found.chance.p)} of random sets, {rare}"
        )
        rows.append(("by chance", level))
    for each in controls:
        level = f", {'above' if each.chance.exceeded else 'not above'} chance" if each.chance else ""
        rows.append(("control", f"heads of {each.first} and {each.second}: {_overlap(each.heads)}{level}"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for row in rows:
        table.add_row(Text(row[0], "dim"), Text(row[1]))
    console.print(table)
    console.print()
    console.print(_roles(found))
    named_alike = {node for first, second in found.by_role().values() for node in first & second}
    if elsewhere := found.heads.shared - named_alike:
        console.print(Text(f"  in both circuits, under other names: {_listed(elsewhere)}", "dim"))
    console.print()
    layers = table_of("layer", f"only {found.first}", "both", f"only {found.second}")
    for layer, counts in found.by_layer().items():
        layers.add_row(str(layer), *(str(n) if n else "–" for n in counts))
    console.print(layers)
    for node, one, other in found.disagreements:
        console.print(Text(f"  {node} is {one} in {found.first} and {other} in {found.second}", "yellow"))


def _overlap(found: Overlap[Any]) -> str:
    sizes = f"{len(found.shared)} shared of {len(found.first)} and {len(found.second)}"
    return f"{sizes}: overlap {percent(found.jaccard)} (Jaccard), {percent(found.of_first)} of the first"


def _roles(found: Comparison) -> Table:
    """The heads that play each role in the first circuit alone, in both, and in the second alone."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for heading in ("role or group", f"only {found.first}", "both", f"only {found.second}"):
        table.add_column(heading, overflow="fold")
    for role, (first, second) in found.by_role().items():
        table.add_row(role, _listed(first - second), Text(_listed(first & second), "green"), _listed(second - first))
    return table


def _listed(nodes: frozenset[Node]) -> str:
    return " ".join(map(str, sorted(nodes)))


def comparison_to_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain values; fractions as fractions."""
    chance = found.chance
    return {
        "first": found.first,
        "second": found.second,
        "heads": _json_overlap(found.heads),
        "edges": _json_overlap(found.edges),
        "chance": {"shared": chance.expected, "jaccard": chance.jaccard, "p": chance.p} if chance else None,
        "roles": {
            role: {"first": [str(n) for n in sorted(first)], "second": [str(n) for n in sorted(second)]}
            for role, (first, second) in found.by_role().items()
        },
        "disagreements": [{"node": str(n), "first": one, "second": other} for n, one, other in found.disagreements],
    }


def _json_overlap(found: Overlap[Any]) -> dict[str, Any]:
    names = sorted(found.shared)
    shared = [str(each) if isinstance(each, Node) else " -> ".join(map(str, each)) for each in names]
    sizes = {"first": len(found.first), "second": len(found.second)}
    return {**sizes, "shared": shared, "jaccard": found.jaccard, "of_first": found.of_first}


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


def marked_lines(text: str, spans: Iterable[Span]) -> Iterator[Text]:
    """The lines of a text; below each line stand the names of the positions in it."""
    spans = sorted(spans)
    for start, line in _wrapped(text):
        inside = [(a - start, b - start, name) for a, b, name in spans if start < b <= start + len(line)]
        shown = Text("  " + line)
        for a, b, _ in inside:
            shown.stylize("bold cyan", 2 + max(a, 0), 2 + b)
        yield shown
        yield from (Text("  " + row, "cyan") for row in _rows(inside))


def _wrapped(text: str) -> Iterator[tuple[int, str]]:
    """Lines no wider than `_WIDTH`, each with where in the text it starts."""
    at = 0
    for paragraph in text.split("\n"):
        for line in textwrap.wrap(paragraph, _WIDTH, drop_whitespace=False) or [""]:
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
