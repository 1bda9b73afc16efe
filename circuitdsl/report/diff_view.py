"""A comparison of two verifications on one screen: what changed, claim by claim, with the numbers before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from circuitdsl.report.diff import KINDS, Change, Diff, Kind
from circuitdsl.report.formats import View
from circuitdsl.report.numbers import interval, value
from circuitdsl.report.report import ClaimResult

#: for each kind of change: its style, its title, its name in the singular and in the plural
_KINDS: dict[Kind, tuple[str, str, str, str]] = {
    "regression": ("bold red", "held before, and does not now", "regression", "regressions"),
    "mended": ("green", "holds now", "mended", "mended"),
    "verdict": ("yellow", "other verdict", "other verdict", "other verdicts"),
    "moved": ("yellow", "same verdict, another number", "number moved", "numbers moved"),
    "new": ("cyan", "new", "new", "new"),
    "gone": ("cyan", "gone", "gone", "gone"),
    "same": ("dim", "as before", "as before", "as before"),
}


def diff_text(diff: Diff, view: View) -> str:
    """A comparison as a screen shows it."""
    return view.text([partial(show_diff, diff)])


def show_diff(diff: Diff, console: Console) -> None:
    """Print a comparison; claims that did not change are counted, but not listed."""
    circuits = dict.fromkeys(change.spec.circuit for change in diff.changes)
    for circuit in circuits:
        changes = [c for c in diff.changes if c.spec.circuit == circuit and c.kind != "same"]
        settings = [each for each in diff.settings if each.circuit == circuit]
        if changes or settings:
            console.print(Text(circuit, "bold"))
            for each in settings:
                console.print(Text.assemble(("  other ", "dim"), each.what, (f": {each.old} → {each.new}", "dim")))
            console.print()
        if changes:
            on_several = len({c.claim.task for c in diff.changes if c.spec.circuit == circuit}) > 1
            for line in _rows(changes, on_several, console.width):
                console.print(line)
            console.print()
    counts = diff.summary
    found = [(counts[kind], *_KINDS[kind]) for kind in KINDS if counts[kind]]
    parts = [Text(f"{n} {several if n > 1 else one}", style) for n, style, _, one, several in found]
    console.print(Text.assemble("  ", Text(", ").join(parts) if parts else "no claims on either side"))


def _rows(changes: Sequence[Change], several: bool, width: int) -> Iterator[Text]:
    """The changes by kind, the worst first; where columns do not fit side by side, the claim has a line of its own."""
    texts = [_claim(change, several) for change in changes]
    cells = [(*_number(each.old, each.moved), ("→", "dim"), *_number(each.new, each.moved)) for each in changes]
    widths = [max(len(cell) for cell, _ in column) for column in zip(*cells, strict=True)]
    longest = max(map(len, texts))
    verdict = max(len(_verdicts(change)) for change in changes)
    fits = 6 + longest + sum(widths) + 2 * (len(widths) + 1) + verdict <= width
    for kind in KINDS:
        mine = [i for i, change in enumerate(changes) if change.kind == kind]
        if mine:
            yield Text(f"      {_KINDS[kind][1]}", _KINDS[kind][0])
        for i in mine:
            head = Text.assemble((f"{changes[i].claim.line:>4}  ", "dim"), texts[i])
            columns = zip(cells[i], widths, _ALIGN, strict=True)
            padded = [Text(f"{cell:{align}{size}}", style) for (cell, style), size, align in columns]
            numbers = Text("  ").join((*padded, _verdicts(changes[i])))
            if fits:
                head.pad_right(6 + longest + 2 - len(head))
                yield head + numbers
            else:
                yield head
                yield Text(" " * 8) + numbers


#: how a figure, its interval and the arrow to the new ones are aligned
_ALIGN = "><<><"


def _claim(change: Change, several: bool) -> Text:
    return Text.assemble(change.claim.statement, (f"  {change.claim.task or ''}" if several else "", "cyan"))


def _number(claim: ClaimResult | None, moved: bool) -> tuple[tuple[str, str], tuple[str, str]]:
    """A claim's figure and its interval, each with its style."""
    if claim is None or claim.measured is None:
        return ("–" if claim is None else "", "dim"), ("", "")
    return (value(claim.measured), "bold" if moved else ""), (interval(claim.measured), "dim")


def _verdicts(change: Change) -> Text:
    old, new = (claim.verdict if claim else None for claim in (change.old, change.new))
    if old is None or new is None:
        return Text(new or f"{old}, gone", _KINDS[change.kind][0])
    return Text(new if old == new else f"{old} → {new}", _KINDS[change.kind][0])
