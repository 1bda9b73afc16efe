"""A report as one screen of text: what was run, a line per claim, the reason under whatever does not hold."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from circuitdsl.report.numbers import bracket, interval, percent, plain, value
from circuitdsl.report.report import ClaimResult, Detail, Measured, MemberResult, Report, TaskResult

#: pairs of one claim that are listed without being asked for
_SHOWN = 10
#: a head or MLP that is named alone
_NODE = re.compile(r"(?<![\w.])(\d+\.\d+|m\d+)(?![\w%])")
_STYLE = {"holds": "green", "fails": "bold red", "undecided": "yellow", "error": "magenta", "interrupted": "yellow"}


def show(report: Report, console: Console, verbose: bool = False) -> None:
    """Print a report. `verbose` gives the reason of every claim and the members of group edges."""
    console.print(_header(report, console.width))
    console.print()
    several = len(report.tasks) > 1
    if several:
        console.print(_matrix(report, verbose))
    else:
        for line in _single(report, console.width, verbose):
            console.print(line)
    for line in _besides(report, console.width, verbose):
        console.print(line)
    for line in _footnotes(report):
        console.print(line)
    console.print()
    console.print(summary_line(report))


# --- what was run ----------------------------------------------------------------------------------


def _header(report: Report, width: int) -> Text:
    head = _models_and_tasks(report, width)
    if report.generalise == "templates":
        head.append("\nverdicts are about other templates of these tasks: n counts templates")
    return head


def _models_and_tasks(report: Report, width: int) -> Text:
    model = report.model
    first = Text.assemble(
        (report.spec.circuit, "bold"),
        f" · {model.name} ({model.n_layers} layers × {model.n_heads} heads)"
        f" · {'weights alone' if not report.tasks else f'{model.device} {model.dtype}'}",
    )
    parts = [first, *map(task_line, report.tasks)]
    one_line = Text(" · ").join(parts)
    return one_line if len(report.tasks) == 1 and len(one_line) <= width else Text("\n").join(parts)


def task_line(task: TaskResult) -> Text:
    """A task with its clean and corrupt scores."""
    share = task.metric.startswith("accuracy")
    clean, corrupt = ((percent if share else plain)(v) for v in (task.clean, task.corrupt_value))
    accuracy = "" if share else f", accuracy {percent(task.accuracy)}"
    lines = f"{task.repeats} line{'s' * (task.repeats != 1)}"
    left_out = f", {lines} left out whose clean prompt stands in another" if task.repeats else ""
    return Text(
        f"{task.name}: {task.metric} {clean} clean, {corrupt} corrupt ({task.corrupt}){accuracy}"
        f" · up to {task.prompts} prompts, seed {task.seed}{', with BOS' if task.bos else ''}{left_out}"
    )


# --- the claims of one task ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths of a claim's columns; where they do not fit side by side, the text has a line of its own."""

    text: int
    number: int
    interval: int
    n: int
    extra: int

    @property
    def total(self) -> int:
        return 6 + self.text + self.number + self.interval + self.n + self.extra + 10 + len("undecided")


def _single(report: Report, width: int, verbose: bool) -> Iterator[Text]:
    """A line per claim, with its number; the reason below whatever does not hold."""
    columns = _columns(report.reached)
    block: int | None = None
    for claim in report.reached:
        if claim.block and claim.block_line != block:
            yield Text(f"{claim.block_line:>4}  {claim.block}", "dim")
        block = claim.block_line
        yield from _line(claim, columns, columns.total <= width)
        if claim.verdict != "holds" or verbose:
            yield _indented(claim.reason, 8, width, "dim" if claim.verdict == "holds" else "")
            yield from (_indented(member, 10, width, "dim") for member in member_lines(claim, verbose))
        yield from (_indented(note, 8, width, "dim") for note in _all_notes(claim, verbose))


def _line(claim: ClaimResult, columns: Columns, fits: bool) -> Iterator[Text]:
    found = claim.measured
    head = Text.assemble((f"{claim.line:>4}  ", "dim"), claim.text)
    numbers = Text.assemble(
        (f"{value(found) if found else '':>{columns.number}}  ", "bold"),
        (f"{interval(found) if found else '':<{columns.interval}}  ", "dim"),
        (f"{_n(found):<{columns.n}}  ", "dim"),
        (f"{_extra(claim):<{columns.extra}}  ", "dim"),
        (claim.verdict, _STYLE[claim.verdict]),
    )
    if not fits:
        yield head
        yield Text.assemble(" " * 6, numbers)
    else:
        head.pad_right(max(0, 6 + columns.text + 2 - len(head)))
        yield head + numbers


def _columns(claims: Iterable[ClaimResult]) -> Columns:
    claims = list(claims)
    found = [claim.measured for claim in claims if claim.measured]
    return Columns(
        text=max((len(claim.text) for claim in claims), default=0),
        number=max((len(value(m)) for m in found), default=0),
        interval=max((len(interval(m)) for m in found), default=0),
        n=max((len(_n(m)) for m in found), default=0),
        extra=max((len(_extra(claim)) for claim in claims), default=0),
    )


def _n(found: Measured | None) -> str:
    """How many prompts a figure is over; weights have none."""
    return f"n {found.n}" if found and found.n else ""


def _indented(text: str, by: int, width: int, style: str) -> Text:
    """A paragraph, all of its lines indented."""
    lines = textwrap.wrap(text, max(width - by, 20), break_long_words=False, break_on_hyphens=False)
    return Text("\n".join(" " * by + line for line in lines), style)


def _all_notes(claim: ClaimResult, verbose: bool) -> list[str]:
    """Notes, and the protocol where the figure means little without it; verbosely also how prompts differ, and what
    the figure is the largest or smallest of.
    """
    whole = [] if "keep" not in claim.protocol else [_protocol(claim.protocol)]
    at = claim.protocol.get("at")
    if at and (verbose or _NODE.search(claim.text)):  # where a node acts that is named alone, other lines say
        whole.append("replaced " + (at if " at " in at else f"at {at}").replace("at *", "everywhere"))
    spread = [_spread(claim.measured)] if verbose and claim.measured and claim.measured.median is not None else []
    return [*whole, *spread, *claim.notes, *(map(_detail, claim.details) if verbose else ())]


def _spread(measured: Measured) -> str:
    """`prompts: median −42 %, quartiles [−50, −35], claimed sign on 97 %`"""
    middle = value(replace(measured, value=measured.median or 0.0))
    quartiles = f", quartiles {bracket(measured.iqr, measured.unit)}" if measured.iqr else ""
    sign = "" if measured.right_sign is None else f", claimed sign on {percent(measured.right_sign)}"
    return f"prompts: median {middle}{quartiles}{sign}"


def _protocol(protocol: dict[str, str]) -> str:
    """`keep nodes, ablate corrupt, positions spec, mlps live`"""
    return ", ".join(f"{key} {said}" for key, said in protocol.items())


def _detail(detail: Detail) -> str:
    ci = "" if detail.ci is None else f" [{percent(detail.ci[0], False)}, {percent(detail.ci[1], False)}]"
    return f"{detail.name}: {percent(detail.value)}{ci}"


def _extra(claim: ClaimResult) -> str:
    """Members that pass, for `each`; standing among random edges (`matters`) or among all senders (channels)."""
    parts = []
    judged = [m for m in claim.members if m.verdict]
    if judged:
        parts.append(f"{sum(m.verdict == 'holds' for m in judged)} of {len(judged)}")
    where = claim.measured.standing if claim.measured else None
    if where:
        parts += [f"rank {where.rank} of {where.of}"] * (where.rank is not None) + [f"z {plain(where.z)}"]
    if claim.null and claim.null.size:
        parts.append(f"rarer than {round(claim.null.percentile * claim.null.size)} of {claim.null.size}")
    return ", ".join(parts)


def member_lines(claim: ClaimResult, verbose: bool = False) -> list[str]:
    """The pairs behind a verdict: the first of those that do not hold, or all of them."""
    members = claim.members if len(claim.members) > 1 else ()
    wanted = [m for m in members if verbose or (m.verdict and m.verdict != "holds")]
    lines = [line for m in wanted if (line := m.reason if m.verdict else _member_line(m)) != claim.reason]
    if verbose or len(lines) <= _SHOWN + 1:
        return lines
    return [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more that do not hold (verify -v lists them)"]


def _member_line(member: MemberResult) -> str:
    port = f".{member.input}" if member.input in ("q", "k", "v") else ""
    if member.effect is None:
        return f"{member.sender} -> {member.receiver}{port}: {member.reason}"
    ci = "" if member.ci is None else f" [{percent(member.ci[0], False)}, {percent(member.ci[1], False)}]"
    return f"{member.sender} -> {member.receiver}{port} at {member.position}: {percent(member.effect)}{ci}"


# --- claims × tasks --------------------------------------------------------------------------------


def _matrix(report: Report, verbose: bool) -> RenderableType:
    """Several tasks: one row a claim, one column a task."""
    table = Table(box=None, padding=(0, 2), pad_edge=True, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("claim", overflow="fold")
    columns = [task.name for task in report.tasks] + [None] * any(claim.task is None for claim in report.reached)
    for name in columns:
        table.add_column(name or "weights")
    cells = {(c.id, c.task): c for c in report.reached}
    block: int | None = None
    for claim in {c.id: c for c in report.reached}.values():
        if claim.block and claim.block_line != block:
            table.add_row(Text(str(claim.block_line), "dim"), Text(claim.block, "dim"))
        block = claim.block_line
        row = [cells.get((claim.id, name)) for name in columns]
        table.add_row(Text(str(claim.line), "dim"), Text(claim.text), *map(_cell, row))
    return Group(table, *_remarks(report, verbose))


def _remarks(report: Report, verbose: bool) -> Iterator[Text]:
    """The reasons of whatever does not hold (or of everything), and all notes, by claim and task."""
    for claim in report.reached:
        where = Text.assemble((f"{claim.line:>4}  ", "dim"), f"{claim.task or 'weights'}: ")
        if claim.verdict != "holds" or verbose:
            yield Text.assemble(where, (claim.verdict, _STYLE[claim.verdict]), f", {claim.reason}")
            yield from (Text(f"        {line}", "dim") for line in member_lines(claim, verbose))
        yield from (Text.assemble(where, (note, "dim")) for note in _all_notes(claim, verbose))


def _cell(claim: ClaimResult | None) -> Text:
    if claim is None:
        return Text("–", "dim")
    number = f"{value(claim.measured)} " if claim.measured else ""
    return Text.assemble(number, (claim.verdict, _STYLE[claim.verdict]))


# --- measurements without a claim ------------------------------------------------------------------


def _besides(report: Report, width: int, verbose: bool) -> Iterator[Text]:
    """What was measured of the whole circuit without being claimed: no verdict."""
    if report.measurements:
        yield Text("\n  measured besides, nothing claimed:", "bold")
    for one in report.measurements:
        where = f" on {one.task}" if len(report.tasks) > 1 else ""
        found = one.measured
        figure = f"{value(found)}  {interval(found)}  n {found.n}" if found else one.reason
        yield Text.assemble(" " * 6, f"{one.name}{where}  ", (figure, "bold" if found else ""))
        yield _indented(_protocol(one.protocol), 8, width, "dim")
        if verbose:
            yield from (_indented(_detail(detail), 10, width, "dim") for detail in one.details)


# --- the end ---------------------------------------------------------------------------------------


def _footnotes(report: Report) -> list[Text]:
    notes = []
    if any(c.verdict == "undecided" and c.kind != "property" and _used_all(c, report) for c in report.claims):
        notes.append(Text("  undecided on all prompts: more of them may decide (--prompts)", "yellow"))
    if report.interrupted:
        notes.append(Text(f"  interrupted: {_missing(report)}", "yellow"))
    return [Text(""), *notes] if notes else []


def _missing(report: Report) -> str:
    """What an interrupted run has not measured."""
    every, missing = len(report.claims), len(report.claims) - len(report.reached)
    claims = "claims × tasks" if len(report.tasks) > 1 else "claims"
    left_out = f"{missing} of {every} {claims} were not measured; " if missing else ""
    return f"{left_out}more prompts may decide what is undecided" if missing < every else "nothing was measured"


def _used_all(claim: ClaimResult, report: Report) -> bool:
    """Whether a claim has no prompts left that could decide it."""
    prompts = {task.name: task.prompts for task in report.tasks}
    return claim.measured is not None and claim.task is not None and claim.measured.n >= prompts[claim.task]


def summary_line(report: Report) -> Text:
    """`25 claims: 25 hold   3.2 s`"""
    parts = [Text(words, _STYLE[verdict]) for verdict, words in report.counts()]
    ids = len({claim.id for claim in report.claims})
    tasks = f" on {len(report.tasks)} tasks" if len(report.tasks) > 1 else ""
    known = f", {percent(report.cached)} of the numbers known from earlier runs" if report.cached else ""
    head = Text(f"  {ids} claim{'s' * (ids != 1)}{tasks}: ")
    return Text.assemble(head, Text(", ").join(parts), (f"   {report.seconds:.1f} s{known}", "dim"))
