"""What a search gives: a draft, where it comes from, how far it is to be trusted; as text, in lines, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from circuitdsl.circuit.nodes import Position
from circuitdsl.discover.complete import Complete
from circuitdsl.discover.draft import Draft
from circuitdsl.discover.needed import Needed
from circuitdsl.discover.search import Sending
from circuitdsl.discover.stability import Stability
from circuitdsl.language.format import format_text
from circuitdsl.report.shown import Shown

#: said of a search that was stopped
ENDED = "the budget was up before the search was through"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: the nodes of the circuit, their edges, how many edges were tried, and where it looked."""

    needed: Needed
    sendings: tuple[Sending, ...]
    edges: int
    places: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class Discovery(Shown):
    """A draft spec with where it comes from.

    Attributes:
        draft: the spec in parts.
        found: what the search found.
        dropped: lines of the first draft that did not hold on other prompts.
        complete: how much of the behaviour its circuit has; None where it has no head, or that could not be measured.
        stability: how often its parts are found again, if that was asked for.
        shares: for each line of the draft, the share in which its edges are found again.
        ended: whether the budget was up before the search was through.
        notes: how the prompts of a file were divided.
        seconds: how long all of it took.
    """

    draft: Draft
    found: Found
    dropped: tuple[str, ...]
    complete: Complete | None = None
    stability: Stability | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    ended: bool = False
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The spec, laid out."""
        return format_text(self.draft.text())

    @property
    def summary(self) -> tuple[str, ...]:
        """What was found, what was dropped, and how the prompts were divided, in lines."""
        groups, claims = len([one for one in self.draft.groups if not one.given]), len(self.draft.lines)
        end = f"; {ENDED}" if self.ended else ""
        return (
            f"{groups} groups and {claims} claims from {self.found.edges} edges in {self.seconds:.0f} s{end}",
            *([str(self.complete)] if self.complete else []),
            *(said_of(self.stability) if self.stability else ()),
            *(f"dropped, not clear on other prompts: {line}" for line in self.dropped),
            *self.notes[:1],
        )

    def to_json(self) -> dict[str, Any]:
        """The draft's text, and what the search took and found."""
        counts = {"edges": self.found.edges, "complete": not self.ended, "seconds": self.seconds}
        alone = asdict(self.complete) if self.complete else None
        again = _json_of(self.stability, self.shares) if self.stability else None
        lists = {"dropped": list(self.dropped), "notes": list(self.notes)}
        return {"spec": self.text, **counts, "alone": alone, "again": again, **lists}

    def show(self, console: Console) -> None:
        """Print the draft."""
        console.print(Text(self.text), soft_wrap=True)


def said_of(found: Stability) -> tuple[str, ...]:
    """What a person should know of how stable a circuit is."""
    often = sum(share >= 0.9 for share in found.again.nodes.values())
    nodes = f"{often} nodes are found again in 90 % or more of {found.resamples} resamples of the prompts"
    if not found.tries:
        return (nodes,)
    many = len(found.others)
    others = f"{many or 'no'} other circuit{'s' * (many > 1)} as faithful, with under half of its edges,"
    smallest = f" (the smallest of {found.others[0]} nodes)" if many else ""
    were = "was" if many < 2 else "were"
    return nodes, f"{others} {were} found{smallest} in {found.tries} searches without some of its nodes"


def _json_of(found: Stability, shares: Mapping[str, float]) -> dict[str, Any]:
    others = {"others": len(found.others), "other_sizes": list(found.others), "tries": found.tries}
    return {"resamples": found.resamples, **found.again.to_json(), "claims": dict(shares), **others}
