"""Discovery from end to end: search, draft, and a check of the draft on prompts that the search has not seen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from circuitdsl.api import as_task, loads
from circuitdsl.discover.asked import ARGUMENT, circuit_of, name_of, opening, refuse_undone
from circuitdsl.discover.complete import Complete, completed
from circuitdsl.discover.draft import Draft, Named, draft, named
from circuitdsl.discover.roles import Placed, remaining, roles_of
from circuitdsl.discover.search import END, Found, Progress, Search, search
from circuitdsl.engine.prompts import Prompts
from circuitdsl.language.format import format_text
from circuitdsl.report.report import ClaimResult, Report
from circuitdsl.report.shown import Shown
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify import verify as verification
from circuitdsl.verify.prompts import make_data, scored_prompts
from circuitdsl.verify.session import Session

#: prompts that a draft is checked on, at most
CHECKED = 256
#: a prompt file with fewer prompts is not split: half of them would decide little
FEWEST = 64
#: verifies a text
Check = Callable[[str], Report]


@dataclass(frozen=True, slots=True)
class Discovery(Shown):
    """A draft spec with where it comes from.

    Attributes:
        draft: the spec in parts.
        found: what the search found.
        dropped: lines of the first draft that did not hold on other prompts.
        complete: how much of the behaviour its circuit has; None where it has no head, or that could not be measured.
        notes: how the prompts of a file were divided.
        seconds: how long all of it took.
    """

    draft: Draft
    found: Found
    dropped: tuple[str, ...]
    complete: Complete | None = None
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
            *([str(self.complete)] if self.complete else []),
            *(f"dropped, not clear on other prompts: {line}" for line in self.dropped),
            *self.notes[:1],
        )

    def to_json(self) -> dict[str, Any]:
        """The draft's text, and what the search took."""
        counts = {"edges": self.found.edges, "complete": self.found.complete, "seconds": self.seconds}
        alone = asdict(self.complete) if self.complete else None
        return {"spec": self.text, **counts, "alone": alone, "dropped": list(self.dropped), "notes": list(self.notes)}

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
    refuse_undone(prompts)
    settings = settings or Search()
    found, seed = search(prompts, settings, progress), prompts.data.seed
    senders = (sending.group for sending in found.sendings if sending.group.kind == "head")
    heads = dict.fromkeys((node, group.position) for group in senders for node in group.nodes)
    positions = {END.name} | {name for pair in prompts.pairs for name in pair.positions}
    roles = roles_of(heads, positions, head(seed), seen or check)
    made, dropped = _settled(prompts, found, roles, settings, head(seed + 1), check)

    def where_found(text: str) -> Report:
        return (seen or check)(text.replace("\n".join(made.head), "\n".join(head(seed)), 1))

    made, complete = completed(made, str(prompts.metric), where_found, check)
    where = "on the prompts on which it was found" if check is seen else "on prompts held back"
    opening = _with_note(head(seed + 2), [f"{where}, {complete}"] if complete else [])
    return Discovery(replace(made, head=opening), found, dropped, complete)


def _with_note(head: list[str], said: list[str]) -> tuple[str, ...]:
    """The lines that open a spec, with more notes after the others."""
    last = max((i for i, line in enumerate(head) if line.startswith("  note")), default=0)
    return (*head[: last + 1], *(f'  note "{text}"' for text in said), *head[last + 1 :])


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
        lost = {placed for group in groups if (claim := bad.get(group.claim)) for placed in _failing(group, claim)}
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


# --- in a session -----------------------------------------------------------------------------------


def drafted(
    session: Session,
    task: str,
    metric: str = "logit_diff",
    prompts: int = 96,
    seed: int = 0,
    threshold: float = 0.02,
    depth: int = 6,
    budget: float | None = None,
    name: str | None = None,
    target: Path | None = None,
) -> Discovery:
    """Search the session's model (by default `pocket`) for its circuit of a task, and draft a spec.

    Args:
        task, metric: as in a spec: `ioi`, `ioi(corrupt = flip)`; the task may be the path of a prompt file.
        prompts, seed: of the search; the draft is checked on others.
        threshold: the smallest effect of interest, as a share of the gap.
        depth: stages back from the logits.
        budget: seconds after which the search stops.
        name: the circuit's; by default the task's, or that of its prompt file.
        target: where the draft will lie; from there it names a prompt file.

    Raises:
        UsageError: the task or an option of it does not exist.
        UserError: a prompt file or the model cannot be read, or the model does not do the task.
    """
    start, task = time.monotonic(), as_task(task)
    called, path = name or name_of(task), ARGUMENT
    said = f"drafted by a search on {prompts} prompts of seed {seed}"
    opens = partial(opening, session.name or "pocket", called, metric)
    asked = partial(opens, notes=(said, "its bounds lie well inside what was measured there"))
    circuit = circuit_of(asked(task, prompts, seed))
    file = circuit.tasks[0].file
    if target is not None and file is not None:
        path, task = str(target), task.replace(f'"{file}"', f'"{beside(target, file)}"')
        circuit = circuit_of(asked(task, prompts, seed), path)
    use, model = circuit.tasks[0], session.model_of(circuit)

    def check(text: str, by_task: dict[str, Prompts] | None = None) -> Report:
        """Verify a text; on its own prompts, unless others are given."""
        found = loads(text, path, allow_outside=True)
        assert found.ok, found.problems
        one = found.circuits[0]
        with session.busy("checking what was found"):
            report = verification.verify(one, session.model_of(one), by_task or session.prompts_by_task(one))
        if report.interrupted:  # half a check would take lines out that hold
            raise KeyboardInterrupt
        return report

    of_file, held, notes = use.file is not None, 0, tuple[str, ...]()
    if of_file:
        whole = make_data(circuit, replace(use, prompts=sys.maxsize), model)
        data, held, notes = split(whole, prompts)
        searched = scored_prompts(model, data, circuit.metric, store=session.store, max_memory=session.memory)
    else:
        searched = session.prompts_of(circuit, use)

    def head(number: int) -> list[str]:
        if of_file:
            return opens(task, held or len(searched.pairs), searched.data.seed, notes)
        return asked(task, CHECKED, number)

    def seen(text: str) -> Report:
        return check(text, {use.name: searched})

    with session.busy("searching") as spinner:

        def progress(edges: int, what: str) -> bool:
            if spinner:
                spinner.update(f"{what} ({edges} edges so far)")
            return budget is None or time.monotonic() - start < budget

        on_others = seen if of_file and not held else check
        settings = Search(threshold, prompts, depth)
        found = discover(searched, head, on_others, settings, progress, seen if of_file else None)
    return replace(found, notes=notes, seconds=time.monotonic() - start)


def split(whole: Dataset, prompts: int, most: int = CHECKED) -> tuple[Dataset, int, tuple[str, ...]]:
    """Split the prompts of a file in two: some to check on, which come first, and the others to search on.

    Both parts have the strata in their shares, since `whole` is ordered so that every beginning of it has.

    Args:
        prompts: how many to search on, at most.
        most: how many to hold back, at most.

    Returns:
        The prompts to search on; how many are held back, which are the first of the file in the order of its seed, so
        that a spec can ask for them (0 where there are too few: the draft is checked on what was searched); and what a
        spec says of both.
    """
    total = len(whole.pairs)
    held = min(total // 2, most) if total >= FEWEST else 0
    searched = replace(whole, pairs=whole.pairs[held:][:prompts])
    found, bounds = len(searched.pairs), "its bounds lie well inside what was measured where it was found"
    notes = (
        f"found on {found} of the {total} prompts of its file, and checked on {held} others",
        f"prompts = {held}, seed = {whole.seed} are these others; another number or seed mixes them",
        bounds,
    )
    alike = (
        f"found on {found} prompts and checked on the same: its file has {total}, too few to split",
        f"{bounds}; whether it holds on others is open",
    )
    return searched, held, notes if held else alike


def beside(spec: Path, file: str) -> str:
    """What a spec calls a file that is named from the current folder: the way to it from the spec's own folder.

    An absolute path stays one where the file does not lie in that folder or below.
    """
    named, folder = Path(file), spec.parent.resolve()
    where = named.parent.resolve() / named.name
    if named.is_absolute() and not where.is_relative_to(folder):
        return file
    return Path(os.path.relpath(where, folder)).as_posix()
