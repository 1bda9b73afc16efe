"""What a search is asked about: a task of a model, said as in a spec, and the prompts that this makes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from circuitdsl.api import as_task, check_prompt_files, loads
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.engine.prompts import Prompts
from circuitdsl.errors import UsageError, UserError
from circuitdsl.language.parse import is_reserved
from circuitdsl.report.numbers import plain
from circuitdsl.verdict.means import mean
from circuitdsl.verify.session import Session

#: the name under which a draft is read that has no file yet
ARGUMENT = "--task"
#: a claim, without which nothing can be checked
_ANYTHING = "expect accuracy >= 0%\n"
#: what is said to a mistake in a line of the opening, by its first word
_HINTS = {
    "model": "circuits here are made of attention heads; a model without them (Mamba, RWKV) has none to search",
    "task": "write the task as in a spec: --task 'ioi(corrupt = abc)'",
}
#: prompts that say whether a model does a task at all
_FEW = 16


def opening(model: str, name: str, metric: str, task: str, prompts: int, seed: int, notes: Sequence[str]) -> list[str]:
    """The lines that open a draft; `task` may have options, as in a spec, and `name` is the circuit's."""
    called, _, options = task.partition("(")
    inside = options.rstrip().removesuffix(")").strip()
    asked = ", ".join([*([inside] if inside else []), f"prompts = {prompts}", f"seed = {seed}"])
    return [
        f'circuit {name} "{name}, {model.rstrip("/").rpartition("/")[2]}"',
        *(f'  note "{note}"' for note in notes),
        "",
        f'model "{model}"',
        f"task {called.strip()}({asked})",
        f"metric {metric}",
    ]


def circuit_of(lines: Sequence[str], path: str = ARGUMENT) -> Circuit:
    """The circuit that such lines open.

    Raises:
        UsageError: the task, or an option of it, does not exist.
        UserError: a prompt file cannot be read.
    """
    spec = loads("\n".join([*lines, _ANYTHING]), path, allow_outside=True)
    check_prompt_files(spec)
    wrong = [found for found in spec.diagnostics if found.severity == "error"]
    if wrong:
        word = spec.text.splitlines()[wrong[0].span.line - 1].partition(" ")[0]
        hint = _HINTS.get(word) if wrong[0].help is None else wrong[0].help
        raise UsageError(wrong[0].message, hint=hint)
    return spec.circuits[0]


def prompts_of(session: Session, task: str, metric: str, prompts: int, seed: int) -> Prompts:
    """The prompts of a task on the session's model, by default `pocket`.

    Args:
        task: as in a spec, or the path of a prompt file.

    Raises:
        UsageError: the task, or an option of it, does not exist.
        UserError: a prompt file or the model cannot be read, or the model does not do the task.
    """
    task = as_task(task)
    circuit = circuit_of(opening(session.name or "pocket", name_of(task), metric, task, prompts, seed, ()))
    found = session.prompts_of(circuit, circuit.tasks[0])
    refuse_undone(found)
    return found


def refuse_undone(prompts: Prompts) -> None:
    """Raise `UserError` where a model does not do a task, or too few prompts say so: effects are shares of the gap."""
    if prompts.falls:
        raise UserError(
            f"{prompts.metric} is better when lower: this needs a metric that rises where things go well",
            hint="take logit_diff, prob_diff or logprob",
        )
    gap = mean(prompts.clean - prompts.corrupt, prompts.strata)
    if float(gap.above(0.0)) < 0.001:
        return
    clean, corrupt, many = float(prompts.clean.mean()), float(prompts.corrupt.mean()), len(prompts.pairs)
    measured = f"its {prompts.metric} is {plain(clean)} clean and {plain(corrupt)} corrupt"
    if float(gap.above(0.0)) < 0.05 or (many < _FEW and clean > corrupt):
        raise UserError(
            f"it takes more than {many} prompt{'s' * (many > 1)} to tell the gap of this task from 0: {measured}",
            "take more prompts",
        )
    raise UserError(
        f"{prompts.model.name} does not do this task: {measured}, and effects are shares of that gap",
        hint="try another task, corruption or metric",
    )


def name_of(task: str) -> str:
    """What a circuit of a task is called: `ioi` of `ioi(corrupt = flip)`, `names` of `file("data/Names.jsonl")`."""
    word, _, options = task.partition("(")
    if word.strip() != "file" or not (file := re.search(r'"([^"]*)"', options)):
        return word.strip()
    name = re.sub(r"[^a-z0-9]+", "_", Path(file[1]).stem.lower()).strip("_")
    name = name if name[:1].isalpha() else f"prompts_{name}".rstrip("_")
    return f"{name}_" if is_reserved(name) else name


def beside(spec: Path, file: str) -> str:
    """What a spec calls a file that is named from the current folder: the way to it from the spec's own folder.

    An absolute path stays one where the file does not lie in that folder or below.
    """
    named, folder = Path(file), spec.parent.resolve()
    where = named.parent.resolve() / named.name
    if named.is_absolute() and not where.is_relative_to(folder):
        return file
    return Path(os.path.relpath(where, folder)).as_posix()


def refuse_jumps(metric: str, what: str) -> None:
    """Raise `UsageError` for a metric that is 0 or 1 on each prompt, which has no gradients."""
    name = metric.partition("(")[0].strip()
    shape = METRICS.get(name)
    if shape is not None and shape.hits:
        hint = "take logit_diff, prob_diff or logprob"
        raise UsageError(f"{name} is 0 or 1: it has no gradients, which {what} takes", hint=hint)
