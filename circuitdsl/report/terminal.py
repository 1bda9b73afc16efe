"""A report as one screen of text: what was run, a line per claim, the reason under whatever does not hold."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from circuitdsl.report.numbers import interval, percent, plain, value
from circuitdsl.report.report import ClaimResult, MemberResult, Report, TaskResult

_STYLE = {"holds": "green", "fails": "bold red", "undecided": "yellow", "error": "magenta"}
_PLURAL = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "undecided": ("undecided",) * 2}
_PLURAL["error"] = ("could not be measured",) * 2


def show(report: Report, console: Console, verbose: bool = False) -> None:
    """Print a report. `verbose` gives the reason of every claim and the members of group edges."""
    console.print(_header(report))
    console.print()
    several = len(report.tasks) > 1
    console.print(_matrix(report) if several else _single(report, verbose))
    for lines in _footnotes(report):
        console.print(lines)
    console.print()
    console.print(_summary(report))


# --- what was run ----------------------------------------------------------------------------------


def _header(report: Report) -> Text:
    model = report.model
    first = Text.assemble(
        (report.spec.circuit, "bold"),
        f" · {model.name} ({model.n_layers} layers × {model.n_heads} heads) · {model.device} {model.dtype}",
    )
    separator = " · " if len(report.tasks) == 1 else "\n"
    return Text(separator).join([first, *map(_task, report.tasks)])


def _task(task: TaskResult) -> Text:
    share = task.metric.startswith("accuracy")
    clean, corrupt = ((percent if share else plain)(v) for v in (task.clean, task.corrupt_value))
    accuracy = "" if share else f", accuracy {percent(task.accuracy)}"
    return Text(
        f"{task.name}: {task.metric} {clean} clean, {corrupt} corrupt ({task.corrupt}){accuracy}"
        f" · up to {task.prompts} prompts, seed {task.seed}{', with BOS' if task.bos else ''}"
    )


# --- the claims of one task ------------------------------------------------------------------------


def _single(report: Report, verbose: bool) -> RenderableType:
    """A line per claim, with its number; the reason below whatever does not hold."""
    rows: list[RenderableType] = []
    widths = _widths(report.claims)
    for claim in report.claims:
        rows.append(_line(claim, widths))
        if claim.verdict != "holds" or verbose:
            rows.append(
                Padding(Text(claim.reason, "dim" if claim.verdict == "holds" else ""), (0, 0, 0, 8), expand=False)
            )
            rows += [Padding(Text(m, "dim"), (0, 0, 0, 10), expand=False) for m in _members(claim, verbose)]
        rows += [Padding(Text(note, "dim"), (0, 0, 0, 8), expand=False) for note in claim.notes]
    return Group(*rows)


def _line(claim: ClaimResult, widths: dict[str, int]) -> Table:
    table = Table.grid(padding=(0, 2), pad_edge=True, expand=False)
    table.add_column(justify="right", width=4)
    table.add_column(overflow="fold", width=widths["text"])
    table.add_column(justify="right", width=widths["value"])
    table.add_column(width=widths["interval"])
    table.add_column(width=widths["n"])
    table.add_column(width=widths["extra"])
    table.add_column()
    found = claim.measured
    table.add_row(
        Text(str(claim.line), "dim"),
        Text(claim.text),
        Text(value(found) if found else "", "bold"),
        Text(interval(found) if found else "", "dim"),
        Text(f"n {found.n}" if found else "", "dim"),
        Text(_extra(claim), "dim"),
        Text(claim.verdict, _STYLE[claim.verdict]),
    )
    return table


def _widths(claims: Iterable[ClaimResult]) -> dict[str, int]:
    found = [(c, c.measured) for c in claims]
    return {
        "text": min(60, max((len(c.text) for c, _ in found), default=1)),
        "value": max((len(value(m)) for _, m in found if m), default=1),
        "interval": max((len(interval(m)) for _, m in found if m), default=1),
        "n": max((len(f"n {m.n}") for _, m in found if m), default=1),
        "extra": max((len(_extra(c)) for c, _ in found), default=1),
    }


def _extra(claim: ClaimResult) -> str:
    """Members that pass, for `each`; standing among random edges, for `matters`."""
    parts = []
    judged = [m for m in claim.members if m.verdict]
    if judged:
        parts.append(f"{sum(m.verdict == 'holds' for m in judged)} of {len(judged)}")
    if claim.null:
        parts.append(f"rarer than {round(claim.null.percentile * claim.null.size)} of {claim.null.size}")
    return ", ".join(parts)


def _members(claim: ClaimResult, verbose: bool) -> list[str]:
    """The pairs behind a verdict: those that do not hold, or all of them."""
    wanted = [m for m in claim.members if verbose or (m.verdict and m.verdict != "holds")]
    return [m.reason if m.verdict else _member_line(m) for m in wanted]


def _member_line(member: MemberResult) -> str:
    if member.effect is None:
        return f"{member.sender} -> {member.receiver}: {member.reason}"
    port = f".{member.input}" if member.input in ("q", "k", "v") else ""
    ci = "" if member.ci is None else f" [{percent(member.ci[0], False)}, {percent(member.ci[1], False)}]"
    return f"{member.sender} -> {member.receiver}{port} at {member.position}: {percent(member.effect)}{ci}"


# --- claims × tasks --------------------------------------------------------------------------------


def _matrix(report: Report) -> RenderableType:
    """Several tasks: one row a claim, one column a task."""
    table = Table(box=None, padding=(0, 2), pad_edge=True, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("claim", overflow="fold")
    for task in report.tasks:
        table.add_column(task.name)
    cells = {(c.id, c.task): c for c in report.claims}
    for claim in {c.id: c for c in report.claims}.values():
        row = [cells.get((claim.id, task.name)) for task in report.tasks]
        table.add_row(Text(str(claim.line), "dim"), Text(claim.text), *map(_cell, row))
    reasons = [
        Text.assemble((f"  {c.line} on {c.task} ", _STYLE[c.verdict]), (c.verdict, _STYLE[c.verdict]), f": {c.reason}")
        for c in report.claims
        if c.verdict != "holds"
    ]
    return Group(table, *([Text("")] if reasons else []), *reasons)


def _cell(claim: ClaimResult | None) -> Text:
    if claim is None:
        return Text("–", "dim")
    number = f"{value(claim.measured)} " if claim.measured else ""
    return Text.assemble(number, (claim.verdict, _STYLE[claim.verdict]))


# --- the end ---------------------------------------------------------------------------------------


def _footnotes(report: Report) -> list[Text]:
    notes = [
        Text.assemble((f"{u.line:>6}  ", "dim"), u.text, ("  not measured: ", "yellow"), (u.what, "yellow"))
        for u in report.unmeasured
    ]
    if report.interrupted:
        notes.append(Text("  interrupted: claims below this point were not measured", "yellow"))
    return [Text(""), *notes] if notes else []


def _summary(report: Report) -> Text:
    counts = [(verdict, n) for verdict, n in report.summary.items() if n]
    parts = [Text(f"{n} {_PLURAL[v][n > 1]}", _STYLE[v]) for v, n in counts]
    if report.unmeasured:
        parts.append(Text(f"{len(report.unmeasured)} not measured", "yellow"))
    total = len(report.claims)
    head = Text(f"  {total} claim{'s' * (total != 1)}: ")
    return Text.assemble(head, Text(", ").join(parts), (f"   {report.seconds:.1f} s", "dim"))
