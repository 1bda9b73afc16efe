"""What a verification found, as flat frozen records. Every output format reads these records and nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.brief import quoted
from circuitdsl.errors import UsageError
from circuitdsl.ordinary import Unreadable, read_named
from circuitdsl.report.behind import Behind, Interval
from circuitdsl.report.reading import plain, read
from circuitdsl.tasks.tokens import Token
from circuitdsl.verdicts import OUTCOMES, VERDICTS, Outcome, Verdict, outcome_of, spoken, status_of
from circuitdsl.version import __version__
from circuitdsl.visible import json_text

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit
    from circuitdsl.report.diff import Diff
    from circuitdsl.report.formats import View
    from circuitdsl.report.prompts import Prompts

#: the reason of a claim that was not measured before Ctrl-C ended the run
MISSED = "the run was interrupted before this was measured"
#: the version of the JSON's layout
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How a composition compares with those of all upstream heads, or of all their components.

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
    the share of prompts on which the figure has the claimed sign. `part` names the part that the figure
    is of, where the claim has several: its weakest one (docs/verdicts.md). `sender` and `receiver` are the pair that it
    is of, where it is of a single one. `named`: the claim does not say what its figure is, so that the figure is shown
    with its name.
    """

    name: str
    value: float
    ci: Interval | None
    n: int
    unit: str = ""
    delta: float | None = None
    ci_used: Interval | None = None
    median: float | None = None
    iqr: Interval | None = None
    right_sign: float | None = None
    standing: Standing | None = None
    part: str = ""
    sender: str = ""
    receiver: str = ""
    named: bool = False


@dataclass(frozen=True, slots=True)
class Null:
    """How a claim compares with matched random ones: `percentile` is the share of the `size` ones that are weaker."""

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
    n: int = 0
    verdict: Verdict | None = None
    reason: str = field(default="", metadata={"key": "reason_shown"})
    #: of a claim about a role: the check, and its figure
    check: str = ""
    value: float | None = None
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """One of the figures behind the claim's own, which is the largest or the smallest of them; or the figure of one of
    several tests, with its verdict. `unit` is as in `Measured`.
    """

    name: str
    value: float
    ci: Interval | None
    unit: str = "gap"
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class FigurePair:
    """Two figures that a claim compares, on the same prompts; the second one so many `times`.

    `part` names the pair or the check that compares them, where a claim has several.
    """

    first: Detail
    second: Detail
    times: float = 1.0
    part: str = ""


@dataclass(frozen=True, slots=True)
class MeasurementResult:
    """A measurement of the whole circuit about which the spec claims nothing. `reason` says why there is no figure.

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
    """One claim on one task. Claims about weights alone have no task.

    Attributes:
        cause: of an error: the reason in a few words, without its numbers.
        against: the figure that the claim's own is compared with, or of `stronger than` the edge, path or knock-out.
        comparisons: both figures of every such comparison.
        lone_nodes: whether the claim names a head or an MLP itself, not only groups.
        counterexample: a prompt that breaks a property, as a line of a prompt file, with what was `found` on it.
        block, block_line: the header of the block that the claim stands in, and its line.
        kept: of the whole circuit, as in `MeasurementResult`.
        more_may_decide: whether more prompts may decide what is undecided, and can be had.
        expected_to_fail: why the spec expects that it does not hold; None where it is to hold.
    """

    id: str
    line: int
    text: str
    kind: str
    task: str | None
    verdict: Verdict
    reason: str = field(metadata={"key": "reason_shown"})
    protocol: dict[str, str] = field(default_factory=dict)
    measured: Measured | None = None
    null: Null | None = None
    members: tuple[MemberResult, ...] = ()
    notes: tuple[str, ...] = ()
    citation: str | None = None
    counterexample: dict[str, Any] | None = None
    block: str | None = None
    block_line: int | None = None
    details: tuple[Detail, ...] = ()
    comparisons: tuple[FigurePair, ...] = ()
    kept: dict[str, float] | None = None
    cause: str = ""
    against: str = ""
    lone_nodes: bool = False
    more_may_decide: bool = False
    expected_to_fail: str | None = None

    @property
    def outcome(self) -> Outcome:
        """What the verdict means for the spec."""
        return outcome_of(self.verdict, self.expected_to_fail is not None)

    @property
    def spoken(self) -> str:
        """The outcome in words."""
        return spoken(self.outcome)

    @property
    def why(self) -> str:
        """The reason of the verdict, and why the claim is expected to fail where it is."""
        gap = self.expected_to_fail
        return self.reason if gap is None else f"{self.reason}; expected to fail: {gap}"

    @property
    def missed(self) -> bool:
        """Whether the run was interrupted before any of this was measured."""
        return self.verdict == "error" and self.reason == MISSED

    @property
    def statement(self) -> str:
        """What is claimed, with the header of the block that it stands in."""
        return f"{self.block}: {self.text}" if self.block else self.text

    def to_json(self) -> dict[str, Any]:
        """The claim as a report has it: reasons are ASCII, and `reason_shown` has one as people read it."""
        body: dict[str, Any] = plain(self) | {"outcome": self.outcome}
        for one in (body, *body["members"]):
            shown, one["reason"] = one["reason"], ascii_reason(one["reason"])
            if shown != one["reason"]:
                one["reason_shown"] = shown
        return body


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task of a report.

    Attributes:
        answers, distractors: the first few different tokens that are scored.
        chat_sha256: of the chat template that wrote the prompts; "" where none did.
        instead: the prompt file that took the place of the spec's prompts; "" where none did.
        notes: warnings about the task's prompts.
    """

    name: str
    corrupt: str
    prompts: int
    seed: int
    sha256: str
    metric: str
    clean: float | None
    corrupt_value: float | None
    accuracy: float | None
    bos: bool = False
    repeats: int = 0
    answers: tuple[Token, ...] = ()
    distractors: tuple[Token, ...] = ()
    chat_sha256: str = ""
    instead: str = ""
    notes: tuple[str, ...] = ()

    @property
    def other_prompts(self) -> str:
        """Says that the prompts are not those of the spec; empty where they are."""
        return f"measured on the prompts of {self.instead}, instead of the spec's own" if self.instead else ""


@dataclass(frozen=True, slots=True)
class SpecInfo:
    """The spec of a report: `sha256` is of its text, `meaning` of what it says, whatever its layout and comments."""

    path: str
    circuit: str
    sha256: str
    meaning: str = ""

    def says_what(self, circuit: Circuit) -> bool:
        """Whether the spec says what a circuit's does now; true where that is not known."""
        if self.meaning and circuit.meaning:
            return self.meaning == circuit.meaning
        return not (self.sha256 and circuit.sha256) or self.sha256 == circuit.sha256


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model of a report.

    Attributes:
        sha256, config_sha256, tokenizer_sha256: of the files that were read: of the weights, the configuration and the
            tokenizer. That of several files is of the list of their digests, as `sha256sum` writes it. It is "" where
            no file was read.
    """

    name: str
    sha256: str
    n_layers: int
    n_heads: int
    device: str
    dtype: str
    bos: bool
    config_sha256: str = ""
    tokenizer_sha256: str = ""

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes of its files by what they are of."""
        return {"weights": self.sha256, "config": self.config_sha256, "tokenizer": self.tokenizer_sha256}


def counted(n: int, verdict: str) -> str:
    """`1 holds`, `25 hold`, `2 errors`"""
    plurals = {"holds": "hold", "fails": "fail", "error": "errors", "unexpected": "unexpectedly hold"}
    return f"{n} {spoken(verdict) if n == 1 else plurals.get(verdict, verdict)}"


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
    #: the version of this package that made it
    circuitdsl: str = __version__
    #: what verdicts are about: `prompts` from the same templates, or from other `templates` (n then counts templates)
    generalise: str = "prompts"
    #: the numbers on every prompt, where they were asked for
    behind: Behind | None = None

    @property
    def summary(self) -> dict[str, int]:
        """How often each outcome was reached; those of claims that are expected to fail only where there are any."""
        found = Counter(claim.outcome for claim in self.claims)
        return {outcome: found[outcome] for outcome in OUTCOMES if outcome in VERDICTS or found[outcome]}

    @property
    def reached(self) -> tuple[ClaimResult, ...]:
        """The claims without those that were not measured because the run was interrupted."""
        return tuple(claim for claim in self.claims if not claim.missed)

    def counts(self) -> list[tuple[str, str]]:
        """How often each outcome was reached, in words; then, as `interrupted`, how many claims were not measured."""
        found = Counter(claim.outcome for claim in self.reached)
        words: list[tuple[str, str]] = [(each, counted(found[each], each)) for each in OUTCOMES if found[each]]
        if self.interrupted:
            missing = len(self.claims) - len(self.reached)
            words.append(("interrupted", f"{missing} not measured (interrupted)" if missing else "interrupted"))
        return words

    def exit_status(self, allow_undecided: bool = False) -> int:
        """0 every claim holds; 1 some fail (or are undecided); 3 some could not be measured and none fails.

        A claim that is expected to fail counts the other way round.
        """
        return exit_status([self], allow_undecided)

    def __str__(self) -> str:
        """One line for the whole report, and one for each claim with its figure, interval and verdict."""
        from circuitdsl.report.numbers import figure, interval

        lines = [self._headline()]
        for claim in self.claims:
            found = claim.measured
            where = f" ({claim.task})" if len(self.tasks) > 1 else ""
            said = f"{figure(found)} {interval(found)}".rstrip() if found else "not measured"
            lines.append(f"{claim.line:>4}  {claim.statement}{where}  {said}  {claim.spoken}")
        return "\n".join(lines)

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
        return Reports([self]).to_frame()

    def to_json(self) -> dict[str, Any]:
        """The report as schema version 1 has it."""
        body: dict[str, Any] = plain(replace(self, claims=()))
        body["claims"] = [claim.to_json() for claim in self.claims]
        if self.behind is None:
            del body["behind"]
        return {"schema": SCHEMA, "circuitdsl": self.circuitdsl, **body, "summary": self.summary}

    @classmethod
    def from_json(cls, given: str | bytes | dict[str, Any]) -> Report:
        """The report that `to_json` gives: as a text, or as `json.loads` has read it.

        Raises:
            UsageError: it is no report, or holds those of several circuits (`Reports.from_json` reads these).
        """
        found = Reports.from_json(given)
        if len(found) > 1:
            raise UsageError(f"these are {len(found)} reports, not one", hint="read them with Reports.from_json")
        return found[0]


class Reports(tuple[Report, ...]):
    """The reports of several circuits, in the order of their file."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return "\n<hr>\n".join(report._repr_html_() for report in self)

    def to_frame(self) -> Any:
        """As `Report.to_frame`, of all of them together."""
        from circuitdsl.report.notebook import frame, rows

        return frame([row for report in self for row in rows(report)])

    def to_json(self) -> dict[str, Any] | list[dict[str, Any]]:
        """One report as an object, several as a list."""
        found = [report.to_json() for report in self]
        return found[0] if len(found) == 1 else found

    @classmethod
    def from_json(cls, given: Any, name: str = "this") -> Reports:
        """The reports that `to_json` gives, as a text or as `json.loads` has read it.

        Args:
            name: what messages call it, such as the path of its file.

        Raises:
            UsageError: it holds something else.
        """
        try:
            made = json.loads(given) if isinstance(given, str | bytes) else given
            bodies = made if isinstance(made, list) else [made]
            for body in bodies:
                if isinstance(body, dict) and body.get("schema") != SCHEMA:
                    raise ValueError(f"schema {body.get('schema')!r}, this version reads schema {SCHEMA}")
            found = [read(Report, body) for body in bodies]
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name} is not a report: {error}", hint=_HOW) from None
        if not found:
            raise UsageError(f"{name} holds no report", hint=_HOW)
        return cls(found)


#: bytes of a file of reports at the most
BYTES = 256 * 10**6
_HOW = "make one with: circuitdsl verify SPEC --format json -o report.json"


def read_reports(path: Path) -> Reports:
    """The reports in a file that `verify --format json` wrote.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        content = read_named(path, BYTES)
        if len(content) > BYTES:
            raise Unreadable(f"it has more than {BYTES / 1e6:.0f} MB")
    except Unreadable as reason:
        raise UsageError(f"cannot read the report {quoted(str(path))}: {reason}") from None
    return Reports.from_json(content, str(path))


def exit_status(reports: Iterable[Report], allow_undecided: bool = False) -> int:
    """Exit status of several reports together. It is never 0 when a run was interrupted."""
    reports = list(reports)
    found = {claim.outcome for report in reports for claim in report.claims}
    return status_of(found, allow_undecided, any(report.interrupted for report in reports))


def as_text(found: Reports | Diff | Prompts, view: View | None = None) -> str:
    """Reports, a comparison of them, or a task's prompts, as the text of their JSON; with all numbers on one line."""
    long = isinstance(found, Reports) and any(report.behind for report in found)
    return json_text(found.to_json(), indent=None if long else 1, allow_nan=False) + "\n"


def ascii_reason(reason: str) -> str:
    """The reason in plain ASCII, as the JSON report has it: `effect -43% [-47%, -39%] is below -20%`."""
    spelled = re.sub(r" % \[([^],]+), ([^],]+)\]", r" % [\1 %, \2 %]", reason)
    return spelled.replace("\N{MINUS SIGN}", "-").replace(" %", "%").replace("\N{INFINITY}", "inf")
