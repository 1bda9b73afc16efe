"""Claims × (model, task, seed): what became of each claim in each cell, and the same as comma-separated lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from circuitdsl.matrix.cell import OUTCOMES, Cell, ClaimRow, Outcome, Record
from circuitdsl.report.comma import comma_separated

#: how an outcome is drawn where there is little room
SIGNS: Mapping[Outcome, str] = {
    "holds": "✓", "expected": "≈", "fails": "✗", "unexpected": "‼", "undecided": "?", "error": "!",
    "not applicable": "–",
}  # fmt: skip
#: what stands in the place of the claims of a cell that could not be run
ALL_CLAIMS = "all claims"


class Group(NamedTuple):
    """Columns that differ in nothing but their seed."""

    model: str
    task: str
    options: str

    def __str__(self) -> str:
        return " · ".join(filter(None, (self.model, self.task, self.options)))


class Line(NamedTuple):
    """A row of the table: a claim of a spec."""

    circuit: str
    line: int
    claim: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a claim in a cell, and the reports of the cell; where it could not be run, `row` says why."""

    row: ClaimRow
    report: str


@dataclass(frozen=True)
class SpecTable:
    """The table of one spec.

    Attributes:
        groups: the columns, with the seeds of each.
        lines: the rows, in the order of the spec.
        entries: by the place of a row, the group and the seed; where a claim was not asked, there is none.
    """

    spec: str
    groups: dict[Group, tuple[str, ...]]
    lines: tuple[Line, ...]
    entries: dict[tuple[int, Group, str], Entry]

    @property
    def shared(self) -> str:
        """The options that all columns have."""
        options = {group.options for group in self.groups}
        return options.pop() if len(options) == 1 else ""

    @cached_property
    def _several(self) -> bool:
        return len({each.circuit for each in self.lines if each.circuit}) > 1

    def named(self, line: Line) -> str:
        """A claim, after the name of its circuit where the spec has several."""
        return f"{line.circuit}: {line.claim}" if self._several and line.circuit else line.claim


@dataclass(frozen=True)
class Table:
    """The tables of all specs, and the records that they are made of."""

    specs: tuple[SpecTable, ...]
    records: tuple[Record, ...]

    @property
    def failed(self) -> tuple[Record, ...]:
        """The cells that could not be run."""
        return tuple(record for record in self.records if record.state == "failed")

    @property
    def counts(self) -> dict[Outcome, int]:
        """How often each outcome was reached, over all cells."""
        found = Counter(row.outcome for record in self.records for row in record.claims)
        return {outcome: found[outcome] for outcome in OUTCOMES if found[outcome]}


def table(records: Sequence[Record]) -> Table:
    by_spec: dict[str, list[Record]] = {}
    for record in records:
        by_spec.setdefault(record.cell.spec, []).append(record)
    return Table(tuple(_of_spec(spec, mine) for spec, mine in by_spec.items()), tuple(records))


def _of_spec(spec: str, records: Sequence[Record]) -> SpecTable:
    seeds: dict[Group, dict[str, None]] = {}
    lines: dict[tuple[str, int], str] = {}
    placed: dict[tuple[tuple[str, int], Group, str], Entry] = {}
    own = list(dict.fromkeys(row.task for each in records if not each.cell.task for row in each.claims if row.task))
    for record in records:
        seed, groups = seed_text(record.cell), _groups(record, own)
        for row in record.claims or (_failure(record),):
            key = row.circuit, row.line
            lines.setdefault(key, row.claim)
            for group in groups.get(row.task) or groups[None]:
                seeds.setdefault(group, {})[seed] = None
                placed[key, group, seed] = Entry(row, record.report)
    order = sorted(lines)
    place = {key: number for number, key in enumerate(order)}
    return SpecTable(
        spec,
        {group: tuple(sorted(mine, key=_number)) for group, mine in seeds.items()},
        tuple(Line(*key, lines[key]) for key in order),
        {(place[key], group, seed): entry for (key, group, seed), entry in placed.items()},
    )


def _failure(record: Record) -> ClaimRow:
    return ClaimRow("", 0, ALL_CLAIMS, None, "error", record.error)


def _groups(record: Record, own: Sequence[str]) -> dict[str | None, list[Group]]:
    """The groups that outcomes of a cell stand under, by the task of the claim.

    A claim without a task (None) stands under all tasks of its cell; where none of these was reached, under the
    spec's `own`, as other cells know them.
    """
    cell, options = record.cell, _options(record.cell, ", ", " = ")
    if cell.task:
        return {None: [Group(cell.model, cell.task, options)]}
    reached = dict.fromkeys(row.task for row in record.claims if row.task)
    found: dict[str | None, list[Group]] = {task: [Group(cell.model, task, options)] for task in reached}
    return found | {None: [Group(cell.model, task, options) for task in reached or own or [""]]}


def _options(cell: Cell, between: str, equal: str) -> str:
    return between.join(f"{name}{equal}{_text(value)}" for name, value in cell.options.items())


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def seed_text(cell: Cell) -> str:
    """The seed of a cell as columns have it; empty for that of its spec."""
    return "" if cell.seed is None else str(cell.seed)


def _number(seed: str) -> int:
    return int(seed or -1)


#: the columns of `table.csv`
COLUMNS = (
    *("spec", "circuit", "line", "claim", "model", "task", "seed", "options", "outcome"),
    *("figure", "value", "low", "high", "unit", "reason", "report"),
)


def csv_text(records: Iterable[Record]) -> str:
    """A line for each claim in each cell, under a line of headings; fractions are fractions."""
    return comma_separated(chain([COLUMNS], chain.from_iterable(map(_csv, records))))


def _csv(record: Record) -> Iterator[tuple[object, ...]]:
    cell, seed, options = record.cell, seed_text(record.cell), _options(record.cell, " ", "=")
    for row in record.claims or (_failure(record),):
        yield (
            *(cell.spec, row.circuit, row.line, row.claim, cell.model, cell.task or row.task or "", seed, options),
            *(row.outcome, row.name, row.value, *(row.ci or (None, None)), row.unit, row.reason, record.report),
        )
