"""Discovery from end to end: search, draft, and a check of the draft on prompts that the search has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from circuitdsl.discover.draft import Draft, draft, role_line
from circuitdsl.discover.groups import Named, named
from circuitdsl.discover.places import END
from circuitdsl.discover.roles import Placed, remaining, roles_of
from circuitdsl.discover.search import Found, Progress, Search, search
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UserError
from circuitdsl.language.format import format_text
from circuitdsl.report.report import ClaimResult, Report
from circuitdsl.report.shown import Shown
from circuitdsl.verdict.means import mean

#: verifies a text
Check = Callable[[str], Report]


@dataclass(frozen=True, slots=True)
class Discovery(Shown):
    """A draft spec with where it comes from.

    Attributes:
        draft: the spec in parts.
        found: what the search found.
        dropped: lines of the first draft that did not hold on other prompts.
        notes: how the prompts of a file were divided.
        seconds: how long all of it took.
    """

    draft: Draft
    found: Found
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The spec, laid out."""
        return format_text(self.draft.text())

    @property
    def summary(self) -> tuple[str, ...]:
        """What was found, what was dropped, and how the prompts were divided, in lines."""
        groups, claims = len(self.draft.groups), len(self.draft.claims) + len(self.draft.expectations)
        end = "" if self.found.complete else "; the time was up before the search was through"
        return (
            f"{groups} groups and {claims} claims from {self.found.edges} edges in {self.seconds:.0f} s{end}",
            *(f"dropped, not clear on other prompts: {line}" for line in self.dropped),
            *self.notes[:1],
        )

    def to_json(self) -> dict[str, Any]:
        """The draft's text, and what the search took."""
        counts = {"edges": self.found.edges, "complete": self.found.complete, "seconds": self.seconds}
        return {"spec": self.text, **counts, "dropped": list(self.dropped), "notes": list(self.notes)}

    def show(self, console: Console) -> None:
        """Print the draft."""
        console.print(Text(self.text), soft_wrap=True)


def discover(
    prompts: Prompts,
    head: Callable[[int], list[str]],
    check: Check,
    settings: Search | None = None,
    progress: Progress | None = None,
    seen: Check | None = None,
) -> Discovery:
    """Search for a circuit, ask which roles its heads play, and write it down.

    Args:
        prompts: the task's prompts on the model.
        head: the lines that open the spec, for prompts of a seed.
        check: verifies a text; lines that do not hold on prompts of the next seed are taken out.
        progress: called during the search; returns whether to go on.
        seen: verifies a text on prompts that the search has seen, where the head of their seed does not give these.

    Raises:
        UserError: the model does not do the task, so that there is nothing to search for.
    """
    settings = settings or Search()
    _check_gap(prompts)
    found = search(prompts, settings, progress)
    seed = prompts.data.seed
    senders = (sending.group for sending in found.sendings if sending.group.kind == "head")
    heads = dict.fromkeys((node, group.position) for group in senders for node in group.nodes)
    positions = {END.name} | {name for pair in prompts.pairs for name in pair.positions}
    roles = roles_of(heads, positions, head(seed), seen or check)
    made, dropped = _settled(prompts, found, roles, settings, head(seed + 1), check)
    return Discovery(replace(made, head=tuple(head(seed + 2))), found, dropped)


def _check_gap(prompts: Prompts) -> None:
    gap = mean(prompts.clean - prompts.corrupt, prompts.strata)
    if not float(gap.above(0.0)) < 0.001:
        clean, corrupt = float(prompts.clean.mean()), float(prompts.corrupt.mean())
        raise UserError(
            f"{prompts.model.name} does not do this task: its {prompts.metric} is {clean:.2f} clean and {corrupt:.2f} "
            "corrupt, and effects are shares of that gap",
            hint="try another task, corruption or metric",
        )


def _settled(
    prompts: Prompts, found: Found, roles: Mapping[Placed, str], settings: Search, head: list[str], check: Check
) -> tuple[Draft, tuple[str, ...]]:
    """A draft all of whose lines hold on the prompts of its head, and the lines that were taken out for it.

    Heads that do not pass their role's checks there lose it; that makes other groups, and so another draft.
    """
    groups = named((sending.group for sending in found.sendings), roles)
    made = draft(prompts, found, groups, settings, head)
    dropped: list[str] = []
    while bad := _not_holding(made, check):
        lost = {placed for group in groups if (claim := bad.get(role_line(group))) for placed in _failing(group, claim)}
        if lost:
            return _settled(prompts, found, remaining(roles, lost), settings, head, check)
        dropped += bad
        made = made.without(set(bad))
    return made, tuple(dropped)


def _failing(group: Named, claim: ClaimResult) -> list[Placed]:
    """The heads of a group that do not pass their role's checks; all of them where these could not be measured."""
    failing = {member.sender for member in claim.members if member.verdict != "holds"}
    nodes = group.group.nodes
    return [(node, group.group.position) for node in nodes if str(node) in failing or not failing]


def _not_holding(made: Draft, check: Check) -> dict[str, ClaimResult]:
    """The lines that do not hold, with their claims, which have the line's text, blanks apart."""
    lines = {"".join(line.split()): line for line in (*made.claims, *made.expectations)}
    claims = check(made.text()).claims
    return {lines["".join(claim.text.split())]: claim for claim in claims if claim.verdict != "holds"}
