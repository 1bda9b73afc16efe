"""Installed packages: their versions, and what they register under a name (tasks, metrics and measurements)."""

from __future__ import annotations

import re
import sys
import time
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from circuitdsl.errors import UserError


@cache
def version(name: str) -> str:
    """The version of an installed package; raises `PackageNotFoundError`.

    The folder of a package's metadata is named `NAME-VERSION.dist-info`. Reading the file in it takes longer.
    """
    found = Distribution.from_name(name)
    folder = re.fullmatch(r"[^-]+-(.+)\.dist-info", getattr(getattr(found, "_path", None), "name", ""))
    return folder[1] if folder else found.version


def registered(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group. They are looked for once a second: a spec may have thousands of unknown names."""
    return _registered(group, tuple(sys.path), int(time.monotonic()))


@lru_cache(16)
def _registered(group: str, folders: tuple[str, ...], second: int) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def the_entry(group: str, name: str, what: str, error: type[UserError] = UserError) -> EntryPoint | None:
    """The entry point of a name, None where nobody registers it; raises the `error` where several packages do."""
    found = [point for point in registered(group) if point.name == name]
    if len(found) > 1:
        packages = ", ".join(sorted(map(package_of, found)))
        raise error(f"several packages register the {what} {name}: {packages}", hint="uninstall all but one of them")
    return found[0] if found else None


def package_of(point: EntryPoint) -> str:
    """The package that registers an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def loaded(point: EntryPoint, what: str, error: type[UserError] = UserError) -> Any:
    """What an entry point names; `what` is the word for it in the message of the `error` that is raised if it fails."""
    try:
        return point.load()
    except Exception as reason:  # a package of the user's own can fail in any way
        said = (str(reason).strip() or "no reason given").splitlines()[0]
        message = f"the {what} {point.name} of {package_of(point)} cannot be loaded: {type(reason).__name__}: {said}"
        raise error(message, hint=f"its entry point is {point.value}") from None


@cache
def code_of(module: str) -> bytes:
    """A hash of the code of the package that a module, or a "module:name", is in; empty for our own and for no package.

    Nothing is imported by it.
    """
    package = module.partition(":")[0].partition(".")[0]
    if package in ("", "circuitdsl", "__main__"):
        return b""
    try:
        found = find_spec(package)
    except (ImportError, ValueError):  # a module that was made without a file
        found = None
    folders = (found.submodule_search_locations if found else None) or ()
    files = {file for folder in folders for file in Path(folder).rglob("*.py")}
    if found and not folders and found.origin:
        files = {Path(found.origin)}
    made = sha256(package.encode())
    for file in sorted(files):
        made.update(file.read_bytes())
    return made.digest()
