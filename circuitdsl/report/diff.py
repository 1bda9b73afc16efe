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

from circuitdsl.report.report import ClaimResult, Measured, Report, SpecInfo

Kind = Literal["regression", "mended", "verdict", "moved", "new", "gone", "same"]
#: in the order in which they are shown
KINDS: tuple[Kind, ...] = ("regression", "mended", "verdict", "moved", "new", "gone", "same")
#: exact figures differ when they do so by more than rounding (a share of the larger one)
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Change:
    """One claim on one task before and after.

    Attributes:
        kind: `regression` where the claim held and no longer does, or is gone; `mended` where it holds now; `verdict`
            where it has another verdict that is neither; `moved` where it has the same verdict and another number;
            `new`; `gone` where it did not hold; or `same`.
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
    keys = ("line", "text", "task", "verdict", "reason", "measured", "block")
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

    def exit_status(self) -> int:
        """1 where something that held does not any more, else 0."""
        return 1 if self.summary["regression"] else 0

    def to_json(self) -> dict[str, Any]:
        changes = [change.to_json() for change in self.changes if change.kind != "same"]
        return {
            "schema": 1,
            "changes": changes,
            "settings": [asdict(setting) for setting in self.settings],
            "summary": self.summary,
        }


def compare(old: Sequence[Report], new: Sequence[Report]) -> Diff:
    """What changed from some reports to others, in the order of the new ones; what is gone comes last."""
    before = dict(_keyed(old))
    changes = [_change(spec, before.pop(key, (spec, None))[1], claim) for key, (spec, claim) in _keyed(new)]
    changes += [_change(spec, claim, None) for spec, claim in before.values()]
    return Diff(tuple(changes), tuple(_settings(old, new)))


def _keyed(reports: Iterable[Report]) -> Iterator[tuple[tuple, tuple[SpecInfo, ClaimResult]]]:
    """Every claim by circuit, task, block, text, and how many like it came before."""
    seen: Counter[tuple] = Counter()
    for report in reports:
        for claim in report.claims:
            key = (report.spec.circuit, claim.task, claim.block, claim.text)
            yield (*key, seen[key]), (report.spec, claim)
            seen[key] += 1


def _change(spec: SpecInfo, old: ClaimResult | None, new: ClaimResult | None) -> Change:
    moved = bool(old and new and old.measured and new.measured and has_moved(old.measured, new.measured))
    kind: Kind = "moved" if moved else "same"
    if old is None:
        kind = "new"
    elif old.verdict == "holds" and (new is None or new.verdict != "holds"):
        kind = "regression"
    elif new is None:
        kind = "gone"
    elif old.verdict != new.verdict:
        kind = "mended" if new.verdict == "holds" else "verdict"
    return Change(kind, spec, old, new, moved)


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
        for what, value in _setting(report).items():
            if was.get(what, value) != value:
                end = 12 if what == "weights" or what.startswith("prompts of") else None
                yield Setting(report.spec.circuit, what, was[what][:end], value[:end])


def _setting(report: Report) -> dict[str, str]:
    """What was run, by what it is called."""
    model = report.model
    found = {"model": model.name, "weights": model.sha256, "device": f"{model.device} {model.dtype}"}
    for task in report.tasks:
        found[f"task {task.name}"] = f"{task.corrupt}, {task.prompts} prompts, seed {task.seed}"
        found[f"prompts of {task.name}"] = task.sha256
        found[f"metric of {task.name}"] = task.metric
    return found
