"""Discovery from end to end: search, draft, and a check of the draft on prompts that the search has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from circuitdsl.discover.draft import Draft, draft
from circuitdsl.discover.search import Found, Progress, Search, search
from circuitdsl.errors import UserError
from circuitdsl.language.format import format_text
from circuitdsl.measure.bench import Bench
from circuitdsl.report.report import Report
from circuitdsl.verdict.intervals import mean

#: checks a draft's text on prompts of this seed
Check = Callable[[str, int], Report]
#: rounds of checking and taking out at most; one is usual
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Discovery:
    """A draft spec with where it comes from.

    Attributes:
        text: the spec, laid out.
        found: what the search found.
        dropped: lines of the first draft that did not hold on other prompts.
        report: the check of the final text; None where none was made.
    """

    text: str
    found: Found
    dropped: tuple[str, ...]
    report: Report | None


def discover(
    bench: Bench,
    head: Callable[[int], list[str]],
    settings: Search | None = None,
    check: Check | None = None,
    progress: Progress | None = None,
) -> Discovery:
    """Search for a circuit and write it down.

    Args:
        bench: the task's prompts on the model.
        head: the lines that open the spec, for prompts of a seed.
        check: verifies a text on prompts of another seed; lines that do not hold there are taken out.
        progress: called during the search; returns whether to go on.

    Raises:
        UserError: the model does not do the task, so that there is nothing to search for.
    """
    settings = settings or Search()
    gap = mean(bench.clean - bench.corrupt, bench.strata)
    if not float(gap.above(0.0)) < 0.001:
        clean, corrupt = float(bench.clean.mean()), float(bench.corrupt.mean())
        raise UserError(
            f"{bench.model.name} does not do this task: its {bench.metric} is {clean:.2f} clean and {corrupt:.2f} "
            "corrupt, and effects are shares of that gap",
            hint="try another task, corruption or metric",
        )
    found = search(bench, settings, progress)
    seed = bench.data.seed
    made = draft(bench, found, settings, head(seed + 1))
    text, dropped, report = format_text(made.text()), [], None
    for _ in range(ROUNDS if check else 0):
        assert check is not None
        report = check(text, seed + 1)
        bad = {claim.text for claim in report.claims if claim.verdict != "holds"}
        if not bad:
            break
        made, gone = _without(made, bad)
        dropped += gone
        text = format_text(made.text())
    made = Draft(tuple(head(seed + 2)), made.groups, made.claims, made.expectations, made.roles)
    return Discovery(format_text(made.text()), found, tuple(dropped), report)


def _without(made: Draft, bad: set[str]) -> tuple[Draft, list[str]]:
    """Take out the lines whose claims did not hold; claims are known by their text, blanks apart."""
    known = {"".join(text.split()) for text in bad}
    gone = [line for line in (*made.claims, *made.expectations) if "".join(line.split()) in known]
    return made.without(set(gone)), gone
