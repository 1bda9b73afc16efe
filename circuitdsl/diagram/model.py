"""What a diagram shows, before anything is placed: boxes of nodes and arrows between them, plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.nodes import Node
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, MemberResult
from circuitdsl.verdicts import Outcome, spoken

BoxKind = Literal["group", "node", "embed", "logits"]
Tone = Literal[Outcome, "unmeasured", "q", "k", "v", "several", "in"]


@dataclass(frozen=True, slots=True)
class Box:
    """A group, or a node that stands alone. `key` is unique in the drawing.

    `shared` says which of its nodes later groups hold as well, and are not drawn again for these; `labels` what its
    features are called; `again` in what share of resamples each of its nodes is found, where that is known.
    """

    key: str
    kind: BoxKind
    nodes: tuple[Node, ...]
    positions: tuple[str, ...] = ()
    role: str | None = None
    outside: bool = False
    shared: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    again: tuple[float | None, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Its role, where that is not its name, what it shares, labels, and how often its nodes are found again."""
        role = (self.role,) if self.role and self.role != self.key else ()
        known = [share for share in self.again if share is not None]
        ends = dict.fromkeys(percent(share, sign=False) for share in (min(known), max(known))) if known else ()
        return (*role, *self.shared, *self.labels, *((f"found in {' to '.join(ends)} %",) if ends else ()))

    @property
    def title(self) -> str:
        return self.key if self.kind == "group" else str(self.nodes[0])

    @property
    def place(self) -> str:
        """Where its nodes act, as the spec writes it."""
        return f"at {', '.join(self.positions)}" if self.positions else ""

    @property
    def layers(self) -> tuple[float, float]:
        """The lowest and the highest layer of its nodes; `embed` lies below all, `logits` above all."""
        ends = {"embed": -1.0, "logits": float("inf")}
        found = [ends.get(node.kind, float(node.known_after)) for node in self.nodes]
        return min(found), max(found)


@dataclass(frozen=True, slots=True)
class End:
    """One end of an arrow: a box, or one node of it. `but` says which part of the box is meant, if not all."""

    box: str
    node: Node | None = None
    but: str = ""

    def __str__(self) -> str:
        return str(self.node) if self.node else f"{self.box} {self.but}".rstrip()


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of an arrow in words: with its task where a report has several, with its test where claims disagree."""

    words: str
    verdict: Outcome


@dataclass(frozen=True, slots=True)
class Finding:
    """What the report says of an arrow: its worst verdict, over claims and tasks, and the figures of all of these."""

    verdict: Outcome
    effect: float | None = None
    figures: tuple[Figure, ...] = ()
    reasons: tuple[str, ...] = ()
    members: tuple[MemberResult, ...] = ()

    @property
    def mixed(self) -> bool:
        """Whether claims or tasks disagree."""
        return len({figure.verdict for figure in self.figures}) > 1

    @property
    def shown(self) -> str:
        """All figures on one line."""
        said = (f"{f.words} {spoken(f.verdict)}".lstrip() if self.mixed else f.words for f in self.figures)
        return ", ".join(words for words in said if words)


@dataclass(frozen=True, slots=True)
class Arrow:
    """A claimed edge between two boxes or nodes; several claims about the same edge are one arrow.

    Attributes:
        joint: the edge of which this is one part of several that are patched together, and have one figure.
        quiet: another part of it says that figure.
        again: the share of resamples that finds its edges, if that is known.
        path: what the drawing calls the path of which this is one arrow; empty for an edge.
        step: which arrow of it this is, and how many there are.
    """

    sender: End
    receiver: End
    ports: tuple[str, ...]
    tone: Tone
    note: str = ""
    negligible: bool = False
    outside: bool = False
    claims: tuple[Claim, ...] = ()
    finding: Finding | None = None
    joint: str = ""
    quiet: bool = False
    again: float | None = None
    path: str = ""
    step: tuple[int, int] = (1, 1)

    @property
    def port(self) -> str:
        """The receiver inputs in one word; empty where a node has only one."""
        return " ".join(port for port in self.ports if port != "in")

    @property
    def label(self) -> str:
        """All words of the label, in reading order."""
        number = self.finding.shown if self.finding and self.ends else ""
        return self.note if self.quiet else "  ".join(part for part in (self.port, number, self.note) if part)

    @property
    def ends(self) -> bool:
        """Whether it is an edge, or the arrow with which a path ends: a path has one figure."""
        return self.step[0] == self.step[1]

    @property
    def within(self) -> bool:
        return self.sender.box == self.receiver.box


@dataclass(frozen=True)
class Drawing:
    """Everything that a diagram shows.

    Attributes:
        claims: every claim on every task, drawn or not, as the report has it, or as the spec has it where that says
            nothing about it.
        full: the effect drawn at full width, where a report is given.
    """

    name: str
    title: str
    facts: tuple[str, ...]
    sources: tuple[str, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    claims: tuple[Claim | ClaimResult, ...] = ()
    reported: bool = False
    full: float = 1.0

    @cached_property
    def box(self) -> Mapping[str, Box]:
        return {box.key: box for box in self.boxes}

    @property
    def results(self) -> list[ClaimResult]:
        return [claim for claim in self.claims if isinstance(claim, ClaimResult)]

    @property
    def several_tasks(self) -> bool:
        return len({result.task for result in self.results if result.task}) > 1

    @property
    def again(self) -> bool:
        """Whether it is known of some part in what share of resamples it is found."""
        shares = (*(arrow.again for arrow in self.arrows), *(share for box in self.boxes for share in box.again))
        return any(share is not None for share in shares)

    def width(self, arrow: Arrow) -> float:
        """Line width: by effect where there is one, else the same for all."""
        if arrow.finding is None or arrow.finding.effect is None:
            return 1.8
        return scaled(abs(arrow.finding.effect) / self.full)


def scaled(share: float) -> float:
    """Line width for a share of the full effect."""
    return 1.2 + 5.8 * min(max(share, 0.0), 1.0)
