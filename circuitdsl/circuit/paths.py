"""Files that a spec names: they lie in its own folder or below, so that a stranger's spec opens nothing else.

A user may name prompt files in their place, wherever they lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from circuitdsl.brief import quoted
from circuitdsl.errors import UsageError


def leaves(written: str, folder: Path, root: Path) -> str | None:
    """Why a path, as a file in `folder` names it, is not in `root` or below; None where it is."""
    name = quoted(written)
    if PurePosixPath(written).is_absolute() or PureWindowsPath(written).drive or written.startswith(("\\", "~")):
        return f"{name} is an absolute path"
    if ".." in PurePosixPath(written.replace("\\", "/")).parts:
        return f"{name} leads out of the folder"
    return None if real(folder / written).is_relative_to(real(root)) else f"{name} leads out of the spec's own folder"


def real(path: Path) -> Path:
    """Links followed; a path that cannot be looked up stays as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def prompts_instead(given: str) -> tuple[str, str] | None:
    """`mine=held_out.jsonl` as a task's name and a prompt file; None for a task as it is written in a spec."""
    found = re.fullmatch(r"\s*([a-z][a-z0-9_]*)\s*=\s*(\S.*?)\s*", given)
    return None if not found or re.fullmatch(r"\w+\s*(\(.*\))?", found[2]) else (found[1], found[2])


def prompt_files(given: Iterable[str]) -> dict[str, str]:
    """Prompt files by the names of the tasks whose prompts they replace.

    Raises:
        UsageError: two are given for one task, or something else than a task and its file.
    """
    found: dict[str, str] = {}
    for written in given:
        if (named := prompts_instead(written)) is None:
            raise UsageError(f"--task {quoted(written)} is no task with a file", hint="such as --task ioi=mine.jsonl")
        if named[0] in found:
            raise UsageError(f"--task gives the prompts of {named[0]} twice", hint="name one file")
        found |= [named]
    return found
