"""Discovery in a session: the task's prompts are made, searched, and the draft is checked on others."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from circuitdsl.api import check_prompt_files, loads
from circuitdsl.discover.discover import Discovery, discover
from circuitdsl.discover.held_out import parts
from circuitdsl.discover.search import Search
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UsageError
from circuitdsl.report.report import Report
from circuitdsl.verify import verify as verification
from circuitdsl.verify.prompts import make_data, scored_prompts
from circuitdsl.verify.session import Session

#: prompts that a draft is checked on, at most
CHECKED = 256
#: what a draft that has no file yet is read under
_ARGUMENT = "--task"
#: a claim, without which nothing can be checked
_ANYTHING = "expect accuracy >= 0%\n"


@dataclass(frozen=True, slots=True)
class Opening:
    """The lines that open a draft. `task` may have options, as in a spec; `name` is the circuit's."""

    model: str
    task: str
    metric: str
    name: str
    notes: tuple[str, ...]

    def lines(self, prompts: int, seed: int) -> list[str]:
        """The lines, on so many prompts of a seed."""
        name, _, options = self.task.partition("(")
        inside = options.rstrip().removesuffix(")").strip()
        asked = ", ".join([*([inside] if inside else []), f"prompts = {prompts}", f"seed = {seed}"])
        return [
            f'circuit {self.name} "{self.name}, {self.model.rstrip("/").rpartition("/")[2]}"',
            *(f'  note "{note}"' for note in self.notes),
            "",
            f'model "{self.model}"',
            f"task {name.strip()}({asked})",
            f"metric {self.metric}",
        ]


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
        task, metric: as in a spec: `ioi`, `ioi(corrupt = flip)`.
        prompts, seed: of the search; the draft is checked on others.
        threshold: the smallest effect of interest, as a share of the gap.
        depth: stages back from the logits.
        budget: seconds after which the search stops.
        name: the circuit's; by default the task's.
        target: where the draft will lie; from there it names a prompt file.

    Raises:
        UsageError: the task or an option of it does not exist.
        UserError: a prompt file or the model cannot be read, or the model does not do the task.
    """
    start = time.monotonic()
    said = f"drafted by a search on {prompts} prompts of seed {seed}"
    notes = said, "its bounds lie well inside what was measured there"
    called = name or task.partition("(")[0].strip()
    opening, path = Opening(session.name or "pocket", task, metric, called, notes), _ARGUMENT
    spec = loads("\n".join([*opening.lines(prompts, seed), _ANYTHING]), path)
    check_prompt_files(spec)
    file = next((use.file for circuit in spec.circuits for use in circuit.tasks if use.file), None)
    if target is not None and file is not None:
        path = str(target)
        opening = replace(opening, task=task.replace(f'"{file}"', f'"{_beside(target, file)}"'))
        spec = loads("\n".join([*opening.lines(prompts, seed), _ANYTHING]), path)
    wrong = [d.message for d in spec.diagnostics if d.severity == "error"]
    if wrong:
        raise UsageError(wrong[0], hint="write the task as in a spec: --task 'ioi(corrupt = abc)'")
    circuit = spec.circuits[0]
    use = circuit.tasks[0]

    def check(text: str, by_task: dict[str, Prompts] | None = None) -> Report:
        """Verify a text; on its own prompts, unless others are given."""
        found = loads(text, path)
        assert found.ok, found.problems
        one = found.circuits[0]
        with session.busy("checking what was found"):
            return verification.verify(one, session.model_of(one), by_task or session.prompts_by_task(one))

    model = session.model_of(circuit)
    if use.file is None:
        split, searched = None, session.prompts_of(circuit, use)
    else:
        split = parts(make_data(circuit, replace(use, prompts=sys.maxsize), model), prompts, CHECKED)
        opening = replace(opening, notes=split.notes)
        searched = scored_prompts(model, split.searched, circuit.metric, store=session.store, max_memory=session.memory)

    def head(number: int) -> list[str]:
        if split is None:
            return opening.lines(CHECKED, number)
        return opening.lines(split.checked or len(split.searched.pairs), split.seed)

    def seen(text: str) -> Report:
        return check(text, {use.name: searched})

    with session.busy("searching") as spinner:

        def progress(edges: int, what: str) -> bool:
            if spinner:
                spinner.update(f"{what} ({edges} edges so far)")
            return budget is None or time.monotonic() - start < budget

        checked = seen if split and not split.checked else check
        settings = Search(threshold, prompts, depth)
        found = discover(searched, head, checked, settings, progress, seen if split else None)
    return replace(found, notes=split.notes if split else (), seconds=time.monotonic() - start)


def _beside(spec: Path, file: str) -> str:
    """What a spec calls a file that is named from the current folder: the way to it from the spec's own folder."""
    named = Path(file)
    if named.is_absolute():
        return file
    where = named.parent.resolve() / named.name
    return Path(os.path.relpath(where, spec.parent.resolve())).as_posix()
