"""A report as one screen of text: what was run, a line per claim, the reason under whatever does not hold."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitdsl.report.formats import View
from circuitdsl.report.numbers import bracket, figure, interval, part, percent, plain, value
from circuitdsl.report.report import (
    ClaimResult,
    Detail,
    FigurePair,
    Measured,
    MeasurementResult,
    MemberResult,
    Report,
    TaskResult,
)
from circuitdsl.tasks.tokens import Token
from circuitdsl.verdicts import PASSES

#: how many pairs of one claim are listed without `verbose`
_SHOWN = 10
#: how many of the tokens that are scored are listed
_TOKENS = 4
#: so many digits of a hash are shown
_HASH = 12
#: a part of a claim with a name longer than this is named below the claim
_SHORT = 24
#: the width of a screen on which every table has room
_ANY = 10_000
_STYLE = {
    "holds": "green", "expected": "cyan", "fails": "bold red", "unexpected": "bold red", "undecided": "yellow",
    "error": "magenta", "interrupted": "yellow",
}  # fmt: skip


def reports_text(reports: Iterable[Report], view: View) -> str:
    """Reports as a screen shows them, one under the other."""
    return view.text(partial(show, report, verbose=view.verbose) for report in reports)


def show(report: Report, console: Console, verbose: bool = False) -> None:
    """Print a report. `verbose` gives the reason of every claim and the members of group edges."""
    width, table = console.width, _matrix(report) if len(report.tasks) > 1 else None
    console.print(_header(report, width, verbose))
    console.print()
    if table and console.measure(table, options=console.options.update(width=_ANY)).maximum <= width:
        console.print(table)
        claims = _remarks(report, width, verbose)
    else:
        claims = _claims(report, width, verbose)
    for line in (*claims, *_besides(report, width, verbose), *footnotes(report), Text(""), summary_line(report)):
        console.print(line)
    for said in provenance(report, verbose):
        console.print(_indented(said, 2, width, "dim"))


def _header(report: Report, width: int, verbose: bool) -> Text:
    model = report.model
    first = Text.assemble(
        (report.spec.circuit, "bold"),
        f" · {model.name} ({model.n_layers} layers × {model.n_heads} heads)"
        f" · {'weights alone' if not report.tasks else f'{model.device} {model.dtype}'}",
    )
    parts = [first, *map(task_line, report.tasks)]
    one_line = Text(" · ").join(parts)
    head = one_line if len(report.tasks) == 1 and len(one_line) <= width else Text("\n").join(parts)
    for task in report.tasks:
        for text, style in task_remarks(task, len(report.tasks) > 1, verbose):
            head.append("\n" + "\n".join(_wrapped(text, width)), style)
    if report.generalise == "templates":
        head.append("\nverdicts are about other templates of these tasks: n counts templates")
    return head


def task_line(task: TaskResult) -> Text:
    """A task with its clean and corrupt scores."""
    share = task.metric.startswith("accuracy")
    write = percent if share else plain
    clean, corrupt = ("no number" if v is None else write(v) for v in (task.clean, task.corrupt_value))
    gap = ""
    if task.clean is not None and task.corrupt_value is not None:
        gap = f", gap {write(task.clean - task.corrupt_value)}"
    accuracy = "" if share or task.accuracy is None else f", accuracy {percent(task.accuracy)}"
    lines = f"{task.repeats} line{'s' * (task.repeats != 1)}"
    left_out = f", {lines} left out whose clean prompt stands in another" if task.repeats else ""
    return Text(
        f"{task.name}: {task.metric} {clean} clean, {corrupt} corrupt ({task.corrupt}){gap}{accuracy}"
        f" · up to {task.prompts} prompts, seed {task.seed}{', with BOS' if task.bos else ''}{left_out}"
    )


def task_remarks(task: TaskResult, named: bool = False, verbose: bool = False) -> Iterator[tuple[str, str]]:
    """What else is said of a task, each text with its style: the tokens that are scored, and what is wrong with them.

    The tokens are given of a prompt file, whose author wrote texts, and otherwise with `verbose`.
    """
    name = f"{task.name}: " * named
    if said := task.other_prompts:
        yield f"{name}{said}", "yellow"
    if task.answers and (verbose or task.corrupt == "file"):
        yield f"{name}answer tokens {listed(task.answers)} against {listed(task.distractors)}", "dim"
    yield from ((f"warning: {name}{note}", "yellow") for note in task.notes)


def listed(tokens: Sequence[Token]) -> str:
    """`' Mary' ' John' ' Anna' …`"""
    return " ".join([*map(str, tokens[:_TOKENS]), *["…"] * (len(tokens) > _TOKENS)])


def _cells(claim: ClaimResult) -> tuple[str, ...]:
    """A claim's figure, its interval, its number of prompts (weights alone have none), and its other remarks."""
    found = claim.measured
    return figure(found), interval(found) if found else "", f"n {found.n}" if found and found.n else "", extra(claim)


def _widths(claims: Iterable[ClaimResult]) -> list[int]:
    return [max(map(len, column)) for column in zip(*map(_cells, claims), strict=True)]


def _numbers(claim: ClaimResult, widths: list[int], shown: tuple[int, ...] = (0, 1, 2, 3)) -> Text:
    """The cells whose numbers are in `shown`, each as wide as its column, and the verdict; the figure stands out."""
    cells = _cells(claim)
    parts = ((f"{cells[i]:{'<' if i else '>'}{widths[i]}}  ", "dim" if i else "bold") for i in shown)
    return Text.assemble(*parts, (claim.spoken, _STYLE[claim.outcome]))


def _total(widths: list[int]) -> int:
    """How wide all cells and a verdict are."""
    return sum(widths) + 2 * len(widths) + len("undecided")


def _claims(report: Report, width: int, verbose: bool) -> Iterator[Text]:
    """A line for each claim, with its numbers where it has one task and they fit beside it; else a line for each task.

    Below the numbers stand those remarks that do not fit beside them, and the reason of whatever does not hold.
    """
    several, widths = len(report.tasks) > 1, _widths(report.reached)
    tasks = max((len(claim.task or "weights") for claim in report.reached), default=0)
    longest = max((len(claim.text) for claim in report.reached), default=0)
    beside = not several and 6 + longest + 2 + _total(widths) <= width
    for claim, header, found in by_task(report):
        if header:
            yield Text(f"{claim.block_line:>4}  {header}", "dim")
        text = "\n      ".join(_wrapped(claim.text, width - 6)) if several else claim.text
        head = Text.assemble((f"{claim.line:>4}  ", "dim"), text)
        if beside:
            head.pad_right(6 + longest + 2 - len(head))
            head += _numbers(claim, widths)
        yield head
        for each in found.values():
            if not beside:
                name = f"      {each.task or 'weights':<{tasks}}  " if several else " " * 6
                fits = len(name) + _total(widths) <= width
                yield Text.assemble(name, _numbers(each, widths, shown=(0, 1, 2, 3) if fits else (0, 1, 2)))
                if not fits and (besides := extra(each)):
                    yield _indented(besides, 8, width, "dim")
            yield from (_indented(text, by, width, style) for by, text, style in paragraphs(each, verbose))


def by_task(report: Report) -> Iterator[tuple[ClaimResult, str, dict[str | None, ClaimResult]]]:
    """Each claim as it stands on the first task, the header of its block if one begins, and the claim on each task."""
    found: dict[str, dict[str | None, ClaimResult]] = {}
    for claim in report.reached:
        found.setdefault(claim.id, {})[claim.task] = claim
    before: int | None = None
    for each in found.values():
        first = next(iter(each.values()))
        yield first, (first.block or "") if first.block_line != before else "", each
        before = first.block_line


def paragraphs(claim: ClaimResult, verbose: bool) -> Iterator[tuple[int, str, str]]:
    """The paragraphs below a claim, each as (indent, text, style)."""
    if verbose or claim.outcome != "holds":
        yield 8, claim.reason, "dim" if claim.outcome in PASSES else ""
        yield from ((10, member, "dim") for member in member_lines(claim, verbose))
    yield from ((8, note, "dim") for note in _notes(claim, verbose))


def _indented(text: str, by: int, width: int, style: str) -> Text:
    return Text("\n".join(" " * by + line for line in _wrapped(text, width - by)), style)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


def _notes(claim: ClaimResult, verbose: bool) -> Iterator[str]:
    """Notes, the protocol where the figure means little without it, and what it is compared with; verbosely also how
    prompts differ, and what the figure is the largest or smallest of.
    """
    if "keep" in claim.protocol:
        yield whole_protocol(claim)
    if claim.expected_to_fail is not None:
        yield f"expected to fail: {claim.expected_to_fail}"
    at, found = claim.protocol.get("at"), claim.measured
    if at and (verbose or claim.lone_nodes):  # the line of a group says where it is replaced
        yield "replaced " + (at if " at " in at else f"at {at}").replace("at *", "everywhere")
    yield from map(compared, claim.comparisons)
    if claim.outcome == "holds" and not verbose and len(name := part(claim)) > _SHORT:  # else the reason has it
        yield name
    if verbose and found and found.median is not None:
        quartiles = f", quartiles {bracket(found.iqr, found.unit)}" if found.iqr else ""
        sign = "" if found.right_sign is None else f", claimed sign on {percent(found.right_sign)}"
        yield f"prompts: median {value(replace(found, value=found.median))}{quartiles}{sign}"
    yield from claim.notes
    if verbose:
        yield from map(_detail, claim.details)


def whole_protocol(found: ClaimResult | MeasurementResult) -> str:
    """`keep nodes (4.1 % of them), ablate corrupt, positions spec, mlps live`"""
    shares = {kind: f" ({percent(share)} of them)" for kind, share in (found.kept or {}).items()}
    return ", ".join(f"{key} {said}{shares.get(said, '')}" for key, said in found.protocol.items())


def compared(found: FigurePair) -> str:
    """`attention(mover, END -> IO) 41 % [39, 43] against 2 times attention(negative, END -> IO) 12 % [11, 13]`"""
    times = "" if found.times == 1 else f"{found.times:g} times "
    return f"{_detail(found.first)} against {times}{_detail(found.second)}"


def _detail(detail: Detail) -> str:
    figure = Measured("", detail.value, detail.ci, 0, detail.unit)
    shown = f"{detail.name}: {value(figure)} {interval(figure)}".rstrip()
    return f"{shown}, {detail.verdict}" if detail.verdict else shown


def extra(claim: ClaimResult) -> str:
    """How many members pass, and which one the figure is of (`each`); the rank among random edges (`matters`) or among
    all senders (channels).
    """
    parts = []
    judged = [m for m in claim.members if m.verdict]
    if judged:
        parts.append(f"{sum(m.verdict == 'holds' for m in judged)} of {len(judged)}")
    if len(name := part(claim)) <= _SHORT:
        parts += [name] * bool(name)
    where = claim.measured.standing if claim.measured else None
    if where:
        parts += [f"rank {where.rank} of {where.of}"] * (where.rank is not None) + [f"z {plain(where.z)}"]
    if claim.null and claim.null.size:
        parts.append(f"rarer than {claim.null.percentile * claim.null.size:.0f} of {claim.null.size}")
    return ", ".join(parts)


def member_lines(claim: ClaimResult, verbose: bool = False) -> list[str]:
    """The pairs behind a verdict: the first ones that do not hold, or with `verbose` all of them."""
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
    effect = f"{percent(member.effect)} {bracket(member.ci, 'gap') if member.ci else ''}".rstrip()
    return f"{member.sender} -> {member.receiver}{port} at {member.position}: {effect}"


def _matrix(report: Report) -> Table:
    """One row a claim, one column a task."""
    table = Table(box=None, padding=(0, 2), pad_edge=True, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("claim", overflow="fold")
    columns = [task.name for task in report.tasks] + [None] * any(claim.task is None for claim in report.reached)
    for name in columns:
        table.add_column(name or "weights")
    widths = {name: _widths(claim for claim in report.reached if claim.task == name) for name in columns}
    for claim, header, found in by_task(report):
        if header:
            table.add_row(Text(str(claim.block_line), "dim"), Text(header, "dim"))
        cells = [_numbers(found[name], widths[name]) if name in found else Text("–", "dim") for name in columns]
        table.add_row(Text(str(claim.line), "dim"), Text(claim.text), *cells)
    return table


def _remarks(report: Report, width: int, verbose: bool) -> Iterator[Text]:
    """The reason of each claim that does not hold (with `verbose` of every claim), and all notes."""
    for claim in report.reached:
        said = list(paragraphs(claim, verbose))
        for i, (by, text, style) in enumerate(said):
            if i:
                yield _indented(text, by, width, style)
                continue
            head = Text.assemble((f"{claim.line:>4}  ", "dim"), f"{claim.task or 'weights'}: ")
            if verbose or claim.outcome != "holds":
                head.append(claim.spoken, _STYLE[claim.outcome]).append(", ")
            first, *rest = _wrapped(" " * len(head) + text, width) or [""]
            yield Text.assemble(head, (first.lstrip(), style))
            yield from (_indented(line, 8, width, style) for line in _wrapped(" ".join(rest), width - 8))


def _besides(report: Report, width: int, verbose: bool) -> Iterator[Text]:
    """Measurements of the whole circuit about which the spec claims nothing; they have no verdict."""
    if report.measurements:
        yield Text("\n  measured besides, nothing claimed:", "bold")
    for one in report.measurements:
        where = f" on {one.task}" if len(report.tasks) > 1 else ""
        found = one.measured
        figure = f"{value(found)}  {interval(found)}  n {found.n}" if found else one.reason
        yield Text.assemble(" " * 6, f"{one.name}{where}  ", (figure, "bold" if found else ""))
        for text in (whole_protocol(one), *one.notes):
            yield _indented(text, 8, width, "dim")
        if verbose:
            yield from (_indented(_detail(detail), 10, width, "dim") for detail in one.details)


def footnotes(report: Report) -> list[Text]:
    notes = []
    if any(claim.measured and claim.measured.named for claim in report.claims):
        notes.append(Text("  a figure without a name is its claim's, or an effect: % of clean − corrupt", "dim"))
    if any(claim.more_may_decide for claim in report.claims) and not report.interrupted:
        notes.append(Text("  undecided on all prompts: more of them may decide (--prompts)", "yellow"))
    if report.interrupted:
        every, missing = len(report.claims), len(report.claims) - len(report.reached)
        claims = "claims × tasks" if len(report.tasks) > 1 else "claims"
        left_out = f"{missing} of {every} {claims} were not measured; " if missing else ""
        said = f"{left_out}more prompts may decide what is undecided" if missing < every else "nothing was measured"
        notes.append(Text(f"  interrupted: {said}", "yellow"))
    return [Text(""), *notes] if notes else []


def summary_line(report: Report) -> Text:
    """`25 claims: 25 hold   3.2 s`"""
    parts = [Text(words, _STYLE[verdict]) for verdict, words in report.counts()]
    ids = len({claim.id for claim in report.claims})
    tasks = f" on {len(report.tasks)} tasks" if len(report.tasks) > 1 else ""
    known = f", {percent(report.cached)} of the numbers known from earlier runs" if report.cached else ""
    head = Text(f"  {ids} claim{'s' * (ids != 1)}{tasks}: ")
    return Text.assemble(head, Text(", ").join(parts), (f"   {report.seconds:.1f} s{known}", "dim"))


def _named(hashes: Mapping[str, str]) -> list[str]:
    return [f"{name} {digest[:_HASH]}" for name, digest in hashes.items() if digest]


def provenance(report: Report, verbose: bool = False) -> Iterator[str]:
    """What a report that is read by itself is of: version and hashes; with `verbose` all versions and the rules."""
    known = {"circuitdsl": report.circuitdsl, **report.versions}
    versions = [f"{name} {number}" for name, number in known.items() if verbose or name in ("circuitdsl", "torch")]
    several = len(report.tasks) > 1
    hashes = {"spec": report.spec.sha256}
    hashes |= {f"prompts{f' of {task.name}' * several}": task.sha256 for task in report.tasks}
    hashes |= {f"chat template{f' of {task.name}' * several}": task.chat_sha256 for task in report.tasks}
    yield " · ".join((*versions, *_named(hashes)))
    if model := " · ".join(_named(report.model.hashes)):
        yield model
    if verbose and report.tasks:
        looks = "early looks" if report.early_stop else "no early looks"
        yield f"{report.spec.path} · {report.level} · {looks} · {report.threads} thread{'s' * (report.threads != 1)}"
