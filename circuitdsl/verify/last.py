"""The last verdict on each claim of a spec, kept beside the cache of numbers: editors show it at the claim.

A file for each spec, written whole. It is a convenience: what cannot be read is as good as nothing, and what cannot be
written is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from circuitdsl.circuit.claims import Circuit, Claim, TaskUse
from circuitdsl.circuit.paths import real
from circuitdsl.errors import UserError
from circuitdsl.ordinary import Unreadable, read_ordinary, write_whole
from circuitdsl.report.numbers import figure, interval
from circuitdsl.report.reading import read
from circuitdsl.report.report import Report
from circuitdsl.verdicts import Verdict
from circuitdsl.verify.folder import default_path

#: bytes of a file at the most, and the folder of the files beside the cache
LARGEST, FOLDER = 20 * 10**6, "verdicts-1"


@dataclass(frozen=True, slots=True)
class LastVerdict:
    """What was found last of one claim on one task.

    Attributes:
        circuit, statement, under: which claim it is: its circuit, its line, and the header of its block.
        task: None for a claim about weights alone.
        figure, interval: as reports write them; empty where there is none.
        n: how many prompts were measured.
        model: the name of the model.
        asked: what was measured (`asked`), so that a change of it is noticed.
        when: seconds since 1970.
    """

    circuit: str
    statement: str
    under: str
    task: str | None
    verdict: Verdict
    figure: str
    interval: str
    n: int
    reason: str
    model: str
    asked: str
    when: float

    @property
    def claim(self) -> tuple[str, str, str]:
        """Which claim it is, as `key_of` names one."""
        return self.circuit, self.statement, self.under


def key_of(circuit: str, claim: Claim) -> tuple[str, str, str]:
    """How a claim reads, wherever it stands in its file."""
    return circuit, claim.text, claim.under.text if claim.under else ""


def asked(circuit: Circuit, claim: Claim) -> str:
    """A hash of what is measured for a claim: of its nodes, positions, bounds and prompts, whatever they are called."""
    claims = tuple((one.measurement, one.tests) for one in circuit.claims)
    whole = (circuit.groups, claims) if claim.measurement.of_whole else ()
    tasks = tuple((use, _changed(circuit, use)) for use in circuit.tasks if use.name in claim.tasks)
    under = claim.under.effect if claim.under else None
    model = circuit.model.name if circuit.model else ""
    said = (claim.measurement, claim.tests, claim.each, claim.margin, under, tasks, model, circuit.metric, whole)
    strata = (claim.strata,) if claim.strata else ()
    return sha256(repr(_plain((*said, *strata))).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _changed(circuit: Circuit, use: TaskUse) -> int:
    """When a task's prompt file was changed; 0 where there is none."""
    try:
        return (Path(circuit.path).parent / use.file).stat().st_mtime_ns if use.file else 0
    except (OSError, ValueError):
        return 0


def _plain(value: Any) -> Any:
    """A record as a tuple of what counts when two are compared."""
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    if is_dataclass(value):
        return type(value).__name__, *(_plain(getattr(value, one.name)) for one in fields(value) if one.compare)
    return value


def remember(circuit: Circuit, report: Report, folder: Path) -> None:
    """Keep the verdicts of a report on a circuit; those on its other claims stay as they were."""
    if not Path(circuit.path).is_file():
        return
    now, claims = time.time(), {claim.id: claim for claim in circuit.claims}
    found = {}
    for one in report.reached:
        said, measured = key_of(circuit.name, claims[one.id]), one.measured
        shown = (figure(measured), interval(measured), measured.n) if measured else ("", "", 0)
        found[said, one.task] = LastVerdict(
            *said, one.task, one.verdict, *shown, one.reason, report.model.name, asked(circuit, claims[one.id]), now
        )
    alive = {key_of(circuit.name, claim) for claim in circuit.claims}
    asks = {asked(circuit, claim) for claim in circuit.claims}
    anew = {(one.asked, one.task) for one in found.values()}

    def stays(old: LastVerdict) -> bool:
        if old.circuit != circuit.name or (old.claim, old.task) in found:
            return True
        renamed = old.asked in asks and (old.asked, old.task) not in anew
        return old.claim in alive or renamed

    every = {(old.claim, old.task): old for old in last_verdicts(circuit.path, folder) if stays(old)} | found
    path = _file(circuit.path, folder)
    with suppress(UserError, OSError):
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps([asdict(one) for one in every.values()], ensure_ascii=False))


def last_verdicts(spec: str, folder: Path | None = None) -> tuple[LastVerdict, ...]:
    """What is known of a spec's claims; `folder` is that of the cache of numbers."""
    try:
        made = json.loads(read_ordinary(_file(spec, folder or default_path().parent), LARGEST))
        return tuple(read(tuple[LastVerdict, ...], made))
    except (Unreadable, UserError, ValueError, RecursionError):
        return ()


def of_claim(verdicts: Sequence[LastVerdict], circuit: Circuit, claim: Claim) -> tuple[LastVerdict, ...]:
    """The verdicts on one claim, one for each task: those on what it asks now, else those on how it reads."""
    wanted, key = asked(circuit, claim), key_of(circuit.name, claim)
    same = tuple(one for one in verdicts if one.circuit == circuit.name and one.asked == wanted)
    return same or tuple(one for one in verdicts if one.claim == key)


def _file(spec: str, folder: Path) -> Path:
    name = sha256(str(real(Path(spec))).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return folder / FOLDER / f"{name}.json"
