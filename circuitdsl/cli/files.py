"""The files of a command line: specs that are read, and outputs that are refused early where they cannot be written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from circuitdsl.cli.arguments import files_of_tasks
from circuitdsl.cli.terminal import say, say_diagnostics
from circuitdsl.errors import UserError
from circuitdsl.language.diagnostics import shorten
from circuitdsl.visible import json_text, lines

if TYPE_CHECKING:
    from circuitdsl.api import Spec
    from circuitdsl.tasks.dataset import PromptPair


def load_all(
    names: Sequence[str], given: argparse.Namespace, annotate: bool = False, every: bool = False
) -> list[Spec]:
    """Read all specs with the options of a verb, and print the foremost of their diagnostics; with `every` all of them.

    With `annotate` they are printed for GitHub as well.

    Raises:
        SpecError: some spec has errors, which were printed.
        UserError: there is no such spec, or a prompt file is wrong.
    """
    from circuitdsl.api import SpecError, check_prompt_files, load

    model: str | None = given.model
    how = {"allow_outside": given.allow_outside, "prompt_files": files_of_tasks(given)}
    specs = [load(name, model, **how) for name in names]
    for spec in specs:
        say_diagnostics(spec.diagnostics, spec.text, spec.path, every)
        if annotate:
            from circuitdsl.language.diagnostics import foremost
            from circuitdsl.report.github import of_diagnostics

            for line in of_diagnostics(foremost(spec.diagnostics)[0], spec.path):
                write(None, f"{line}\n")
        check_prompt_files(spec, model)
    wrong = [d.code for spec in specs for d in spec.diagnostics if d.severity == "error"]
    if wrong:
        say(f"{len(wrong)} error{'s' * (len(wrong) != 1)}; circuitdsl explain {wrong[0]} says more about the first")
        raise SpecError("")
    return specs


def load_one(name: str, given: argparse.Namespace) -> Spec:
    """One spec; raises what `load_all` raises."""
    return load_all([name], given)[0]


def check_model(name: str | None) -> None:
    """Raise `UserError` where `--model` names no model; for verbs that do not load it (loading raises by itself)."""
    from circuitdsl.circuit.shapes import shape_of

    problem = shape_of(name)[1] if name is not None else None
    if problem:
        raise UserError(problem, hint="give --model a model's directory, or its name on the Hugging Face hub")


def output(name: str | None) -> Path | None:
    """The file that `-o` names; None without `-o`.

    Raises:
        UserError: it cannot be written.
    """
    if not name:
        return None
    target = Path(name)
    if not exists(target):
        check_folder(target)
    elif target.is_dir():
        raise UserError(f"cannot write {target}: it is a folder", hint="name a file in it")
    elif target.is_file():  # and no pipe or device
        check_folder(target)
    return target


def exists(target: Path) -> bool:
    """Whether there is a file of that name; raises `UserError` where no file can have it."""
    try:
        return target.exists() or target.is_symlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {shorten(str(target), 200)}: {reason}", hint="name another file") from None


def check_folder(target: Path) -> None:
    """Raise `UserError` where no file of that name can be made in the folder of the target."""
    exists(target)
    folder = target.resolve().parent
    if not folder.is_dir():
        raise UserError(f"cannot write {target}: there is no folder {target.parent}", hint="make it, or name another")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {target}: the folder {folder} may not be written to", hint="name another")


def picture(name: str | None) -> Path | None:
    """The picture that `-o` names; None without `-o`.

    Raises:
        UsageError: its suffix is neither .svg nor .png.
        UserError: it cannot be written.
    """
    target = output(name)
    if target:
        from circuitdsl.diagram.formats import format_of

        format_of(target, painted=True)
    return target


def write(target: Path | None, text: str) -> None:
    """Write a file whole, and name it on standard error; without a file write to standard output."""
    from circuitdsl.ordinary import write_whole

    if target is None:
        sys.stdout.write(text)
        return
    write_whole(target, text)
    say(f"wrote {target}")


def write_spec(target: Path | None, text: str) -> None:
    """Write the text of a spec as `write` does; on a terminal, what is not seen in it is spelled out."""
    write(target, lines(text) if target is None and sys.stdout.isatty() else text)


def write_prompts(target: Path | None, pairs: Iterable[PromptPair]) -> None:
    """Write a prompt file, as JSON Lines."""
    write(target, "".join(json_text(pair.record()) + "\n" for pair in pairs))


@contextmanager
def json_lines(target: Path | None) -> Iterator[Callable[[object], object]]:
    """A function that adds a record to a file (see `whole`) as a line; without a file it does nothing."""
    from circuitdsl.ordinary import whole

    if target is None:
        yield lambda record: None
        return
    with whole(target) as add:
        yield lambda record: add(f"{json_text(record)}\n".encode())
