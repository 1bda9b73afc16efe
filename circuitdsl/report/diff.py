"""What changed between two verifications: verdicts, and numbers that moved by more than chance.

Claims are the same when circuit, task and text are; their line may move. A number has *moved* when the 95 % interval of
the difference excludes 0. That interval is made from the two plain 95 % intervals by the method of variance estimates
recovery (Zou and Donner 2008, Statistics in Medicine 27; Newcombe's hybrid for any figure): a difference of independent
figures lies beyond its standard error when `|new - old| > sqrt(a² + b²)`, where a and b are the arms of the two
intervals on the sides that face each other. Two runs on the same prompts are less than independent, for which the rule
is cautious. A figure without an interval (weights alone, or the same on every prompt) counts as exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from circuitdsl.report.past import Past, PastClaim
from circuitdsl.report.report import Measured

Kind = Literal["regression", "mended", "verdict", "moved", "new", "gone", "same"]
#: in the order in which they are shown
KINDS: tuple[Kind, ...] = ("regression", "mended", "verdict", "moved", "new", "gone", "same")
#: figures that are exact differ when they do so by more than rounding
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Change:
    """One claim on one task before and after.

    `kind`: `regression`, it held and does not any more, or is gone; `mended`, it holds now; `verdict`, another verdict
    that is neither; `moved`, the same verdict with another number; `new`; `gone`, and did not hold; `same`.
    """

    kind: Kind
    circuit: str
    path: str
    task: str
    text: str
    line: int
    old: PastClaim | None
    new: PastClaim | None
    moved: bool = False


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

    def exit_status(self) -> int:
        """1 where something that held does not any more, else 0."""
        return 1 if self.summary["regression"] else 0

    def to_json(self) -> dict[str, Any]:
        changes = [asdict(change) for change in self.changes if change.kind != "same"]
        return {
            "schema": 1,
            "changes": changes,
            "settings": [asdict(setting) for setting in self.settings],
            "summary": self.summary,
        }


def compare(old: Sequence[Past], new: Sequence[Past]) -> Diff:
    """What changed from some reports to others, in the order of the new ones; what is gone comes last."""
    before = dict(_keyed(old))
    changes = [_change(report, before.pop(key, (report, None))[1], claim) for key, (report, claim) in _keyed(new)]
    changes += [_change(report, claim, None) for report, claim in before.values()]
    return Diff(tuple(changes), tuple(_settings(old, new)))


Key = tuple[str, str, str, str, int]


def _keyed(reports: Iterable[Past]) -> Iterator[tuple[Key, tuple[Past, PastClaim]]]:
    """Every claim by circuit, task, block, text, and how many like it came before."""
    seen: Counter[tuple[str, str, str, str]] = Counter()
    for report in reports:
        for claim in report.claims:
            key = (report.circuit, claim.task, claim.block, claim.text)
            yield (*key, seen[key]), (report, claim)
            seen[key] += 1


def _change(report: Past, old: PastClaim | None, new: PastClaim | None) -> Change:
    here = new or old
    assert here is not None
    moved = bool(old and new and old.measured and new.measured and has_moved(old.measured, new.measured))
    kind = _kind(old, new, moved)
    text = f"{here.block}: {here.text}" if here.block else here.text
    return Change(kind, report.circuit, report.path, here.task, text, here.line, old, new, moved)


def _kind(old: PastClaim | None, new: PastClaim | None, moved: bool) -> Kind:
    if old is None:
        return "new"
    if old.verdict == "holds" and (new is None or new.verdict != "holds"):
        return "regression"
    if new is None:
        return "gone"
    if old.verdict != new.verdict:
        return "mended" if new.verdict == "holds" else "verdict"
    return "moved" if moved else "same"


def has_moved(old: Measured, new: Measured) -> bool:
    """Whether two measurements of one figure differ beyond the combined standard error, at 95 %."""
    if (old.name, old.unit) != (new.name, new.unit):
        return True
    low, high = sorted((old, new), key=lambda m: m.value)
    up = 0.0 if low.ci is None else max(low.ci[1] - low.value, 0.0)
    down = 0.0 if high.ci is None else max(high.value - high.ci[0], 0.0)
    rounding = ROUNDING * max(abs(low.value), abs(high.value))
    return high.value - low.value > math.hypot(up, down) + rounding


def _settings(old: Sequence[Past], new: Sequence[Past]) -> Iterator[Setting]:
    """What was run differently, for the circuits that both have; hashes in short."""
    before = {report.circuit: report.setting for report in old}
    for report in new:
        was = before.get(report.circuit)
        for what, value in report.setting.items():
            if was is not None and what in was and was[what] != value:
                yield Setting(report.circuit, what, _short(what, was[what]), _short(what, value))


def _short(what: str, value: str) -> str:
    return value[:12] if what == "weights" or what.startswith("prompts of") else value
