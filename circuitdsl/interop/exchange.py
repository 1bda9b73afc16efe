"""JSON files that other libraries write: read as what they are, and refused in a sentence where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circuitdsl.errors import UsageError
from circuitdsl.ordinary import Unreadable, read_ordinary

#: bytes of a file that is read: of a model with a million edges
LARGEST = 2**28
#: how files of PyTorch begin: a zip archive, or a pickle
_PICKLED = (b"PK\x03\x04", b"\x80")
#: no number of a file is so large
LARGE = 1e300

Wrong = Callable[..., UsageError]


def wrong_of(path: Path) -> Wrong:
    """What makes errors about a file, of why it is wrong and of what to do."""

    def wrong(why: str, hint: str | None = None) -> UsageError:
        return UsageError(f"{path}: {why}", hint=hint)

    return wrong


def read_json(path: Path, writers: str, saved: str) -> Any:
    """What a JSON file says.

    Args:
        writers: who writes such files, and how such a file is `saved`, for messages.

    Raises:
        UsageError: it cannot be read, is a pickle, or no JSON.
    """
    wrong = wrong_of(path)
    try:
        found = read_ordinary(path, LARGEST)
    except Unreadable as error:
        raise wrong(str(error), f"give a JSON file that {writers} has written") from None
    if found.startswith(_PICKLED):
        raise wrong("it is a file of PyTorch, which may run a program when it is read; it was not", saved)
    try:
        return json.loads(found)
    except (ValueError, RecursionError) as error:
        raise wrong(f"it is no JSON: {error}") from None


def is_number(value: Any) -> bool:
    """Whether a value of a file is a finite number."""
    return type(value) in (int, float) and abs(value) < LARGE
