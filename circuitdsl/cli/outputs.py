"""The files that a verb writes. One that cannot be written is refused before anything runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from circuitdsl.cli.terminal import say
from circuitdsl.errors import UserError


def output(name: str | None) -> Path | None:
    """The file that `-o` names; None without `-o`.

    Raises:
        UserError: it cannot be written.
    """
    if not name:
        return None
    target = Path(name)
    if target.is_dir():
        raise UserError(f"cannot write {target}: it is a folder", hint="name a file in it")
    if target.exists() and not target.is_file():  # a pipe or a device
        return target
    check_folder(target)
    return target


def check_folder(target: Path) -> None:
    """Raise `UserError` where no file can be made in the folder of the target."""
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
    from circuitdsl.diagram.formats import format_of

    target = output(name)
    if target:
        format_of(target, painted=True)
    return target


def write(target: Path | None, text: str) -> None:
    """Write a file whole, and name it on standard error; without a file write to standard output."""
    from circuitdsl.report.report import write_whole

    if target is None:
        sys.stdout.write(text)
        return
    write_whole(target, text)
    say(f"wrote {target}")
