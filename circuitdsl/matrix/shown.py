"""The table on a terminal: a sign for each seed, in as many pieces as the width asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from circuitdsl.language.diagnostics import listing
from circuitdsl.matrix.cell import Cell, Outcome
from circuitdsl.matrix.table import SIGNS, Group, SpecTable, Table
from circuitdsl.report.report import counted
from circuitdsl.verdicts import spoken

STYLES: dict[Outcome, str] = {
    "holds": "green", "expected": "cyan", "fails": "bold red", "unexpected": "bold red", "undecided": "yellow",
    "error": "magenta", "not applicable": "dim",
}  # fmt: skip
#: columns for the line of a claim, at the least for the claim itself, and between two groups
_LINE, _CLAIM, _GAP = 4, 36, 2
#: so many reasons are given
_REASONS = 8
#: outcomes that are explained below the table
_EXPLAINED = ("error", "not applicable")


def show(found: Table, console: Console) -> None:
    """Print the table of every spec, what the signs mean, what could not be run or asked, and the counts."""
    for spec in found.specs:
        console.print(Text.assemble((spec.spec, "bold"), (f"  {spec.shared}", "dim")))
        for piece in _pieces(spec, console.width):
            console.print(_grid(spec, piece, console.width))
            console.print()
    used = found.counts
    signs = [(f"{SIGNS[outcome]} {spoken(outcome)}   ", STYLES[outcome]) for outcome in SIGNS if outcome in used]
    if signs:
        console.print(Text.assemble("  ", *signs))
    for line in _remarks(found):
        console.print(line, soft_wrap=True)
    console.print(Text(f"  {summary(found)}"))


def summary(found: Table) -> str:
    """`24 cells, 1 of them failed: 90 hold, 6 fail, 4 not applicable`"""
    cells, failed = len(found.records), len(found.failed)
    words = ", ".join(counted(number, outcome) for outcome, number in found.counts.items())
    some = f", {failed} of them failed" if failed else ""
    return f"{cells} cell{'s' * (cells != 1)}{some}: {words or 'nothing was asked'}"


def _pieces(spec: SpecTable, width: int) -> Iterator[dict[Group, tuple[str, ...]]]:
    """The columns, as many at a time as there is room for beside the claims: groups, with their seeds."""
    piece: dict[Group, tuple[str, ...]] = {}
    left = room = width - _LINE - _CLAIM - 2 * _GAP
    for group, seeds in spec.groups.items():
        for some in _parts(seeds, room - _GAP):
            needed = _width(spec, group, some) + _GAP
            if piece and (needed > left or group in piece):
                yield piece
                piece, left = {}, room
            piece[group] = some
            left -= needed
    yield piece


def _parts(seeds: tuple[str, ...], room: int) -> Iterator[tuple[str, ...]]:
    """The seeds, as many at a time as there is room for."""
    many = max(1, (room + 1) // (max(map(len, seeds)) + 1))
    return (seeds[at : at + many] for at in range(0, len(seeds), many))


def _width(spec: SpecTable, group: Group, seeds: Sequence[str]) -> int:
    return max(map(len, _heading(spec, group, seeds).split("\n")))


def _in_row(seeds: Sequence[str], texts: Sequence[str]) -> str:
    """A text for each seed, each as wide as the widest seed."""
    wide = max(map(len, seeds))
    return " ".join(text.ljust(wide) for text in texts)


def _heading(spec: SpecTable, group: Group, seeds: Sequence[str]) -> str:
    options = "" if spec.shared else group.options
    return "\n".join(filter(None, (group.model, group.task, options, _in_row(seeds, seeds).strip())))


def _grid(spec: SpecTable, piece: Mapping[Group, Sequence[str]], width: int) -> Grid:
    left = width - _LINE - sum(_width(spec, *column) + _GAP for column in piece.items()) - 2 * _GAP
    wide = max(_CLAIM, min(left, max(len(spec.named(line)) for line in spec.lines)))
    grid = Grid(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("", justify="right", width=_LINE)
    seeds = ", and seeds" if any(seed for seeds in piece.values() for seed in seeds) else ""
    grid.add_column(f"claim{seeds}", no_wrap=True, overflow="ellipsis", width=wide, vertical="bottom")
    for column in piece.items():
        grid.add_column(_heading(spec, *column), no_wrap=True, width=_width(spec, *column))
    for number, line in enumerate(spec.lines):
        signs = [_signs(spec, number, *column) for column in piece.items()]
        if any(signs):
            grid.add_row(Text(str(line.line or ""), "dim"), Text(spec.named(line)), *signs)
    return grid


def _signs(spec: SpecTable, number: int, group: Group, seeds: Sequence[str]) -> Text:
    """A sign for each seed; a blank where the claim was not asked."""
    shown, wide = Text(), max(map(len, seeds)) + 1
    found = (entry.row.outcome if (entry := spec.entries.get((number, group, seed))) else None for seed in seeds)
    for outcome, alike in groupby(found):
        sign, style = (SIGNS[outcome], STYLES[outcome]) if outcome else ("", "")
        shown.append(sign.ljust(wide) * len(list(alike)), style)
    shown.rstrip()
    return shown


def _remarks(found: Table) -> Iterator[Text]:
    """Which cells could not be run, and why some claims have no verdict: each reason once."""
    failed: dict[tuple[str, str], list[Cell]] = {}
    for record in found.failed:
        failed.setdefault((record.error, record.hint), []).append(record.cell)
    for (error, hint), cells in failed.items():
        more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
        yield Text.assemble(("  failed  ", STYLES["error"]), f"{cells[0]}{more}: {error}")
        if hint:
            yield Text(f"          help: {hint}", "dim")
    reasons: dict[tuple[str, str, str, str], dict[int, None]] = {}
    for record in found.records:
        for row in record.claims:
            if row.outcome in _EXPLAINED:
                why = SIGNS[row.outcome], record.cell.spec, record.cell.model, row.reason
                reasons.setdefault(why, {})[row.line] = None
    for (sign, spec, model, reason), lines in list(reasons.items())[:_REASONS]:
        yield Text(
            f"  {sign} {spec} on {model}: {reason}: line{'s' * (len(lines) > 1)} {listing(map(str, lines))}", "dim"
        )
    if len(reasons) > _REASONS:
        yield Text(f"  and {len(reasons) - _REASONS} more reasons, in table.csv of the results", "dim")
