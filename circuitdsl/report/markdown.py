"""Reports and comparisons as GitHub's and GitLab's Markdown, for the summary of a run or a comment on a change.

Every text that a spec or a report brings stands in a code span: it makes no link, picture or mention, and no tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from circuitdsl.report.diff import KINDS, SAID, Change, Diff, compare, in_words
from circuitdsl.report.formats import View
from circuitdsl.report.numbers import figure, interval
from circuitdsl.report.report import ClaimResult, Report, Reports
from circuitdsl.report.terminal import provenance
from circuitdsl.visible import line

#: rows of a table at the most: a comment on GitHub may have 65,536 characters
ROWS = 100


def reports_text(reports: Reports, view: View) -> str:
    """A summary: what changed against another report, where one is given; then what does not hold; then the rest."""
    changed = list(_diff(compare(view.against, reports))) if view.against else []
    if changed:
        changed = ["### Against the base", "", *changed]
    return "\n".join([*changed, *(each for report in reports for each in _report(report))]) + "\n"


def diff_text(diff: Diff, view: View) -> str:
    """What changed, the worst first."""
    return "\n".join(_diff(diff)) + "\n"


def cell(text: str) -> str:
    """As `code`, in a cell of a table, which a bar would end."""
    return re.sub(r"(?<=\\)\|", " |", code(text)).replace("|", "\\|")  # the blank: a backslash would escape the next


def code(text: str) -> str:
    """A text as a code span that shows it as it is; an empty text is nothing."""
    shown = line(text.replace("\n", " "))
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown[:1] == "`" or shown[-1:] == "`" else ""
    return f"{fence}{space}{shown}{space}{fence}" if shown else ""


def _report(report: Report) -> Iterator[str]:
    counts = ", ".join(words for _, words in report.counts()) or "no claims"
    yield f"### {code(report.spec.circuit)} on {code(report.model.name)}: {counts}"
    yield ""
    broken = [claim for claim in report.claims if claim.outcome != "holds"]
    holding = [claim for claim in report.claims if claim.outcome == "holds"]
    if broken:
        rows = ((*_claim(claim), f"**{claim.spoken}**", cell(claim.why)) for claim in broken)
        yield from _table(("line", "claim", "task", "found", "verdict", "reason"), rows, len(broken))
    said = [(task, note) for task in report.tasks for note in (task.other_prompts, *task.notes) if note]
    if notes := [f"- {code(task.name)}: {code(note)}" for task, note in said]:
        yield from ("", *notes)
    if holding:
        rows = (_claim(claim) for claim in holding)
        yield from ("", f"<details><summary>{len(holding)} of {len(report.claims)} hold</summary>", "")
        yield from _table(("line", "claim", "task", "found"), rows, len(holding))
        yield from ("", "</details>")
    yield ""
    yield " · ".join(map(code, provenance(report)))
    yield ""


def _claim(claim: ClaimResult) -> tuple[str, ...]:
    return str(claim.line), cell(claim.statement), cell(claim.task or ""), cell(_figure(claim))


def _figure(claim: ClaimResult | None) -> str:
    found = claim.measured if claim else None
    return f"{figure(found)} {interval(found)}".strip() if found else ""


def _diff(diff: Diff) -> Iterator[str]:
    yield f"**{in_words(diff).plain}**"
    for kind in KINDS:
        changes = [change for change in diff.changes if change.kind == kind]
        if changes and kind != "same":
            yield from ("", f"#### {SAID[kind].title.capitalize()}", "")
            yield from _table(("line", "claim", "task", "before", "now", "reason"), map(_change, changes), len(changes))
    if diff.settings:
        yield from ("", "#### Run differently", "")
        rows = ((cell(each.circuit), cell(each.what), cell(each.old), cell(each.new)) for each in diff.settings)
        yield from _table(("circuit", "what", "before", "now"), rows, len(diff.settings))
    yield ""


def _change(change: Change) -> tuple[str, ...]:
    claim = change.claim
    reason = change.new.why if change.new and change.new.outcome != "holds" else ""
    sides = (_side(change.old) or "–", _side(change.new) or "gone")
    return str(claim.line), cell(claim.statement), cell(claim.task or ""), *sides, cell(reason)


def _side(claim: ClaimResult | None) -> str:
    return f"{claim.spoken} {cell(_figure(claim))}".strip() if claim else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], count: int) -> Iterator[str]:
    """A table of the first rows, and how many there are besides."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' for _ in head)}|"
    for _, row in zip(range(ROWS), rows, strict=False):
        yield f"| {' | '.join(row)} |"
    if count > ROWS:
        yield from ("", f"and {count - ROWS} more")
