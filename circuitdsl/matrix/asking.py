"""Which claims of a spec can be asked of a model and a task, and why the others cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from circuitdsl.api import Spec, circuit_of_task, load, resolver
from circuitdsl.circuit.claims import Circuit, Claim, membership
from circuitdsl.circuit.paths import prompts_instead
from circuitdsl.circuit.resolve import OtherTask
from circuitdsl.circuit.shapes import ANY_MODEL
from circuitdsl.errors import UsageError
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import Diagnostic
from circuitdsl.language.parse import parse


@dataclass(frozen=True, slots=True)
class Unasked:
    """A claim that cannot be asked."""

    circuit: str
    claim: Claim
    reason: str


def as_written(name: str, allow_outside: bool = False) -> Spec:
    """A spec as it stands, with every head that it names, whatever the model has; raises what `load` raises."""
    return load(name, ANY_MODEL, allow_outside=allow_outside)


def other_task(written: str) -> OtherTask:
    """A task that takes the place of a spec's own: as in a spec, a prompt file, or the name of one of the spec's."""
    try:
        use = circuit_of_task(written).tasks[0]
    except UsageError:
        return OtherTask(written, None)
    return OtherTask(written, replace(use, file=str(Path(use.file).resolve())) if use.file else use)


def prompt_files_of(task: str) -> dict[str, str]:
    """Of `mine=held_out.jsonl`, the file by the name of the task whose prompts it replaces; else nothing."""
    named = prompts_instead(task)
    return {named[0]: named[1]} if named else {}


def can_be_asked(written: Spec, task: str) -> bool:
    """Whether there is a task of that name, or the spec has one."""
    known = {use.name for circuit in written.circuits for use in circuit.tasks}
    if files := prompt_files_of(task):
        return files.keys() <= known
    return task in known or other_task(task).use is not None


def asked(written: Spec, model: str | None, task: str = "") -> tuple[Spec, tuple[Unasked, ...]]:
    """The spec with the claims that can be asked, and the others.

    A claim cannot be asked where the model lacks a head or an MLP that it names, or the task a position. Where that
    takes something from the circuit, claims about the whole circuit cannot be asked either: they would be about
    another circuit.

    Args:
        written: the spec as `as_written` gives it, without errors.
        model: the model to ask; None for the spec's own.
        task: the task to ask, or `NAME=FILE` for the spec's own with the prompts of a file; empty for the spec's own.
    """
    path, allow = written.path, written.allow_outside
    syntax, _ = parse(written.text, path)
    files = prompt_files_of(task)
    other = other_task(task) if task and not files else None
    circuits, found = resolver(path, model, allow, other, files)(syntax)
    wrong = [each for each in found if each.severity == "error"]
    before = {circuit.name: circuit for circuit in written.circuits}
    whole = all(membership(one) == membership(before[one.name]) for one in circuits) if wrong else True
    kept = tuple(replace(one, claims=tuple(_kept(one, whole))) for one in circuits)
    lines = {(one.name, claim.line) for one in kept for claim in one.claims}
    groups = {each.name.text: each.span.line for each in syntax.statements if isinstance(each, s.Group)}
    unasked = tuple(
        Unasked(one.name, claim, _reason(claim, wrong, groups))
        for one in written.circuits
        for claim in one.claims
        if (one.name, claim.line) not in lines
    )
    return Spec(path, written.text, kept, (), model, allow, files), unasked


def _kept(circuit: Circuit, whole: bool) -> Iterator[Claim]:
    for claim in circuit.claims:
        if whole or not (claim.measurement.of_whole or claim.kind == "compare"):
            yield claim


def _reason(claim: Claim, wrong: list[Diagnostic], groups: dict[str, int]) -> str:
    """Why a claim cannot be asked: what is wrong in its line, in a group that it names, or in the circuit as a whole.

    `groups` has the lines of groups by their names.
    """
    by_line = {each.span.line: each.message for each in reversed(wrong)}
    if claim.line in by_line:
        return by_line[claim.line]
    named = (groups.get(word) for word in re.findall(r"[a-z_][a-z0-9_]*", statement(claim)))
    line = next((line for line in named if line in by_line), None)
    if line is not None:
        return by_line[line]
    return f"the circuit is not there as a whole: {wrong[0].message}"


def statement(claim: Claim) -> str:
    """What is claimed, with the header of the block that it stands in, as reports have it."""
    return f"{claim.under.text}: {claim.text}" if claim.under else claim.text
