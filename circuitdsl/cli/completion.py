"""`completion`: a script by which a shell completes verbs, options, files, and names of specs and tasks.

The script is static: completing a word does not start this program.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from circuitdsl.cli.arguments import Verbs
from circuitdsl.cli.files import write
from circuitdsl.errors import UserError

SHELLS = ("bash", "zsh", "fish")
#: which arguments are what, by the names under which the parser keeps them
A_FILE = ("file", "output", "report", "old", "new", "per_prompt", "good", "bad", "results")
A_SPEC = ("spec", "first", "second", "control")
A_MODEL = ("model", "source")
A_TASK = ("task",)


def register(verbs: Verbs) -> None:
    verb = verbs.verb(_completion, "completion", "write a script by which a shell completes this command")
    verb.add_argument("shell", choices=SHELLS, help="whose script to write (docs/guide.md)")


def _completion(given: argparse.Namespace) -> int:
    if find_spec("shtab") is None:
        raise UserError("completion needs shtab, which is not installed", "pip install 'circuitdsl[completion]'")
    write(None, script(given.shell) + "\n")
    return 0


def script(shell: str) -> str:
    import shtab

    from circuitdsl.api import shipped_specs
    from circuitdsl.circuit.shapes import EMBEDDED
    from circuitdsl.cli import command_line
    from circuitdsl.tasks.registry import TASKS

    folder = shipped_specs()
    specs = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.circ"))
    kinds = dict.fromkeys(A_FILE, shtab.FILE)
    kinds |= dict.fromkeys(A_SPEC, _or_file("specs", specs))
    kinds |= dict.fromkeys(A_MODEL, _or_file("models", [*EMBEDDED]))
    kinds |= dict.fromkeys(A_TASK, _or_file("tasks", sorted(TASKS)))
    parser = command_line()
    for action in _arguments(parser):
        if action.dest in kinds and action.nargs != 0:
            action.complete = kinds[action.dest]  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _arguments(verb)
        else:
            yield action


def _or_file(what: str, words: list[str]) -> dict[str, Any]:
    """One of some words, or a file: for each shell the name of a function, and its definition."""
    name, listed = f"_circuitdsl_{what}_or_files", " ".join(words)
    return {
        "bash": name,
        "zsh": name,
        "fish": f"({name})",
        "preamble": {
            "bash": f'{name}() {{\n  compgen -W "{listed}" -- "$1"\n  compgen -f -- "$1"\n}}',
            "zsh": f"{name}() {{\n  _alternative '{what}:{what}:({listed})' 'files:file:_files'\n}}",
            "fish": f"function {name}\n  printf '%s\\n' {listed}\n  __fish_complete_path (commandline -ct)\nend",
        },
    }
