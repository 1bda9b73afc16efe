"""What a verification found, as flat frozen records; every output format reads these and nothing else."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from circuitdsl.errors import UserError
from circuitdsl.verdicts import VERDICTS, Verdict
from circuitdsl.version import __version__

#: why there is nothing to say of a claim that Ctrl-C came before
MISSED = "the run was interrupted before this was measured"
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a composition stands among those of all upstream heads, or of all their components.

    `rank` is 1 for the largest of `of`; `z` is in standard deviations from the mean; `chance` is the 95th percentile.
    """

    composition: float
    rank: int | None
    of: int | None
    z: float
    chance: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """A number with its plain 95 % interval; fractions as fractions.

    `ci_used` is the interval at the level that the verdict used (wider, where many claims are made). `unit` is
    `share`, `gap` (a fraction of clean minus corrupt), `composition`, or the metric's own unit. `right_sign` is
    the share of prompts on which the figure has the claimed sign.
    """

    name: str
    value: float
    ci: Interval | None
    n: int
    unit: str
    delta: float | None = None
    ci_used: Interval | None = None
    median: float | None = None
    iqr: Interval | None = None
    right_sign: float | None = None
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Null:
    """Where a claim stands among matched random ones: the share of them it is stronger than."""

    percentile: float
    size: int


@dataclass(frozen=True, slots=True)
class MemberResult:
    """One pair of a group edge."""

    sender: str
    receiver: str
    input: str
    position: str
    effect: float | None
    ci: Interval | None
    delta: float | None
    n: int
    verdict: Verdict | None = None
    reason: str = ""
    #: of a role: the check, and its number
    check: str = ""
    value: float | None = None
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """One of the figures that a figure is the largest or the smallest of; a share of the gap."""

    name: str
    value: float
    ci: Interval | None


@dataclass(frozen=True, slots=True)
class MeasurementResult:
    """A measurement of the whole circuit that nothing is claimed of; `reason` says why there is no figure.

    `kept` is the share of the `nodes` or `edges` that could be ablated and are kept.
    """

    name: str
    task: str
    protocol: dict[str, str]
    measured: Measured | None = None
    details: tuple[Detail, ...] = ()
    reason: str = ""
    kept: dict[str, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """One claim on one task; channels have none. `counterexample`: a prompt that breaks a property, as a line of a
    prompt file, with what was `found` on it. `kept`: of the whole circuit, as in `MeasurementResult`."""

    id: str
    line: int
    text: str
    kind: str
    task: str | None
    verdict: Verdict
    reason: str
    protocol: dict[str, str] = field(default_factory=dict)
    measured: Measured | None = None
    null: Null | None = None
    members: tuple[MemberResult, ...] = ()
    notes: tuple[str, ...] = ()
    citation: str | None = None
    counterexample: dict[str, Any] | None = None
    #: the header of the block that the claim stands in, and its line
    block: str | None = None
    block_line: int | None = None
    details: tuple[Detail, ...] = ()
    kept: dict[str, float] | None = None

    @property
    def missed(self) -> bool:
        """Whether the run was interrupted before any of this was measured."""
        return self.verdict == "error" and self.reason == MISSED


@dataclass(frozen=True, slots=True)
class TaskResult:
    name: str
    corrupt: str
    prompts: int
    seed: int
    sha256: str
    metric: str
    clean: float
    corrupt_value: float
    accuracy: float
    bos: bool = False
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class SpecInfo:
    path: str
    circuit: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    name: str
    sha256: str
    n_layers: int
    n_heads: int
    device: str
    dtype: str
    bos: bool


def counted(n: int, verdict: str) -> str:
    """`1 holds`, `25 hold`, `2 errors`"""
    plurals = {"holds": "hold", "fails": "fail", "error": "errors"}
    return f"{n} {verdict if n == 1 else plurals.get(verdict, verdict)}"


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    spec: SpecInfo
    model: ModelInfo
    tasks: tuple[TaskResult, ...]
    claims: tuple[ClaimResult, ...]
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    level: str = "Holm 5 %"
    early_stop: bool = True
    block_positions: int = 0
    #: the share of all measured numbers that were known from earlier runs
    cached: float = 0.0
    interrupted: bool = False
    measurements: tuple[MeasurementResult, ...] = ()
    #: what verdicts are about: `prompts` from the same templates, or from other `templates` (n counts those then)
    generalise: str = "prompts"

    @property
    def summary(self) -> dict[str, int]:
        found = Counter(claim.verdict for claim in self.claims)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def reached(self) -> tuple[ClaimResult, ...]:
        """The claims, but for those that an interruption left out."""
        return tuple(claim for claim in self.claims if not claim.missed)

    def counts(self) -> list[tuple[str, str]]:
        """Verdicts with how often each was given, in words; then what an interruption left out, as `interrupted`."""
        found = Counter(claim.verdict for claim in self.reached)
        words: list[tuple[str, str]] = [(v, counted(found[v], v)) for v in VERDICTS if found[v]]
        if self.interrupted:
            missing = len(self.claims) - len(self.reached)
            words.append(("interrupted", f"{missing} not measured (interrupted)" if missing else "interrupted"))
        return words

    def exit_status(self, allow_undecided: bool = False) -> int:
        """0 every claim holds; 1 some fail (or are undecided); 3 some could not be measured and none fails."""
        return exit_status([self], allow_undecided)

    def __str__(self) -> str:
        """A line for each claim, and for the whole: `to_json` has the rest."""
        several = len(self.tasks) > 1
        said = (
            f"{c.line:>4}  {f'{c.block}: ' if c.block else ''}{c.text}{f' ({c.task})' if several else ''}  {c.verdict}"
            for c in self.claims
        )
        return "\n".join((self._headline(), *said))

    def __repr__(self) -> str:
        return f"<Report: {self._headline()}>"

    def _headline(self) -> str:
        counts = ", ".join(words for _, words in self.counts())
        return f"{self.spec.circuit} on {self.model.name}: {counts or 'no claims'}"

    def _repr_html_(self) -> str:
        from circuitdsl.report.notebook import to_html

        return to_html(self)

    def to_frame(self) -> Any:
        """A pandas data frame with a row for each claim on each task.

        Raises:
            UserError: pandas is not installed.
        """
        return frame([self])

    def to_json(self) -> dict[str, Any]:
        """The report as schema version 1 has it."""
        body = _plain(asdict(self))
        for claim in body["claims"]:
            for one in (claim, *claim["members"]):
                one["reason"] = ascii_reason(one["reason"])
        return {"schema": 1, "circuitdsl": __version__, **body, "summary": self.summary}


class Reports(tuple[Report, ...]):
    """The reports of several circuits, in the order of their file."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return "\n<hr>\n".join(report._repr_html_() for report in self)

    def to_frame(self) -> Any:
        """As `Report.to_frame`, of all of them together."""
        return frame(self)


def frame(reports: Iterable[Report]) -> Any:
    """A pandas data frame of reports; raises `UserError` where pandas is not installed."""
    from circuitdsl.report.notebook import rows

    try:
        import pandas
    except ImportError:
        raise UserError("to_frame needs pandas, which is not installed", hint="pip install pandas") from None
    return pandas.DataFrame([row for report in reports for row in rows(report)])


def exit_status(reports: Iterable[Report], allow_undecided: bool = False) -> int:
    """Exit status of several reports together; one that was interrupted never says that all holds."""
    reports = list(reports)
    found = Counter(claim.verdict for report in reports for claim in report.claims)
    if found["fails"]:
        return 1
    if found["error"] or not found or any(report.interrupted for report in reports):
        return 3
    return 1 if found["undecided"] and not allow_undecided else 0


def until_interrupted(reports: Iterable[Report]) -> Iterator[Report]:
    """Reports up to the first that was interrupted: who stops one does not want the next to begin."""
    for report in reports:
        yield report
        if report.interrupted:
            return


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file in one go: into a temporary file beside it, then rename. A link is followed; a pipe or a device
    is written to as it is.

    Raises:
        UserError: the folder is missing or cannot be written.
    """
    data = text.encode() if isinstance(text, str) else text
    name = ""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        path = path.resolve()
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}", hint="is the folder there, and writable?") from None


def dumps(reports: Iterable[Report]) -> str:
    """One report as a JSON object; several as a JSON list."""
    found = [report.to_json() for report in reports]
    return json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def ascii_reason(reason: str) -> str:
    """The reason in plain ASCII, as the JSON report has it: `effect -43% [-47%, -39%] is below -20%`."""
    spelled = re.sub(r" % \[([^],]+), ([^],]+)\]", r" % [\1 %, \2 %]", reason)
    return spelled.replace("\N{MINUS SIGN}", "-").replace(" %", "%").replace("\N{INFINITY}", "inf")


def schema() -> dict[str, Any]:
    """The JSON Schema of a report."""
    return json.loads((Path(__file__).parent / "schema.json").read_text())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: Any) -> Any:
    """JSON values only: tuples become lists; a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value
