"""The specs that a command line names are read and resolved, and their diagnostics are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from circuitdsl.cli.terminal import say, say_diagnostics
from circuitdsl.errors import UserError

if TYPE_CHECKING:
    from circuitdsl.api import Spec
    from circuitdsl.circuit.claims import Circuit


def load_all(names: Sequence[str], model: str | None, annotate: bool = False) -> list[Spec]:
    """Read all specs and print their diagnostics; with `annotate` they are printed for GitHub as well.

    Raises:
        SpecError: some spec has errors, which were printed.
        UserError: there is no such spec, or a prompt file is wrong.
    """
    from circuitdsl.api import SpecError, check_prompt_files, load

    specs = [load(name, model) for name in names]
    for spec in specs:
        say_diagnostics(spec.diagnostics, spec.text, spec.path)
        if annotate:
            from circuitdsl.report.github import of_diagnostics

            for line in of_diagnostics(spec.diagnostics, spec.path):
                print(line)
        check_prompt_files(spec, model)
    wrong = [d.code for spec in specs for d in spec.diagnostics if d.severity == "error"]
    if wrong:
        say(f"{len(wrong)} error{'s' * (len(wrong) != 1)}; circuitdsl explain {wrong[0]} says more about the first")
        raise SpecError("")
    return specs


def load_one(name: str, model: str | None) -> Spec:
    """One spec; raises what `load_all` raises."""
    return load_all([name], model)[0]


def check_model(name: str | None) -> None:
    """Raise `UserError` where `--model` names no model; for verbs that do not load it (loading raises by itself)."""
    from circuitdsl.circuit.shapes import shape_of

    problem = shape_of(name)[1] if name is not None else None
    if problem:
        raise UserError(problem, hint="give --model a model's directory, or its name on the Hugging Face hub")


def one_circuit(spec: Spec, wanted: str | None) -> Circuit:
    """The circuit of that name, or the first of a spec.

    Raises:
        UserError: there is none.
    """
    if not spec.circuits:
        raise UserError(f"{spec.path} has no circuit")
    return spec.circuit(wanted) if wanted else spec.circuits[0]
