"""A cell of a matrix, and what became of it: frozen records that a results directory keeps as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from circuitdsl import verdicts
from circuitdsl.report.behind import Interval
from circuitdsl.report.reading import plain
from circuitdsl.version import __version__

#: what can become of a claim in a matrix; a claim is not applicable where the model or the task lacks what it names
Outcome = Literal[verdicts.Outcome, "not applicable"]
NOT_APPLICABLE: Outcome = "not applicable"
OUTCOMES: tuple[Outcome, ...] = (*verdicts.OUTCOMES, NOT_APPLICABLE)
#: the version of the JSON's layout
SCHEMA = 1


@dataclass(frozen=True)
class Cell:
    """One spec on one model, one task and one seed.

    Attributes:
        spec, model: as the user names them; the model that the spec names itself, where `own`.
        task: as in a spec; empty for the tasks of the spec.
        seed: None for those of the spec.
        options: how to verify, by the names that `planning.OPTIONS` has.
        spec_sha256: of the spec, of the files that it uses, and of its prompt files.
        model_sha256: of the model's files; empty where they could not be read.
        circuitdsl: the version that verifies it.
    """

    spec: str
    model: str
    own: bool = False
    task: str = ""
    seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    spec_sha256: str = ""
    model_sha256: str = ""
    circuitdsl: str = __version__

    @cached_property
    def key(self) -> str:
        """What the cell is known by: a hash of all of it."""
        return sha256(json.dumps(plain(self), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def place(self) -> tuple[object, ...]:
        """What it is about, whatever its files hold now: equal for two versions of one cell."""
        return self.spec, self.model, self.own, self.task, self.seed, json.dumps(self.options, sort_keys=True)

    @property
    def instead(self) -> str | None:
        """The model that takes the place of the spec's own."""
        return None if self.own else self.model

    def __str__(self) -> str:
        task, seed = f", {self.task}" * bool(self.task), "" if self.seed is None else f", seed {self.seed}"
        return f"{self.spec} on {self.model}{task}{seed}"


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """What became of one claim on one task in a cell.

    Attributes:
        claim: what is claimed, with the header of its block.
        task: None for a claim about weights alone.
        name, value, ci, unit: the figure, as in `report.Measured`.
    """

    circuit: str
    line: int
    claim: str
    task: str | None
    outcome: Outcome
    reason: str = ""
    name: str = ""
    value: float | None = None
    ci: Interval | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a cell.

    Attributes:
        state: `failed` where the cell could not be run, and `error` says why.
        report: the path of its reports in the results directory; empty where it has none.
        hint, log: what to do, and what was said meanwhile; a traceback, where nobody foresaw the error.
        finished: when, as ISO 8601 in UTC.
    """

    cell: Cell
    state: Literal["done", "failed"]
    claims: tuple[ClaimRow, ...] = ()
    report: str = ""
    error: str = ""
    hint: str = ""
    log: tuple[str, ...] = ()
    seconds: float = 0.0
    finished: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record as a results directory keeps it."""
        return {"schema": SCHEMA, "key": self.cell.key, **plain(self)}
