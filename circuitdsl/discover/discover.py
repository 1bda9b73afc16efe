"""`discover` in a session: the prompts of a task, some of them held back, and the draft of a search on the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from circuitdsl.api import as_task, loads
from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.discover.asked import ARGUMENT, beside, circuit_of, name_of, opening, refuse_jumps
from circuitdsl.discover.discovery import Discovery
from circuitdsl.discover.drafting import CLAIMS, Check, Drafting, Search
from circuitdsl.discover.feature_search import features_named
from circuitdsl.discover.given import Given, given_by
from circuitdsl.discover.watch import Budget, budget_of, watched
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UsageError, UserError
from circuitdsl.report.report import Report
from circuitdsl.tasks.dataset import Dataset
from circuitdsl.verify import verify as verification
from circuitdsl.verify.prompts import make_data, scored_prompts
from circuitdsl.verify.session import Session

#: prompts that a draft is checked on, at most
CHECKED = 256
#: a prompt file with fewer prompts is not split: half of them would decide little
FEWEST = 64


def drafted(
    session: Session,
    task: str = "",
    metric: str = "logit_diff",
    prompts: int = 96,
    seed: int = 0,
    threshold: float = 0.02,
    budget: Budget | float | str | None = None,
    name: str | None = None,
    target: Path | None = None,
    resamples: int = 0,
    claims: int = CLAIMS,
    start: str | Path | None = None,
    features: Sequence[str] = (),
) -> Discovery:
    """Search the session's model (by default `pocket`) for its circuit of a task, and draft a spec.

    Args:
        task, metric: as in a spec: `ioi`, `ioi(corrupt = flip)`; the task may be the path of a prompt file.
        prompts, seed: of the search; the draft is checked on others.
        threshold: the smallest effect of interest, as a share of the gap.
        budget: after which the search stops: seconds, `5m`, or `2e6 blocks`.
        name: the circuit's; by default the task's, or that of its prompt file.
        target: where the draft will lie; from there it names a prompt file.
        resamples: bootstrap resamples of the prompts, within strata, on which everything is searched again; the draft
            then says in which share of them each node and edge is found, and whether other circuits do as much.
        claims: of the draft, at most, but for what every group needs.
        features: names of dictionaries, or of sets of them: the draft says what their features do as well.
        start: a spec whose groups and claims are kept, instead of a task; what is missing is added.

    Raises:
        UsageError: the task or an option of it does not exist, or the metric has no gradients.
        UserError: a prompt file, a spec or the model cannot be read, or the model does not do the task.
    """
    named = features_named(features) if features else None
    settings, limit = Search(threshold, prompts, claims, resamples, named), budget_of(budget)
    if start is None:
        asked = _of_task(session, as_task(task), metric, prompts, seed, name, target)
        asked = replace(asked, opening=(*asked.opening, *(named.lines(target) if named else ())))
    else:
        asked = _of_spec(session, start, prompts, seed)
    with watched(session, "searching", limit) as watch:
        check, seen = asked.check(session), asked.check(session, asked.searched)
        check = check if asked.held else seen
        found = Drafting(asked.searched, asked.opening, check, seen, watch, settings, asked.given).discover()
        return replace(found, notes=asked.notes, seconds=watch.seconds)


@dataclass(frozen=True)
class Asked:
    """What is searched.

    Attributes:
        task: its name in the spec.
        searched, held: the prompts to search on, and those to check on; None where there are too few.
        opening: the lines that open the spec.
        path: where the spec lies, or will.
        notes: how the prompts of a file were divided.
    """

    task: str
    searched: Prompts
    held: Prompts | None
    opening: tuple[str, ...]
    path: str
    notes: tuple[str, ...] = ()
    given: Given = field(default_factory=Given)

    def check(self, session: Session, prompts: Prompts | None = None) -> Check:
        """What verifies a text on some prompts, by default on those that were held back."""
        own = {self.task: prompts or self.held or self.searched}

        def verified(text: str) -> Report:
            found = loads(text, self.path, allow_outside=True)
            assert found.ok, found.problems
            circuit = found.circuits[0]
            others = replace(circuit, tasks=tuple(use for use in circuit.tasks if use.name not in own))
            by_task = session.prompts_by_task(others) | own if others.tasks else own
            report = verification.verify(circuit, session.model_of(circuit), by_task)
            if report.interrupted:  # half a check would take lines out that hold
                raise KeyboardInterrupt
            return report

        return verified


def _of_task(
    session: Session, task: str, metric: str, prompts: int, seed: int, name: str | None, target: Path | None
) -> Asked:
    """The prompts of a task, and how its spec opens."""
    refuse_jumps(metric, "a search for a circuit")
    called, path = name or name_of(task), ARGUMENT
    said = f"drafted by a search on {prompts} prompts of seed {seed}"
    opens = partial(opening, session.name or "pocket", called, metric)
    asked = partial(opens, notes=(said, "its bounds lie well inside what was measured there"))
    circuit = circuit_of(asked(task, prompts, seed))
    file = circuit.tasks[0].file
    if target is not None and file is not None:
        path, task = str(target), task.replace(f'"{file}"', f'"{beside(target, file)}"')
        circuit = circuit_of(asked(task, prompts, seed), path)
    use = circuit.tasks[0]
    if use.file is None:
        checked = circuit_of(asked(task, CHECKED, seed + 1), path)
        searched, held = (session.prompts_of(each, each.tasks[0]) for each in (circuit, checked))
        return Asked(use.name, searched, held, tuple(asked(task, CHECKED, seed + 2)), path)
    searched, of_file, notes = _of_file(session, circuit, use, prompts)
    many = len((of_file or searched).pairs)
    return Asked(use.name, searched, of_file, tuple(opens(task, many, searched.data.seed, notes)), path, notes)


def _of_file(
    session: Session, circuit: Circuit, use: TaskUse, prompts: int
) -> tuple[Prompts, Prompts | None, tuple[str, ...]]:
    """The prompts of a file to search on, those held back, and what is said of both."""
    model = session.model_of(circuit)
    whole = make_data(circuit, replace(use, prompts=sys.maxsize), model)
    data, held, notes = split(whole, prompts)

    def made(some: Dataset) -> Prompts:
        more = lambda: whole.pairs  # noqa: E731
        return scored_prompts(model, some, circuit.metric, more=more, store=session.store, max_memory=session.memory)

    return made(data), made(replace(whole, pairs=whole.pairs[:held])) if held else None, notes


def _of_spec(session: Session, start: str | Path, prompts: int, seed: int) -> Asked:
    """What a person has written, with prompts of its first task."""
    spec = session.spec(start)
    if len(spec.circuits) > 1:
        raise UsageError(f"{start} has several circuits", hint="search from a file of one")
    (circuit,) = spec.circuits
    if not circuit.tasks:
        raise UserError(f"{start} has no task to search on", hint="write one: task ioi")
    use, given = circuit.tasks[0], given_by(circuit, spec.text)
    refuse_jumps(str(circuit.metric), "a search for a circuit")
    if use.file is None:
        uses = replace(use, prompts=prompts, seed=seed), replace(use, prompts=CHECKED, seed=seed + 1)
        searched, held = (session.prompts_of(circuit, each) for each in uses)
        notes: tuple[str, ...] = ()
    else:
        searched, of_file, notes = _of_file(session, circuit, use, prompts)
        return Asked(use.name, searched, of_file, tuple(spec.text.splitlines()), circuit.path, notes, given)
    return Asked(use.name, searched, held, tuple(spec.text.splitlines()), circuit.path, notes, given)


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
