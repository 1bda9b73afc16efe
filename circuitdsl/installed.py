"""What installed packages register under a name: tasks, metrics and measurements."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from circuitdsl.errors import UserError


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
