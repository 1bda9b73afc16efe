"""What changed between two verifications: verdicts, and numbers that moved by more than chance.

Claims are the same when circuit, task and text are; their line may move, and blanks do not count. A number has *moved*
when the 95 % interval of the difference excludes 0. That interval is made from the two plain 95 % intervals by the
method of variance estimates recovery (Zou and Donner 2008, Statistics in Medicine 27; Newcombe's hybrid for any
figure): a difference of independent figures lies beyond its standard error when `|new - old| > sqrt(a² + b²)`, where a
and b are the arms of the two intervals on the sides that face each other. Two runs on the same prompts are less than
independent, for which the rule is cautious. A figure without an interval (weights alone, or the same on every prompt)
counts as exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from rich.console import Console
from rich.text import Text

from circuitdsl.report.formats import View
from circuitdsl.report.numbers import interval, value
from circuitdsl.report.report import ClaimResult, Measured, Report, SpecInfo

Kind = Literal["regression", "mended", "verdict", "moved", "edited", "new", "gone", "same"]
#: which changes make a comparison fail
FailOn = Literal["regression", "change", "nothing"]
#: in the order in which they are shown
KINDS: tuple[Kind, ...] = get_args(Kind)
#: exact figures differ when they do so by more than rounding (a share of the larger one)
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Change:
    """One claim on one task before and after.

    Attributes:
        kind: `regression` where the claim held and no longer does, or is gone; `mended` where it holds now; `verdict`
            where it has another verdict that is neither, or fails and is expected to; `moved` where it has the same
            verdict and another number; `edited` where its text alone is another; `new`; `gone` where it did not hold;
            or `same`.
    """

    kind: Kind
    spec: SpecInfo
    old: ClaimResult | None
    new: ClaimResult | None
    moved: bool = False

    @property
    def claim(self) -> ClaimResult:
        """The claim as it is now, or as it was before it was gone."""
        claim = self.new or self.old
        assert claim is not None
        return claim

    def to_json(self) -> dict[str, Any]:
        here = self.claim
        return {
            "kind": self.kind,
            "circuit": self.spec.circuit,
            "path": self.spec.path,
            "task": here.task or "",
            "text": here.statement,
            "line": here.line,
            "old": _in_short(self.old),
            "new": _in_short(self.new),
            "moved": self.moved,
        }


def _in_short(claim: ClaimResult | None) -> dict[str, Any] | None:
    """The part of a claim's record that the JSON of a comparison holds."""
    if claim is None:
        return None
    body = claim.to_json()
    keys = ("line", "text", "task", "verdict", "outcome", "reason", "measured", "block")
    return {key: body[key] for key in keys} | {"task": claim.task or "", "block": claim.block or ""}


@dataclass(frozen=True, slots=True)
class Setting:
    """Something that was run differently."""

    circuit: str
    what: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Diff:
    changes: tuple[Change, ...]
    settings: tuple[Setting, ...]

    @property
    def summary(self) -> dict[str, int]:
        """How many changes there are of each kind, and how many numbers moved, whatever their verdicts."""
        found = Counter(change.kind for change in self.changes)
        counts: dict[str, int] = {kind: found[kind] for kind in KINDS}
        return counts | {"moved": sum(c.moved for c in self.changes)}

    def exit_status(self, fail_on: FailOn = "regression") -> int:
        """1 where something that held does not any more (or, on `change`, where anything is other), else 0."""
        kinds = {change.kind for change in self.changes} - {"same"}
        failing = {"regression": "regression" in kinds, "change": bool(kinds), "nothing": False}
        return int(failing[fail_on])

    def to_json(self) -> dict[str, Any]:
        changes = [change.to_json() for change in self.changes if change.kind != "same"]
        return {
            "schema": 1,
            "changes": changes,
            "settings": [asdict(setting) for setting in self.settings],
            "summary": self.summary,
        }


def compare(old: Sequence[Report], new: Sequence[Report], edited: bool = False) -> Diff:
    """What changed from some reports to others, in the order of the new ones; what is gone comes last.

    Args:
        edited: the new reports are of the same file, edited: a new claim on the line of one that is gone is that one,
            and every number that shows differently has moved.
    """
    before, after = dict(_keyed(old)), dict(_keyed(new))
    if edited:
        gone = {_where(*before[key]): key for key in before.keys() - after.keys()}
        moved = {key: gone[_where(*after[key])] for key in after.keys() - before.keys() if _where(*after[key]) in gone}
        before |= {key: before.pop(was) for key, was in moved.items()}
    changes = [_change(spec, before.pop(key, (spec, None))[1], claim, edited) for key, (spec, claim) in after.items()]
    changes += [_change(spec, claim, None) for spec, claim in before.values()]
    return Diff(tuple(changes), tuple(each for each in _settings(old, new) if not edited or each.what != "spec"))


def _keyed(reports: Iterable[Report]) -> Iterator[tuple[tuple, tuple[SpecInfo, ClaimResult]]]:
    """Every claim by circuit, task, block, text without blanks, and how many like it came before."""
    seen: Counter[tuple] = Counter()
    for report in reports:
        for claim in report.claims:
            key = (report.spec.circuit, claim.task, *_text(claim))
            yield (*key, seen[key]), (report.spec, claim)
            seen[key] += 1


def _text(claim: ClaimResult) -> tuple[str, str]:
    """The header of a claim's block and its text, without blanks."""
    return "".join((claim.block or "").split()), "".join(claim.text.split())


def _where(spec: SpecInfo, claim: ClaimResult) -> tuple[object, ...]:
    """Where a claim stands in its file."""
    return spec.circuit, claim.task, claim.line, claim.kind


def _change(spec: SpecInfo, old: ClaimResult | None, new: ClaimResult | None, exact: bool = False) -> Change:
    differ = has_changed if exact else has_moved
    moved = bool(old and new and old.measured and new.measured and differ(old.measured, new.measured))
    kind: Kind = "moved" if moved else "same"
    if exact and kind == "same" and old and new and _text(old) != _text(new):
        kind = "edited"
    if old is None:
        kind = "new"
    elif old.verdict == "holds" and (new is None or (new.verdict != "holds" and new.outcome != "expected")):
        kind = "regression"
    elif new is None:
        kind = "gone"
    elif old.outcome != new.outcome or old.verdict != new.verdict:
        kind = "mended" if new.verdict == "holds" != old.verdict else "verdict"
    return Change(kind, spec, old, new, moved)


def has_changed(old: Measured, new: Measured) -> bool:
    """Whether two measurements show different numbers. On the same prompts nothing but an edit can make them differ."""
    return (value(old), interval(old), old.name) != (value(new), interval(new), new.name)


def has_moved(old: Measured, new: Measured) -> bool:
    """Whether two measurements of one figure differ beyond the combined standard error, at 95 %."""
    if (old.name, old.unit) != (new.name, new.unit):
        return True
    low, high = sorted((old, new), key=lambda m: m.value)
    up = 0.0 if low.ci is None else max(low.ci[1] - low.value, 0.0)
    down = 0.0 if high.ci is None else max(high.value - high.ci[0], 0.0)
    rounding = ROUNDING * max(abs(low.value), abs(high.value))
    return high.value - low.value > math.hypot(up, down) + rounding


def _settings(old: Sequence[Report], new: Sequence[Report]) -> Iterator[Setting]:
    """What was run differently, for the circuits that both have; hashes are shortened."""
    before = {report.spec.circuit: _setting(report) for report in old}
    for report in new:
        was = before.get(report.spec.circuit, {})
        for what, now in _setting(report).items():
            if was.get(what, now) != now:
                end = 12 if what in ("spec", *report.model.hashes) or what.startswith("prompts of") else None
                yield Setting(report.spec.circuit, what, was[what][:end], now[:end])


def _setting(report: Report) -> dict[str, str]:
    """What was run, by what it is called."""
    model = report.model
    found = {"spec": report.spec.meaning} if report.spec.meaning else {}
    found |= {"model": model.name, "device": f"{model.device} {model.dtype}"}
    found |= {what: digest for what, digest in model.hashes.items() if digest}
    found |= {"circuitdsl": report.circuitdsl} | {k: v for k, v in report.versions.items() if k == "torch"}
    for task in report.tasks:
        found[f"task {task.name}"] = f"{task.corrupt}, {task.prompts} prompts, seed {task.seed}"
        found[f"prompts of {task.name}"] = task.sha256
        found[f"metric of {task.name}"] = task.metric
    return found


class Said(NamedTuple):
    """How a kind of change is shown; `one` and `several` stand after a number."""

    style: str
    title: str
    one: str
    several: str


SAID: dict[Kind, Said] = {
    "regression": Said("bold red", "held before, and does not now", "regression", "regressions"),
    "mended": Said("green", "holds now", "mended", "mended"),
    "verdict": Said("yellow", "other verdict", "other verdict", "other verdicts"),
    "moved": Said("yellow", "same verdict, another number", "number moved", "numbers moved"),
    "edited": Said("cyan", "edited, with the same verdict and number", "edited", "edited"),
    "new": Said("cyan", "new", "new", "new"),
    "gone": Said("cyan", "gone", "gone", "gone"),
    "same": Said("dim", "as before", "as before", "as before"),
}


def in_words(diff: Diff) -> Text:
    """`1 regression, 24 as before`"""
    counts = diff.summary
    found = [(counts[kind], SAID[kind]) for kind in KINDS if counts[kind]]
    parts = [Text(f"{n} {said.several if n > 1 else said.one}", said.style) for n, said in found]
    return Text(", ").join(parts) if parts else Text("no claims on either side")


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
    console.print(Text.assemble("  ", in_words(diff)))


def _rows(changes: Sequence[Change], several: bool, width: int) -> Iterator[Text]:
    """The changes by kind, the worst first; where columns do not fit side by side, the claim has a line of its own."""
    tasks = [f"  {change.claim.task or ''}" if several else "" for change in changes]
    texts = [Text.assemble(each.claim.statement, (task, "cyan")) for each, task in zip(changes, tasks, strict=True)]
    cells = [(*_number(each.old, each.moved), ("→", "dim"), *_number(each.new, each.moved)) for each in changes]
    widths = [max(len(cell) for cell, _ in column) for column in zip(*cells, strict=True)]
    longest = max(map(len, texts))
    verdict = max(len(_verdicts(change)) for change in changes)
    fits = 6 + longest + sum(widths) + 2 * (len(widths) + 1) + verdict <= width
    for kind in KINDS:
        mine = [i for i, change in enumerate(changes) if change.kind == kind]
        if mine:
            yield Text(f"      {SAID[kind].title}", SAID[kind].style)
        for i in mine:
            head = Text.assemble((f"{changes[i].claim.line:>4}  ", "dim"), texts[i])
            columns = zip(cells[i], widths, "><<><", strict=True)
            padded = [Text(f"{cell:{align}{size}}", style) for (cell, style), size, align in columns]
            numbers = Text("  ").join((*padded, _verdicts(changes[i])))
            if fits:
                head.pad_right(6 + longest + 2 - len(head))
                yield head + numbers
            else:
                yield head
                yield Text(" " * 8) + numbers
            both = (each.measured.part if each and each.measured else "" for each in (changes[i].old, changes[i].new))
            if all(named := tuple(both)) and len(set(named)) > 1:
                yield Text(f"        the figures are of its weakest parts: {' → '.join(named)}", "dim")
            if (now := changes[i].new) and now.outcome != "holds":
                yield Text(f"        {now.why}", "dim")


def _number(claim: ClaimResult | None, moved: bool) -> tuple[tuple[str, str], tuple[str, str]]:
    """A claim's figure and its interval, each with its style."""
    if claim is None or claim.measured is None:
        return ("–" if claim is None else "", "dim"), ("", "")
    return (value(claim.measured), "bold" if moved else ""), (interval(claim.measured), "dim")


def _verdicts(change: Change) -> Text:
    old, new = (claim.spoken if claim else None for claim in (change.old, change.new))
    if old is None or new is None:
        return Text(new or f"{old}, gone", SAID[change.kind].style)
    return Text(new if old == new else f"{old} → {new}", SAID[change.kind].style)
